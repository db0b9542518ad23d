"""The one way in which the provider says no to a call: nothing was executed."""

from __future__ import annotations


class RefusedError(Exception):
    """An HTTP status and a code of ours; `cap_minor` where the amount was too high."""

    def __init__(self, status: int, code: str, message: str, *, cap_minor: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.cap_minor = cap_minor


def conflict(what: str) -> RefusedError:
    """The same key came with other parameters."""
    return RefusedError(409, "KEY_CONFLICT", f"this key was used for another {what}")


def unknown(what: str) -> RefusedError:
    """There is no such object under this key."""
    return RefusedError(404, "NOT_FOUND", f"no {what} has this key")
