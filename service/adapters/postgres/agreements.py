"""Agreements, riders and merchant accounts in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, get_args

import asyncpg
import msgspec

from service.adapters.postgres.batches import BatchStore
from service.billing.agreements import Debt
from service.billing.agreements.signing import Agreement, State, UnderWay
from service.billing.outcomes import RiderAction

_ACTION = msgspec.json.Decoder(RiderAction)
_FIELDS = tuple(name for name in Agreement.__struct_fields__ if name != "action")


class AccountRow(msgspec.Struct, frozen=True):
    """A merchant account as it is stored; `settings` name secrets."""

    account_no: int
    account_id: str
    provider: str
    base_url: str
    settings: dict[str, Any]


class OwnedAccount(msgspec.Struct, frozen=True):
    """A merchant account with whose it is; `paused`: a stop of debits, refunds or reports stands on it."""

    operator_no: int
    operator_id: str
    paused: bool
    account: AccountRow


class AccountUses(msgspec.Struct, frozen=True):
    """How much refers to a merchant account; `stops`: those of before, too."""

    account_no: int
    agreements: int
    notifications: int
    disputes: int
    stops: int


class AgreementSetting(msgspec.Struct, frozen=True):
    """What a new agreement is decided against. `account` is None where there is none; `accounts` counts them."""

    operator_id: str
    time_zone: str
    currency: str
    account: AccountRow | None
    accounts: int


class AgreementRow(msgspec.Struct, frozen=True):
    """An agreement with its operator's id and its account."""

    agreement: Agreement
    operator_id: str
    account: AccountRow
    leased_until: datetime | None


class AgreementStore(BatchStore):
    """Agreements and what they hang on."""

    async def add_account(
        self, operator_no: int, account_id: str, provider: str, base_url: str, settings: dict[str, Any], now: datetime
    ) -> int | None:
        """Adds a merchant account; None when its id is taken."""
        text = msgspec.json.encode(settings).decode()
        number: int | None = await self.value("add_account", operator_no, account_id, provider, base_url, text, now)
        return number

    async def accounts(self) -> list[OwnedAccount]:
        """Every merchant account."""
        return [
            OwnedAccount(row["operator_no"], row["operator_id"], row["paused"], account_row(row))
            for row in await self.all("merchant_accounts")
        ]

    async def change_account(self, operator_no: int, account_id: str, base_url: str, settings: dict[str, Any]) -> bool:
        """Another address, other settings; False when there is no such account."""
        text = msgspec.json.encode(settings).decode()
        return await self.run("change_account", operator_no, account_id, base_url, text) == 1

    async def account_uses(self, operator_no: int, account_id: str) -> AccountUses | None:
        """What refers to an account, which is locked until the commit; None: there is no such account."""
        row = await self.one("account_uses", operator_no, account_id)
        return None if row is None else AccountUses(**dict(row))

    async def remove_account(self, account_no: int) -> None:
        """Takes an account away that nothing refers to; asyncpg.ForeignKeyViolationError where something does."""
        await self.run("remove_account", account_no)

    async def setting(self, operator_no: int, account_id: str | None) -> AgreementSetting | None:
        """What a new agreement is decided against; None: no such operator."""
        row = await self.one("agreement_setting", operator_no, account_id)
        if row is None:
            return None
        account = None if row["account_no"] is None else account_row(row)
        return AgreementSetting(row["operator_id"], row["time_zone"], row["currency"], account, row["accounts"])

    async def rider(self, operator_no: int, rider_ref: str) -> int:
        """The rider's number, made if there is none."""
        await self.run("ensure_rider", operator_no, rider_ref)
        number: int = await self.value("number_of_rider", operator_no, rider_ref)
        return number

    async def add(self, agreement: Agreement, lease_until: datetime) -> int | None:
        """The intent to sign; None when the id is taken."""
        number: int | None = await self.value(
            "add_agreement",
            agreement.operator_no,
            agreement.agreement_id,
            agreement.rider_no,
            agreement.account_no,
            agreement.currency,
            agreement.cap_asked_minor,
            agreement.time_zone,
            agreement.language,
            agreement.provider_key,
            agreement.created_at,
            lease_until,
        )
        return number

    async def find(self, operator_no: int, agreement_id: str) -> AgreementRow | None:
        """An agreement by its id."""
        row = await self.one("agreement_by_id", operator_no, agreement_id)
        return None if row is None else agreement_row(row)

    async def find_by_provider_key(self, account_no: int, key: str) -> AgreementRow | None:
        """The agreement a notification is about."""
        row = await self.one("agreement_by_provider_key", account_no, key)
        return None if row is None else agreement_row(row)

    async def find_by_provider_ref(self, account_no: int, ref: str) -> AgreementRow | None:
        """The agreement of which this is one of the provider's numbers, where he has several."""
        row = await self.one("agreement_by_provider_ref", account_no, ref)
        return None if row is None else agreement_row(row)

    async def page(
        self, operator_no: int, after: int, rider_ref: str | None, state: str | None, limit: int
    ) -> Sequence[AgreementRow]:
        """A page of agreements by number."""
        states = get_args(State) if state is None else (state,)
        if rider_ref is None:
            rows = await self.all("list_agreements", operator_no, after, states, limit)
        else:
            rows = await self.all("list_agreements_of_rider", operator_no, after, states, limit, rider_ref)
        return [agreement_row(row) for row in rows]

    async def claim(
        self, account_no: int, now: datetime, machine_at: datetime, lease_until: datetime, limit: int
    ) -> Sequence[AgreementRow]:
        """Takes a lease on agreements whose provider is to be asked."""
        rows = await self.all("claim_agreements", account_no, now, machine_at, lease_until, limit)
        return [agreement_row(row) for row in rows]

    async def through(self, after: int, agreements_max: int) -> int | None:
        """The last of the next agreements after one; None where there is none."""
        number: int | None = await self.value("agreements_through", after, agreements_max)
        return number

    async def ask_all_again(self, now: datetime, after: int, through: int) -> int:
        """Has the providers asked about each agreement after one and up to another that is not over; how many those
        are."""
        return await self.run("ask_agreements_again", now, after, through)

    async def doubt(self, agreement_nos: Collection[int], now: datetime) -> None:
        """Has the provider asked about agreements of which one of his answers says that they may be over."""
        if agreement_nos:
            await self.run("doubt_agreements", agreement_nos, now)

    async def save(self, agreement: Agreement, now: datetime, lease_until: datetime | None = None) -> bool:
        """Keeps what was decided about the version that was read; False when somebody was faster."""
        return bool(
            await self.run(
                "save_agreement",
                agreement.agreement_no,
                agreement.version,
                agreement.state,
                agreement.cap_minor,
                agreement.provider_ref,
                action_text(agreement.action),
                agreement.reason,
                agreement.valid_until,
                agreement.asks,
                agreement.due_at,
                lease_until,
                now,
                agreement.ending_at,
            )
        )

    async def under_way(self, agreement: Agreement) -> tuple[UnderWay, str]:
        """What still goes on on an agreement, and its operator's calendar (JSON)."""
        row = await self.one("agreement_under_way", agreement.agreement_no, agreement.operator_no)
        assert row is not None
        return UnderWay(row["rides"], row["holds"], row["debits"], row["read_through_at"]), row["calendar"]

    async def debts(self, rider_no: int) -> list[Debt]:
        """What the rider owes over all his agreements."""
        return [Debt(**dict(row)) for row in await self.all("rider_debts", rider_no)]


def account_row(row: asyncpg.Record) -> AccountRow:
    """The merchant account's columns of a row."""
    settings = msgspec.json.decode(row["settings"])
    return AccountRow(row["account_no"], row["account_id"], row["provider"], row["base_url"], settings)


def action_of(text: str | None) -> RiderAction | None:
    """A stored rider action."""
    return None if text is None else _ACTION.decode(text)


def action_text(action: RiderAction | None) -> str | None:
    """A rider action as it is stored."""
    return None if action is None else msgspec.json.encode(action).decode()


def agreement_row(row: asyncpg.Record) -> AgreementRow:
    """An agreement as `agreement_by_id` reads it."""
    fields = {name: row[name] for name in _FIELDS}
    agreement = Agreement(**fields, action=action_of(row["action"]))
    return AgreementRow(agreement, row["operator_id"], account_row(row), row["lease_until"])
