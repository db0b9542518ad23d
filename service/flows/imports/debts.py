"""Debts that are open elsewhere: each becomes a ride that is nothing but a debt (`service.billing.opening`).

From there on collection sees to it as to any ride's. The ride's id is the debt's reference, and its identity is the
one global guard: a debt is brought over once, whoever does it and however often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from service.adapters.clock import Clock
from service.adapters.csv_file import Line, Seen
from service.adapters.postgres import RACES, Database
from service.adapters.postgres.batches import writer_name
from service.adapters.postgres.imports import DebtImportStore, Debtor
from service.adapters.postgres.rides import RideNumbers
from service.billing.agreements.asking import AskError, ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.catalog import AgreementRef, Operator, TariffVersion
from service.billing.keys import slot_of
from service.billing.opening import brought_over, debt_of
from service.billing.rides import Revision
from service.billing.verdicts import Terms
from service.flows.imports import Desk, ImportFileError, Tally, in_chunks
from service.flows.imports.lines import DebtLine, debt_line

CHUNK = 500
RACES_MAX = 10
NEVER_SIGNED = ("pending", "refused")


class Found(msgspec.Struct):
    """What looking at a file found: how many lines, and the currencies of the debts that are new."""

    lines: int = 0
    currencies: set[str] = set()


class DebtImport:
    """One file of debts of one operator."""

    def __init__(self, database: Database, operator: Operator, now: Clock, machine_now: Clock, desk: Desk) -> None:
        """Raises ImportFileError where nothing is collected for the operator."""
        if not operator.live:
            raise ImportFileError(
                f"operator {operator.operator_id} is in shadow mode, where nothing is owed: switch it with"
                f" `farebox operator mode {operator.operator_id} live`, or `paused` to collect later"
            )
        self._database = database
        self._operator = operator
        self._now = now
        self._machine_now = machine_now
        self._desk = desk
        self._numbers = RideNumbers()

    async def look(self, lines: Callable[[], Iterator[Line]]) -> Found:
        """Looks at the whole file and counts what would become of it; what can't be taken is refused, and then nothing
        of the file is to be imported. Raises CsvFileError."""
        seen, found = Seen(), Found()
        for chunk in in_chunks(lines(), CHUNK):
            found.lines += len(chunk)
            with self._desk.in_order():
                once = [line for line in self._read(chunk) if self._stands_once(line, seen)]
                new, there = await self._place(once)
            found.currencies |= {line.debt.currency for line, _ in new}
            self._desk.tally.there += there
            self._desk.tally.imported += len(new)
        if self._desk.tally.refused:
            self._desk.tally.imported = 0
        return found

    async def take(
        self, lines: Callable[[], Iterator[Line]], terms: Mapping[str, TariffVersion], progress: Callable[[int], None]
    ) -> None:
        """Writes what is new; `terms` are the versions that stand for no fare, by currency.

        For files that a `look` took no exception to. Raises CsvFileError, ImportFileError where the file has changed,
        one of RACES when somebody else came first RACES_MAX times in a row.
        """
        self._desk.tally = Tally()
        for chunk in in_chunks(lines(), CHUNK):
            read = list(self._read(chunk))
            if len(read) < len(chunk):
                raise ImportFileError("the file was changed meanwhile; run it again")
            await self._write(read, terms)
            progress(len(chunk))

    def _read(self, lines: Iterable[Line]) -> Iterator[DebtLine]:
        """The lines that say something usable; the others are refused."""
        for line in lines:
            try:
                yield debt_line(line, self._now())
            except InvalidAskError as error:
                self._desk.refuse(line.number, error)

    def _stands_once(self, line: DebtLine, seen: Seen) -> bool:
        first = seen.before("reference", line.debt.reference, line.number)
        if first is not None:
            self._desk.refuse(line.number, ConflictingAskError("reference", f"the same as on line {first}: keep one"))
        return first is None

    async def _place(self, lines: Sequence[DebtLine]) -> tuple[list[tuple[DebtLine, Debtor]], int]:
        """The lines that are new, with who owes them, and how many are there as they say; others are refused."""
        operator = self._operator
        async with self._database.reading(DebtImportStore) as store:
            debtors = await store.debtors(operator.operator_no, [line.debt.agreement_id for line in lines])
            keys = [line.debt.key(operator.operator_id) for line in lines]
            rides = await store.find_rides(keys, {operator.operator_no: operator}) if keys else {}
        new, there = list[tuple[DebtLine, Debtor]](), 0
        for line, key in zip(lines, keys, strict=True):
            try:
                debtor = _debtor(line, debtors.get(line.debt.agreement_id))
                if key not in rides:
                    new.append((line, debtor))
                    continue
                told = debt_of(rides[key])
                for column, field in _COLUMNS.items():
                    if told is None or getattr(told, field) != getattr(line.debt, field):
                        raise ConflictingAskError(column, "the debt is there with another one; nothing was changed")
                there += 1
            except AskError as error:
                self._desk.refuse(line.number, error)
        return new, there

    async def _write(self, lines: Sequence[DebtLine], terms: Mapping[str, TariffVersion]) -> None:
        """Writes what is new of these lines; each writer's rides are a transaction."""
        new, there = await self._place(lines)
        self._desk.tally.there += there
        if any(line.debt.currency not in terms for line, _ in new):
            raise ImportFileError("the file was changed meanwhile; run it again")
        groups: dict[str, list[tuple[DebtLine, Debtor]]] = {}
        for line, debtor in new:
            slot = slot_of(line.debt.key(self._operator.operator_id))
            groups.setdefault(writer_name("import", slot), []).append((line, debtor))
        for writer, group in sorted(groups.items()):
            await self._write_group(writer, group, terms)

    async def _write_group(
        self, writer: str, group: Sequence[tuple[DebtLine, Debtor]], terms: Mapping[str, TariffVersion]
    ) -> None:
        """One transaction; where somebody else was faster, it is seen what is left."""
        for attempt in range(1, RACES_MAX + 1):
            try:
                await self._append(writer, group, terms)
            except RACES:
                if attempt == RACES_MAX:
                    raise
                group, there = await self._place([line for line, _ in group])
                self._desk.tally.there += there
            else:
                self._desk.tally.imported += len(group)
                return

    async def _append(
        self, writer: str, group: Sequence[tuple[DebtLine, Debtor]], terms: Mapping[str, TariffVersion]
    ) -> None:
        now = self._now()
        if not group:
            return
        async with self._database.transaction(DebtImportStore) as store:
            await self._numbers.reserve(store, len(group))
            mint = self._numbers.at(now)
            revisions: list[Revision] = []
            for line, debtor in group:
                agreement = AgreementRef(debtor.agreement_no, debtor.rider_no, debtor.currency)
                agreed = Terms(agreement, terms[line.debt.currency])
                revisions.append(brought_over(line.debt, self._operator, mint(), agreed, now))
            await store.write_batch(writer, revisions, now, self._machine_now())


def _debtor(line: DebtLine, debtor: Debtor | None) -> Debtor:
    """Who owes a debt; raises AskError where nobody can."""
    if debtor is None:
        raise UnknownAskError("agreement_id", "there is no such agreement: bring the agreements over first")
    if debtor.state in NEVER_SIGNED:
        raise ConflictingAskError("agreement_id", f"the agreement is {debtor.state}: nobody has signed it")
    if line.rider_ref not in (None, debtor.rider_ref):
        raise ConflictingAskError("rider_ref", "the agreement is another rider's")
    if line.debt.currency != debtor.currency:
        raise ConflictingAskError("currency", f"the agreement is in {debtor.currency}")
    return debtor


_COLUMNS = {
    "reference": "reference",
    "agreement_id": "agreement_id",
    "code": "code",
    "amount_minor": "amount_minor",
    "currency": "currency",
    "due_since": "since_at",
}
"""A debt's columns, and its fields."""
