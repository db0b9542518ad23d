"""The demo's summary: what happened, a few receipts, and the closing line."""

from __future__ import annotations

from typing import Any

import aiohttp
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from service.billing.money import format_amount
from service.lab.demo.play import Show
from service.lab.demo.stage import Stage
from service.lab.demo.truth import Truth

CURRENCY = "CNY"
RECEIPTS = ("city-bike", "city-scooter", "city-car")


async def show_summary(stage: Stage, show: Show, truth: Truth, console: Console) -> None:
    """Tables for a person, and one receipt for each tariff."""
    days = show.business.total_seconds() / 86_400
    console.print(f"\n[bold]{days:.1f} days of a city in {show.seconds:.0f} s[/bold]\n")
    rides = Table("rides", "", title="What became of the rides", title_justify="left")
    for state, count in sorted(truth.states.items(), key=lambda item: -item[1]):
        rides.add_row(state, str(count))
    troubles = Table("trouble", "rides", title="What went wrong on the way", title_justify="left")
    for trouble, count in sorted(show.city.troubles.items(), key=lambda item: -item[1]):
        if trouble != "none":
            troubles.add_row(trouble.replace("_", " "), str(count))
    troubles.add_row("refused before the unlock", str(show.riding.refused))
    money = Table("money", CURRENCY, title="What became of the money", title_justify="left")
    money.add_row("charged", format_amount(truth.charged_minor, CURRENCY))
    money.add_row("taken by the provider", format_amount(truth.settled_minor, CURRENCY))
    money.add_row("given back", format_amount(truth.refunded_minor, CURRENCY))
    for state, count in sorted(truth.debit_states.items(), key=lambda item: -item[1]):
        money.add_row(f"debits {state.replace('_', ' ')}", str(count))
    for table in (rides, troubles, money):
        console.print(table)
    for tariff_id in RECEIPTS:
        await _receipt(stage, tariff_id, console)
    for disagreement in truth.disagreements:
        console.print(f"[red]disagreement:[/red] {disagreement}")


def closing_line(truth: Truth, audit_problems: int) -> str:
    """The truth in one line."""
    return (
        f"demo: {truth.rides} rides, {truth.charged} charged, {truth.settled} debits settled, {truth.pending} pending,"
        f" {truth.quarantined} quarantined, {truth.lost} lost, {truth.charged_twice} charged twice,"
        f" trial balance {truth.trial_balance}, audit {audit_problems} problems"
    )


async def _receipt(stage: Stage, tariff_id: str, console: Console) -> None:
    """The receipt of the first ride under a tariff that has several lines, as the API gives it."""
    headers = {"Authorization": f"Bearer {stage.token}"}
    async with aiohttp.ClientSession(stage.api, headers=headers) as session:
        async with session.get("/v1/sessions", params={"state": "closed", "limit": "50"}) as answer:
            answer.raise_for_status()
            listed: list[dict[str, Any]] = (await answer.json())["items"]
        for item in listed:
            async with session.get(f"/v1/sessions/{item['session_id']}") as answer:
                answer.raise_for_status()
                ride = await answer.json()
            charge = ride.get("charge")
            if ride.get("tariff_id") == tariff_id and charge and len(charge["lines"]) > 1:
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
