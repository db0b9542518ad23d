"""JSON read strictly: one exception with a reason and a path, whatever the bytes are.

What parsers let through and storage does not (NUL in strings, bad UTF-8 in fields nobody reads, size) is refused here.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from service.billing.instants import EXAMPLE
from service.billing.refusals import allowed_at, brief, pattern_in_words
from service.billing.repeated import name_twice

RECORD_BYTES_MAX = 1_000_000
"""A larger value is refused unread: no ride event needs it, and Kafka itself refuses it unless told otherwise."""
TEXT_LENGTH_MAX = 256
"""The longest `id`, `source`, `type` and reference, in characters (bytes in a header)."""


class MalformedEventError(Exception):
    """A record that cannot be an event: `reason` in words, without any of its values, and the `path` of the culprit;
    both brief."""

    def __init__(self, reason: str, path: str) -> None:
        self.reason = brief(reason)
        self.path = brief(path)
        super().__init__(f"{self.path}: {self.reason}")


def decode_json(decoder: msgspec.json.Decoder[Any], text: bytes | msgspec.Raw, at: str) -> Any:
    """What `decoder` makes of `text`, a JSON value at path `at`. Raises MalformedEventError, never anything else."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        _refuse_value(str(error), at, decoder.type)
    except msgspec.DecodeError as error:
        raise MalformedEventError(f"not JSON: {_NOT_JSON.sub('', str(error))}", at) from None
    except RecursionError:
        raise MalformedEventError("nested too deeply", at) from None
    except ValueError:  # A lone surrogate and the like, where msgspec leaves the text to Python.
        raise MalformedEventError("a string is not valid Unicode", at) from None


def check_text(text: bytes, at: str) -> None:
    """Refuse in JSON text at path `at`: too much of it, bad UTF-8 anywhere, NUL in any string."""
    if len(text) > RECORD_BYTES_MAX:
        raise MalformedEventError(f"larger than {RECORD_BYTES_MAX} bytes", "value")
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise MalformedEventError(f"not UTF-8 at byte {error.start}", at) from None
    if b"\\u0000" in text:
        path = _path_of_nul(decode_json(_ANY, text, at), at)
        if path is not None:
            raise MalformedEventError("contains NUL", path)


def check_names(text: bytes, at: str) -> None:
    """Refuse JSON at path `at` in an object of which a name stands twice."""
    try:
        twice = name_twice(text)
    except RecursionError:
        raise MalformedEventError("nested too deeply", at) from None
    except ValueError as error:  # Where msgspec only passes over a value.
        raise MalformedEventError(f"not JSON: {error}", at) from None
    if twice is not None:
        raise MalformedEventError(f"the field {twice[:TEXT_LENGTH_MAX]} stands there twice", at)


def _path_of_nul(value: Any, at: str) -> str | None:
    """Where in a JSON value the first string with a NUL is, however deep it lies; what is kept meanwhile is one way."""
    way: list[str] = []
    rooms = [iter((("", value),))]
    while rooms:
        found = next(rooms[-1], None)
        if found is None:
            rooms.pop()
            del way[-1:]
            continue
        step, child = found
        if (isinstance(child, str) and "\0" in child) or (
            isinstance(child, dict) and any("\0" in name for name in child)
        ):
            return at + "".join([*way, step])
        if isinstance(child, dict | list):
            way.append(step)
            rooms.append(_inside(child))
    return None


def _inside(room: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    """What stands in an object or a list, each with the step to it."""
    if isinstance(room, dict):
        return ((f".{name[:TEXT_LENGTH_MAX]}", child) for name, child in room.items())
    return ((f"[{index}]", child) for index, child in enumerate(room))


def _refuse_value(message: str, at: str, shape: Any) -> NoReturn:
    """Refuse with the decoder's words, its path moved below `at`, and without the value it may quote."""
    reason, _, place = brief(message).partition(" - at `$")
    place = place.removesuffix("`")
    path = at + place
    if missing := _MISSING.fullmatch(reason):
        raise MalformedEventError("the field is missing", f"{path}.{missing[1]}")
    if reason.startswith("Invalid enum value"):
        reason = allowed_at(shape, place)
    elif reason.startswith("Object contains unknown field"):
        reason += f"; {allowed_at(shape, place)}"
    elif reason.startswith("Invalid RFC3339"):
        reason = f"not an RFC 3339 time, such as {EXAMPLE}; leap seconds are not read"
    elif reason.startswith("Expected `datetime` with a timezone"):
        reason = "the time has no offset from UTC"
    raise MalformedEventError(pattern_in_words(reason).replace("`", "").replace("Expected", "expected"), path)


_ANY = msgspec.json.Decoder()
_MISSING = re.compile(r"Object missing required field `(.+)`")
_NOT_JSON = re.compile(r"^JSON is malformed: ")
