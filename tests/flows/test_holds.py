"""Holds: one call before the unlock, the same hold for the same session, given up or completed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from rider_world import World, world
from sandbox_peer import rider_path

from service.billing.agreements.asking import AskError, ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.agreements.standing import HoldStatus
from service.billing.keys import session_key, slot_of
from service.billing.outcomes import OpenUrl
from service.flows.agreement_replies import NewAgreement

SOON = timedelta(seconds=2)


@pytest.fixture
async def it(database_url: str) -> AsyncIterator[World]:
    async with world(database_url, hold_needed=True) as it:
        await it.sign()
        yield it


async def test_a_rider_in_good_standing_is_allowed_with_the_cap_by_one_call(it: World) -> None:
    reply = await it.ask("s1")
    assert (reply.status, reply.unlock, reply.cap_minor, reply.currency) == ("allowed", True, 100_000, "CNY")
    assert await it.at_provider("s1") == "open"
    assert await it.facts("s1") == ["hold.opened"]


async def test_asking_again_gives_the_same_hold(it: World) -> None:
    first = await it.ask("s1")
    assert await it.ask("s1") == first
    asked = await asyncio.gather(*(it.ask("s2") for _ in range(8)))
    assert {reply.status for reply in asked} <= {"allowed", "pending"}
    assert (await it.ask("s2")).status == "allowed"
    assert (await it.sandbox.books())["holds"] == {"open": 2}
    assert await it.facts("s2") == ["hold.opened"]


async def test_a_rider_who_has_just_signed_may_ride_though_nobody_was_told(it: World) -> None:
    begun = await it.agreements.create(it.operator_no, NewAgreement(agreement_id="new", rider_ref="newcomer"))
    unsigned = await it.ask("s1", "new")
    assert (unsigned.status, unsigned.reason) == ("refused", "agreement_pending")
    await it.sandbox.call("POST", rider_path(it.sandbox, begun.action) + "&answer=confirm")
    assert (await it.ask("s1", "new")).status == "allowed"
    assert await it.facts("s1") == ["hold.refused", "hold.opened"]
    assert await it.facts("new") == ["agreement.active"]


async def test_a_provider_that_does_not_say_whether_the_rider_signed_holds_up_nobody(it: World) -> None:
    begun = await it.agreements.create(it.operator_no, NewAgreement(agreement_id="new", rider_ref="newcomer"))
    await it.sandbox.call("POST", rider_path(it.sandbox, begun.action) + "&answer=confirm")
    await it.policy(answer_within="PT0.2S")
    await it.sandbox.script("slow", on="newcomer", op="agreement.get", seconds=30)
    unsaid = await it.ask("s1", "new")
    assert (unsaid.status, unsaid.reason) == ("refused", "agreement_pending")
    await it.policy()
    assert (await it.ask("s1", "new")).status == "allowed"


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"agreement_id": "other"}, ConflictingAskError, "agreement_id"),
        ({"vehicle_id": "v2"}, ConflictingAskError, "vehicle_id"),
        ({"agreement_id": "nobody"}, UnknownAskError, "agreement_id"),
        ({"tariff_id": "plane"}, UnknownAskError, "tariff_id"),
        ({"session_id": ""}, InvalidAskError, "session_id"),
        ({"session_id": "s" * 65}, InvalidAskError, "session_id"),
        ({"session_id": "s 1"}, InvalidAskError, "session_id"),
    ],
)
async def test_what_cannot_be_is_refused_by_field(
    it: World, change: dict[str, str], error: type[AskError], field: str
) -> None:
    await it.sign("other", "another")
    await it.ask("s1")
    with pytest.raises(error) as told:
        await it.ask(**({"session_id": "s1"} | change))
    assert told.value.field == field


async def test_a_refusal_by_the_provider_is_told_and_may_be_asked_again(it: World) -> None:
    await it.sandbox.script("refuse", on="rider", op="hold.open", code="SCORE_TOO_LOW")
    reply = await it.ask("s1")
    assert (reply.status, reply.unlock, reply.reason) == ("refused", False, "SCORE_TOO_LOW")
    assert (await it.ask("s1")).status == "allowed"
    assert await it.facts("s1") == ["hold.refused", "hold.opened"]


@pytest.mark.parametrize("fault", ["lost", "drop", "error_before", "error_after", "html", "truncated", "slow"])
async def test_a_lost_answer_leaves_the_hold_pending_and_the_round_finds_out(it: World, fault: str) -> None:
    await it.policy(answer_within="PT0.3S")
    await it.sandbox.script(fault, on="rider", op="hold.open", seconds=0.6)
    reply = await it.ask("s1")
    assert (reply.status, reply.unlock) == ("pending", False)
    it.pass_time(SOON)
    assert await it.holds.resolve_round(it.account_no) == 1
    assert await it.state("s1") == "open"
    assert (await it.sandbox.books())["holds"] == {"open": 1}


async def test_the_operators_policy_says_whether_to_unlock_while_pending(it: World) -> None:
    await it.policy(unlock_while_pending=True)
    await it.sandbox.script("lost", on="rider", op="hold.open")
    reply = await it.ask("s1")
    assert (reply.status, reply.unlock) == ("pending", True)


async def test_asking_again_while_pending_asks_what_became_of_it(it: World) -> None:
    await it.sandbox.script("lost", on="rider", op="hold.open")
    await it.ask("s1")
    assert (await it.ask("s1")).status == "allowed"


async def test_a_process_that_dies_after_the_intent_leaves_the_hold_to_the_round(it: World) -> None:
    await it.sandbox.script("slow", on="rider", op="hold.open", seconds=30)
    dying = asyncio.create_task(it.ask("s1"))
    await it.intent()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await it.sandbox.call("DELETE", "/script")
    assert await it.state("s1") == "requested"
    assert (await it.ask("s1")).status == "pending", "the lease is still somebody's"
    assert await it.holds.resolve_round(it.account_no) == 0
    it.pass_time(SOON)
    await it.holds.resolve_round(it.account_no)
    assert await it.state("s1") == "open"


async def test_a_hold_that_nobody_waits_for_any_more_is_given_up(it: World) -> None:
    await it.sandbox.script("drop", on="rider", op="hold.open")
    await it.ask("s1")
    it.pass_time(timedelta(minutes=11))
    await it.holds.resolve_round(it.account_no)
    assert await it.state("s1") == "released"
    assert await it.at_provider("s1") is None
    assert await it.facts("s1") == ["hold.released"]


async def test_a_hold_is_released_when_the_intake_has_read_that_no_ride_began(it: World) -> None:
    await it.ask("s1")
    it.pass_time(timedelta(minutes=31))
    await it.intake_has_read(it.now() - timedelta(minutes=5))
    await it.holds.release_round(it.account_no)
    assert await it.state("s1") == "open", "the start may still be in the topic"
    it.pass_time(timedelta(minutes=11))
    await it.intake_has_read(it.now())
    await it.holds.release_round(it.account_no)
    assert await it.state("s1") == "released"
    assert await it.at_provider("s1") == "released"
    assert await it.facts("s1") == ["hold.opened", "hold.released"]
    again = await it.ask("s1")
    assert (again.status, again.unlock) == ("ended", False)
    assert again.reason == "the hold is released: the ride did not start"


async def test_a_hold_whose_intake_is_silent_is_released_after_a_day(it: World) -> None:
    await it.ask("s1")
    it.pass_time(timedelta(hours=25))
    await it.intake_has_read(it.now() - timedelta(hours=25))
    await it.holds.release_round(it.account_no)
    assert await it.state("s1") == "released"


@pytest.mark.parametrize(
    ("ride", "owed", "debit", "after", "there"),
    [
        ("open", 0, None, "open", "open"),
        ("parked", 0, None, "open", "open"),
        ("closed", 500, None, "open", "open"),
        ("closed", 500, ("pending", 500, 0), "open", "open"),
        ("closed", 500, ("settled", 500, 500), "completed", "finished"),
        ("closed", 500, ("written_off", 500, 200), "completed", "finished"),
        ("closed", 500, ("cancelled", 500, 0), "released", "released"),
        ("closed", 0, None, "released", "released"),
        ("cancelled", 0, None, "released", "released"),
    ],
)
async def test_a_hold_ends_as_its_ride_did_and_never_before_its_debits_are_final(
    it: World, ride: str, owed: int, debit: tuple[str, int, int] | None, after: str, there: str
) -> None:
    await it.ask("s1")
    ride_no = await it.ride("s1", ride, owed)
    if debit is not None:
        await it.debit("s1", ride_no, *debit)
    it.pass_time(timedelta(minutes=31))
    await it.holds.release_round(it.account_no)
    assert (await it.state("s1"), await it.at_provider("s1")) == (after, there)


async def test_a_lost_answer_to_finishing_is_asked_again(it: World) -> None:
    await it.ask("s1")
    await it.debit("s1", await it.ride("s1", "closed", 500), "settled", 500, 500)
    it.pass_time(timedelta(minutes=31))
    await it.sandbox.script("lost", on=await it.provider_key("s1"), op="hold.finish")
    await it.holds.release_round(it.account_no)
    assert await it.state("s1") == "completing"
    it.pass_time(SOON)
    held = await it.holds.get(it.operator_no, "s1")
    assert (held.state, held.status, held.unlock) == ("completing", "ended", False)
    await it.holds.release_round(it.account_no)
    await it.policy(unlock_while_pending=True)
    for held in (await it.holds.get(it.operator_no, "s1"), await it.ask("s1")):
        assert (held.state, held.status, held.unlock) == ("completed", "ended", False)


async def test_no_vehicle_is_unlocked_for_a_session_whose_ride_is_over(it: World) -> None:
    await it.ride("never-asked", "closed", 500)
    await it.sandbox.script("refuse", on="rider", op="hold.open", code="SCORE_TOO_LOW")
    await it.ask("refused")
    await it.ride("refused", "not_billable")
    for state in ("parked", "review", "incomplete"):
        await it.ride(state, state)
    for session_id in ("never-asked", "refused", "parked", "review", "incomplete"):
        with pytest.raises(ConflictingAskError, match="another one has a session of its own") as told:
            await it.ask(session_id)
        assert told.value.field == "session_id"
    assert (await it.sandbox.books())["holds"] == {"refused": 1}


async def test_a_hold_that_waits_for_the_money_of_its_ride_unlocks_nothing(it: World) -> None:
    await it.policy(unlock_while_pending=True)
    await it.ask("open")
    await it.sandbox.script("drop", on="rider", op="hold.open")
    await it.ask("pending")
    for session_id, state in (("open", "open"), ("pending", "requested")):
        await it.debit(session_id, await it.ride(session_id, "closed", 500), "new", 500, 0)
        for held in (await it.ask(session_id), await it.holds.get(it.operator_no, session_id)):
            assert (held.state, held.status, held.unlock) == (state, "ended", False)
            assert held.reason == "the ride is closed"


async def test_the_app_gives_a_hold_up_only_before_the_ride(it: World) -> None:
    await it.ask("s1")
    assert (await it.holds.release(it.operator_no, "s1")).state == "released"
    assert (await it.holds.release(it.operator_no, "s1")).state == "released"
    await it.ask("s2")
    await it.ride("s2")
    with pytest.raises(ConflictingAskError) as told:
        await it.holds.release(it.operator_no, "s2")
    assert told.value.field == "session_id"
    with pytest.raises(UnknownAskError):
        await it.holds.release(it.operator_no, "s3")


async def test_an_overdue_debt_on_any_agreement_refuses_and_paying_makes_eligible_at_once(it: World) -> None:
    ride_no = await it.ride("old", "closed", 500)
    await it.debit("old", ride_no, "retry_wait", 500, 0, overdue=True)
    await it.sign("second", "rider")
    reply = await it.ask("s1", "second")
    assert (reply.status, reply.reason) == ("refused", "overdue_debts")
    assert await it.facts("s1") == ["hold.refused"]
    await it.connection.execute(
        "UPDATE debit SET state = 'settled', paid_minor = 500 WHERE session_key = $1",
        session_key(it.operator_id, "old"),
    )
    assert (await it.ask("s1", "second")).status == "allowed"


async def test_above_the_operators_exposure_limit_no_new_ride_begins(it: World) -> None:
    await it.connection.execute("UPDATE operator SET exposure_max_minor = 499 WHERE operator_no = $1", it.operator_no)
    await it.debit("old", await it.ride("old", "closed", 500), "pending", 500, 0)
    assert (await it.ask("s1")).reason == "exposure_limit"


async def test_a_cap_below_the_tariffs_minimum_is_refused(it: World) -> None:
    await it.sign("small", "another", cap_minor=149)
    await it.sign("enough", "third", cap_minor=150)
    assert (await it.ask("s1", "small")).reason == "cap_below_tariff_minimum"
    assert (await it.ask("s2", "enough")).status == "allowed"


async def test_a_revoked_agreement_opens_nothing_new(it: World) -> None:
    await it.agreements.revoke(it.operator_no, "ag")
    assert (await it.ask("s1")).reason == "agreement_revoked"


async def test_the_rider_confirms_where_the_provider_wants_it(database_url: str) -> None:
    async with world(database_url, hold_needed=True, hold_confirmed_by_rider=True) as it:
        await it.sign()
        reply = await it.ask("s1")
        assert (reply.status, reply.unlock) == ("rider_action", False)
        assert isinstance(reply.action, OpenUrl)
        await it.sandbox.call("POST", rider_path(it.sandbox, reply.action) + "&answer=confirm")
        assert (await it.ask("s1")).status == "allowed"


async def test_a_provider_without_holds_is_not_called(database_url: str) -> None:
    async with world(database_url) as it:
        await it.sign(cap_minor=7_000)
        reply = await it.ask("s1")
        assert (reply.status, reply.cap_minor) == ("allowed", 7_000)
        assert (await it.sandbox.books())["holds"] == {}
        await it.intake_has_read(it.now() + timedelta(days=1))
        it.pass_time(timedelta(minutes=31))
        await it.holds.release_round(it.account_no)
        assert await it.state("s1") == "released"


async def test_a_verified_notification_counts_as_an_answer_and_an_old_one_changes_nothing(it: World) -> None:
    await it.sandbox.script("lost", on="rider", op="hold.open")
    await it.ask("s1")
    key = await it.provider_key("s1")
    assert await it.holds.noticed(it.account_no, key, HoldStatus("open", cap_minor=90_000))
    assert (await it.ask("s1")).cap_minor == 90_000
    await it.holds.release(it.operator_no, "s1")
    assert not await it.holds.noticed(it.account_no, key, HoldStatus("open"))
    assert await it.state("s1") == "released"


@pytest.mark.parametrize("state", ["refused", "released", "expired", "pending"])
async def test_late_news_of_what_was_refused_before_under_the_same_key_ends_nothing(it: World, state: Any) -> None:
    """Stripe: the cancelled PaymentIntent of the first try ended the second, whose authorisation stood for nobody."""
    await it.sandbox.script("refuse", on="rider", op="hold.open", code="SCORE_TOO_LOW")
    await it.ask("s1")
    assert (await it.ask("s1")).status == "allowed"
    key, kept = await it.provider_key("s1"), "SELECT provider_ref FROM hold WHERE session_id = 's1'"
    ref = await it.connection.fetchval(kept)
    assert await it.holds.noticed(it.account_no, key, HoldStatus(state, f"{ref}-before", code="lost_card"))
    assert (await it.state("s1"), await it.connection.fetchval(kept)) == ("open", ref)
    await it.holds.release_round(it.account_no)
    assert (await it.state("s1"), await it.at_provider("s1")) == ("open", "open")


async def test_the_schema_keeps_a_hold_in_its_slot(it: World) -> None:
    await it.ask("s1")
    key = session_key(it.operator_id, "s1")
    slot = await it.connection.fetchval("SELECT slot FROM hold WHERE session_key = $1", key)
    assert slot == slot_of(key.bytes)
