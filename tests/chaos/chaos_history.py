"""What was told over HTTP, kept by who asked: acknowledged facts stay, reads go forward, a status only grows.

It knows nothing of the service but the shape of its answers. A read may be compared with an earlier one only if it
began after that one's answer had come: whoever asks has one question about a ride under way at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

PAID = ("settled", "settled_twice")
"""States in which a debit's money has moved; what follows can only be a refund, which leaves them."""
GROWING = ("paid_minor", "refunded_minor")
"""Sums that never become less: what was taken and what was given back stays written."""
APPENDED = ("revisions", "events", "adjustments", "obligations")
"""Lists of a ride to which things are only added."""


class Told(msgspec.Struct):
    """The last that was told of a ride: its answer, with every item of its lists reduced to what can't change."""

    revision: int
    state: str
    charge: tuple[int, str] | None
    lists: dict[str, list[Any]]
    sums: dict[str, int]
    debits: dict[str, tuple[str, list[Any]]]


class History:
    """The checker: feed it every answer; `contradictions` says in words what can't be."""

    def __init__(self) -> None:
        self.contradictions: list[str] = []
        self.back_in_time = 0
        self.reads = 0
        self._told: dict[str, Told] = {}
        self._charged: dict[str, set[str]] = {}  # By ride: the adjustments that were acknowledged.

    def acknowledged(self, ride: str, adjustment_id: str) -> None:
        """An adjustment was answered with 200: it stands for ever."""
        self._charged.setdefault(ride, set()).add(adjustment_id)

    def settled(self, ride: str) -> bool:
        """Whether every debit that was told of the ride has ended with its money moved."""
        told = self._told.get(ride)
        return told is not None and all(state in PAID for state, _ in told.debits.values()) and bool(told.debits)

    def read(self, ride: str, status: int, body: Mapping[str, Any] | None) -> None:
        """An answer to a question about a ride; anything but 200 and 404 says nothing about it."""
        before = self._told.get(ride)
        if status == 404 and before is not None:
            self._say(ride, f"was at revision {before.revision}, and is not there any more")
        if status != 200 or body is None:
            return
        self.reads += 1
        now = _reduced(body)
        self._inside(ride, body, now)
        if before is not None:
            self._after(ride, before, now)
        self._told[ride] = now

    def _inside(self, ride: str, body: Mapping[str, Any], now: Told) -> None:
        """One answer is one snapshot: its parts say the same."""
        for debit in body["debits"]:
            last = debit["transitions"][-1]["to_state"] if debit["transitions"] else debit["state"]
            if last != debit["state"]:
                self._say(ride, f"debit {debit['debit_id']} is {debit['state']} and its last step was to {last}")
        if now.lists["revisions"] and now.lists["revisions"][-1][:2] != [now.revision, now.state]:
            self._say(ride, f"is {now.state} at revision {now.revision}, its last is {now.lists['revisions'][-1]}")
        there = {item["adjustment_id"] for item in body["adjustments"]}
        for missing in sorted(self._charged.get(ride, set()) - there):
            self._say(ride, f"adjustment {missing} was acknowledged, and is not there")

    def _after(self, ride: str, before: Told, now: Told) -> None:
        """A later answer says what an earlier one said, and perhaps more."""
        if now.revision < before.revision:
            self._back(ride, f"revision {before.revision}", f"revision {now.revision}")
        if before.charge is not None and now.charge is None:
            self._say(ride, f"was charged {before.charge}, and is not any more")
        if now.revision == before.revision and (now.state, now.charge) != (before.state, before.charge):
            was, is_ = (before.state, before.charge), (now.state, now.charge)
            self._say(ride, f"was {was} and is {is_}, both at revision {now.revision}")
        for name in APPENDED:
            self._grew(ride, name, before.lists[name], now.lists[name])
        for name in GROWING:
            if now.sums[name] < before.sums[name]:
                self._back(ride, f"{name} {before.sums[name]}", f"{name} {now.sums[name]}")
        for debit, (state, steps) in before.debits.items():
            if debit not in now.debits:
                self._say(ride, f"debit {debit} was {state}, and is not there any more")
                continue
            later, more = now.debits[debit]
            self._grew(ride, f"the steps of debit {debit}", steps, more)
            if state in PAID and later not in PAID:
                self._say(ride, f"debit {debit} was {state}, and is {later}")

    def _grew(self, ride: str, what: str, before: Sequence[Any], now: Sequence[Any]) -> None:
        if len(now) < len(before):
            self._back(ride, f"{what}: {len(before)}", f"{len(now)}")
        elif list(now[: len(before)]) != list(before):
            self._say(ride, f"{what} were {list(before)}, and are {list(now)}")

    def _back(self, ride: str, before: str, now: str) -> None:
        self.back_in_time += 1
        self._say(ride, f"back in time: told {before}, then {now}")

    def _say(self, ride: str, what: str) -> None:
        self.contradictions.append(f"{ride}: {what}")


def _reduced(body: Mapping[str, Any]) -> Told:
    """What of an answer later answers are compared with."""
    charge = body["charge"]
    lists = {
        "revisions": [[item["revision"], item["state"], item["amount_minor"]] for item in body["revisions"]],
        "events": [[item["source"], item["id"], item["kind"], item["offset"]] for item in _events(body)],
        "adjustments": [[item["adjustment_id"], item["kind"], item["amount_minor"]] for item in body["adjustments"]],
        "obligations": [[item["revision"], item["kind"], item["amount_minor"]] for item in body["obligations"]],
    }
    return Told(
        revision=body["revision"],
        state=body["state"],
        charge=None if charge is None else (charge["amount_minor"], charge["currency"]),
        lists=lists,
        sums={name: body[name] for name in GROWING},
        debits={item["debit_id"]: (item["state"], _steps(item)) for item in body["debits"]},
    )


def _events(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every event that was told, in the order of the revisions that took them up."""
    return [event for revision in body["revisions"] for event in revision["events"]]


def _steps(debit: Mapping[str, Any]) -> list[Any]:
    return [
        [step["transition"], step["to_state"], step["amount_minor"], step["provider_key"]]
        for step in debit["transitions"]
    ]
