"""The checker bites: a history with each kind of contradiction is told, and one that only grows is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chaos_history import History

Body = dict[str, Any]


def ride(*, adjusted: bool = False) -> Body:
    """A ride that was charged 250 and paid; with goodwill of 50, which was given back."""
    events = [{"source": "urn:x", "id": f"r/{kind}", "kind": kind, "offset": 7} for kind in ("started", "ended")]
    revisions = [
        {"revision": 1, "state": "open", "amount_minor": None, "events": events[:1]},
        {"revision": 2, "state": "closed", "amount_minor": 250, "events": events[1:]},
    ]
    steps = [
        {"transition": 1, "to_state": "submitting", "amount_minor": 250, "provider_key": "k1"},
        {"transition": 2, "to_state": "settled", "amount_minor": 250, "provider_key": "k1"},
    ]
    told: Body = {
        "revision": 2,
        "state": "closed",
        "charge": {"amount_minor": 250, "currency": "CNY"},
        "paid_minor": 250,
        "refunded_minor": 0,
        "revisions": revisions,
        "adjustments": [],
        "obligations": [{"revision": 2, "kind": "charge", "amount_minor": 250}],
        "debits": [{"debit_id": "1-1", "state": "settled", "transitions": steps}],
    }
    if adjusted:
        told |= {"revision": 3, "refunded_minor": 50, "charge": {"amount_minor": 200, "currency": "CNY"}}
        revisions.append({"revision": 3, "state": "closed", "amount_minor": 200, "events": []})
        told["adjustments"].append({"adjustment_id": "a1", "kind": "goodwill", "amount_minor": 50})
        told["obligations"].append({"revision": 3, "kind": "adjustment", "amount_minor": -50})
    return told


def begun() -> Body:
    """The same ride while it was under way."""
    told = ride()
    told |= {"revision": 1, "state": "open", "charge": None, "paid_minor": 0}
    told |= {"revisions": told["revisions"][:1], "obligations": [], "debits": []}
    return told


def test_a_ride_that_only_grows_is_no_contradiction() -> None:
    history = History()
    for body in (begun(), begun(), ride(), ride(adjusted=True)):
        history.read("r", 200, body)
        history.read("r", 503, None)
    history.acknowledged("r", "a1")
    history.read("r", 200, ride(adjusted=True))
    assert (history.contradictions, history.back_in_time, history.reads) == ([], 0, 5)


def test_a_ride_that_nobody_was_told_of_may_not_be_there_yet() -> None:
    history = History()
    history.read("r", 404, None)
    history.read("r", 200, ride())
    assert history.contradictions == []


Spoil = Callable[[Body], None]


def charged_otherwise(told: Body) -> None:
    told["charge"]["amount_minor"] = 300


def uncharged(told: Body) -> None:
    told["charge"] = None


def another_past(told: Body) -> None:
    told["revisions"][0]["state"] = "parked"


def another_event(told: Body) -> None:
    told["revisions"][0]["events"][0]["id"] = "r/other"


def no_debit(told: Body) -> None:
    told["debits"] = []


def paid_less(told: Body) -> None:
    told["paid_minor"] = 200


def unsettled(told: Body) -> None:
    told["debits"][0]["state"] = "retry_wait"
    told["debits"][0]["transitions"].append(
        {"transition": 3, "to_state": "retry_wait", "amount_minor": 250, "provider_key": "k1"}
    )


def another_key(told: Body) -> None:
    told["debits"][0]["transitions"][1]["provider_key"] = "k2"


def forgotten_step(told: Body) -> None:
    told["debits"][0]["transitions"].pop()
    told["debits"][0]["state"] = "submitting"


def no_obligation(told: Body) -> None:
    told["obligations"] = []


def not_its_last_step(told: Body) -> None:
    told["debits"][0]["state"] = "pending"


def not_its_last_revision(told: Body) -> None:
    told["revisions"].append({"revision": 3, "state": "voided", "amount_minor": 0, "events": []})


@pytest.mark.parametrize(
    ("spoil", "back", "said"),
    [
        (charged_otherwise, 0, "was ('closed', (250, 'CNY')) and is ('closed', (300, 'CNY')), both at revision 2"),
        (uncharged, 0, "was charged (250, 'CNY'), and is not any more"),
        (another_past, 0, "revisions were"),
        (another_event, 0, "events were"),
        (no_debit, 0, "debit 1-1 was settled, and is not there any more"),
        (paid_less, 1, "told paid_minor 250, then paid_minor 200"),
        (unsettled, 0, "debit 1-1 was settled, and is retry_wait"),
        (another_key, 0, "the steps of debit 1-1 were"),
        (forgotten_step, 1, "told the steps of debit 1-1: 2, then 1"),
        (no_obligation, 1, "told obligations: 1, then 0"),
        (not_its_last_step, 0, "debit 1-1 is pending and its last step was to settled"),
        (not_its_last_revision, 0, "is closed at revision 2, its last is [3, 'voided', 0]"),
    ],
)
def test_each_contradiction_is_told(spoil: Spoil, back: int, said: str) -> None:
    history, later = History(), copy.deepcopy(ride())
    spoil(later)
    history.read("r", 200, ride())
    history.read("r", 200, later)
    assert history.back_in_time == back
    assert [told for told in history.contradictions if said in told], history.contradictions


def test_a_ride_that_was_there_must_be_there() -> None:
    history = History()
    history.read("r", 200, ride())
    history.read("r", 404, None)
    assert history.contradictions == ["r: was at revision 2, and is not there any more"]


def test_an_earlier_revision_is_back_in_time() -> None:
    history = History()
    history.read("r", 200, ride())
    history.read("r", 200, begun())
    assert history.back_in_time >= 1
    assert "r: back in time: told revision 2, then revision 1" in history.contradictions


def test_what_was_acknowledged_stands_in_each_later_answer() -> None:
    history = History()
    history.acknowledged("r", "a1")
    history.read("r", 200, ride())
    assert history.contradictions == ["r: adjustment a1 was acknowledged, and is not there"]
