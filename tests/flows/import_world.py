"""Files to import, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rider_world import World
from sandbox_peer import sign

from service.adapters.csv_file import Columns, read_lines
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.operators import OperatorStore
from service.billing.catalog import Operator, TariffVersion
from service.billing.opening import opening_tariff
from service.flows.accounts import list_accounts, merchant_account
from service.flows.imports import Desk, Problem
from service.flows.imports.agreements import AgreementImport, account_setting
from service.flows.imports.debts import DebtImport
from service.flows.imports.lines import AGREEMENT_COLUMNS, DEBT_COLUMNS
from service.flows.tariffs import publish_tariff


class Files:
    """Writes files, and imports them as the command does. `said` is what was said: line, column, words."""

    def __init__(self, it: World, directory: Path) -> None:
        self.it = it
        self.path = directory / "file.csv"
        self.said: list[tuple[int, str, str]] = []
        self.notes: list[tuple[int, str]] = []
        self.progress = 0

    def write(self, columns: str, *rows: str) -> None:
        self.path.write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")

    def lines(self, columns: Columns) -> Any:
        return lambda: read_lines(self.path, columns)

    def desk(self) -> Desk:
        self.said, self.notes, self.progress = [], [], 0

        def say(problem: Problem) -> None:
            told = (problem.line, problem.column)
            self.notes.append(told) if problem.note else self.said.append((*told, problem.said))

        return Desk(say)

    def advance(self, count: int) -> None:
        self.progress += count

    async def sign_elsewhere(self, *keys: str, rider: str = "rider") -> None:
        """Signs at the provider under the numbers of another system."""
        provider = self.it.providers.of(merchant_account(await self._account()))
        for key in keys:
            await sign(self.it.sandbox, provider, key, rider)

    async def agreements(
        self, columns: str, *rows: str, write: bool = True, again: Sequence[Any] = ()
    ) -> tuple[int, int, int]:
        """Imports a file: how many were imported, there, refused."""
        self.write(columns, *rows)
        it, desk = self.it, self.desk()
        setting = await account_setting(it.database, it.operator_no, it.account_id)
        provider = it.providers.of(merchant_account(await self._account()))
        flow = AgreementImport(
            it.database, provider, it.operator_no, setting, it.now, it.machine_now, desk, again_after=again
        )
        count = await flow.look(self.lines(AGREEMENT_COLUMNS))
        if not desk.tally.refused:
            await flow.knock()
            await flow.take(self.lines(AGREEMENT_COLUMNS), self.advance, write=write)
            assert self.progress == count
        return desk.tally.imported, desk.tally.there, desk.tally.refused

    async def debts(self, columns: str, *rows: str) -> tuple[int, int, int]:
        """Imports a file: how many were imported, there, refused."""
        self.write(columns, *rows)
        it, desk = self.it, self.desk()
        flow = DebtImport(it.database, await self.operator(), it.now, it.machine_now, desk)
        found = await flow.look(self.lines(DEBT_COLUMNS))
        if not desk.tally.refused:
            terms = {one: await self.terms(one) for one in found.currencies}
            await flow.take(self.lines(DEBT_COLUMNS), terms, self.advance)
            assert self.progress == found.lines
        return desk.tally.imported, desk.tally.there, desk.tally.refused

    async def operator(self) -> Operator:
        async with self.it.database.reading(CatalogStore) as store:
            return (await store.operators())[self.it.operator_no]

    async def terms(self, currency: str) -> TariffVersion:
        async with self.it.database.reading(OperatorStore) as store:
            known = await store.find(self.it.operator_id)
        assert known is not None
        draft = opening_tariff(currency)
        made = await publish_tariff(self.it.database, known, draft, now=self.it.now(), lead=timedelta())
        return TariffVersion(made.tariff_no, made.tariff.version, made.tariff.valid_from, made.tariff)

    async def _account(self) -> Any:
        owned = await list_accounts(self.it.database)
        return next(one.account for one in owned if one.account.account_no == self.it.account_no)
