"""Agreements: begun with the provider, signed by the rider, looked after until they are over.

The intent to sign is committed before the provider is called; its key derives from operator and agreement id, so that
asking again gives the same agreement. Whoever wants to know about one that is not decided has its provider asked, in
turn with others (`Turns`). `refresh_round` asks about what is not decided, ends what is to end, and sees
when an agreement's time is over. Where the provider's revoking ends collection, one that we end is over with us at
once, and the round tells the provider when nothing is under way on it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from msgspec.structs import replace

from service.adapters.clock import Clock
from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AgreementRow, AgreementSetting, AgreementStore
from service.adapters.postgres.batches import OutRecord, writer_name
from service.adapters.postgres.holds import HoldStore
from service.adapters.providers import Providers
from service.adapters.providers.port import AgreementRef, AgreementRequest, Provider
from service.billing.agreements import Standing, exposure_minor, refusal
from service.billing.agreements.asking import ConflictingAskError, UnknownAskError
from service.billing.agreements.signing import (
    REVOKING,
    Agreement,
    answered,
    asked_early,
    may_be_told,
    never_signed,
    not_yet,
    overslept,
    revoking,
)
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus
from service.billing.debits.dunning import calendar
from service.billing.facts import encode_fact
from service.billing.keys import session_key_bytes, slot_of
from service.billing.outcomes import NotFound, Postponed, Unknown
from service.flows.account_checks import UNWATCHED, Accounts, let_in
from service.flows.accounts import merchant_account
from service.flows.admission import Admission
from service.flows.agreement_replies import (
    AgreementView,
    Eligibility,
    EligibilityAsk,
    NewAgreement,
    check,
    fact_of,
    intended,
    same_content,
    view,
)
from service.flows.each import each
from service.flows.turns import Turns

LEASE = timedelta(seconds=30)
"""Machine time after which another process may ask about an agreement that this one was working on."""
CALL_WITHIN = timedelta(seconds=10)
AGREEMENTS_MAX = 200
AT_ONCE = 16
PAGE_MAX = 200


class Agreements:
    """Agreements of every operator. `now` is the business clock, `machine_now` rules leases."""

    def __init__(
        self, database: Database, providers: Providers, now: Clock, machine_now: Clock, accounts: Accounts = UNWATCHED
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._providers = providers
        self._now = now
        self._machine_now = machine_now
        self._admission = Admission()
        self._turns = Turns(machine_now)

    async def create(self, operator_no: int, new: NewAgreement) -> AgreementView:
        """Begins an agreement, or gives the one that was begun with the same content.

        Raises AskError naming the field: InvalidAskError, UnknownAskError (merchant account), ConflictingAskError (the
        id was used with other content, or the account is known to be refused by its provider: nobody could sign).
        """
        async with self._database.transaction(AgreementStore) as store:
            setting = check(new, await store.setting(operator_no, new.account_id))
            row = await store.find(operator_no, new.agreement_id)
            if row is None:
                self._must_be_accepted(setting)
                row = await self._intend(store, operator_no, new, setting)
            else:
                same_content(new, row)
        return view(await self._refresh(row, new.return_url))

    def _must_be_accepted(self, setting: AgreementSetting) -> None:
        """Refuses what would only wait at an account that its operator has to put right, or take away, first."""
        account = setting.account
        assert account is not None
        if self._accounts.refused(account.account_no):
            raise ConflictingAskError(
                "account_id",
                f"merchant account {account.account_id} is refused by its provider, so that nobody can sign there now:"
                f" `farebox account check {account.account_id}` says why; ask again when it is good",
            )

    async def get(self, operator_no: int, agreement_id: str) -> AgreementView:
        """The agreement; one that is not decided is asked about first. Raises UnknownAskError."""
        row = await self._find(operator_no, agreement_id)
        if _undecided(row.agreement):
            row = await self.look_again(operator_no, agreement_id)
        return view(row)

    async def look_again(self, operator_no: int, agreement_id: str, within: timedelta = CALL_WITHIN) -> AgreementRow:
        """An agreement that is not decided, asked about once, in turn with others who want to know; as it was known
        before where that takes longer than `within` (machine time). Raises UnknownAskError."""

        async def ask() -> None:
            await self._refresh(await self._find(operator_no, agreement_id))

        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                await self._turns.take((operator_no, agreement_id), ask)
        return await self._find(operator_no, agreement_id)

    async def page(
        self,
        operator_no: int,
        *,
        after: int = 0,
        rider_ref: str | None = None,
        state: str | None = None,
        limit: int = PAGE_MAX,
    ) -> Sequence[AgreementView]:
        """Agreements as they are known, by number; `after` is the last number of the page before."""
        async with self._database.reading(AgreementStore) as store:
            rows = await store.page(operator_no, after, rider_ref, state, limit)
        return [view(row) for row in rows]

    async def revoke(self, operator_no: int, agreement_id: str) -> AgreementView:
        """Ends the agreement: no new ride from now on, whatever the provider answers. Raises UnknownAskError."""
        row = await self._find(operator_no, agreement_id)
        able = self._providers.of(merchant_account(row.account)).capabilities
        ending = revoking(row.agreement, self._now(), ends_collection=able.revoking_ends_collection)
        if ending is row.agreement:
            return view(row)
        later = ending.ending_at is not None
        begun = await self._save(row, ending, None if later else self._lease())
        if begun is None:
            return await self.revoke(operator_no, agreement_id)
        return view(begun if later else await self._ask(begun, None))

    async def noticed(self, account_no: int, key: str, answer: AgreementAnswer, *, by_ref: bool = False) -> bool:
        """Takes in what a verified notification says; False when it is about no agreement of ours. `key` is ours, or
        with `by_ref` one of the provider's numbers of it."""
        async with self._database.reading(AgreementStore) as store:
            find = store.find_by_provider_ref if by_ref else store.find_by_provider_key
            row = await find(account_no, key)
        if row is None:
            return False
        await self._keep(row, answer)
        return True

    async def refresh_round(self, account_no: int) -> int:
        """Asks about one account's agreements whose time has come; returns how many there were."""
        now, machine_at = self._now(), self._machine_now()
        async with self._database.transaction(AgreementStore) as store:
            rows = await store.claim(account_no, now, machine_at, machine_at + LEASE, AGREEMENTS_MAX)
        room = asyncio.Semaphore(AT_ONCE)

        async def look_at(row: AgreementRow) -> None:
            async with room:
                await self._ask(row, None)

        await each(map(look_at, rows))
        return len(rows)

    async def eligibility(self, ask: EligibilityAsk) -> Eligibility:
        """Whether the rider of an agreement may begin a ride on a tariff now; one that waits for its rider is asked
        about first. Raises UnknownAskError."""
        standing, agreement = await self._standing(ask)
        if standing.state == "pending":
            await self.look_again(ask.operator_no, ask.agreement_id)
            standing, agreement = await self._standing(ask)
        why = refusal(standing, self._now())
        return Eligibility(
            eligible=why is None,
            reason=why,
            provider_says=agreement.reason if standing.state in ("refused", "revoked", "expired") else None,
            action=agreement.action if standing.state == "pending" else None,
            currency=standing.currency,
            cap_minor=standing.cap_minor,
            open_minor=exposure_minor(standing),
            exposure_max_minor=standing.exposure_max_minor,
            overdue=sum(debt.overdue for debt in standing.debts),
            overdue_minor=sum(debt.overdue_minor for debt in standing.debts if debt.currency == standing.currency),
        )

    async def _standing(self, ask: EligibilityAsk) -> tuple[Standing, Agreement]:
        """What eligibility looks at, as it is known."""
        now = self._now()
        async with self._database.transaction(HoldStore, snapshot=True) as store:
            setting = await store.hold_setting(ask.operator_no, ask.agreement_id, ask.tariff_id, now)
            if setting is None or setting.agreement is None:
                raise UnknownAskError("agreement_id", f"there is no agreement {ask.agreement_id}")
            if ask.tariff_id is not None and setting.tariff is None:
                raise UnknownAskError("tariff_id", f"there is no tariff {ask.tariff_id} in force")
            standing = await self._admission.standing(store, setting, now)
            row = await store.find(ask.operator_no, ask.agreement_id)
        assert row is not None
        return standing, row.agreement

    # -------------------------------------------------------------- asking the provider

    async def _intend(
        self, store: AgreementStore, operator_no: int, new: NewAgreement, setting: AgreementSetting
    ) -> AgreementRow:
        """The agreement as it is to be signed, written; where somebody was faster, his."""
        assert setting.account is not None
        rider_no = await store.rider(operator_no, new.rider_ref)
        agreement = intended(operator_no, new, setting, rider_no, self._now())
        self._providers.of(
            merchant_account(setting.account)
        )  # An account that can't be used is found before anything is kept.
        lease_until = self._lease()
        number = await store.add(agreement, lease_until)
        if number is None:
            row = await store.find(operator_no, new.agreement_id)
            assert row is not None
            same_content(new, row)
            return row
        agreement = replace(agreement, agreement_no=number)
        return AgreementRow(agreement, setting.operator_id, setting.account, None)

    async def _refresh(self, row: AgreementRow, return_url: str | None = None) -> AgreementRow:
        """Asks the provider about an agreement that is not decided, unless somebody is telling him about it."""
        at_it = row.leased_until is not None and row.leased_until > self._machine_now()
        only_asked = row.agreement.state == "pending" and row.agreement.version > 1
        return await self._ask(row, return_url) if _undecided(row.agreement) and (only_asked or not at_it) else row

    async def _ask(self, row: AgreementRow, return_url: str | None) -> AgreementRow:
        if row.agreement.ending_at is not None and not await self._may_be_told(row.agreement):
            return await self._save(row, not_yet(row.agreement, self._now())) or row
        provider = self._providers.of(merchant_account(row.account))
        try:
            async with asyncio.timeout(CALL_WITHIN.total_seconds()):
                account_no = row.account.account_no
                answer = await let_in(self._accounts, account_no, partial(_call, provider, row, return_url))
        except TimeoutError:
            answer = Unknown("timeout")
        return await self._keep(row, answer)

    async def _may_be_told(self, agreement: Agreement) -> bool:
        """Whether nothing is under way any more on an agreement that is over with us."""
        async with self._database.reading(AgreementStore) as store:
            going_on, settings = await store.under_way(agreement)
        return may_be_told(agreement, going_on, self._now(), calendar(settings).collect_revoked_for)

    async def _keep(self, row: AgreementRow, answer: AgreementAnswer) -> AgreementRow:
        """Keeps what the provider answered; where somebody was faster, what he kept stands."""
        now = self._now()
        agreement = answered(row.agreement, answer, now)
        if not isinstance(answer, Postponed):
            agreement = asked_early(row.agreement, agreement, now)
        if overslept(agreement, now):
            agreement = never_signed(agreement)
        kept = await self._save(row, agreement)
        if kept is not None:
            return kept
        there = await self._find(row.agreement.operator_no, row.agreement.agreement_id)
        decided = isinstance(answer, AgreementStatus) and answer.state != "pending"
        if decided and there.agreement.state == row.agreement.state == "pending":
            return await self._keep(there, answer)  # Who was faster was told before the rider had decided.
        return there

    async def _save(
        self, row: AgreementRow, agreement: Agreement, lease_until: datetime | None = None
    ) -> AgreementRow | None:
        """Keeps a decision and publishes it; None when somebody was faster."""
        now = self._now()
        changed = _published(agreement) != _published(row.agreement)
        saved = replace(row, agreement=replace(agreement, version=agreement.version + 1), leased_until=lease_until)
        async with self._database.transaction(AgreementStore) as store:
            if not await store.save(agreement, now, lease_until):
                return None
            fact = fact_of(saved) if changed else None
            if fact is not None:
                slot = slot_of(session_key_bytes(row.operator_id, agreement.agreement_id))
                batch = await store.take_batch(writer_name("agreements", slot))
                record = OutRecord("billing", *encode_fact(fact, ordinal=saved.agreement.version, at=now))
                await store.seal_batch(batch, [record], now, self._machine_now())
        return saved

    async def _find(self, operator_no: int, agreement_id: str) -> AgreementRow:
        async with self._database.reading(AgreementStore) as store:
            row = await store.find(operator_no, agreement_id)
        if row is None:
            raise UnknownAskError("agreement_id", f"there is no agreement {agreement_id}")
        return row

    def _lease(self) -> datetime:
        return self._machine_now() + LEASE


def _undecided(agreement: Agreement) -> bool:
    """Whether its provider knows more about it, or is still to be told of its end."""
    return agreement.state == "pending" or agreement.reason == REVOKING


def _published(agreement: Agreement) -> tuple[object, ...]:
    """What a change of which is told to the world: the state, and what a signed agreement allows."""
    allowed = (agreement.cap_minor, agreement.valid_until) if agreement.state == "active" else ()
    return (agreement.state, *allowed)


async def _call(provider: Provider, row: AgreementRow, return_url: str | None) -> AgreementAnswer:
    """Ends, begins or asks about an agreement. What was asked for before is looked for first."""
    agreement = row.agreement
    ref = AgreementRef(agreement.provider_key, agreement.provider_ref)
    if agreement.reason == REVOKING or agreement.ending_at is not None:
        return await provider.revoke_agreement(ref)
    if agreement.version > 1 or agreement.state != "pending":
        answer = await provider.get_agreement(ref)
        if agreement.state != "pending" or not (isinstance(answer, NotFound) or _action_lost(agreement, answer)):
            return answer
    request = AgreementRequest(
        agreement.provider_key,
        agreement.rider_ref,
        agreement.currency,
        agreement.cap_asked_minor,
        agreement.language,
        return_url,
    )
    return await provider.begin_agreement(request)


def _action_lost(agreement: Agreement, answer: AgreementAnswer) -> bool:
    """The provider waits for the rider, and the reply that said what he has to do never came: begun again under the
    same key, it is said again. WeChat Pay tells its token nowhere else."""
    waits = isinstance(answer, AgreementStatus) and answer.state == "pending" and answer.action is None
    return waits and agreement.action is None
