"""Tariffs: a GBFS plan, verbatim, and our rules beside it; documents in, versions out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from service.billing.extent import TARIFF_BYTES_MAX
from service.billing.instants import InstantError, utc
from service.billing.refusals import is_id
from service.billing.repeated import name_twice
from service.billing.tariffs.dearest import check_dearest
from service.billing.tariffs.gbfs import MINUTE_US, Plan, TariffError, pointer, read_plan, read_struct
from service.billing.tariffs.rules import Rules, read_rules
from service.billing.zones import UnknownZoneError, zone_named

__all__ = [
    "LostEnd",
    "Tariff",
    "TariffDraft",
    "TariffError",
    "build",
    "free_abort",
    "has_balance_rules",
    "import_document",
    "load",
    "longest_reservation",
    "lost_end_rule",
    "too_early",
    "valid_from_problem",
]

Decoded = TypeVar("Decoded")

ID_CHARACTERS_MAX = 128
LOST_END_HOURS = 24
"""After how many hours a ride without an end goes to review, where the tariff has no rule (events.md)."""

RESERVATION_HOURS = 24
"""When a reservation runs out where the tariff does not say (GBFS keeps `default_reserve_time` in another file)."""


class TariffDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tariff as an operator hands it in: the plan verbatim, our rules, and from when it holds."""

    tariff_id: str
    plan: msgspec.Raw
    valid_from: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    time_zone: str | None = None
    rules: msgspec.Raw = msgspec.Raw(b"{}")


class TariffDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One tariff of a document, not yet checked: `build` makes a Tariff of it.

    `plan_at` and `rules_at` are the JSON pointers of plan and rules in the document it came from.
    """

    tariff_id: str
    plan: bytes
    rules: bytes = b"{}"
    valid_from: datetime | None = None
    time_zone: str | None = None
    plan_at: str = "/plan"
    rules_at: str = "/rules"


class Tariff(msgspec.Struct, frozen=True, eq=False, weakref=True, kw_only=True):
    """One version of a tariff, checked and ready to rate with.

    `valid_from` is in UTC; `document` is the whole tariff as JSON, the plan in it verbatim, and is what is stored.
    Two tariffs are equal only when they are the same object; (tariff_id, version) names one within an operator.
    """

    tariff_id: str
    version: int
    valid_from: datetime
    time_zone: str
    zone: ZoneInfo
    currency: str
    plan: Plan
    rules: Rules
    document: bytes


class LostEnd(msgspec.Struct, frozen=True, gc=False):
    """When a ride without an end is closed, and how it is charged then."""

    after: timedelta
    charge: Literal["ride_max", "last_sign", "review"]


def import_document(data: bytes) -> list[TariffDraft]:
    """The tariffs in a document: a tariff document, a bare GBFS plan, or a whole `system_pricing_plans.json`.

    A bare plan's `plan_id` is its tariff id, and it has no rules, zone or start. Raises TariffError when the document
    is none of the three, is not UTF-8 or holds an id twice; plans and rules themselves are checked by `build`.
    """
    _check_text(data)
    document = _decode(data, dict[str, msgspec.Raw], "")
    _check_names(data)
    if "data" in document:
        return _feed(bytes(document["data"]))
    if "plan" in document:
        return [_single(data)]
    if "price" in document or "plan_id" in document:
        return [_bare(data, "")]
    remedy = "give {tariff_id, valid_from, time_zone, plan, rules}, a GBFS plan or a system_pricing_plans.json"
    raise TariffError("", "neither a tariff document nor GBFS pricing plans", remedy)


def build(
    draft: TariffDraft, *, version: int = 1, valid_from: datetime | None = None, time_zone: str | None = None
) -> Tariff:
    """The tariff, checked as a whole; what the draft leaves out is taken from the arguments.

    Raises TariffError, its path in the draft's own document, for anything a fare could not be computed with.
    """
    start, zone_name = draft.valid_from or valid_from, draft.time_zone or time_zone
    if start is None:
        raise TariffError("/valid_from", "no start of validity", "say from when the tariff holds")
    if zone_name is None:
        raise TariffError("/time_zone", "no time zone", "name the tariff's zone, such as Asia/Shanghai")
    try:
        start = utc(start)
    except InstantError as error:
        raise TariffError("/valid_from", f"the instant is {error}", "say from when the tariff holds") from None
    document = _document(draft, start, zone_name)
    for raw, at in ((draft.plan, draft.plan_at), (draft.rules, draft.rules_at)):
        if b"\\u0000" in raw:  # A code of it would stand on charges and debits, where PostgreSQL can't keep it.
            raise TariffError(at, "a text has a NUL character (\\u0000)", "remove it")
    plan = read_plan(draft.plan, draft.plan_at)
    try:
        rules = read_rules(draft.rules, plan, draft.rules_at)
        check_dearest(plan, rules)
    except TariffError as error:
        path = error.path.replace("/plan", draft.plan_at, 1) if error.path.startswith("/plan") else error.path
        raise TariffError(path, error.problem, error.remedy) from error
    return Tariff(
        tariff_id=draft.tariff_id,
        version=version,
        valid_from=start,
        time_zone=zone_name,
        zone=_zone(zone_name),
        currency=plan.currency,
        plan=plan,
        rules=rules,
        document=document,
    )


def load(document: bytes, version: int) -> Tariff:
    """A stored tariff again, from its `document`."""
    return build(_single(document), version=version)


def valid_from_problem(valid_from: datetime, now: datetime, lead: timedelta, *, first: bool) -> str | None:
    """Why a version may not begin then, or None: only a first version may begin before every process knows it."""
    if first or valid_from > now + lead:
        return None
    return f"valid_from {valid_from.isoformat()} is too soon: give an instant after {(now + lead).isoformat()}"


def too_early(tariff: Tariff, at: datetime) -> str | None:
    """Why the tariff prices no ride that starts at an instant, or None: it does not hold yet. Instants are told in its
    zone."""
    if at >= tariff.valid_from:
        return None
    begins, asked = tariff.valid_from.astimezone(tariff.zone), at.astimezone(tariff.zone)
    return f"tariff {tariff.tariff_id!r} holds from {begins.isoformat()} on, and a ride begins at {asked.isoformat()}"


def lost_end_rule(tariff: Tariff) -> LostEnd:
    """The tariff's rule for a ride whose end never comes; review after 24 h where it has none."""
    rule = tariff.rules.lost_end
    if rule is None:
        return LostEnd(timedelta(hours=LOST_END_HOURS), "review")
    return LostEnd(timedelta(microseconds=int(rule.after_hours * 3_600_000_000)), rule.charge)


def has_balance_rules(tariff: Tariff) -> bool:
    """Whether a rider's earlier rides matter to a fare: the tariff has a day or month cap."""
    return tariff.rules.day_cap is not None or tariff.rules.month_cap is not None


def free_abort(tariff: Tariff) -> timedelta | None:
    """How long a ride may last, this included, and be free as broken off; None where the tariff has no such rule."""
    seconds = tariff.rules.free_abort_seconds
    return None if seconds is None else timedelta(microseconds=int(seconds * 1_000_000))


def longest_reservation(tariff: Tariff) -> timedelta:
    """How long a vehicle stays reserved and is charged for: `default_reserve_time`, 24 h where it is missing."""
    minutes = tariff.rules.default_reserve_time
    return timedelta(hours=RESERVATION_HOURS) if minutes is None else timedelta(microseconds=int(minutes * MINUTE_US))


def _document(draft: TariffDraft, start: datetime, zone_name: str) -> bytes:
    """The whole tariff as JSON, not read yet; refused where it is too long."""
    whole = TariffDocument(
        tariff_id=draft.tariff_id,
        plan=msgspec.Raw(draft.plan),
        valid_from=start,
        time_zone=zone_name,
        rules=msgspec.Raw(draft.rules),
    )
    document = msgspec.json.encode(whole)
    if len(document) > TARIFF_BYTES_MAX:
        remedy = f"give a tariff of at most {TARIFF_BYTES_MAX} bytes"
        raise TariffError(draft.plan_at.removesuffix("/plan"), f"the tariff has {len(document)} bytes", remedy)
    return document


def _check_text(data: bytes) -> None:
    """Refuses bad UTF-8, which parsers let through in fields that nobody reads."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise TariffError("", f"not UTF-8 at byte {error.start}", "save the document as UTF-8") from error


def _check_names(data: bytes) -> None:
    try:
        twice = name_twice(data)
    except (ValueError, RecursionError) as error:
        raise TariffError("", f"not JSON ({error})", "give a JSON document in UTF-8") from error
    if twice is not None:
        raise TariffError("", f"the field {twice} stands twice in one object", "keep the one that is meant")


def _feed(raw: bytes) -> list[TariffDraft]:
    members = _decode(raw, dict[str, msgspec.Raw], "/data")
    if "plans" not in members:
        raise TariffError("/data", "a feed without plans", "give a GBFS system_pricing_plans.json")
    plans = _decode(bytes(members["plans"]), list[msgspec.Raw], "/data/plans")
    drafts = [_bare(bytes(plan), f"/data/plans/{index}") for index, plan in enumerate(plans)]
    seen: dict[str, str] = {}
    for draft in drafts:
        first = seen.setdefault(draft.tariff_id, draft.plan_at)
        if first != draft.plan_at:
            problem = f"plan_id {draft.tariff_id!r} stands at {first} already"
            raise TariffError(f"{draft.plan_at}/plan_id", problem, "give each plan its own id")
    return drafts


def _bare(raw: bytes, at: str) -> TariffDraft:
    members = _decode(raw, dict[str, msgspec.Raw], at)
    if "plan_id" not in members:
        raise TariffError(pointer(at, "plan_id"), "the plan has no plan_id", "add the id the plan is known by")
    tariff_id = _decode(bytes(members["plan_id"]), str, pointer(at, "plan_id"))
    return TariffDraft(tariff_id=_checked_id(tariff_id, pointer(at, "plan_id")), plan=bytes(raw), plan_at=at)


def _single(data: bytes) -> TariffDraft:
    document = read_struct(data, TariffDocument, "")
    return TariffDraft(
        tariff_id=_checked_id(document.tariff_id, "/tariff_id"),
        plan=bytes(document.plan),
        rules=bytes(document.rules),
        valid_from=document.valid_from,
        time_zone=document.time_zone,
    )


def _checked_id(tariff_id: str, at: str) -> str:
    if not is_id(tariff_id, ID_CHARACTERS_MAX):
        remedy = f"give 1 to {ID_CHARACTERS_MAX} visible characters without spaces"
        raise TariffError(at, f"{tariff_id[:40]!r} is no usable id", remedy)
    return tariff_id


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_named(name)
    except UnknownZoneError as error:
        problem, remedy = str(error).split("; ")
        raise TariffError("/time_zone", f"{name!r} is {problem}", remedy) from error


def _decode(raw: bytes, shape: type[Decoded], at: str) -> Decoded:
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        raise TariffError(at, str(error).lower(), "compare with schemas/tariff.json") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TariffError(at, f"not JSON ({error})", "give a JSON document in UTF-8") from error
