"""Extra charges, goodwill and refunds over HTTP: decided once, told on the ride, and followed by the money."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ride_builders import whole
from web_world import WebWorld, web_world

from service.billing.keys import provider_key, session_key_bytes

EXTRA = {"kind": "extra", "code": "damage", "amount_minor": 500, "currency": "CNY", "reason": "a bent wheel"}


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        yield it


async def paid(it: WebWorld, session: str) -> Any:
    """A ride of 2.50 that is paid, and its debit."""
    await it.take(*whole(session))
    await it.collect()
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    assert (debit["state"], debit["paid_minor"]) == ("settled", 250)
    return debit


async def charge(it: WebWorld, session: str, asked: dict[str, Any], **more: Any) -> Any:
    return await it.ask("POST", f"/v1/sessions/{session}/charges", asked, **more)


async def refund(it: WebWorld, debit: Any, amount_minor: int, **more: Any) -> Any:
    asked = {"amount_minor": amount_minor, "reason": "the brake was loose"}
    return await it.ask("POST", f"/v1/debits/{debit['debit_id']}/refunds", asked, **more)


def money(*, owed: int, paid: int, refunded: int = 0, to_refund: int = 0, taken: int = 0) -> dict[str, int]:
    """The money of a ride as the doors tell it; `taken` is what a bank has."""
    given = {"owed_minor": owed, "paid_minor": paid, "refunded_minor": refunded, "to_refund_minor": to_refund}
    return {
        **given,
        "given_back_minor": 0,
        "outside_minor": 0,
        "given_up_minor": 0,
        "open_minor": 0,
        "charged_back_minor": taken,
    }


def money_of(ride: dict[str, Any]) -> dict[str, int]:
    return {name: ride[name] for name in money(owed=0, paid=0)}


async def test_an_extra_charge_is_owed_debited_and_named(it: WebWorld) -> None:
    await paid(it, "bent")
    ride = await charge(it, "bent", {**EXTRA, "tax_rate": "0.13", "by": "desk-7"}, key="k-bent")
    assert (ride.status, ride.body["amount_minor"], ride.body["owed_minor"]) == (200, 750, 750)
    again = await charge(it, "bent", {**EXTRA, "tax_rate": "0.13", "by": "desk-7"}, key="k-bent")
    assert (again.body, again.headers["idempotency-replayed"]) == (ride.body, "true")
    await it.collect()
    after = await it.get("/v1/sessions/bent")
    assert (after["paid_minor"], [debit["amount_minor"] for debit in after["debits"]]) == (750, [250, 500])


async def test_goodwill_on_a_paid_ride_gives_the_money_back(it: WebWorld) -> None:
    await paid(it, "sorry")
    kind = {"kind": "goodwill", "code": "apology", "amount_minor": 100, "currency": "CNY", "reason": "it rained"}
    assert (await charge(it, "sorry", kind)).body["owed_minor"] == 150
    await it.collect()
    await it.collect()
    assert (await it.get("/v1/sessions/sorry"))["refunded_minor"] == 100


async def test_refunds_are_partial_repeated_and_never_more_than_was_paid(it: WebWorld) -> None:
    debit = await paid(it, "loose")
    first = await refund(it, debit, 100, key="k-loose")
    assert first.status == 202
    assert first.body["ride"] == money(owed=150, paid=250, to_refund=100)
    for _ in range(2):
        assert (await refund(it, debit, 100, key="k-loose")).headers["idempotency-replayed"] == "true"
    # The answer of a process that died was never kept: the refund is there once all the same.
    await it.sql("DELETE FROM idempotency WHERE idempotency_key = 'k-loose'")
    assert (await refund(it, debit, 100, key="k-loose")).status == 202
    too_much = await refund(it, debit, 200)  # Before the first one is begun: what is owed has fallen already.
    assert (too_much.status, too_much.fields) == (422, ["/amount_minor"])
    assert "200 can't be given back: 150 is left of what was paid" in too_much.body["detail"]
    await it.collect()
    await it.collect()
    second = await refund(it, debit, 150)
    assert second.status == 202
    assert second.body["ride"] == money(owed=0, paid=250, refunded=100, to_refund=150)
    assert [(item["amount_minor"], item["state"]) for item in second.body["refunds"]] == [(100, "succeeded")]
    await it.collect()
    await it.collect()
    done = await it.get(f"/v1/debits/{debit['debit_id']}")
    assert (done["refunded_minor"], [item["amount_minor"] for item in done["refunds"]]) == (250, [100, 150])
    nothing = await it.ask("POST", f"/v1/debits/{debit['debit_id']}/refunds/retry")
    assert (nothing.status, nothing.fields) == (409, ["path:debit_id"])
    over = await refund(it, debit, 1)
    assert (over.status, over.fields) == (422, ["/amount_minor"])
    assert "0 is left of what was paid" in over.body["detail"]
    assert money_of(await it.get("/v1/sessions/loose")) == money(owed=0, paid=250, refunded=250)


async def test_what_a_bank_has_taken_back_is_not_to_be_given_back_as_well(it: WebWorld) -> None:
    debit = await paid(it, "clawed")
    held = {"number": 1, "kind": "chargeback", "state": "opened", "amount_minor": 250, "taken_minor": 250}
    await dispute(it, "clawed", "chargeback", held | {"fee_minor": 15, "ref": "dp_1"})
    [told] = (await it.get(f"/v1/debits/{debit['debit_id']}"))["disputes"]
    assert told == held | {"fee_minor": 15, "provider_reference": "dp_1"}
    kind = {"kind": "goodwill", "code": "apology", "amount_minor": 100, "currency": "CNY", "reason": "it rained"}
    assert money_of((await charge(it, "clawed", kind)).body) == money(owed=150, paid=250, taken=250)
    await dispute(it, "clawed", "won", held | {"state": "won", "taken_minor": 0})
    assert money_of(await it.get("/v1/sessions/clawed")) == money(owed=150, paid=250, to_refund=100)
    for _ in range(2):
        await it.collect()
    assert money_of(await it.get("/v1/sessions/clawed")) == money(owed=150, paid=250, refunded=100)


async def test_what_a_bank_has_for_good_is_not_left_to_be_refunded(it: WebWorld) -> None:
    """It was promised with a 202, and the ride owed less: nothing could come of it."""
    debit = await paid(it, "lost")
    held = {"number": 1, "kind": "chargeback", "state": "lost", "amount_minor": 250, "taken_minor": 250}
    await dispute(it, "lost", "lost", held | {"fee_minor": 15, "ref": "dp_2"})
    refused = await refund(it, debit, 100)
    assert (refused.status, refused.fields) == (409, ["path:debit_id"])
    assert "the rider's bank has taken this money back" in refused.body["detail"]
    assert (await it.get("/v1/sessions/lost"))["owed_minor"] == 250, "and the ride owes what it did"
    await dispute(it, "lost", "lost", held | {"taken_minor": 150, "fee_minor": 15, "ref": "dp_2"})
    over = await refund(it, debit, 101)
    assert (over.status, over.fields) == (422, ["/amount_minor"])
    assert "101 can't be given back: 100 is left of what was paid" in over.body["detail"]
    left = await refund(it, debit, 100)
    assert (left.status, left.body["ride"]["to_refund_minor"]) == (202, 100)
    for _ in range(2):
        await it.collect()
    assert (await refund(it, debit, 1)).status == 409, "what is not given back already is the bank's"


async def test_what_a_bank_has_of_one_debit_leaves_the_others_of_the_ride(it: WebWorld) -> None:
    debit = await paid(it, "both")
    await charge(it, "both", EXTRA)
    await it.collect()
    (first, second) = (await it.get("/v1/sessions/both"))["debits"]
    held = {"number": 1, "kind": "chargeback", "state": "lost", "amount_minor": 250, "taken_minor": 250}
    await dispute(it, "both", "lost", held | {"fee_minor": 0, "ref": "dp_3"})
    assert (first["debit_id"], (await refund(it, first, 1)).status) == (debit["debit_id"], 409)
    assert "500 is left" in (await refund(it, second, 501)).body["detail"]
    given = await refund(it, second, 500)
    assert (given.status, given.body["ride"]["to_refund_minor"]) == (202, 500)


async def dispute(it: WebWorld, session: str, standing: str, held: dict[str, Any]) -> None:
    """What a provider with chargebacks would have told of the session's first debit."""
    change = "UPDATE debit SET dispute = $2, disputes = $3, disputed_minor = $4 WHERE session_id = $1 AND ordinal = 1"
    await it.sql(change, session, standing, json.dumps([held]), held["taken_minor"])


async def test_nothing_is_refunded_of_what_is_not_paid_or_taken_back_by_the_bank(it: WebWorld) -> None:
    debit = await paid(it, "bank")
    await it.sql("UPDATE debit SET dispute = 'chargeback' WHERE session_id = 'bank'")
    answer = await refund(it, debit, 1)
    assert (answer.status, answer.fields) == (409, ["path:debit_id"])
    await it.sql("UPDATE debit SET dispute = NULL, paid_minor = 0, receipts = '[]' WHERE session_id = 'bank'")
    answer = await refund(it, debit, 1)
    assert (answer.status, answer.fields) == (422, ["/amount_minor"])
    assert "goodwill" in answer.body["detail"]


async def test_a_key_of_another_adjustment_of_the_ride_is_refused(it: WebWorld) -> None:
    debit = await paid(it, "keys")
    assert (await charge(it, "keys", EXTRA, key="k-keys")).status == 200
    answer = await refund(it, debit, 100, key="k-keys")
    assert (answer.status, answer.fields) == (422, ["header:Idempotency-Key"])


@pytest.mark.parametrize(
    ("changed", "status", "field"),
    [
        ({"kind": "refund"}, 422, "/kind"),
        ({"code": "Bent Wheel"}, 422, "/code"),
        ({"amount_minor": 0}, 422, "/amount_minor"),
        ({"amount_minor": -5}, 422, "/amount_minor"),
        ({"amount_minor": 10**13}, 422, "/amount_minor"),
        ({"amount_minor": "5"}, 422, "/amount_minor"),
        ({"currency": "EUR"}, 422, "/currency"),
        ({"reason": ""}, 422, "/reason"),
        ({"tax_rate": "13 %"}, 422, "/tax_rate"),
        ({"tax_rate": "1.5"}, 422, "/tax_rate"),
        ({"kind": "goodwill", "amount_minor": 251}, 422, "/amount_minor"),
        ({"kind": "goodwill", "tax_rate": "0.13"}, 422, "/tax_rate"),
        ({"kind": "goodwill", "regardless": True}, 422, "/regardless"),
        ({"colour": "red"}, 422, "/colour"),
    ],
)
async def test_an_adjustment_that_cannot_be_names_its_field(
    it: WebWorld, changed: dict[str, Any], status: int, field: str
) -> None:
    if not await it.sql("SELECT 1 FROM debit WHERE session_id = 'odd'"):
        await paid(it, "odd")
    answer = await charge(it, "odd", EXTRA | changed)
    assert (answer.status, answer.fields) == (status, [field]), answer.body
    assert (await it.get("/v1/sessions/odd"))["owed_minor"] == 250


async def test_a_ride_that_is_not_there_or_not_charged_is_told_apart(it: WebWorld) -> None:
    assert (await charge(it, "nowhere", EXTRA)).status == 404
    await it.take(whole("riding")[0])
    answer = await charge(it, "riding", EXTRA)
    assert (answer.status, answer.body["type"]) == (409, "urn:farebox:problem:conflict")
    assert "not charged yet" in answer.body["detail"]


async def test_a_refund_that_the_provider_puts_off_is_tried_again_when_support_asks(it: WebWorld) -> None:
    debit = await paid(it, "put-off")
    assert it.sandbox is not None
    key = provider_key(session_key_bytes("default", "put-off"), "refund", 1001)
    await it.sandbox.script("refund_abnormal", on=key, op="refund.make")
    assert (await refund(it, debit, 100)).status == 202
    for _ in range(2):
        await it.collect()
    route = f"/v1/debits/{debit['debit_id']}"
    [waits] = (await it.get(route))["refunds"]
    assert (waits["state"], waits["code"]) == ("new", "REFUND_ABNORMAL")
    for _ in range(2):  # Wished twice, given back once.
        assert (await it.ask("POST", f"{route}/refunds/retry")).status == 202
    await it.collect()
    told = await it.get(route)
    assert (told["refunded_minor"], [item["state"] for item in told["refunds"]]) == (100, ["succeeded"])


async def test_a_ride_that_costs_nothing_lets_its_hold_go_at_once(it: WebWorld) -> None:
    asked = await it.ask("POST", "/v1/holds", {"session_id": "free", "agreement_id": "agr-1", "tariff_id": "bike"})
    assert asked.body["status"] == "allowed"
    waits = "SELECT due_at > requested_at FROM hold WHERE session_id = 'free'"
    await it.take(whole("free", 0, 0.5)[0])
    assert [waiting for (waiting,) in await it.sql(waits)] == [True]
    await it.take(whole("free", 0, 0.5)[1])
    assert [waiting for (waiting,) in await it.sql(waits)] == [False]
