"""What an app asks and is told about a hold, and what is published about it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from service.adapters.postgres.holds import HoldRow, Setting, SignedAgreement
from service.adapters.providers.titles import title_given
from service.billing.agreements.asking import ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.agreements.holds import BEFORE_ITS_END, Hold, HoldState
from service.billing.extent import SESSION_ID_MAX
from service.billing.facts.data import Fact, HoldOpened, HoldRefused, HoldReleased
from service.billing.keys import provider_key, session_key, slot_of
from service.billing.outcomes import RiderAction
from service.billing.refusals import is_id
from service.billing.words import spoken, title_of

Status: TypeAlias = Literal["allowed", "refused", "rider_action", "pending", "ended"]


class HoldAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What an app asks before it unlocks a vehicle; the operator is the token's."""

    operator_no: int
    session_id: str
    agreement_id: str
    tariff_id: str
    vehicle_id: str | None = None


class HoldReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the rider may ride: `unlock` is the answer to go by. Amounts are minor units, instants business time.

    `refused`: there is no hold; `ended`: its ride is over, in review or parked, or did not begin (`state` says how the
    hold stands: it may be open for as long as the ride is not paid). Neither ever unlocks.
    """

    session_id: str
    agreement_id: str
    tariff_id: str
    vehicle_id: str | None
    status: Status
    unlock: bool
    state: str
    cap_minor: int
    currency: str
    reason: str | None
    action: RiderAction | None
    requested_at: datetime
    opened_at: datetime | None
    expires_at: datetime | None


def reply(row: HoldRow, ride_state: str | None = None) -> HoldReply:
    """What the app is told about a hold whose ride stands so."""
    hold = row.hold
    status: Status = "refused"
    reason = hold.reason
    if hold.state in (HoldState.OPEN, HoldState.REQUESTED) and ride_state not in BEFORE_ITS_END:
        status = "ended"
        reason = f"the ride is {ride_state}"
    elif hold.state is HoldState.OPEN:
        status = "allowed"
    elif hold.state is HoldState.REQUESTED:
        status = "rider_action" if hold.action else "pending"
    elif hold.state is not HoldState.REFUSED:
        status = "ended"
        reason = f"the hold is {hold.state}" + (f": {hold.reason}" if hold.reason else "")
    return HoldReply(
        session_id=hold.session_id,
        agreement_id=row.agreement_id,
        tariff_id=hold.tariff_id,
        vehicle_id=hold.vehicle_id,
        status=status,
        unlock=status == "allowed" or (status == "pending" and row.policy.unlock_while_pending),
        state=hold.state.value,
        cap_minor=hold.cap_minor,
        currency=hold.currency,
        reason=reason,
        action=hold.action,
        requested_at=hold.requested_at,
        opened_at=hold.opened_at,
        expires_at=hold.expires_at,
    )


def check(ask: HoldAsk, setting: Setting | None) -> tuple[Setting, SignedAgreement]:
    """What the ask names is there and can be used; raises AskError."""
    if setting is None:
        raise UnknownAskError("operator", f"there is no operator number {ask.operator_no}")
    if not is_id(ask.session_id, SESSION_ID_MAX):
        raise InvalidAskError("session_id", f"allowed are 1 to {SESSION_ID_MAX} visible characters")
    if setting.agreement is None:
        raise UnknownAskError("agreement_id", f"there is no agreement {ask.agreement_id}")
    if setting.tariff is None:
        raise UnknownAskError("tariff_id", f"there is no tariff {ask.tariff_id} in force")
    return setting, setting.agreement


def same_content(ask: HoldAsk, agreement: SignedAgreement, known: Hold) -> None:
    """A session's hold is for one agreement, tariff and vehicle; raises ConflictingAskError."""
    asked = {
        "agreement_id": (agreement.agreement_no, known.agreement_no),
        "tariff_id": (ask.tariff_id, known.tariff_id),
        "vehicle_id": (ask.vehicle_id, known.vehicle_id),
    }
    for field, (now, before) in asked.items():
        if now != before:
            raise ConflictingAskError(field, f"session {ask.session_id} has a hold with another {field}")


def requested_row(
    ask: HoldAsk, setting: Setting, agreement: SignedAgreement, now: datetime, known: Hold | None
) -> HoldRow:
    """The hold that is asked for, for the first time or again, under the same key and words, after a refusal."""
    key = session_key(setting.operator_id, ask.session_id)
    policy, account, language = setting.policy, agreement.account, spoken(agreement.language)
    title = known.title if known else title_given(account.provider, account.settings, language)
    hold = Hold(
        session_key=key,
        slot=slot_of(key.bytes),
        operator_no=ask.operator_no,
        session_id=ask.session_id,
        agreement_no=agreement.agreement_no,
        account_no=agreement.account.account_no,
        tariff_id=ask.tariff_id,
        vehicle_id=ask.vehicle_id,
        state=HoldState.REQUESTED,
        cap_minor=policy.cap_minor if agreement.cap_minor is None else agreement.cap_minor,
        currency=agreement.currency,
        provider_key=known.provider_key if known else provider_key(key.bytes, "hold", 0),
        ordinal=known.ordinal if known else 0,
        requested_at=now,
        due_at=now,
        version=known.version if known else 1,
        title=title,
        subject=known.subject if known else title_of(title, now, ZoneInfo(agreement.time_zone), language),
    )
    return named_row(ask, setting, agreement, hold, None)


def named_row(
    ask: HoldAsk, setting: Setting, agreement: SignedAgreement, hold: Hold, lease_until: datetime | None
) -> HoldRow:
    """A hold on the agreement that the ask names, with the names that a call and a fact need."""
    names = (agreement.provider_key, agreement.provider_ref, agreement.rider_ref, agreement.account)
    return HoldRow(hold, setting.operator_id, setting.policy, ask.agreement_id, *names, lease_until)


def fact_of(row: HoldRow) -> Fact | None:
    """What the hold's state is published as; what is under way is not."""
    hold = row.hold
    about = {
        "operator_id": row.operator_id,
        "session_id": hold.session_id,
        "agreement_id": row.agreement_id,
        "rider_ref": row.rider_ref,
        "hold_id": hold.session_id,
    }
    match hold.state:
        case HoldState.OPEN:
            return HoldOpened(**about, cap_minor=hold.cap_minor, currency=hold.currency, expires_at=hold.expires_at)
        case HoldState.REFUSED:
            return HoldRefused(**about, reason=hold.reason or "refused")
        case HoldState.RELEASED | HoldState.EXPIRED:
            return HoldReleased(**about, reason=hold.reason)
    return None
