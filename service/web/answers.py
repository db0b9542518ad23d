"""Reading requests and writing answers: JSON bodies, cursors, ETags."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, cast

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.params import QueryParameter
from msgspec import Meta

from service.billing.events.cloudevents import in_calendar
from service.billing.events.strict_json import MalformedEventError, check_names, check_text, decode_json
from service.billing.instants import utc
from service.web.problems import FieldProblem, ProblemError, invalid

T = TypeVar("T")
Asked: TypeAlias = Request[Any, Any, State]

BODY_BYTES_MAX = 1_000_000
PAGE_MAX = 200

Name = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x20\x7f]+$", description="1 to 128 visible characters.")
]
"""A name or code in a request."""
Id = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x20\x7f]+$", description="1 to 64 visible characters.")
]
"""A session's, an agreement's or a rider's id: no longer one is taken anywhere."""
Text = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$")]
"""A reason in words."""
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="How many at most.")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=128, description="`next_cursor` of the page before, with the same filters.")
]


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page, newest first. While `next_cursor` stands there are more, even where this page is short or empty."""

    items: list[T]
    next_cursor: str | None


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The request's body; raises a problem that names the field."""
    if not body:
        raise ProblemError(400, "malformed", "the body is empty; give JSON", [FieldProblem("/", "missing")])
    try:
        check_text(body, "$")
        asked = cast(T, decode_json(decoder, body, "$"))
        check_names(body, "$")
        for name in getattr(asked, "__struct_fields__", ()):
            if isinstance(value := getattr(asked, name), datetime):
                in_calendar(utc, value, f"$.{name}")
    except MalformedEventError as error:
        pointer = "/" + _STEPS.sub("/", error.path.removeprefix("$")).strip("/")
        if unknown := _UNKNOWN.search(error.reason):
            told = f"there is no such field; {unknown[2]}"
            raise invalid(f"{pointer.rstrip('/')}/{unknown[1]}", told) from None
        if error.reason.startswith("not JSON") or error.reason.startswith("not UTF-8"):
            detail = [FieldProblem(pointer, error.reason)]
            raise ProblemError(400, "malformed", f"the body can't be read: {error.reason}", detail) from None
        raise invalid(pointer, error.reason) from None
    return asked


def answer(
    request: Asked, content: T, *, status: int = 200, etag: bool = False, headers: Mapping[str, str] | None = None
) -> Response[T]:
    """The content as JSON; with an ETag of what it says, 304 where the caller has that already."""
    body = _ENCODER.encode(content)
    told = {"Cache-Control": "private, no-cache", **(headers or {})}
    if etag:
        tag = told["ETag"] = f'"{blake2b(body, digest_size=16).hexdigest()}"'
        if status == 200 and _holds(request.headers.get("if-none-match"), tag):
            return cast(Response[T], Response(b"", status_code=304, headers=told, media_type=_JSON))
    return cast(Response[T], Response(body, status_code=status, headers=told, media_type=_JSON))


def write_cursor(kind: str, *places: int | str) -> str:
    """Where the next page of a list begins, opaque to the caller."""
    return urlsafe_b64encode(msgspec.json.encode([kind, *places])).decode().rstrip("=")


def read_cursor(kind: str, cursor: str | None, first: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of a cursor of this kind of list, `first` where there is none; raises a problem for other texts."""
    if cursor is None:
        return first
    told = _places(cursor)
    numbers = tuple(place for place in told[1:] if isinstance(place, int))
    fits = told[:1] == [kind] and len(numbers) == len(told) - 1 == len(first)
    if not fits or any(not 0 <= number <= top for number, top in zip(numbers, first, strict=True)):
        raise _bad_cursor()
    return numbers


def read_text_cursor(kind: str, cursor: str | None) -> str | None:
    """The text of a cursor of a list that is ordered by a text."""
    if cursor is None:
        return None
    match _places(cursor):
        case [told, str() as place] if told == kind:
            return place
    raise _bad_cursor()


def _places(cursor: str) -> list[int | str]:
    try:
        return _CURSOR.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, msgspec.DecodeError):
        raise _bad_cursor() from None


def _bad_cursor() -> ProblemError:
    return invalid("query:cursor", "not a cursor of this list; give `next_cursor` of the page before")


def _holds(wanted: str | None, tag: str) -> bool:
    """Whether an If-None-Match names the tag."""
    if wanted is None:
        return False
    return wanted.strip() == "*" or tag in {item.strip().removeprefix("W/") for item in wanted.split(",")}


_JSON = "application/json"
_ENCODER = msgspec.json.Encoder()
_CURSOR = msgspec.json.Decoder(list[int | str])
_STEPS = re.compile(r"[.\[\]]+")
_UNKNOWN = re.compile(r"unknown field (\S+); (.*)")
