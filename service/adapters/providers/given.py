"""What an account's settings give, as a shape: everything that is missing is named at once, and what is allowed."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from service.adapters.providers.exchange import Limits
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import account_error, names_secret, place_of
from service.billing.refusals import in_words

Shape = TypeVar("Shape", bound=msgspec.Struct)
_PLACES = ("file", "env")


def given_settings(
    account: MerchantAccount,
    shape: type[Shape],
    secrets: Iterable[str],
    needed: Iterable[str],
    also: Iterable[str] = (),
) -> Shape:
    """The account's settings beside its secrets and `exchange.Limits`; nothing that they refer to is looked at.

    `secrets` may be named by reference, those in `needed` must be; `also` are optional fields that must be there.
    Raises AccountSettingsError for a name that nobody knows, for a word that is none of those allowed, for all that is
    missing together, and for any other value that is not allowed.
    """
    fields, known_secrets = shape.__struct_fields__, sorted(secrets)
    references = {f"{name}_{place}" for name in known_secrets for place in _PLACES}
    known = {*fields, *Limits.__struct_fields__, *references}
    given = account.settings
    for name in sorted(given.keys() - known):
        what = f"settings.{name} is not known"
        if name in known_secrets:  # Settings are stored, listed and logged.
            raise account_error(
                account.account_id, f"{what}: a secret stands elsewhere, use {name}_file=PATH or {name}_env=NAME"
            )
        raise account_error(account.account_id, f"{what}; known are {', '.join(sorted(known))}")
    for name in sorted(given.keys() & references):
        place_of(account.account_id, name, given[name])
    hints = get_type_hints(shape)
    for name in sorted(given.keys() & set(fields)):
        words = _words(hints[name])
        if words and given[name] is not None and given[name] not in words:
            raise account_error(account.account_id, f"settings.{name}: allowed are {', '.join(map(str, words))}")
    missing = [item.name for item in msgspec.structs.fields(shape) if item.required and item.name not in given]
    missing += [name for name in also if given.get(name) is None]
    missing += [f"{name}_file or {name}_env" for name in needed if not names_secret(given, name)]
    if missing:
        raise account_error(account.account_id, f"settings: missing are {', '.join(missing)}")
    try:
        return msgspec.convert({name: given[name] for name in fields if name in given}, shape)
    except msgspec.ValidationError as error:
        raise account_error(account.account_id, f"settings.{in_words(str(error), shape)}") from None


def read_setting(shape: type[msgspec.Struct], name: str, written: str) -> Any:
    """What a person wrote as the value of a setting: a text as it stands where the setting is one, whatever it looks
    like; else JSON, and a text where it is none. Where it may be a text or a list or names with values, it is a text
    unless it is one of those."""
    kinds = _kinds(get_type_hints(shape).get(name, Any))
    if kinds == {str} or name.endswith(("_file", "_env")):
        return written
    try:
        value = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return written
    return written if str in kinds and not isinstance(value, dict | list) else value


def _kinds(kind: Any) -> set[Any]:
    """The types that a value may have besides none at all: `str` for a text."""
    if get_origin(kind) is Literal:
        return {type(word) for word in get_args(kind)}
    if get_origin(kind) is Annotated:
        return _kinds(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return set().union(*(_kinds(part) for part in get_args(kind))) - {type(None)}
    return {kind}


def _words(kind: Any) -> tuple[Any, ...]:
    """The words of a Literal, also inside an optional or annotated type."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    inside = get_args(kind) if get_origin(kind) in (Union, types.UnionType, Annotated) else ()
    return next((words for part in inside if (words := _words(part))), ())
