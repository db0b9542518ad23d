"""What an installation of the workbench is given before its roles start, as an operator would by commands."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from service.adapters.postgres import Database
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.tokens import SCOPES, TokenStore, token_hash
from service.billing.tariffs import import_document
from service.flows.accounts import add_account
from service.flows.tariffs import publish_tariff
from service.lab.demo.merchants import Merchant


async def furnish(database_url: str, tariffs: Iterable[bytes], merchants: Iterable[Merchant], now: datetime) -> str:
    """Gives the default operator tariffs (GBFS plans as JSON) and merchant accounts, valid at `now`; returns a token
    for everything."""
    database = await Database.open(database_url, name="lab", size_max=2)
    try:
        async with database.reading(OperatorStore) as store:
            operator = await store.default()
        assert operator is not None
        for document in tariffs:
            (draft,) = import_document(document)
            await publish_tariff(database, operator, draft, now=now, lead=timedelta(0))
        for merchant in merchants:
            await add_account(
                database,
                operator.operator_no,
                account_id=merchant.account_id,
                provider=merchant.provider,
                base_url=merchant.base_url,
                settings=merchant.settings,
                now=now,
            )
        token = secrets.token_urlsafe(32)
        async with database.transaction(TokenStore) as tokens:
            at = datetime.now(UTC)
            made = await tokens.add(token_hash(token), operator.operator_id, "lab", SCOPES, None, at, None)
        assert made
        return token
    finally:
        await database.close()
