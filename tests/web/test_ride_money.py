"""The money of a ride adds up however its debit ended, in each place that tells it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from command_line import command
from ride_builders import event, whole
from web_world import WebWorld, web_world

from service.adapters.clock import machine_now
from service.billing.keys import provider_key, session_key_bytes
from service.flows.collection import Collection

LATER = 60 * 24 * 250
"""Minutes after which nobody asks for an unpaid debit any more."""
SIGNS = {"paid": 1, "refunded": -1, "to_refund": -1, "outside": 1, "given_up": 1, "open": 1}
WORDS = {
    "en": ("Paid", "Given back", "To be given back", "Paid otherwise", "Not asked for any more", "To be paid"),
    "zh": ("已支付", "已退款", "待退款", "其他方式已付", "不再收取", "待支付"),
}
LINE = ("paid", "given back", "to be given back", "paid otherwise", "not asked for any more", "open")


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        yield it


async def settled(it: WebWorld, session: str) -> None:
    await it.collect()


async def declined(it: WebWorld, session: str) -> None:
    assert it.sandbox is not None
    key = provider_key(session_key_bytes("default", session), "debit", 1)
    await it.sandbox.script("decline", on=key, op="debit.take", code="BALANCE_NOT_ENOUGH")
    await it.collect()


async def wish(it: WebWorld, session: str, what: str, asked: dict[str, Any]) -> None:
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    done = await it.ask("POST", f"/v1/debits/{debit['debit_id']}/{what}", asked | {"reason": "T-77"})
    assert done.status == 200, done


async def elsewhere(it: WebWorld, session: str) -> None:
    await declined(it, session)
    await wish(it, session, "settle-elsewhere", {})


async def cancelled(it: WebWorld, session: str) -> None:
    await declined(it, session)
    await it.sql("UPDATE debit SET state = 'manual', due_at = NULL WHERE session_id = $1", session)
    await wish(it, session, "decide", {"decision": "cancel"})


async def written_off(it: WebWorld, session: str) -> None:
    await declined(it, session)
    await it.clock(LATER)
    (account, *_) = it.accounts
    provider = it.doors.providers.of(account)
    collection = Collection(it.database, {account.account_no: provider}, it.doors.now, machine_now)
    while await collection.policy_round(account.account_no):
        pass
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    assert debit["state"] == "written_off"


async def shorter(it: WebWorld, session: str) -> None:
    """Support takes 1.00 of the fare off."""
    asked = {"kind": "goodwill", "code": "apology", "amount_minor": 100, "currency": "CNY", "reason": "T-78"}
    assert (await it.ask("POST", f"/v1/sessions/{session}/charges", asked)).status == 200


async def longer(it: WebWorld, session: str) -> None:
    """Another debit follows of 1.00, which is taken."""
    asked = {"kind": "extra", "code": "damage", "amount_minor": 100, "currency": "CNY", "reason": "T-79"}
    assert (await it.ask("POST", f"/v1/sessions/{session}/charges", asked)).status == 200
    await it.collect()


async def void(it: WebWorld, session: str) -> None:
    await it.take(event("voided", 61, session=session))


async def collected(it: WebWorld, session: str) -> None:
    await it.collect()
    await it.collect()


Step = Callable[[WebWorld, str], Awaitable[None]]


@pytest.mark.parametrize(
    ("steps", "owed", "told"),
    [
        ([], 250, {"open": 250}),
        ([declined], 250, {"open": 250}),
        ([settled], 250, {"paid": 250}),
        ([settled, shorter], 150, {"paid": 250, "to_refund": 100}),
        ([settled, void, collected], 0, {"paid": 250, "refunded": 250}),
        ([elsewhere], 250, {"outside": 250}),
        ([elsewhere, longer], 350, {"outside": 250, "paid": 100}),
        ([elsewhere, shorter], 150, {"outside": 250, "to_refund": 100}),
        ([elsewhere, shorter, collected], 150, {"outside": 250, "to_refund": 100}),
        ([elsewhere, void, collected], 0, {"outside": 250, "to_refund": 250}),
        ([cancelled], 250, {"given_up": 250}),
        ([cancelled, longer], 350, {"given_up": 250, "paid": 100}),
        ([cancelled, shorter], 150, {"given_up": 150}),
        ([cancelled, shorter, collected], 150, {"given_up": 150}),
        ([cancelled, void], 0, {}),
        ([written_off], 250, {"given_up": 250}),
    ],
    ids=lambda value: "-".join(step.__name__ for step in value) if isinstance(value, list) else None,
)
async def test_what_became_of_a_charge_is_told_to_the_cent(
    it: WebWorld, database_url: str, steps: list[Step], owed: int, told: dict[str, int]
) -> None:
    session = "-".join(["ride", *(step.__name__ for step in steps)])
    await it.take(*whole(session))
    for step in steps:
        await step(it, session)
    expected = dict.fromkeys(SIGNS, 0) | told
    assert sum(SIGNS[name] * minor for name, minor in expected.items()) == owed, "of the table itself"
    ride = await it.get(f"/v1/sessions/{session}")
    assert (money(ride), ride["owed_minor"]) == (expected, owed)
    receipt = await it.get(f"/v1/sessions/{session}/receipt")
    assert (money(receipt), receipt["amount_minor"]) == (expected, owed)
    amounts = [f"{minor / 100:.2f}" for minor in expected.values()]
    for language, words in WORDS.items():
        page = (await it.get(f"/v1/sessions/{session}/receipt?language={language}&format=html")).decode()
        rows = dict(re.findall(r"<td colspan=3>([^<]+)<td>([\d.]+)", page))
        assert [rows.get(word, "0.00") for word in words] == amounts, page
    _, line, _ = (await command(database_url)("session", "show", session))[1].rsplit("\n", 2)
    shown = dict(part.rsplit(" ", 1) for part in line.removesuffix(" CNY").split(", "))
    assert [shown.get(word, "0.00") for word in ("owed", *LINE)] == [f"{owed / 100:.2f}", *amounts]


def money(told: dict[str, Any]) -> dict[str, int]:
    return {name: told[f"{name}_minor"] for name in SIGNS}
