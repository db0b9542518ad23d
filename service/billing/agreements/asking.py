"""What is wrong with something that was asked of us, naming the field."""

from __future__ import annotations


class AskError(ValueError):
    """`field` is the field's name in the request, the text says what is wrong and what is allowed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class InvalidAskError(AskError):
    """The value can't be used."""


class UnknownAskError(AskError):
    """What the value names is not there."""


class ConflictingAskError(AskError):
    """The same id was used before with another value, or the state of things forbids it now."""
