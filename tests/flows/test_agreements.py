"""Agreements: signed at the provider, the same for the same id, ended by either side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from rider_world import World, world
from sandbox_peer import rider_path

from service.adapters.postgres.agreements import AgreementStore
from service.billing.agreements.asking import AskError, ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.agreements.signing import LOOK_AGAIN
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import OpenUrl, Unknown
from service.flows.agreement_replies import EligibilityAsk, NewAgreement

SOON = timedelta(seconds=5)


@pytest.fixture
async def it(database_url: str) -> AsyncIterator[World]:
    async with world(database_url) as it:
        yield it


@pytest.fixture
async def ordering(database_url: str) -> AsyncIterator[World]:
    """At a provider that debits what has begun on an agreement after its end, as Zhima and Pay Score do."""
    async with world(database_url, hold_needed=True) as it:
        yield it


def new(**fields: Any) -> NewAgreement:
    return NewAgreement(**({"agreement_id": "ag", "rider_ref": "rider"} | fields))


async def test_an_agreement_waits_for_the_rider_and_is_active_once_he_signed(it: World) -> None:
    begun = await it.agreements.create(it.operator_no, new())
    assert (begun.state, begun.currency, begun.time_zone) == ("pending", "CNY", "Asia/Shanghai")
    assert isinstance(begun.action, OpenUrl)
    eligible = await it.agreements.eligibility(EligibilityAsk(operator_no=it.operator_no, agreement_id="ag"))
    assert (eligible.eligible, eligible.reason, eligible.action) == (False, "agreement_pending", begun.action)
    await it.sandbox.call("POST", rider_path(it.sandbox, begun.action) + "&answer=confirm")
    signed = await it.agreements.get(it.operator_no, "ag")
    assert (signed.state, signed.action, signed.cap_minor) == ("active", None, 100_000)
    assert await it.facts("ag") == ["agreement.active"]
    asked = EligibilityAsk(operator_no=it.operator_no, agreement_id="ag", tariff_id="bike")
    assert (await it.agreements.eligibility(asked)).eligible


async def test_whether_he_may_ride_is_asked_of_the_provider_while_the_agreement_waits_for_him(it: World) -> None:
    begun = await it.agreements.create(it.operator_no, new())
    asked = EligibilityAsk(operator_no=it.operator_no, agreement_id="ag", tariff_id="bike")
    assert (await it.agreements.eligibility(asked)).reason == "agreement_pending"
    await it.sandbox.call("POST", rider_path(it.sandbox, begun.action) + "&answer=confirm")
    assert (await it.agreements.eligibility(asked)).eligible


async def test_who_asks_often_is_not_told_later_by_the_rounds(it: World) -> None:
    begun = await it.agreements.create(it.operator_no, new())
    for _ in range(4):
        assert (await it.agreements.get(it.operator_no, "ag")).state == "pending"
        it.machine_at += timedelta(seconds=1)
    await it.sandbox.call("POST", rider_path(it.sandbox, begun.action) + "&answer=confirm")
    it.pass_time(SOON)
    assert await it.agreements.refresh_round(it.account_no) == 1
    assert [view.state for view in await it.agreements.page(it.operator_no)] == ["active"]


async def test_an_older_answer_that_was_kept_first_does_not_hide_that_he_signed(it: World) -> None:
    await it.agreements.create(it.operator_no, new())
    async with it.database.reading(AgreementStore) as store:
        row = await store.find(it.operator_no, "ag")
    assert row is not None
    async with it.database.transaction(AgreementStore) as store:
        await store.save(row.agreement, it.now())  # Somebody else was told "pending" and was faster.
    await it.agreements._keep(row, AgreementStatus("active", "ref"))
    assert (await it.agreements.page(it.operator_no))[0].state == "active"
    assert await it.facts("ag") == ["agreement.active"]


async def test_the_round_finds_out_by_itself_that_the_rider_signed(it: World) -> None:
    begun = await it.agreements.create(it.operator_no, new())
    await it.sandbox.call("POST", rider_path(it.sandbox, begun.action) + "&answer=confirm")
    it.pass_time(SOON)
    assert await it.agreements.refresh_round(it.account_no) == 1
    assert [view.state for view in await it.agreements.page(it.operator_no)] == ["active"]
    assert await it.agreements.refresh_round(it.account_no) == 0


async def test_the_same_id_with_the_same_content_gives_the_same_agreement(it: World) -> None:
    signed = await it.sign(cap_minor=5_000, language="en")
    assert await it.agreements.create(it.operator_no, new(cap_minor=5_000, language="en")) == signed
    assert await it.agreements.create(it.operator_no, new()) == signed
    for field, value in {
        "rider_ref": "another",
        "currency": "EUR",
        "cap_minor": 5_001,
        "time_zone": "Europe/Oslo",
        "language": "zh",
    }.items():
        with pytest.raises(ConflictingAskError) as told:
            await it.agreements.create(it.operator_no, new(**{field: value}))
        assert told.value.field == field


@pytest.mark.parametrize(("currency", "language"), [("CNY", "zh"), ("EUR", "en")])
async def test_a_rider_whose_language_nobody_says_is_spoken_to_in_that_of_his_currency(
    it: World, currency: str, language: str
) -> None:
    """Riders in Lisbon read Chinese."""
    created = await it.agreements.create(it.operator_no, new(currency=currency))
    assert (created.currency, created.language) == (currency, language)


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"agreement_id": ""}, InvalidAskError, "agreement_id"),
        ({"rider_ref": "a b"}, InvalidAskError, "rider_ref"),
        ({"rider_ref": "r" * 65}, InvalidAskError, "rider_ref"),
        ({"account_id": "nowhere"}, UnknownAskError, "account_id"),
        ({"currency": "XXQ"}, InvalidAskError, "currency"),
        ({"cap_minor": 0}, InvalidAskError, "cap_minor"),
        ({"cap_minor": 1 << 63}, InvalidAskError, "cap_minor"),
        ({"time_zone": "Mars/Olympus"}, InvalidAskError, "time_zone"),
        ({"time_zone": "../etc/passwd"}, InvalidAskError, "time_zone"),
        ({"language": "tlh"}, InvalidAskError, "language"),
    ],
)
async def test_unusable_values_are_refused_by_field(
    it: World, fields: dict[str, Any], error: type[AskError], field: str
) -> None:
    with pytest.raises(error) as told:
        await it.agreements.create(it.operator_no, new(**fields))
    assert told.value.field == field
    assert await it.agreements.page(it.operator_no) == []


async def test_with_several_accounts_one_must_be_named(it: World) -> None:
    await it.open_account("second")
    with pytest.raises(InvalidAskError) as told:
        await it.agreements.create(it.operator_no, new())
    assert told.value.field == "account_id"
    assert (await it.agreements.create(it.operator_no, new(account_id="second"))).account_id == "second"


@pytest.mark.parametrize("fault", ["lost", "drop", "error_after", "truncated"])
async def test_a_lost_answer_to_signing_leads_to_one_agreement(it: World, fault: str) -> None:
    await it.sandbox.script(fault, on="rider", op="agreement.begin")
    begun = await it.agreements.create(it.operator_no, new())
    assert (begun.state, begun.action) == ("pending", None)
    it.pass_time(SOON)
    await it.agreements.refresh_round(it.account_no)
    assert (await it.sign()).state == "active"
    assert (await it.sandbox.books())["agreements"] == {"active": 1}


async def test_a_refusal_at_signing_says_what_the_provider_says(it: World) -> None:
    await it.sandbox.script("refuse", on="rider", op="agreement.begin", code="NAME_NOT_VERIFIED")
    refused = await it.agreements.create(it.operator_no, new())
    assert (refused.state, refused.reason) == ("refused", "NAME_NOT_VERIFIED")
    assert await it.facts("ag") == ["agreement.refused"]
    asked = EligibilityAsk(operator_no=it.operator_no, agreement_id="ag")
    told = await it.agreements.eligibility(asked)
    assert (told.reason, told.provider_says) == ("agreement_refused", "NAME_NOT_VERIFIED")


async def test_a_refusal_at_the_order_says_what_the_provider_says(ordering: World) -> None:
    await ordering.sign()
    await ordering.sandbox.script("refuse", on="rider", op="hold.open", code="SCORE_TOO_LOW")
    refused = await ordering.ask("s1")
    assert (refused.state, refused.reason) == ("refused", "SCORE_TOO_LOW")
    assert await ordering.facts("s1") == ["hold.refused"]


async def test_a_cap_that_the_provider_changes_is_asked_for_published_and_obeyed(ordering: World) -> None:
    """The provider only says that something changed, as Alipay does: the truth is asked for."""
    it = ordering
    signed = await it.sign()
    key = await it.connection.fetchval("SELECT provider_key FROM agreement WHERE operator_no = $1", it.operator_no)
    caps = []
    for cap in (500, 100, 200_000):  # The tariff takes 150 at least.
        await it.sandbox.call("POST", "/agreements", {"account_id": it.account_id, "key": key, "cap_minor": cap})
        assert await it.agreements.noticed(it.account_no, key, Unknown("it has changed"))
        it.pass_time(SOON)
        assert await it.agreements.refresh_round(it.account_no) == 1
        assert await it.agreements.refresh_round(it.account_no) == 0
        caps.append((await it.agreements.get(it.operator_no, "ag")).cap_minor)
        hold = await it.ask(f"s{cap}")
        assert (hold.state, hold.reason) == (("refused", "cap_below_tariff_minimum") if cap == 100 else ("open", None))
        if cap > 150:
            assert hold.cap_minor == cap
    assert (signed.cap_minor, caps) == (100_000, [500, 100, 200_000])
    assert await it.facts("ag") == ["agreement.active"] * 4


async def test_a_hold_above_a_cap_that_nobody_has_told_us_of_is_refused_with_what_the_provider_says(
    ordering: World,
) -> None:
    it = ordering
    await it.sign()
    key = await it.connection.fetchval("SELECT provider_key FROM agreement WHERE operator_no = $1", it.operator_no)
    await it.sandbox.call("POST", "/agreements", {"account_id": it.account_id, "key": key, "cap_minor": 500})
    refused = await it.ask("s1")
    assert (refused.state, refused.reason) == ("refused", "cap_exceeded")


async def test_an_agreement_nobody_signs_expires(it: World) -> None:
    await it.agreements.create(it.operator_no, new())
    it.pass_time(timedelta(days=1))
    await it.agreements.refresh_round(it.account_no)
    view = (await it.agreements.page(it.operator_no))[0]
    assert (view.state, view.reason) == ("expired", "never signed")
    assert await it.facts("ag") == ["agreement.expired"]


async def test_revoking_counts_at_once_and_is_repeated_until_the_provider_has_heard(ordering: World) -> None:
    it = ordering
    await it.sign()
    await it.sandbox.script("drop", on="rider", op="agreement.revoke")
    ending = await it.agreements.revoke(it.operator_no, "ag")
    assert (ending.state, ending.reason) == ("suspended", "revoking")
    asked = EligibilityAsk(operator_no=it.operator_no, agreement_id="ag")
    assert (await it.agreements.eligibility(asked)).reason == "agreement_suspended"
    it.pass_time(SOON)
    await it.agreements.refresh_round(it.account_no)
    assert (await it.agreements.get(it.operator_no, "ag")).state == "revoked"
    assert (await it.agreements.revoke(it.operator_no, "ag")).state == "revoked"
    assert await it.facts("ag") == ["agreement.active", "agreement.revoked"]


async def test_a_hold_that_is_open_keeps_an_agreement_whose_revoking_ends_collection(database_url: str) -> None:
    async with world(database_url, hold_needed=True, revoking_ends_collection=True) as it:
        await it.sign()
        assert (await it.ask("s1")).state == "open"
        await it.intake_has_read(it.now() + timedelta(days=1))
        assert (await it.agreements.revoke(it.operator_no, "ag")).state == "revoked"
        assert (await it.ask("s2")).reason == "agreement_revoked"
        for expected in (1, 0):
            it.pass_time(LOOK_AGAIN)
            await it.agreements.refresh_round(it.account_no)
            assert (await it.sandbox.books())["agreements"] == {"active" if expected else "revoked": 1}
            await it.holds.release(it.operator_no, "s1")


async def test_the_riders_own_revocation_comes_by_notification_and_older_ones_change_nothing(it: World) -> None:
    await it.sign()
    row = "SELECT provider_key FROM agreement WHERE operator_no = $1"
    key = await it.connection.fetchval(row, it.operator_no)
    assert await it.agreements.noticed(it.account_no, key, AgreementStatus("revoked", code="RIDER"))
    assert await it.agreements.noticed(it.account_no, key, AgreementStatus("active"))
    assert (await it.agreements.get(it.operator_no, "ag")).state == "revoked"
    assert not await it.agreements.noticed(it.account_no, "nobody", AgreementStatus("revoked"))


async def test_the_day_an_agreement_ends_is_seen(it: World) -> None:
    await it.sign()
    key = await it.connection.fetchval("SELECT provider_key FROM agreement WHERE operator_no = $1", it.operator_no)
    end = it.now() + timedelta(days=30)
    await it.agreements.noticed(it.account_no, key, AgreementStatus("active", valid_until=end, cap_minor=7_000))
    assert (await it.agreements.get(it.operator_no, "ag")).cap_minor == 7_000
    assert await it.agreements.refresh_round(it.account_no) == 0
    it.pass_time(timedelta(days=31))
    limit = {"account_id": it.account_id, "key": key, "valid_until": "2020-01-01T00:00:00Z"}
    await it.sandbox.call("POST", "/agreements", limit)
    assert await it.agreements.refresh_round(it.account_no) == 1
    assert (await it.agreements.get(it.operator_no, "ag")).state == "expired"


async def test_eligibility_names_what_is_unknown(it: World) -> None:
    await it.sign()
    for agreement_id, tariff_id, field in (("nobody", None, "agreement_id"), ("ag", "plane", "tariff_id")):
        with pytest.raises(UnknownAskError) as told:
            await it.agreements.eligibility(
                EligibilityAsk(operator_no=it.operator_no, agreement_id=agreement_id, tariff_id=tariff_id)
            )
        assert told.value.field == field
