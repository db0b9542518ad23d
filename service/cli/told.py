"""What people are told of charges, rides and debits: exact amounts with their currency, instants in the operator's time
zone; each function makes lines of text of what the doors show as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from service.billing.debits.state import UNSURE, State
from service.billing.money import format_amount
from service.billing.refusals import printable
from service.billing.words import quantity_text
from service.web.shapes import (
    AdjustmentView,
    ChargeView,
    DebitStory,
    DebitView,
    EventView,
    LineView,
    SessionSummary,
    SessionView,
)

HELD_UP = timedelta(minutes=1)
"""So long after it was due a debit waits for more than its turn."""

NO_EVENT = "keep, at a deadline or when what it waited for was there"
"""Who decided about a ride when nothing was heard of it."""


def instant(at: datetime, zone: ZoneInfo) -> str:
    """An instant as people of that zone read it, with its offset."""
    return at.astimezone(zone).isoformat(" ", "seconds")


def session_line(ride: SessionSummary, zone: ZoneInfo) -> str:
    """A ride in one line."""
    reason = f" ({ride.reason})" if ride.reason else ""
    cost = ""
    if ride.amount_minor is not None and ride.currency is not None:
        cost = f"  {format_amount(ride.amount_minor, ride.currency)} {ride.currency}"
    cost += "  not billed here" if ride.owed is False else ""
    named = {"agreement": ride.agreement_id, "rider": ride.rider_ref}
    whose = "  ".join(f"{what} {name}" for what, name in named.items() if name)
    return printable(f"{ride.session_id}  {ride.state}{reason}{cost}  {_span(ride, zone)}  {whose}".rstrip())


def session_lines(ride: SessionView, operator_id: str, zone: ZoneInfo, now: datetime) -> Iterator[str]:
    """A ride from how it stands at `now` to what is open of it."""
    return map(printable, _session(ride, operator_id, zone, now))


def _session(ride: SessionView, operator_id: str, zone: ZoneInfo, now: datetime) -> Iterator[str]:
    reason = f" ({ride.reason})" if ride.reason else ""
    unbilled = "  not billable" if not ride.billable else "  not billed here" if ride.owed is False else ""
    yield f"{ride.session_id}  {ride.state}{reason}{unbilled}  operator {operator_id}, times in {zone.key}"
    named = {"agreement": ride.agreement_id, "rider": ride.rider_ref, "vehicle": ride.vehicle_id}
    version = "" if ride.tariff_version is None else f" version {ride.tariff_version}"
    terms = "  ".join(f"{what} {name}" for what, name in named.items() if name)
    yield f"  {terms}  tariff {ride.tariff_id}{version}"
    yield f"  {_span(ride, zone)}{_used(ride)}"
    yield from _section("charge", _charge(ride))
    yield from _section("adjustments", (_adjustment(one, operator_id, zone) for one in ride.adjustments))
    yield from _section("revisions", _revisions(ride, zone))
    yield from _section("debits", (f"  {line}" for debit in ride.debits for line in debit_lines(debit, zone, now)))
    yield from _section("hold", _hold(ride, zone))
    yield from _section("events", (_event(event, zone) for event in ride.events))
    yield from _section("conflicts", (_event(event, zone) for event in ride.conflicts))
    yield from _money(ride)


def debit_line(debit: DebitView) -> str:
    """A debit in one line."""
    marks = [name for name, so in (("overdue", debit.overdue), ("suspended", debit.suspended)) if so]
    marks += [debit.dispute] if debit.dispute else []
    also = f"  {' '.join(marks)}" if marks else ""
    paid, amount = format_amount(debit.paid_minor, debit.currency), format_amount(debit.amount_minor, debit.currency)
    reason = f"  ({debit.reason})" if debit.reason else ""
    named = f"{debit.debit_id}  session {debit.session_id}"
    return printable(f"{named}  {debit.state}{also}  {paid} of {amount} {debit.currency} paid{reason}")


def debit_lines(debit: DebitStory, zone: ZoneInfo, now: datetime) -> Iterator[str]:
    """A debit as it stands at `now`, with its whole life, its refunds and its disputes."""
    return map(printable, _debit(debit, zone, now))


def _debit(debit: DebitStory, zone: ZoneInfo, now: datetime) -> Iterator[str]:
    yield debit_line(debit)
    at_provider = debit.provider_reference or "-"
    yield f"  agreement {debit.agreement_id}  key {debit.provider_key}  at the provider {at_provider}"
    instants = {_next(debit, now): debit.due_at, "pay by": debit.pay_by, "settled": debit.settled_at}
    yield from (f"  {name} {instant(at, zone)}" for name, at in instants.items() if at is not None)
    yield from (f"  {line}" for line in (*owing_lines(debit), *stop_lines(debit)))
    for step in debit.transitions:
        told = f"{step.from_state or '-'} -> {step.to_state}"
        yield f"  {instant(step.at, zone)}  {told:<28}  {step.why}  {step.provider_reference or ''}".rstrip()
    for refund in debit.refunds:
        amount = format_amount(refund.amount_minor, refund.currency)
        number = f"  at the provider {refund.provider_reference}" if refund.provider_reference else ""
        code = f" ({refund.code})" if refund.code else ""
        named = f"  key {refund.provider_key}{number}"
        told = f"{amount} {refund.currency}  {refund.state}{code}  {refund.because or refund.reason}{named}"
        yield f"  refund {refund.refund_id}  {instant(refund.created_at, zone)}  {told}"
    for held in debit.disputes:
        about, has, fee = (
            format_amount(minor, debit.currency) for minor in (held.amount_minor, held.taken_minor, held.fee_minor)
        )
        number = f"  at the provider {held.provider_reference}" if held.provider_reference else ""
        told = f"about {about}, the bank has {has}, fee {fee} {debit.currency}"
        yield f"  dispute {held.number}  {held.kind}, {held.state}  {told}{number}"


def owing_lines(debit: DebitStory) -> Iterator[str]:
    """What a debit's ride owes of it now, where somebody is to decide about it, or less than it asks for: nothing is
    lowered of which it is not known what became of it."""
    if debit.state not in UNSURE or (debit.state != State.MANUAL and debit.owed_minor == debit.amount_minor):
        return
    owed, amount = (format_amount(minor, debit.currency) for minor in (debit.owed_minor, debit.amount_minor))
    less = ": what is taken above that goes back" if debit.owed_minor < debit.amount_minor else ""
    yield f"its ride owes {owed} of these {amount} {debit.currency} now{less}"


def stop_lines(debit: DebitStory) -> Iterator[str]:
    """What keeps a debit, or a refund of it, from being sent that waits for it."""
    for stop in debit.stops:
        what = "refunds are not sent" if stop.what == "refunds" else "not sent"
        named = f"{stop.reason} (`farebox operator mode OPERATOR live` ends it)"
        if stop.stop_no:
            named = f"stop {stop.stop_no} (`farebox resume {stop.stop_no}` ends it): {stop.reason}"
        yield printable(f"{what} because of {named}")


def _next(debit: DebitView, now: datetime) -> str:
    """What is done at a debit's `due_at`: it is tried, or its provider is asked what became of it. What is due for a
    while is held up by what is not its own: a stop, a paused or refused account, `collect` away or behind."""
    done = "tried" if debit.state in ("new", "retry_wait") else "asked"
    return f"{done} next" if debit.due_at is None or debit.due_at > now - HELD_UP else f"waits to be {done} since"


def charge_lines(charge: ChargeView) -> Iterator[str]:
    """A charge line by line, and its total. Lines that follow each other and differ only in their window are one, with
    how many they are: their sum is exact."""
    for _, alike in groupby(charge.lines, lambda line: replace(line, window=None)):
        yield _charge_line(list(alike))
    tax = f" (tax {format_amount(charge.tax_minor, charge.currency)})" if charge.tax_minor else ""
    yield f"  total {format_amount(charge.amount_minor, charge.currency)} {charge.currency}{tax}"


def _charge_line(alike: Sequence[LineView]) -> str:
    """One line, or several that are alike but for their window."""
    line, last = alike[0], alike[-1]
    quantity, amount = _sum(one.quantity for one in alike), _sum(one.amount for one in alike)
    about = f" [{line.window}]" if line.window else ""
    if len(alike) > 1:
        through = f"{line.window} to {last.window}, " if line.window and last.window else ""
        about = f" [{through}{len(alike)} lines]"
    price = f"{quantity_text(quantity, line.unit, 'x')} x {line.unit_price}"
    return f"  {line.code:<16} {price:<28} {amount:>12}  {line.path}{about}"


def _sum(numbers: Iterable[str]) -> str:
    """The exact sum of decimals, as text without an exponent."""
    return format(sum(map(Decimal, numbers), Decimal(0)), "f")


def _section(name: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines under their name; nothing where there are none."""
    found = list(lines)
    yield from [name, *found] if found else ()


def _span(ride: SessionSummary, zone: ZoneInfo) -> str:
    """From when to when a ride was."""
    since = "-" if ride.started_at is None else instant(ride.started_at, zone)
    until = "not ended" if ride.ended_at is None else f"to {instant(ride.ended_at, zone)}"
    return f"{since} {until}"


def _used(ride: SessionView) -> str:
    if ride.usage is None:
        return ""
    meters = f", {ride.usage.meters} m" if ride.usage.meters else ""
    paused = f", paused {len(ride.usage.pauses)} times" if ride.usage.pauses else ""
    lost = f", its end was lost ({ride.usage.lost_end})" if ride.usage.lost_end else ""
    return f", {timedelta(microseconds=ride.usage.duration_us)}{meters}{paused}{lost}"


def _charge(ride: SessionView) -> Iterator[str]:
    if ride.charge is not None:
        yield from charge_lines(ride.charge)
        yield from (f"  assumed: {one.used} used of {one.window} before this ride" for one in ride.charge.balance)


def _adjustment(one: AdjustmentView, operator_id: str, zone: ZoneInfo) -> str:
    asked, counted = format_amount(one.amount_minor, one.currency), format_amount(one.counted_minor, one.currency)
    tax = f", tax in it {format_amount(one.tax_minor, one.currency)}" if one.tax_minor else ""
    named = one.kind if one.code == one.kind else f"{one.kind} {one.code}"
    told = f"{named}  {asked} {one.currency}, counted {counted}{tax}"
    by = f"operator {operator_id}" if one.by == operator_id else one.by  # Nobody was named.
    return f"  {one.adjustment_id}  {instant(one.decided_at, zone)}  {told}  by {by}: {one.reason}"


def _revisions(ride: SessionView, zone: ZoneInfo) -> Iterator[str]:
    for one in ride.revisions:
        reason = f" ({one.reason})" if one.reason else ""
        cost = ""
        if one.amount_minor is not None and one.currency is not None:
            cost = f"  {format_amount(one.amount_minor, one.currency)} {one.currency}"
        if one.owing_minor and ride.obligations:
            more = format_amount(one.owing_minor, ride.obligations[0].currency)
            cost += f", owed {'+' if one.owing_minor > 0 else ''}{more}"
        kinds = ", ".join(_kind(event, ride.conflicts) for event in one.events) or NO_EVENT
        yield f"  {one.revision}  {instant(one.decided_at, zone)}  {one.state}{reason}{cost}  by {kinds}"
        yield from (f"  {line}" for line in (charge_lines(one.charge) if one.charge else ()))


def _kind(event: EventView, conflicts: Sequence[EventView]) -> str:
    """What an event is; one that contradicts what was taken before changes nothing."""
    return f"{event.kind} in conflict" if event in conflicts else event.kind


def _hold(ride: SessionView, zone: ZoneInfo) -> Iterator[str]:
    if (hold := ride.hold) is not None:
        reason = f" ({hold.reason})" if hold.reason else ""
        cap = f"{format_amount(hold.cap_minor, hold.currency)} {hold.currency}"
        named = f"key {hold.provider_key}  at the provider {hold.provider_ref or '-'}"
        yield f"  {hold.state}{reason}  up to {cap}  {named}"
        instants = {"requested": hold.requested_at, "opened": hold.opened_at, "expires": hold.expires_at}
        yield "  " + ", ".join(f"{name} {instant(at, zone)}" for name, at in instants.items() if at is not None)


def _event(event: EventView, zone: ZoneInfo) -> str:
    place = f"{event.topic}[{event.partition}] {event.offset}" if event.topic else "not from Kafka"
    said = ("" if event.counts else "  does not count") + (f"  by {event.by}" if event.by else "")
    reason = f": {event.reason}" if event.reason else ""
    return f"  {event.kind}  {instant(event.time, zone)}  {place}  id {event.id} of {event.source}{said}{reason}"


def _money(ride: SessionView) -> Iterator[str]:
    currency = ride.obligations[0].currency if ride.obligations else ride.currency
    if currency is not None:
        amounts = {
            "owed": ride.owed_minor,
            "paid": ride.paid_minor,
            "given back": ride.refunded_minor,
            "to be given back": ride.to_refund_minor,
            "given back otherwise": ride.given_back_minor or None,
            "paid otherwise": ride.outside_minor or None,
            "not asked for any more": ride.given_up_minor or None,
            "open": ride.open_minor,
            "taken back by a bank": ride.charged_back_minor or None,
        }
        told = (f"{name} {format_amount(minor, currency)}" for name, minor in amounts.items() if minor is not None)
        yield f"{', '.join(told)} {currency}"
