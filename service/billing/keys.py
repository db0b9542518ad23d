"""Keys that derive from what they identify, so that a database restored to an earlier instant makes the same again."""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

SLOTS = 1024
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def session_key_bytes(operator_id: str, session_id: str) -> bytes:
    """The 16 bytes by which a ride is known everywhere: a hash of (operator, session id)."""
    return blake2b(f"{operator_id}\0{session_id}".encode(), digest_size=16).digest()


def session_key(operator_id: str, session_id: str) -> UUID:
    """`session_key_bytes` as PostgreSQL keeps it."""
    return UUID(bytes=session_key_bytes(operator_id, session_id))


def slot_of(key: bytes) -> int:
    """The ride's slot, 0..1023: tables can be spread and work leased by it."""
    return (key[-2] << 8 | key[-1]) % SLOTS


def provider_key(key: bytes, what: str, ordinal: int, attempt: int = 0) -> str:
    """A key for a provider: 30 characters of [0-9A-Z], within every provider's alphabet and 32 characters.

    `key` is the ride's session key; `what` is "hold", "debit", "refund" …; `attempt` differs only where a provider
    wants a new key after a definite decline.
    """
    digest = blake2b(key + f"\0{what}\0{ordinal}\0{attempt}".encode(), digest_size=19).digest()
    number = int.from_bytes(digest)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(145, -1, -5))
