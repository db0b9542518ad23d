"""A line of an import as what it says: every cell checked, each error an AskError that names the column.

The messages repeat no cell: a line may have a person where a number should stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from service.adapters.csv_file import Columns, Line
from service.billing.adjustments import AMOUNT_MAX, CODE
from service.billing.agreements.asking import InvalidAskError
from service.billing.instants import InstantError, read_instant
from service.billing.money import MoneyError, exponent
from service.billing.opening import SESSION, OpenDebt
from service.billing.refusals import is_id
from service.billing.zones import UnknownZoneError, zone_named
from service.flows.agreement_replies import ID_MAX, LANGUAGES, NewAgreement

AGREEMENT_COLUMNS = Columns(
    required=("agreement_id", "rider_ref"),
    optional=(
        "provider_key",
        "provider_ref",
        "currency",
        "cap_minor",
        "created_at",
        "valid_until",
        "time_zone",
        "language",
    ),
)
"""An agreement's own fields. `provider_key` is the merchant's number of the agreement at the provider, `provider_ref`
the provider's own; `created_at` is when it was signed, `valid_until` when it expires."""
DEBT_COLUMNS = Columns(
    required=("reference", "agreement_id", "code", "amount_minor", "currency", "due_since"),
    optional=("rider_ref",),
)
"""`reference` is the debt's number in the system it comes from, `code` what it is for, `due_since` since when it is
owed; a `rider_ref` is held against the agreement's."""
REFERENCE_MAX = ID_MAX - len(SESSION.format(""))


class AgreementLine(msgspec.Struct, frozen=True, kw_only=True):
    """An agreement that was signed elsewhere. What it leaves out is the operator's, the provider's, or not known."""

    number: int
    new: NewAgreement
    provider_key: str | None
    provider_ref: str | None
    created_at: datetime | None
    valid_until: datetime | None


class DebtLine(msgspec.Struct, frozen=True):
    """A debt that is open elsewhere, and whose it is where the file says so."""

    number: int
    debt: OpenDebt
    rider_ref: str | None


def agreement_line(line: Line, account_id: str | None, now: datetime) -> AgreementLine:
    """The agreement of a line; raises InvalidAskError."""
    cells = _whole(line)
    new = NewAgreement(
        agreement_id=_id(cells, "agreement_id", ID_MAX),
        rider_ref=_id(cells, "rider_ref", ID_MAX),
        account_id=account_id,
        currency=_currency(cells) if cells["currency"] else None,
        cap_minor=_amount(cells, "cap_minor") if cells["cap_minor"] else None,
        time_zone=_zone(cells) if cells["time_zone"] else None,
        language=_language(cells) if cells["language"] else None,
    )
    key, ref = _matching(cells, "provider_key", _KEY), _matching(cells, "provider_ref", _REF)
    if key is None and ref is None:
        raise InvalidAskError("provider_key", "give the agreement's number at the provider: provider_key, provider_ref")
    until = _instant(cells, "valid_until") if cells["valid_until"] else None
    if until is not None and until <= now:
        raise InvalidAskError("valid_until", "the agreement is over: leave the line out")
    return AgreementLine(
        number=line.number,
        new=new,
        provider_key=key,
        provider_ref=ref,
        created_at=_past(cells, "created_at", now) if cells["created_at"] else None,
        valid_until=until,
    )


def debt_line(line: Line, now: datetime) -> DebtLine:
    """The debt of a line; raises InvalidAskError."""
    cells = _whole(line)
    if CODE.fullmatch(cells["code"]) is None:
        raise InvalidAskError("code", "allowed are 1 to 32 lower-case letters, digits and underscores, such as ride")
    debt = OpenDebt(
        reference=_id(cells, "reference", REFERENCE_MAX),
        agreement_id=_id(cells, "agreement_id", ID_MAX),
        code=cells["code"],
        amount_minor=_amount(cells, "amount_minor"),
        currency=_currency(cells),
        since_at=_past(cells, "due_since", now),
    )
    return DebtLine(line.number, debt, _id(cells, "rider_ref", ID_MAX) if cells["rider_ref"] else None)


def _whole(line: Line) -> Mapping[str, str]:
    if line.torn is not None:
        raise InvalidAskError("", line.torn)
    return line.cells


def _id(cells: Mapping[str, str], column: str, length_max: int) -> str:
    text = cells[column]
    if not is_id(text, length_max):
        raise InvalidAskError(column, f"allowed are 1 to {length_max} visible characters")
    return text


def _matching(cells: Mapping[str, str], column: str, pattern: re.Pattern[str]) -> str | None:
    """A number at a provider: it stands in addresses."""
    text = cells[column]
    if text and pattern.fullmatch(text) is None:
        raise InvalidAskError(column, f"allowed is {pattern.pattern}")
    return text or None


def _amount(cells: Mapping[str, str], column: str) -> int:
    text = cells[column]
    if _DIGITS.fullmatch(text) is None or int(text) > AMOUNT_MAX:
        raise InvalidAskError(
            column, f"allowed are whole minor units from 1 to {AMOUNT_MAX}, without a point: 730 is 7.30 CNY"
        )
    return int(text)


def _currency(cells: Mapping[str, str]) -> str:
    try:
        exponent(cells["currency"])
    except MoneyError:
        raise InvalidAskError("currency", "unknown; give an ISO 4217 code such as CNY or EUR") from None
    return cells["currency"]


def _zone(cells: Mapping[str, str]) -> str:
    try:
        return zone_named(cells["time_zone"]).key
    except UnknownZoneError as error:
        raise InvalidAskError("time_zone", str(error)) from None


def _language(cells: Mapping[str, str]) -> str:
    if cells["language"] not in LANGUAGES:
        raise InvalidAskError("language", f"allowed are {', '.join(LANGUAGES)}")
    return cells["language"]


def _instant(cells: Mapping[str, str], column: str) -> datetime:
    try:
        return read_instant(cells[column])
    except InstantError as error:
        raise InvalidAskError(column, f"this is {error}") from None


def _past(cells: Mapping[str, str], column: str, now: datetime) -> datetime:
    instant = _instant(cells, column)
    if instant > now:
        raise InvalidAskError(column, "this is in the future")
    if instant < _EARLIEST:
        raise InvalidAskError(column, f"this is before {_EARLIEST.year}")
    return instant


_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_REF = re.compile(r"[0-9A-Za-z_:-]{1,128}", re.ASCII)
_DIGITS = re.compile(r"[1-9]\d{0,12}", re.ASCII)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
