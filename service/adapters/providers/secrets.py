"""Secrets by reference: an account's settings name where a secret is, never what it is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_KEY_LETTERS = 32
_PATH_LETTERS_MAX = 300


class AccountSettingsError(ValueError):
    """An account's settings can't be used; the message: "merchant account <id>: ", setting, what is allowed."""

    @property
    def account(self) -> str:
        """The account alone, as the message begins: "merchant account cards"."""
        return str(self).partition(":")[0]


def account_error(account_id: str, message: str) -> AccountSettingsError:
    """The error that names the account."""
    return AccountSettingsError(f"merchant account {account_id}: {message}")


def names_secret(settings: Mapping[str, Any], name: str) -> bool:
    """Whether the settings say where a secret is."""
    return f"{name}_file" in settings or f"{name}_env" in settings


def place_of(account_id: str, setting: str, value: object) -> str:
    """The path or variable that a setting `<name>_file` or `<name>_env` names. Raises AccountSettingsError, which never
    says what stands there, where it may be the secret itself: settings are stored, listed and logged."""
    if not isinstance(value, str) or not value:
        raise account_error(account_id, f"settings.{setting} is not a text")
    if setting.endswith("_file"):
        allowed, good = (
            "a path with a / in it",
            "/" in value and len(value) <= _PATH_LETTERS_MAX and value.isprintable(),
        )
    else:
        allowed = "the name of a variable, of A-Z, 0-9 and _"
        good = _VARIABLE.fullmatch(value) is not None and ("_" in value or len(value) < _KEY_LETTERS)
    if not good:
        raise account_error(account_id, f"settings.{setting} is to be {allowed}; what stands there may be the secret")
    return value


def for_a_header(account_id: str, name: str, secret: str) -> str:
    """A secret that is sent in a header: visible ASCII without blanks. Raises AccountSettingsError."""
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise account_error(account_id, f"{name}: it has letters that no header may have, or more than one line")
    return secret


def read_secret(account_id: str, settings: Mapping[str, Any], name: str, *, literal: bool = False) -> str:
    """The secret `name` of an account: `<name>_env` names a variable, `<name>_file` a path; a literal only if allowed.

    Raises AccountSettingsError when it is named nowhere, twice, or not there.
    """
    given = [setting for setting in (f"{name}_env", f"{name}_file", name) if setting in settings]
    allowed = f"{name}_env or {name}_file" + (f" or {name}" if literal else "")
    if len(given) != 1 or (given[0] == name and not literal):
        raise account_error(account_id, f"settings must have exactly one of {allowed}")
    setting, value = given[0], settings[given[0]]
    if setting != name:
        place_of(account_id, setting, value)
    elif not isinstance(value, str) or not value:
        raise account_error(account_id, f"settings.{setting} is not a text")
    secret = str(value)
    if setting == f"{name}_env":
        secret = os.environ.get(value, "")
        if not secret:
            raise account_error(account_id, f"settings.{setting} names {value}, which is not set")
    elif setting == f"{name}_file":
        try:
            secret = Path(value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            wrong = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            do = "put the secret there, readable by farebox, or name another path"
            raise account_error(account_id, f"settings.{setting} {value} can't be read: {wrong}; {do}") from None
        if not secret:
            raise account_error(account_id, f"settings.{setting} {value} is empty")
    return secret
