"""What is asked and told about agreements, and what is published about them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from service.adapters.postgres.agreements import AgreementRow, AgreementSetting
from service.billing.agreements.asking import ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.agreements.signing import Agreement
from service.billing.facts.data import AgreementActive, AgreementExpired, AgreementRefused, AgreementRevoked, Fact
from service.billing.keys import provider_key, session_key_bytes
from service.billing.money import MoneyError, exponent
from service.billing.outcomes import RiderAction
from service.billing.refusals import is_id
from service.billing.words import usual_language
from service.billing.zones import UnknownZoneError, zone_named

ID_MAX = 64
LANGUAGES = ("zh", "en")
INT8_MAX = (1 << 63) - 1


class NewAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """What an app says about an agreement to be signed; what it leaves out is the operator's, or the provider's.

    `rider_ref` is opaque: never a name, a phone number, an identity number. `cap_minor` is in minor units.
    """

    agreement_id: str
    rider_ref: str
    account_id: str | None = None
    currency: str | None = None
    cap_minor: int | None = None
    time_zone: str | None = None
    language: str | None = None
    return_url: str | None = None


class AgreementView(msgspec.Struct, frozen=True, kw_only=True):
    """An agreement as its operator sees it; `action` is what the rider must do while it is pending, `ending_at` since
    when a revoked one is still collected on before its provider is told."""

    agreement_no: int
    agreement_id: str
    rider_ref: str
    account_id: str
    provider: str
    state: str
    currency: str
    cap_minor: int | None
    time_zone: str
    language: str
    action: RiderAction | None
    reason: str | None
    valid_until: datetime | None
    ending_at: datetime | None
    created_at: datetime
    version: int


class EligibilityAsk(msgspec.Struct, frozen=True, kw_only=True):
    """May this agreement's rider begin a ride, on this tariff if one is named; the operator is the token's."""

    operator_no: int
    agreement_id: str
    tariff_id: str | None = None


class Eligibility(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a ride may begin, and if not, why; `provider_says` is what the provider said of an agreement that he
    refused or ended, `action` what the rider must do to sign one.

    Over all the rider's agreements, in minor units of `currency`: `open_minor` is what he has ridden and not paid, of
    which the operator allows `exposure_max_minor` (None: any amount), `overdue_minor` what of it is past due; `overdue`
    counts such debits in every currency.
    """

    eligible: bool
    reason: str | None
    provider_says: str | None
    action: RiderAction | None
    currency: str
    cap_minor: int | None
    open_minor: int
    exposure_max_minor: int | None
    overdue: int
    overdue_minor: int


def check(new: NewAgreement, setting: AgreementSetting | None) -> AgreementSetting:
    """Everything named can be used; raises AskError naming the field."""
    if setting is None:
        raise UnknownAskError("operator", "there is no such operator")
    for field in ("agreement_id", "rider_ref"):
        text = getattr(new, field)
        if not is_id(text, ID_MAX):
            raise InvalidAskError(field, f"allowed are 1 to {ID_MAX} visible characters")
    if setting.account is None and new.account_id is not None:
        raise UnknownAskError("account_id", f"the operator has no merchant account {new.account_id}")
    if setting.account is None:
        raise UnknownAskError("account_id", "the operator has no merchant account: `farebox account add` makes one")
    if new.account_id is None and setting.accounts > 1:
        raise InvalidAskError("account_id", "the operator has several merchant accounts: name one, or by --account")
    if new.language not in (None, *LANGUAGES):
        raise InvalidAskError("language", f"allowed are {', '.join(LANGUAGES)}")
    if new.cap_minor is not None and not 0 < new.cap_minor <= INT8_MAX:
        raise InvalidAskError("cap_minor", "allowed is a whole number of minor units above 0")
    _check_zone_and_currency(new)
    return setting


def same_content(new: NewAgreement, row: AgreementRow) -> None:
    """What is said about an agreement that is there is what was said before; raises ConflictingAskError."""
    known = row.agreement
    said = {
        "rider_ref": (new.rider_ref, known.rider_ref),
        "account_id": (new.account_id, row.account.account_id),
        "currency": (new.currency, known.currency),
        "time_zone": (new.time_zone, known.time_zone),
        "language": (new.language, known.language),
    }
    for field, (now, before) in said.items():
        if now not in (None, before):
            raise ConflictingAskError(field, f"agreement {new.agreement_id} was made with another {field}")
    if new.cap_minor not in (None, known.cap_asked_minor, known.cap_minor):
        raise ConflictingAskError("cap_minor", f"agreement {new.agreement_id} has another cap_minor")


def intended(operator_no: int, new: NewAgreement, setting: AgreementSetting, rider_no: int, now: datetime) -> Agreement:
    """The agreement that is to be signed; its number is not known yet."""
    assert setting.account is not None
    return Agreement(
        agreement_no=0,
        operator_no=operator_no,
        agreement_id=new.agreement_id,
        rider_no=rider_no,
        rider_ref=new.rider_ref,
        account_no=setting.account.account_no,
        state="pending",
        currency=new.currency or setting.currency,
        cap_asked_minor=new.cap_minor,
        cap_minor=new.cap_minor,
        time_zone=new.time_zone or setting.time_zone,
        language=new.language or usual_language(new.currency or setting.currency),
        provider_key=provider_key(session_key_bytes(setting.operator_id, new.agreement_id), "agreement", 0),
        created_at=now,
        due_at=now,
    )


def view(row: AgreementRow) -> AgreementView:
    """What an operator sees of an agreement."""
    agreement = row.agreement
    return AgreementView(
        agreement_no=agreement.agreement_no,
        agreement_id=agreement.agreement_id,
        rider_ref=agreement.rider_ref,
        account_id=row.account.account_id,
        provider=row.account.provider,
        state=agreement.state,
        currency=agreement.currency,
        cap_minor=agreement.cap_minor,
        time_zone=agreement.time_zone,
        language=agreement.language,
        action=agreement.action,
        reason=agreement.reason,
        valid_until=agreement.valid_until,
        ending_at=agreement.ending_at,
        created_at=agreement.created_at,
        version=agreement.version,
    )


def fact_of(row: AgreementRow) -> Fact | None:
    """What the agreement's state is published as; what is under way is not."""
    agreement = row.agreement
    about: dict[str, Any] = {
        "operator_id": row.operator_id,
        "agreement_id": agreement.agreement_id,
        "rider_ref": agreement.rider_ref,
        "provider": row.account.provider,
    }
    match agreement.state:
        case "active":
            about |= {"cap_minor": agreement.cap_minor, "valid_until": agreement.valid_until}
            return AgreementActive(**about, currency=agreement.currency)
        case "refused":
            return AgreementRefused(**about, reason=agreement.reason or "refused")
        case "revoked":
            return AgreementRevoked(**about, reason=agreement.reason)
        case "expired":
            return AgreementExpired(**about, reason=agreement.reason)
    return None


def _check_zone_and_currency(new: NewAgreement) -> None:
    try:
        zone_named(new.time_zone or "UTC")
    except UnknownZoneError as error:
        raise InvalidAskError("time_zone", str(error)) from None
    try:
        exponent(new.currency or "CNY")
    except MoneyError as error:
        raise InvalidAskError("currency", str(error)) from None
