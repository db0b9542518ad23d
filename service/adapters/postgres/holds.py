"""Holds in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import asyncpg
import msgspec
from msgspec.structs import replace

from service.adapters.postgres.agreements import AccountRow, account_row, action_of, action_text
from service.adapters.postgres.unopened import UnopenedStore
from service.billing.agreements import Debt
from service.billing.agreements.holds import Hold, HoldPolicy, HoldState, RideSeen
from service.billing.bounds import bounded
from service.billing.debits.state import HOLD_REFUSED, TO_CONFIRM, TO_OPEN
from service.billing.keys import slot_of

_FIELDS = tuple(name for name in Hold.__struct_fields__ if name not in ("action", "state"))


class SignedAgreement(msgspec.Struct, frozen=True):
    """The agreement a hold is asked for on; `cap_minor` None: it has no cap of its own."""

    agreement_no: int
    state: str
    cap_minor: int | None
    currency: str
    provider_key: str
    provider_ref: str | None
    valid_until: datetime | None
    rider_no: int
    rider_ref: str
    account: AccountRow
    time_zone: str
    language: str


class KnownHold(msgspec.Struct, frozen=True):
    """A hold and until when somebody works on it, machine time."""

    hold: Hold
    lease_until: datetime | None


class Setting(msgspec.Struct, frozen=True):
    """What a hold is decided against; `agreement` is None where there is none of that id.

    `tariff` is (tariff number, version) of the version in force, None where there is none; `debts` are the rider's,
    `known` is the hold that the session has already, with its lease, `ride_state` its ride's (None: it has no ride).
    """

    operator_id: str
    mode: str
    exposure_max_minor: int | None
    policy: HoldPolicy
    tariff: tuple[int, int] | None
    agreement: SignedAgreement | None
    debts: Sequence[Debt]
    known: KnownHold | None
    ride_state: str | None


class HoldRow(msgspec.Struct, frozen=True):
    """A hold with the names that a call and a fact need."""

    hold: Hold
    operator_id: str
    policy: HoldPolicy
    agreement_id: str
    agreement_key: str
    agreement_ref: str | None
    rider_ref: str
    account: AccountRow
    lease_until: datetime | None


class HoldStore(UnopenedStore):
    """Holds, what was given up of them unopened, and the agreements they are on."""

    async def hold_setting(
        self, operator_no: int, agreement_id: str, tariff_id: str | None, now: datetime, key: UUID | None = None
    ) -> Setting | None:
        """What a hold is decided against, that of session `key` where one is named; None: no such operator."""
        slot = None if key is None else slot_of(key.bytes)
        row = await self.one("hold_setting", operator_no, agreement_id, tariff_id, now, key, slot)
        if row is None:
            return None
        agreement = None
        if row["agreement_no"] is not None:
            agreement = SignedAgreement(
                row["agreement_no"],
                row["agreement_state"],
                row["cap_minor"],
                row["currency"],
                row["agreement_key"],
                row["agreement_ref"],
                row["valid_until"],
                row["rider_no"],
                row["rider_ref"],
                account_row(row),
                row["time_zone"],
                row["language"],
            )
        policy = hold_policy(row["hold_policy"])
        exposure_max = row["exposure_max_minor"]
        tariff = None if row["tariff_no"] is None else (row["tariff_no"], row["version"])
        known = None if row["hold"] is None else _known_hold(row["hold"])
        debts = () if row["debts"] is None else _DEBTS.decode(row["debts"])
        operator_id, mode, ride_state = row["operator_id"], row["mode"], row["ride_state"]
        return Setting(operator_id, mode, exposure_max, policy, tariff, agreement, debts, known, ride_state)

    async def tariff_document(self, tariff_no: int, version: int) -> bytes:
        """A version's document."""
        text: str = await self.value("tariff_document", tariff_no, version)
        return text.encode()

    async def operator_id(self, operator_no: int) -> str:
        """The id from which an operator's keys derive; "" where there is no such operator."""
        return await self.value("operator_id_of", operator_no) or ""

    async def find_hold(self, key: UUID, slot: int) -> HoldRow | None:
        """The hold of a session."""
        row = await self.one("find_hold", key, slot)
        return None if row is None else _hold_row(row)

    async def find_hold_by_provider_key(self, account_no: int, key: str) -> HoldRow | None:
        """The hold a notification is about."""
        row = await self.one("find_hold_by_provider_key", account_no, key)
        return None if row is None else _hold_row(row)

    async def request(self, hold: Hold, lease_until: datetime | None) -> bool:
        """The intent to open a hold (or that it was refused by us); False when the session has one."""
        return bool(
            await self.run(
                "request_hold",
                hold.session_key,
                hold.slot,
                hold.operator_no,
                hold.session_id,
                hold.agreement_no,
                hold.account_no,
                hold.tariff_id,
                hold.vehicle_id,
                hold.state.value,
                hold.cap_minor,
                hold.currency,
                hold.provider_key,
                hold.provider_ref,
                hold.reason,
                hold.requested_at,
                hold.opened_at,
                hold.due_at,
                lease_until,
                hold.refusal,
                hold.title,
                hold.subject,
            )
        )

    async def save_hold(self, hold: Hold, now: datetime, lease_until: datetime | None = None) -> Hold | None:
        """Keeps what was decided about the version that was read, and gives it; None when somebody was faster."""
        saved = await self.run(
            "save_hold",
            hold.session_key,
            hold.slot,
            hold.version,
            hold.state.value,
            hold.cap_minor,
            hold.provider_ref,
            action_text(hold.action),
            hold.reason,
            hold.requested_at,
            hold.opened_at,
            hold.expires_at,
            hold.asks,
            hold.due_at,
            lease_until,
            now,
            hold.refusal,
        )
        return replace(hold, version=hold.version + 1) if saved else None

    async def wake_debits(self, hold: Hold, now: datetime) -> None:
        """Makes the debits due that wait for this hold, or that were refused it before it opened."""
        waiting, opened = [TO_CONFIRM, TO_OPEN], hold.state is HoldState.OPEN
        await self.run("wake_debits_of_hold", hold.session_key, hold.slot, now, waiting, HOLD_REFUSED, opened)

    async def claim_holds(
        self,
        account_no: int,
        states: Sequence[HoldState],
        now: datetime,
        machine_at: datetime,
        lease_until: datetime,
        limit: int,
    ) -> Sequence[HoldRow]:
        """Takes a lease on holds of an account whose time has come."""
        named = [state.value for state in states]
        rows = await self.all("claim_holds", account_no, now, machine_at, lease_until, named, limit)
        return [_hold_row(row) for row in rows]

    async def rides_of_holds(self, keys: Sequence[UUID]) -> dict[UUID, RideSeen]:
        """What became of the rides of these sessions; a session without a ride says only how far the intake read."""
        read_through_at = await self.value("intake_read_through")
        seen = {key: RideSeen(read_through_at=read_through_at) for key in keys}
        for row in await self.all("rides_of_holds", list(keys)):
            ride = dict(row)
            key = ride.pop("session_key")
            seen[key] = RideSeen(**ride, read_through_at=read_through_at)
        return seen


@lru_cache(maxsize=1024)
def hold_policy(text: str) -> HoldPolicy:
    """An operator's policy as it is stored, no value above what is allowed; raises msgspec.ValidationError naming the
    field."""
    return bounded(msgspec.json.decode(text, type=HoldPolicy))


_DEBTS = msgspec.json.Decoder(tuple[Debt, ...])
_HOLD = msgspec.json.Decoder(Hold)


class _Leased(msgspec.Struct, frozen=True):
    lease_until: datetime | None


_LEASED = msgspec.json.Decoder(_Leased)


def _known_hold(text: str) -> KnownHold:
    return KnownHold(_HOLD.decode(text), _LEASED.decode(text).lease_until)


def _hold_row(row: asyncpg.Record) -> HoldRow:
    fields = {name: row[name] for name in _FIELDS}
    return HoldRow(
        Hold(**fields, state=HoldState(row["state"]), action=action_of(row["action"])),
        row["operator_id"],
        hold_policy(row["hold_policy"]),
        row["agreement_id"],
        row["agreement_key"],
        row["agreement_ref"],
        row["rider_ref"],
        account_row(row),
        row["lease_until"],
    )
