"""What msgspec says of a value that it refuses, in words for people who send or set it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from msgspec import inspect

WORDS = {
    r"^[^\x00-\x20\x7f]+$": "visible characters without spaces",
    r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$": "text without control characters",
    r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$": "text on one line, without spaces around it",
    r"^[^/=&\x00-\x1f\x7f]+$": "text on one line, without /, = and &",
    r"^[!-~]+$": "visible ASCII characters without spaces",
    r"^[0-9A-Za-z_.-]+$": "letters, digits, dots, _ and -",
    r"^[0-9A-Za-z_-]+$": "letters, digits, _ and -",
    r"^PUB_KEY_ID_[0-9A-Za-z]{1,50}$": "PUB_KEY_ID_ and the letters and digits after it, as WeChat Pay shows it",
    r"^[1-9][0-9]{0,4}[mhd]$": "a number of minutes, hours or days, such as 15m",
    r"^[a-z][a-z0-9_]{0,31}$": "1 to 32 of a-z, 0-9 and _, a letter first",
    r"^(0(\.\d{1,8})?|1(\.0{1,8})?)$": "a share of 1, such as 0.13 for 13 %",
    "^[A-Z]{3}$": "three capitals, such as CNY",
}
"""Every pattern that something is held against, and what it means."""
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "names with values",
    "null": "nothing",
    "duration": "a duration, such as PT6H or P1D",
}
BRIEF_MAX = 2000
"""Characters: the longest list of what is allowed has half as many."""
_MATCHING = re.compile(r"`?str(?: \| null)?`? matching regex ('.*?'|\".*?\")(?= - at |$)")
_SHOWN = {repr(pattern): words for pattern, words in WORDS.items()}
_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
_TYPE = re.compile(r"`([a-z0-9]+(?: \| [a-z0-9]+)*)`")


@lru_cache(maxsize=512)
def allowed_at(shape: Any, place: str = "") -> str:
    """What a type allows at a path of msgspec's (".fees[0].kind"), as "allowed are " and the words of a choice or the
    names of an object's fields."""
    found: Iterable[inspect.Type] = [inspect.type_info(shape)]
    for name in _STEP.findall(place):
        found = [inside for outer in found for kind in _kinds(outer) for inside in _inside(kind, name)]
    words: list[str] = []
    for kind in (kind for outer in found for kind in _kinds(outer)):
        if isinstance(kind, inspect.LiteralType):
            words += map(str, kind.values)
        elif isinstance(kind, inspect.EnumType):
            words += (str(member.value) for member in kind.cls)
        elif isinstance(kind, inspect.StructType):
            words += (field.encode_name for field in kind.fields)
    return f"allowed are {', '.join(words)}"


def _kinds(kind: inspect.Type) -> Iterable[inspect.Type]:
    """The types of which a value may be one."""
    if isinstance(kind, inspect.Metadata):
        return _kinds(kind.type)
    return [one for part in kind.types for one in _kinds(part)] if isinstance(kind, inspect.UnionType) else [kind]


def _inside(kind: inspect.Type, name: str) -> Iterable[inspect.Type]:
    """The types of what stands under a name, or under a number in brackets."""
    if isinstance(kind, inspect.StructType):
        return [field.type for field in kind.fields if field.encode_name == name]
    if isinstance(kind, inspect.DictType):
        return [kind.value_type]
    return [kind.item_type] if isinstance(kind, inspect.CollectionType) else []


def is_id(text: str, length_max: int) -> bool:
    """Whether a text is 1 to so many visible characters."""
    return 1 <= len(text) <= length_max and text.isprintable() and " " not in text


def printable(words: str) -> str:
    """The words with what PostgreSQL won't keep, or a terminal would act on, written out: control characters as
    `\\x1b`, those that hide letters or turn their direction as `\\u202e`."""
    if words.isprintable():
        return words
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)


def brief(words: str) -> str:
    """The words as they can be shown, the middle left out of what nobody would read to its end."""
    if len(words) > BRIEF_MAX:
        half = BRIEF_MAX // 2
        words = f"{words[:half]} ... {words[-half:]}"
    return printable(words)


def pattern_in_words(message: str) -> str:
    """The message, a pattern that was not matched told in words."""
    return _MATCHING.sub(lambda found: _SHOWN.get(found[1], found[0]), message)


def in_words(message: str, shape: Any) -> str:
    """The message with the value's name first: "due_days: expected a whole number, got a text". What the shape knows at
    that place is told where it is a choice."""
    reason, _, place = pattern_in_words(brief(message)).partition(" - at `$")
    if reason.startswith(("Invalid enum value", "Object contains unknown field")):
        reason += f"; {allowed_at(shape, place.rstrip('`'))}"
    told = reason[:1].lower() + reason[1:]
    if told.startswith("expected"):
        told = _TYPE.sub(lambda found: " or ".join(TYPES.get(word, word) for word in found[1].split(" | ")), told)
    name = place.rstrip("`").lstrip(".")
    return f"{name}: {told}" if name else told
