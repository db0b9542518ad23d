"""What an import is held against in PostgreSQL: what is there already."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.adapters.postgres.agreements import AgreementRow, AgreementStore, agreement_row
from service.adapters.postgres.rides import RideStore


class Debtor(msgspec.Struct, frozen=True):
    """An agreement that debts are brought over on, and whose it is."""

    agreement_id: str
    agreement_no: int
    rider_no: int
    currency: str
    state: str
    rider_ref: str


class AgreementImportStore(AgreementStore):
    """Agreements, for many at once."""

    async def known(
        self, operator_no: int, ids: Sequence[str], account_no: int, keys: Sequence[str], refs: Sequence[str]
    ) -> list[AgreementRow]:
        """The operator's agreements with these ids, and those of the account with these numbers at the provider."""
        rows = await self.all("agreements_known", operator_no, list(ids), account_no, list(keys), list(refs))
        return [agreement_row(row) for row in rows]


class DebtImportStore(RideStore):
    """Rides, and who owes them."""

    async def debtors(self, operator_no: int, ids: Sequence[str]) -> dict[str, Debtor]:
        """The agreements among these ids, by id."""
        rows = await self.all("debtors", operator_no, list(ids))
        return {row["agreement_id"]: Debtor(**dict(row)) for row in rows}
