"""The demo's summary: what happened, each provider in both books, one rider's story, and the closing line."""

from __future__ import annotations

from typing import Any

import aiohttp
from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from service.billing.money import format_amount
from service.lab.demo.books import AccountLine
from service.lab.demo.play import Show
from service.lab.demo.stage import Stage
from service.lab.demo.story import RIDER
from service.lab.demo.telling import Tale
from service.lab.demo.truth import Truth

CURRENCY = "CNY"
RECEIPT = "city-car"
TOLD = {
    "reminder.due": "riders reminded",
    "reminder.overdue": "told that they are overdue",
    "reminder.report_notice": "told of a report to come",
    "performance.reported": "reports at a provider",
}
TROUBLES = {
    "duplicate": "events twice",
    "reversed": "end before start",
    "late_start": "start hours late",
    "lost_end": "no end",
    "late_end": "end a day late",
    "cancelled": "cancelled",
    "paused": "paused a while",
    "corrected": "corrected",
    "voided": "voided",
    "staff": "by staff",
    "contradicted": "a second, other end",
}


async def show_summary(stage: Stage, show: Show, truth: Truth, tale: Tale, console: Console) -> None:
    """Tables for a person, one receipt, and one rider's story."""
    days = show.business.total_seconds() / 86_400
    console.print(f"\n[bold]{days:.1f} days in {show.seconds:.0f} s[/bold]: those of the city, and the story's\n")
    console.print(Columns([_rides(truth), _troubles(show), _money(truth), _debits(truth)], padding=(0, 2)))
    console.print(f"\n[bold]Each provider, by its own books and by ours[/bold] ({CURRENCY} taken, less given back)")
    console.print(_providers(truth.accounts))
    await _receipt(stage, console)
    console.print(f"\n[bold]The story of {RIDER}[/bold], by what was said at the doors, on the topics, in the books")
    console.print(_story(tale))
    console.print(f"the debit: {' → '.join(tale.states)}\n")
    for disagreement in truth.disagreements:
        console.print(f"[red]disagreement:[/red] {disagreement}")


def closing_line(truth: Truth, audit_problems: int) -> str:
    """The truth in one line."""
    return (
        f"demo: {truth.rides} rides, {truth.charged} charged, {truth.settled} debits settled, {truth.open} open,"
        f" {truth.quarantined} quarantined, {truth.lost} lost, {truth.charged_twice} charged twice,"
        f" trial balance {truth.trial_balance}, audit {audit_problems} problems"
    )


def _table(*columns: str) -> Table:
    """The first column is words, the others are figures."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _rides(truth: Truth) -> Table:
    table = _table("rides", "")
    for state, count in sorted(truth.states.items(), key=lambda item: -item[1]):
        table.add_row(state.replace("_", " "), str(count))
    return table


def _troubles(show: Show) -> Table:
    table = _table("trouble on the way", "rides")
    for trouble, count in sorted(show.city.troubles.items(), key=lambda item: -item[1]):
        if trouble != "none":
            table.add_row(TROUBLES[trouble], str(count))
    table.add_row("refused before the unlock", str(show.riding.refused))
    return table


def _money(truth: Truth) -> Table:
    table = _table("money", CURRENCY)
    table.add_row("charged", format_amount(truth.charged_minor, CURRENCY))
    table.add_row("- taken by the providers", format_amount(truth.settled_minor, CURRENCY))
    table.add_row("+ given back", format_amount(truth.refunded_minor, CURRENCY))
    table.add_row("- given up", format_amount(truth.given_up_minor, CURRENCY))
    table.add_row("= owed yet", format_amount(truth.owed_minor, CURRENCY))
    return table


def _debits(truth: Truth) -> Table:
    table = _table("debits", "")
    for state, count in sorted(truth.debit_states.items(), key=lambda item: -item[1]):
        table.add_row(state.replace("_", " "), str(count))
    for kind, told in TOLD.items():
        if kind in truth.facts:
            table.add_row(told, str(truth.facts[kind]))
    return table


def _providers(accounts: list[AccountLine]) -> Table:
    """Amounts are what was taken less what was given back."""
    table = _table("account", "riders", "holds", "settled", "back", "its books", "", "our ledger", "heard")
    for line in accounts:
        table.add_row(
            line.name,
            str(line.agreements),
            str(line.holds) if line.holds else "-",
            str(line.settled),
            str(line.refunds),
            format_amount(line.their_net_minor, CURRENCY),
            "[red]≠[/red]" if line.disagreements else "=",
            format_amount(line.net_minor, CURRENCY),
            str(line.heard),
        )
    return table


def _story(tale: Tale) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("in Shanghai", "what", "said", "by"):
        table.add_column(column, no_wrap=column != "said")
    for line in tale.lines:
        table.add_row(line.when, line.title, line.said, line.source)
    return table


async def _receipt(stage: Stage, console: Console) -> None:
    """The receipt of the first ride by car that has several lines, as the API gives it."""
    headers = {"Authorization": f"Bearer {stage.token}"}
    async with aiohttp.ClientSession(stage.places.api, headers=headers) as session:
        async with session.get("/v1/sessions", params={"state": "closed", "limit": "200"}) as answer:
            answer.raise_for_status()
            listed: list[dict[str, Any]] = (await answer.json())["items"]
        for item in sorted(listed, key=lambda ride: ride["tariff_id"] != RECEIPT):
            async with session.get(f"/v1/sessions/{item['session_id']}") as answer:
                answer.raise_for_status()
                ride = await answer.json()
            charge = ride.get("charge")
            if charge and len(charge["lines"]) > 1:
                console.print(_panel(ride, charge))
                return


def _panel(ride: dict[str, Any], charge: dict[str, Any]) -> Panel:
    table = Table.grid(padding=(0, 2))
    for line in charge["lines"]:
        table.add_row(
            line["code"], f"{line['quantity']} {line['unit']}", f"× {line['unit_price']}", line["amount"], line["path"]
        )
    total = format_amount(charge["amount_minor"], charge["currency"])
    table.add_row("[bold]total[/bold]", "", "", f"[bold]{total} {charge['currency']}[/bold]", "")
    debits = ", ".join(f"{debit['state']} {format_amount(debit['amount_minor'], CURRENCY)}" for debit in ride["debits"])
    title = f"{ride['session_id']} · {ride['tariff_id']}"
    return Panel(table, title=title, subtitle=f"debit: {debits or 'none'}", expand=False)
