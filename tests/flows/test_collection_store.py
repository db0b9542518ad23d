"""What a collector writes of a debit is what the next one reads: every field, from its default and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from collecting_bench import Bench, open_bench
from msgspec.structs import replace

from service.adapters.postgres.collection import CollectionStore
from service.billing.debits.state import UNWRITTEN, Debit, Dispute, Receipt, State
from service.billing.outcomes import SignString

NEVER_CHANGED = {
    *("ride_no", "ordinal", "slot", "operator_no", "agreement_no", "account_no", "session_key", "session_id"),
    *("currency", "created_at", "tariff_no", "started_at", "ended_at", "items", "subject"),
}
AT = datetime(2026, 11, 2, 8, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench


async def test_every_field_of_a_debit_is_written_and_read(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    async with bench.database.transaction(CollectionStore) as store:
        (key, row), *_ = (await store.lock_debits([ride.ride_no])).items()
        full = changed(row.debit)
        defaults = {field.name: field.default for field in msgspec.structs.fields(Debit) if not field.required}
        bare = replace(full, **{name: value for name, value in defaults.items() if name not in NEVER_CHANGED})
        unchanged = {name for name in Debit.__struct_fields__ if getattr(full, name) == getattr(bare, name)}
        assert unchanged == NEVER_CHANGED | {"amount_minor", "provider_key"}, "a field of this test is at its default"
        lease = AT + timedelta(minutes=1)
        for debit, lease_until in ((full, lease), (bare, None), (full, None)):
            await store.update_debits([(debit, lease_until)], AT)
            read = (await store.lock_debits([ride.ride_no]))[key]
            kept = replace(debit, digest=full.digest) if debit.digest == UNWRITTEN else debit
            assert (read.debit, read.lease_until) == (kept, lease_until)


def changed(debit: Debit) -> Debit:
    """The debit with something else in every field that may change."""
    return replace(
        debit,
        amount_minor=301,
        provider_key="another-key",
        state=State.RETRY_WAIT,
        receipts=(Receipt("k", 40, AT, "DE1", 12), Receipt("k", 1, AT)),
        paid_minor=41,
        refunding_minor=7,
        refunded_minor=5,
        forgone_minor=3,
        outside_minor=2,
        given_back_minor=8,
        refunds=2,
        overdue=True,
        suspended=True,
        lowering_to=200,
        excess_minor=6,
        net_again=True,
        capped=True,
        dispute="won",
        disputes=(Dispute(1, "chargeback", "won", 40, 0),),
        disputed_minor=4,
        asked_minor=300,
        provider_ref="DE-2",
        action=SignString('"quoted" \\ 文'),
        reason="ACQ.BUYER_BALANCE_NOT_ENOUGH",
        attempts=3,
        queries=4,
        resent=5,
        **dict.fromkeys(("not_found_at", "unanswered_since", "begun_at"), AT),
        **dict.fromkeys(("dunned_at", "nudged_at", "record_at", "record_asked_at"), AT),
        **{name: AT + timedelta(seconds=number) for number, name in enumerate(("submitted_at", "settled_at"), 1)},
        due_at=AT + timedelta(days=1),
        pay_by=AT + timedelta(days=7),
        policy_at=AT + timedelta(days=6),
        transitions=9,
        verify="next",
        doubted_minor=302,
        given=True,
        payable_until=AT + timedelta(hours=2),
        dunned="reminded",
        reminded=2,
        record="completed",
        record_asks=1,
        digest=UUID(int=7),
    )
