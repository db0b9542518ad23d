"""What replayed trips are charged to: agreements that were never signed with anybody."""

from __future__ import annotations

from datetime import datetime

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.replay import ReplayStore
from service.billing.keys import provider_key, session_key_bytes

AGREEMENTS = 20


class ReplayError(ValueError):
    """The trips can't be replayed like this; the message says why and what to do."""


async def replay_agreements(
    database: Database, operator: KnownOperator, currency: str, agreement_id: str | None, now: datetime
) -> tuple[str, ...]:
    """The ids of the agreements to charge: the given one, or sandbox ones `replay-<currency>-NN`, made if need be.

    Sandbox agreements are active at once, each with a rider of its own, on a merchant account `replay` that is stopped:
    pricing needs no provider, and no debit reaches one. Raises ReplayError where the given agreement can't pay in
    `currency`.
    """
    async with database.transaction(ReplayStore) as store:
        if agreement_id is None:
            ids = tuple(f"replay-{currency}-{number:02}" for number in range(1, AGREEMENTS + 1))
            keys = [provider_key(session_key_bytes(operator.operator_id, name), "agreement", 0) for name in ids]
            await store.ensure_agreements(operator, ids, keys, currency, now)
            return ids
        known = (operator.operator_no, agreement_id)
        found = (await store.find_agreements([known])).get(known)
    if found is None:
        raise ReplayError(f"operator {operator.operator_id!r} has no agreement {agreement_id!r}; leave --agreement out")
    if found.currency != currency:
        raise ReplayError(f"agreement {agreement_id!r} is in {found.currency} and the plan in {currency}")
    return (agreement_id,)
