"""Agreements that were signed elsewhere: each is asked of its provider, and what he says is what is kept.

One that the provider does not know, or that is not in force there, is refused. What is kept goes the way of an
agreement that is signed here: the intent, the provider's answer, the fact; in one transaction, so that no half of it
is ever seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta

from msgspec.structs import replace

from service.adapters.clock import Clock
from service.adapters.csv_file import Line, Seen
from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AgreementRow, AgreementSetting
from service.adapters.postgres.batches import OutRecord, writer_name
from service.adapters.postgres.imports import AgreementImportStore
from service.adapters.providers.port import AgreementRef, Provider
from service.billing.agreements.asking import AskError, ConflictingAskError
from service.billing.agreements.signing import Agreement
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus
from service.billing.facts import encode_fact
from service.billing.keys import session_key_bytes, slot_of
from service.billing.outcomes import Postponed, Unknown
from service.flows.account_checks import in_words, silent
from service.flows.agreement_replies import NewAgreement, check, fact_of, intended
from service.flows.imports import Desk, ImportFileError, in_chunks
from service.flows.imports.lines import AgreementLine, agreement_line
from service.flows.imports.told import Known, ends_otherwise, in_force, numbers

CHUNK = 500
AT_ONCE = 16
CALL_WITHIN = timedelta(seconds=10)
AGAIN_AFTER = (timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=15))
"""When a provider who gave no answer is asked again."""
WAIT_MAX = timedelta(minutes=1)
"""The longest that a provider who wants fewer calls is waited for, each time."""

Lines = Callable[[], Iterator[Line]]
"""The file from its beginning."""


async def account_setting(database: Database, operator_no: int, account_id: str | None) -> AgreementSetting:
    """What the agreements of a merchant account are decided against; of the only one where none is named.

    Raises AskError where there is no such account, or a choice.
    """
    async with database.reading(AgreementImportStore) as store:
        setting = await store.setting(operator_no, account_id)
    return check(NewAgreement(agreement_id="any", rider_ref="any", account_id=account_id), setting)


class AgreementImport:
    """One file of agreements for one merchant account."""

    def __init__(
        self,
        database: Database,
        provider: Provider,
        operator_no: int,
        setting: AgreementSetting,
        now: Clock,
        machine_now: Clock,
        desk: Desk,
        *,
        again_after: Sequence[timedelta] = AGAIN_AFTER,
    ) -> None:
        assert setting.account is not None
        self._database = database
        self._provider = provider
        self._operator_no = operator_no
        self._setting = setting
        self._account = setting.account
        self._now = now
        self._machine_now = machine_now
        self._desk = desk
        self._again_after = again_after

    async def look(self, lines: Lines) -> int:
        """Looks at the whole file without asking the provider; returns how many lines it has. What can't be taken is
        refused; raises CsvFileError."""
        seen, count = Seen(), 0
        for chunk in in_chunks(lines(), CHUNK):
            count += len(chunk)
            with self._desk.in_order():
                await self._place([line for line in self._read(chunk) if self._stands_once(line, seen)])
        return count

    async def knock(self) -> None:
        """Asks the provider, by a call that moves nothing, whether he will answer; raises ImportFileError."""
        wrong = await self._provider.check()
        if wrong is not None:
            name = f"{self._setting.operator_id}.{self._account.account_id}"
            raise ImportFileError(f"account {name}: {in_words(wrong)}; see `farebox account check`")

    async def take(self, lines: Lines, progress: Callable[[int], None], *, write: bool = True) -> None:
        """Asks the provider about every line that is new, and keeps what is in force there.

        For files that a `look` took no exception to. Raises CsvFileError, ImportFileError where the file has changed.
        """
        for chunk in in_chunks(lines(), CHUNK):
            read = list(self._read(chunk))
            if len(read) < len(chunk):
                raise ImportFileError("the file was changed meanwhile; run it again")
            placed = await self._place(read)
            answers = await self._ask([line for line, row in placed if row is None or ends_otherwise(line, row)])
            new = [line for line, row in placed if row is None]
            agreements = [one for line in new if (one := self._decided(line, answers[line.number])) is not None]
            for line, row in placed:
                if row is not None:
                    self._stays(line, row, answers.get(line.number))
            self._desk.tally.imported += await self._keep(agreements) if write else len(agreements)
            progress(len(chunk))

    # ------------------------------------------------------------------ what the file says, and what is there

    def _read(self, lines: Iterable[Line]) -> Iterator[AgreementLine]:
        """The lines that say something usable; the others are refused."""
        for line in lines:
            try:
                told = agreement_line(line, self._account.account_id, self._now())
                check(told.new, self._setting)
            except AskError as error:
                self._desk.refuse(line.number, error)
            else:
                yield told

    def _stands_once(self, line: AgreementLine, seen: Seen) -> bool:
        for column, value in {"agreement_id": line.new.agreement_id, **numbers(line)}.items():
            first = seen.before(column, value, line.number)
            if first is not None:
                self._desk.refuse(line.number, ConflictingAskError(column, f"the same as on line {first}: keep one"))
                return False
        return True

    async def _place(self, lines: Sequence[AgreementLine]) -> list[tuple[AgreementLine, AgreementRow | None]]:
        """Each line with the agreement that is there as it says, None where it is new; others are refused."""
        ids = [line.new.agreement_id for line in lines]
        keys = [line.provider_key for line in lines if line.provider_key]
        refs = [line.provider_ref for line in lines if line.provider_ref]
        async with self._database.reading(AgreementImportStore) as store:
            known = Known(await store.known(self._operator_no, ids, self._account.account_no, keys, refs))
        placed: list[tuple[AgreementLine, AgreementRow | None]] = []
        for line in lines:
            try:
                placed.append((line, known.find(line)))
            except AskError as error:
                self._desk.refuse(line.number, error)
        return placed

    def _stays(self, line: AgreementLine, row: AgreementRow, answer: AgreementAnswer | None) -> None:
        """What is there is never changed. Its end may be the provider's own word, which the file's does not touch."""
        theirs = isinstance(answer, AgreementStatus) and answer.valid_until == row.agreement.valid_until
        if answer is not None and not theirs:
            said = "the agreement is there with another end; nothing was changed"
            self._desk.refuse(line.number, ConflictingAskError("valid_until", said))
        else:
            self._desk.tally.there += 1

    # ------------------------------------------------------------------ what the provider says

    async def _ask(self, lines: Sequence[AgreementLine]) -> dict[int, AgreementAnswer]:
        """The provider's answers, by line."""
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(line: AgreementLine) -> AgreementAnswer:
            async with room:
                return await self._answer(line)

        async with asyncio.TaskGroup() as tasks:
            asked = {line.number: tasks.create_task(ask(line)) for line in lines}
        return {number: task.result() for number, task in asked.items()}

    async def _answer(self, line: AgreementLine) -> AgreementAnswer:
        """The provider's answer, asked for again while there is none: the question moves nothing."""
        ref = AgreementRef(self._key(line), line.provider_ref)
        answer: AgreementAnswer = Unknown("never asked")
        for wait in (*self._again_after, timedelta()):
            try:
                async with asyncio.timeout(CALL_WITHIN.total_seconds()):
                    answer = await self._provider.get_agreement(ref)
            except TimeoutError:
                answer = Unknown("timeout")
            if not silent(answer):
                break
            pause = min(answer.retry_after, WAIT_MAX) if isinstance(answer, Postponed) else wait
            await asyncio.sleep(pause.total_seconds() if wait else 0)
        return answer

    def _key(self, line: AgreementLine) -> str:
        """The merchant's number of the agreement: the one it was signed under, or else ours."""
        return line.provider_key or self._intended(line).provider_key

    def _intended(self, line: AgreementLine) -> Agreement:
        begun = intended(self._operator_no, line.new, self._setting, 0, line.created_at or self._now())
        return replace(begun, provider_key=line.provider_key or begun.provider_key, provider_ref=line.provider_ref)

    def _decided(self, line: AgreementLine, answer: AgreementAnswer) -> Agreement | None:
        """The agreement as it is in force at the provider; one that is not is refused."""
        try:
            agreement = in_force(self._intended(line), line, answer, self._now())
        except AskError as error:
            self._desk.refuse(line.number, error)
            return None
        if line.new.cap_minor not in (None, agreement.cap_minor):
            self._desk.note(line.number, "cap_minor", f"the provider says {agreement.cap_minor}, which is kept")
        if line.valid_until not in (None, agreement.valid_until):
            self._desk.note(line.number, "valid_until", f"the provider says {agreement.valid_until}, which is kept")
        return agreement

    # ------------------------------------------------------------------ keeping it

    async def _keep(self, agreements: Sequence[Agreement]) -> int:
        """Writes them and publishes that they are active; returns how many. Each writer's are a transaction."""
        groups: dict[str, list[Agreement]] = {}
        for agreement in sorted(agreements, key=lambda one: one.rider_ref):
            slot = slot_of(session_key_bytes(self._setting.operator_id, agreement.agreement_id))
            groups.setdefault(writer_name("agreements", slot), []).append(agreement)
        return sum([await self._keep_group(writer, group) for writer, group in sorted(groups.items())])

    async def _keep_group(self, writer: str, agreements: Sequence[Agreement]) -> int:
        now, records = self._now(), list[OutRecord]()
        async with self._database.transaction(AgreementImportStore) as store:
            for agreement in agreements:
                rider_no = await store.rider(self._operator_no, agreement.rider_ref)
                number = await store.add(replace(agreement, rider_no=rider_no), self._machine_now())
                if number is None:
                    raise ImportFileError("agreements of this file were made meanwhile; run it again")
                kept = replace(agreement, agreement_no=number, rider_no=rider_no)
                saved = await store.save(kept, now)
                assert saved, "nobody else has seen the row"
                kept = replace(kept, version=kept.version + 1)
                fact = fact_of(AgreementRow(kept, self._setting.operator_id, self._account, None))
                assert fact is not None, "an active agreement is told"
                records.append(OutRecord("billing", *encode_fact(fact, ordinal=kept.version, at=now)))
            batch = await store.take_batch(writer)
            await store.seal_batch(batch, records, now, self._machine_now())
        return len(agreements)
