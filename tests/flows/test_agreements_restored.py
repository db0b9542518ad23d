"""Agreements after a restore to an earlier instant: what riders ended or signed in the lost time is found by asking."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from rider_world import World, world

from service.adapters.providers.port import AgreementRef
from service.billing.agreements.standing import AgreementStatus
from service.flows.accounts import list_accounts, merchant_account
from service.flows.agreement_replies import NewAgreement
from service.flows.collection.restored import ask_after_restore


@pytest.fixture
async def it(database_url: str) -> AsyncIterator[World]:
    async with world(database_url) as it:
        yield it


async def test_what_a_rider_ended_in_the_time_that_a_restore_lost_is_over_once_it_was_asked_about(it: World) -> None:
    """The restored database has both as signed, and the news of the end does not come again."""
    await ask_after_restore(it.database, it.now())
    for agreement_id in ("ended", "kept"):
        await it.sign(agreement_id, agreement_id)
    query = "SELECT provider_key, provider_ref FROM agreement WHERE agreement_id = 'ended'"
    ref = AgreementRef(*await it.connection.fetchrow(query) or ())
    (account,) = [row.account for row in await list_accounts(it.database) if row.account.account_no == it.account_no]
    ended = await it.providers.of(merchant_account(account)).revoke_agreement(ref)
    assert isinstance(ended, AgreementStatus) and ended.state == "revoked"
    assert await it.agreements.refresh_round(it.account_no) == 0, "nobody asks about what is signed"

    await it.connection.execute("UPDATE installation SET cluster_timeline = 'another/00000001'")
    assert await ask_after_restore(it.database, it.now())
    await it.agreements.refresh_round(it.account_no)
    states = {view.agreement_id: view.state for view in await it.agreements.page(it.operator_no)}
    assert states == {"ended": "revoked", "kept": "active"}
    assert await it.facts("ended") == ["agreement.active", "agreement.revoked"]
    assert await it.facts("kept") == ["agreement.active"], "what is as it was is told to nobody"


async def test_what_a_rider_signed_in_the_time_that_a_restore_lost_is_signed_once_it_is_asked_for(it: World) -> None:
    """Of one the restored database has that it waits for him; the other was asked for in that time, and is missing."""
    await ask_after_restore(it.database, it.now())
    before = {agreement_id: await it.sign(agreement_id, agreement_id) for agreement_id in ("waited", "asked-for")}
    assert {view.state for view in before.values()} == {"active"}
    await it.connection.execute("UPDATE agreement SET state = 'pending', due_at = NULL WHERE agreement_id = 'waited'")
    await it.connection.execute("DELETE FROM agreement WHERE agreement_id = 'asked-for'")

    await it.connection.execute("UPDATE installation SET cluster_timeline = 'another/00000001'")
    assert await ask_after_restore(it.database, it.now())
    await it.agreements.refresh_round(it.account_no)
    states = {view.agreement_id: view.state for view in await it.agreements.page(it.operator_no)}
    assert states == {"waited": "active"}
    signed = await it.agreements.create(it.operator_no, NewAgreement(agreement_id="asked-for", rider_ref="asked-for"))
    assert (signed.state, signed.action) == ("active", None), "he need not sign again"
