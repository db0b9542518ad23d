"""Receipts: what a ride cost, for the rider, as JSON or as a page to print, in Chinese or English."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape
from typing import Annotated, Literal, cast
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get
from litestar.params import FromPath, QueryParameter
from msgspec.structs import replace

from service.adapters.postgres.reading import RideRows
from service.billing.money import format_amount, from_minor
from service.billing.opening import SOURCE
from service.billing.rides import read_charge
from service.billing.words import (
    TEXTS,
    Language,
    is_adjustment,
    line_text,
    price_text,
    quantity_text,
    spoken,
    unit_text,
)
from service.web.access import access_of, needs
from service.web.answers import Asked, answer
from service.web.doors import doors_of
from service.web.problems import conflict
from service.web.shapes import LineView, SessionView
from service.web.views import charge_view, plain, session_view, usage_view


class ReceiptLine(msgspec.Struct, frozen=True):
    """A line in the rider's language; `quantity`, `unit_price` and `amount` are exact."""

    code: str
    text: str
    quantity: str
    unit: str
    unit_price: str
    amount: str
    window: str | None


class ReceiptView(msgspec.Struct, frozen=True):
    """A receipt. Times are in the operator's zone; `contact` is whom to ask. `to_refund_minor` is still to be given
    back, `given_back_minor` was, in another way, `open_minor` still to be paid; `outside_minor` was paid otherwise,
    `given_up_minor` is not asked for any more. Paid - refunded - to be refunded - given back in another way + outside +
    given up + open is what is owed; of what was paid, his bank has taken back `charged_back_minor`. `notes` say in the
    rider's language what else he should know of it: that the ride's end was lost, that it was taken back but for an
    extra charge, that it is a debt of another system."""

    language: Language
    session_id: str
    operator: str
    contact: str
    tariff_id: str | None
    tariff_version: int | None
    vehicle_id: str | None
    started_at: datetime
    ended_at: datetime
    duration: str
    meters: int
    lines: list[ReceiptLine]
    notes: list[str]
    currency: str
    amount_minor: int
    amount: str
    tax_minor: int
    tax: str
    paid_minor: int
    refunded_minor: int
    to_refund_minor: int
    given_back_minor: int
    outside_minor: int
    given_up_minor: int
    open_minor: int
    charged_back_minor: int
    revision: int
    issued_at: datetime


@get("/v1/sessions/{session_id:str}/receipt", opt=needs("status:read", riders=True), tags=["sessions"])
async def get_receipt(
    request: Asked,
    session_id: FromPath[str],
    language: Annotated[Language | None, QueryParameter(description="The rider's, unless given.")] = None,
    page: Annotated[
        Literal["json", "html"] | None, QueryParameter(name="format", description="By `Accept`, unless given.")
    ] = None,
) -> Response[ReceiptView]:
    """The receipt of a charged ride: JSON, or a page to print (`Accept: text/html`). Of a ride whose charge was taken
    back: what it had cost, and that it costs nothing."""
    doors, access = doors_of(request), access_of(request)
    rows = await doors.ride(access, session_id)
    session = charged_session(session_view(rows, await doors.operator(access.operator_no)), rows)
    if session.charge is None or session.usage is None:
        raise conflict(f"the ride is {session.state}: there was no charge to show")
    if session.owed is False:
        raise conflict(
            "the ride is not billed here (shadow mode, or from before bill_from): whoever bills it has its receipt"
        )
    async with doors.asking() as store:
        name, contact, time_zone = await store.operator_contact(access.operator_no)
    known = spoken(rows.agreement.language if rows.agreement else "zh")
    told = receipt(session, language or known, (name, contact), ZoneInfo(time_zone))
    wants_page = page == "html" or (page is None and "text/html" in request.headers.get("accept", ""))
    if wants_page:
        headers = {
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        }
        html = Response(printable(told).encode(), media_type="text/html", headers=headers)
        return cast(Response[ReceiptView], html)
    return answer(request, told, etag=True)


def charged_session(session: SessionView, rows: RideRows) -> SessionView:
    """The session with the charge that stands; else with the last that stood, and one line that takes it back."""
    stood = next((one.charge for one in reversed(rows.revisions or []) if one.charge is not None), None)
    if session.charge is not None or stood is None:
        return session
    before = read_charge(stood)
    total = plain(-from_minor(before.charge.total_minor, before.charge.currency))
    back = LineView("taken_back", "1", "ride", total, total, f"revision:{session.revision}", None, False, None)
    charge = charge_view(before.charge)
    charge = replace(charge, lines=[*charge.lines, back], amount_minor=0, tax_minor=0)
    return replace(session, usage=usage_view(before.usage), charge=charge)


def receipt(session: SessionView, language: Language, operator: tuple[str, str], zone: ZoneInfo) -> ReceiptView:
    """The receipt of a charged session; `operator` is its name and the contact riders are shown."""
    charge, usage = session.charge, session.usage
    assert charge is not None and usage is not None
    labels = {one.adjustment_id: one.label for one in session.adjustments}
    return ReceiptView(
        language=language,
        session_id=session.session_id,
        operator=operator[0],
        contact=operator[1],
        tariff_id=session.tariff_id,
        tariff_version=session.tariff_version,
        vehicle_id=session.vehicle_id,
        started_at=usage.started_at.astimezone(zone),
        ended_at=usage.ended_at.astimezone(zone),
        duration=_duration(usage.duration_us),
        meters=usage.meters,
        lines=[
            ReceiptLine(
                line.code,
                line_text(line.code, line.path, line.window, language, labels),
                line.quantity,
                unit_text(line.unit, language),
                line.unit_price,
                line.amount,
                None if is_adjustment(line.path) else line.window,
            )
            for line in charge.lines
        ],
        notes=[TEXTS[language][note] for note in _notes(session)],
        currency=charge.currency,
        amount_minor=charge.amount_minor,
        amount=format_amount(charge.amount_minor, charge.currency),
        tax_minor=charge.tax_minor,
        tax=format_amount(charge.tax_minor, charge.currency),
        paid_minor=session.paid_minor,
        refunded_minor=session.refunded_minor,
        to_refund_minor=session.to_refund_minor,
        given_back_minor=session.given_back_minor,
        outside_minor=session.outside_minor,
        given_up_minor=session.given_up_minor,
        open_minor=session.open_minor,
        charged_back_minor=session.charged_back_minor,
        revision=session.revision,
        issued_at=session.updated_at.astimezone(zone),
    )


def _notes(session: SessionView) -> Iterator[str]:
    """What a rider should know besides, by the names of the words for it."""
    assert session.charge is not None and session.usage is not None
    if session.usage.lost_end is not None and session.state != "voided":
        yield "lost_end"
    if session.state == "voided" and all(line.code != "taken_back" for line in session.charge.lines):
        yield "rest"
    if any(event.source == SOURCE for event in session.events):
        yield "brought_over"


def printable(receipt: ReceiptView) -> str:
    """The receipt as one page of HTML that needs nothing else."""
    words = TEXTS[receipt.language]
    lasted = receipt.ended_at > receipt.started_at  # A debt brought over is a moment.
    facts = [
        (words["session"], receipt.session_id),
        (words["vehicle"], receipt.vehicle_id),
        (words["tariff"], f"{receipt.tariff_id} v{receipt.tariff_version}"),
        (words["from"], f"{receipt.started_at:%Y-%m-%d %H:%M:%S %z}"),
        (words["to"], f"{receipt.ended_at:%Y-%m-%d %H:%M:%S %z}" if lasted else None),
        (words["duration"], receipt.duration if lasted else None),
        (
            words["distance"],
            f"{receipt.meters / 1000:g} {unit_text('km', receipt.language)}" if receipt.meters else None,
        ),
    ]
    rows = "".join(
        f"<tr><td>{escape(line.text)}{escape(f' ({_window(line.window)})' if line.window else '')}"
        f"<td>{escape(quantity_text(line.quantity, line.unit))}<td>{escape(line.unit_price)}<td>{escape(line.amount)}"
        for line in receipt.lines
    )
    totals = [("total", receipt.amount_minor), ("tax", receipt.tax_minor), ("paid", receipt.paid_minor)]
    totals += [("refunded", receipt.refunded_minor), ("to_refund", receipt.to_refund_minor)]
    totals.append(("given_back", receipt.given_back_minor))
    totals += [("outside", receipt.outside_minor), ("given_up", receipt.given_up_minor), ("open", receipt.open_minor)]
    totals.append(("charged_back", receipt.charged_back_minor))
    sums = "".join(
        f"<tr><td colspan=3>{words[name]}<td>{escape(_money(minor, receipt))}"
        for name, minor in totals
        if minor or name in ("total", "paid", "open")
    )
    head = "".join(f"<dt>{escape(word)}<dd>{escape(fact)}" for word, fact in facts if fact)
    notes = "".join(f"<p>{escape(note)}" for note in receipt.notes)
    contact = f"<p>{escape(words['contact'])}: {escape(receipt.contact)}" if receipt.contact else ""
    return (
        f"<!doctype html><html lang={receipt.language}><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{escape(words['title'])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(words['title'])}</h1><p>{escape(receipt.operator)}<dl>{head}</dl>"
        f"<table><thead><tr><th>{escape(words['item'])}<th>{escape(words['quantity'])}<th>{escape(words['price'])}"
        f"<th>{escape(words['amount'])}<tbody>{rows}<tfoot>{sums}</table>{notes}{contact}</html>"
    )


def _window(window: str) -> str:
    """A line's window as a rider reads it: of a cap over all his rides, its day or month."""
    return window.rsplit(":", 1)[1] if window.startswith(("day:", "month:")) else window


def _money(minor: int, receipt: ReceiptView) -> str:
    return price_text(format_amount(minor, receipt.currency), receipt.currency, receipt.language)


def _duration(duration_us: int) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    seconds = duration_us // 1_000_000
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:44em;margin:2em auto;padding:0 1em}"
    "dl{display:grid;grid-template-columns:max-content auto;gap:0 1em}dd{margin:0}"
    "table{width:100%;border-collapse:collapse}td,th{text-align:left;padding:.2em;border-bottom:1px solid #ccc}"
    "td:last-child,th:last-child{text-align:right}tfoot{font-weight:bold}"
)
