"""Names of Kafka headers as text that can be kept and shown, and back to the bytes that they were.

Kafka's protocol says that a name is UTF-8, and no broker looks. A name is read as Python's `surrogateescape` has it;
what is kept says `\\xff` for such a byte, and `\\x5c` for a backslash that would be taken for the beginning of one.
"""

from __future__ import annotations

import re

_LIKE_A_BYTE = re.compile(r"\\(?=x[0-9a-f]{2})")
_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


def as_text(name: str) -> str:
    """The name as it is kept: valid text, from which `as_read` makes the same name again."""
    quoted = _LIKE_A_BYTE.sub(r"\\x5c", name)
    return quoted.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def as_read(text: str) -> str:
    """The name as it was read, with surrogates for what is no UTF-8."""
    if "\\" not in text:
        return text
    return _BYTE.sub(lambda found: bytes([int(found[1], 16)]), text.encode()).decode("utf-8", "surrogateescape")
