"""Secrets by reference: an account's settings name where a secret is, never what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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


def read_secret(account_id: str, settings: Mapping[str, Any], name: str, *, literal: bool = False) -> str:
    """The secret `name` of an account: `<name>_env` names a variable, `<name>_file` a path; a literal only if allowed.

    Raises AccountSettingsError when it is named nowhere, twice, or not there.
    """
    given = [setting for setting in (f"{name}_env", f"{name}_file", name) if setting in settings]
    allowed = f"{name}_env or {name}_file" + (f" or {name}" if literal else "")
    if len(given) != 1 or (given[0] == name and not literal):
        raise account_error(account_id, f"settings must have exactly one of {allowed}")
    setting, value = given[0], settings[given[0]]
    if not isinstance(value, str) or not value:
        raise account_error(account_id, f"settings.{setting} is not a text")
    secret = value
    if setting == f"{name}_env":
        secret = os.environ.get(value, "")
        if not secret:
            raise account_error(account_id, f"settings.{setting} names {value}, which is not set")
    elif setting == f"{name}_file":
        try:
            secret = Path(value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            wrong = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            do = "put the secret there, readable by farebox, or name another path with `farebox account change`"
            raise account_error(account_id, f"settings.{setting} {value} can't be read: {wrong}; {do}") from None
        if not secret:
            raise account_error(account_id, f"settings.{setting} {value} is empty")
    return secret
