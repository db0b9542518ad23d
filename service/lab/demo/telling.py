"""The story as it is told: what the doors said, the facts on the topic and the provider's books, in order of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

import aiohttp
import msgspec

from service.billing.money import format_amount
from service.lab.city import ZONE
from service.lab.demo.stage import Stage
from service.lab.demo.story import ACCOUNT, RIDER, SESSION, Moment
from service.lab.provider.oracle import DebitLine
from service.lab.provider.rows import Report

Source = Literal["HTTP", "event", "fact", "provider"]
STEPS: dict[str, tuple[Source, str]] = {
    "agreement": ("HTTP", "signs up"),
    "eligible": ("HTTP", "may he ride?"),
    "hold_asked": ("HTTP", "asks for a hold"),
    "hold_allowed": ("HTTP", "confirms in his app"),
    "hold.opened": ("fact", "hold opened"),
    "started": ("event", "unlocks"),
    "ended": ("event", "locks"),
    "charge.rated": ("fact", "charged"),
    "debit.submitted": ("fact", "debit submitted"),
    "reminder.due": ("fact", "reminded"),
    "debit.declined": ("fact", "debit declined"),
    "debit.needs_rider": ("fact", "rider must pay"),
    "debit.overdue": ("fact", "overdue"),
    "reminder.overdue": ("fact", "reminded: overdue"),
    "reminder.report_notice": ("fact", "notice of a report"),
    "not_eligible": ("HTTP", "may he ride?"),
    "payment_asked": ("HTTP", "pays now"),
    "debit.settled": ("fact", "settled"),
    "books.paid": ("provider", "its books: debit"),
    "performance.reported": ("fact", "record reported"),
    "books.report": ("provider", "its books: report"),
    "eligible_again": ("HTTP", "may he ride?"),
}
"""Where each step was seen and what the summary calls it; in this order where they happen at one instant."""
MUST = (
    "agreement",
    "eligible",
    "hold_asked",
    "hold_allowed",
    "started",
    "ended",
    "charge.rated",
    "debit.declined",
    "reminder.due",
    "debit.overdue",
    "reminder.report_notice",
    "not_eligible",
    "payment_asked",
    "debit.settled",
    "performance.reported",
    "books.report",
    "eligible_again",
)
"""The steps without which it would be another story, in this order."""


class Told(msgspec.Struct, frozen=True):
    """A line of the story."""

    at: datetime
    step: str
    source: Source
    title: str
    said: str

    @property
    def when(self) -> str:
        """In the city's time."""
        return f"{self.at.astimezone(ZONE):%d %b %H:%M}"


class Tale(msgspec.Struct):
    """The whole story; `states` are those of its debit, one after the other."""

    lines: list[Told]
    states: list[str]
    missing: list[str]


async def tell(stage: Stage, lived: Sequence[Moment], facts: Sequence[Moment]) -> Tale:
    """Asks the doors and the provider's books for the rest, and puts everything in order."""
    headers = {"Authorization": f"Bearer {stage.token}"}
    url = f"{stage.places.api}/v1/sessions/{SESSION}"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        answer.raise_for_status()
        ride = await answer.json()
    moments = [*lived, *(Moment(fact.at, fact.step, _fact(fact)) for fact in facts), *await _books(stage, ride)]
    order = list(STEPS)
    known = sorted(
        (moment for moment in moments if moment.step in STEPS), key=lambda moment: (moment.at, order.index(moment.step))
    )
    lines = [Told(moment.at, moment.step, *STEPS[moment.step], moment.said) for moment in known]
    transitions = ride["debits"][0]["transitions"] if ride["debits"] else []
    states = [state for state, _ in groupby(transition["to_state"] for transition in transitions)]
    return Tale(lines, states, missing_steps([line.step for line in lines]))


def missing_steps(steps: Sequence[str]) -> list[str]:
    """What of the story is not there, or comes too early."""
    rest, missing = iter(steps), []
    for step in MUST:
        if step not in steps or not any(found == step for found in rest):
            missing.append(step)
            rest = iter(steps)
    return missing


async def _books(stage: Stage, ride: dict[str, Any]) -> list[Moment]:
    """What the provider has in its books: the debit that was paid, and what it was told about how he paid."""
    settled = next((debit["settled_at"] for debit in ride["debits"] if debit["settled_at"]), None)
    async with aiohttp.ClientSession(stage.places.provider) as session:
        async with session.get("/books/debits", params={"account": ACCOUNT}) as answer:
            answer.raise_for_status()
            lines = msgspec.json.decode(await answer.read(), type=list[DebitLine])
        async with session.get("/books/reports") as answer:
            answer.raise_for_status()
            reports = msgspec.json.decode(await answer.read(), type=list[Report])
    his = [line for line in lines if line.rider == RIDER]
    keys = {line.key for line in his}
    moments = [
        Moment(report.at, "books.report", report.kind)
        for report in reports
        if report.account_id == ACCOUNT and report.debit in keys
    ]
    if settled is not None:
        at = datetime.fromisoformat(settled)
        moments += [
            Moment(at, "books.paid", f"{line.ref} {line.state}, {_money(line.paid_minor, line.currency)} taken")
            for line in his
        ]
    return moments


def _fact(fact: Moment) -> str:
    """The words of a fact that matter here."""
    data = msgspec.json.decode(fact.said)
    words = _WORDS.get(fact.step)
    return words(data) if words is not None else ""


def _money(minor: int, currency: str) -> str:
    return f"{format_amount(minor, currency)} {currency}"


def _amount(data: dict[str, Any]) -> str:
    return _money(data["amount_minor"], data["currency"])


def _day(text: str | None) -> str:
    return f"{datetime.fromisoformat(text).astimezone(ZONE):%d %b %H:%M}" if text else "-"


def _declined(data: dict[str, Any]) -> str:
    again = f", again {_day(data['retry_at'])}" if data.get("retry_at") else ", not tried again"
    return f"{_amount(data)}, {data['reason']}{again}"


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "hold.opened": lambda data: f"up to {_money(data['cap_minor'], data['currency'])}",
    "charge.rated": lambda data: f"{_amount(data)}, {len(data['lines'])} lines",
    "debit.submitted": lambda data: f"{_amount(data)}, attempt {data.get('attempt', 1)}",
    "debit.declined": _declined,
    "debit.needs_rider": lambda data: f"{_amount(data)}, {data['reason']}",
    "debit.overdue": lambda data: f"{_money(data['unpaid_minor'], data['currency'])}, was due {_day(data['due_at'])}",
    "reminder.due": lambda data: f"{_amount(data)}, due {_day(data['due_at'])}",
    "reminder.overdue": lambda data: f"{_amount(data)}, was due {_day(data['due_at'])}",
    "reminder.report_notice": lambda data: f"to be reported {_day(data['report_at'])}",
    "debit.settled": lambda data: f"{_money(data['paid_minor'], data['currency'])}",
    "performance.reported": lambda data: f"{data['record']}",
}
