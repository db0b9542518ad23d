"""Bearer tokens in PostgreSQL, known by the SHA-256 of their secret."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec

from service.adapters.postgres import Store

SCOPES = ("status:read", "billing:write", "ops")
"""What a token may do: ask; write and decide about money; look after what could not be taken."""


class Token(msgspec.Struct, frozen=True):
    """A token that was found: whose it is, what it may do, and until when (machine time)."""

    operator_no: int
    operator_id: str
    scopes: list[str]
    rider_ref: str | None
    expires_at: datetime | None


class ListedToken(msgspec.Struct, frozen=True):
    """A token for people; `token_id` is the beginning of its hash."""

    token_id: str
    operator_id: str
    name: str
    scopes: list[str]
    rider_ref: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def token_hash(secret: str) -> bytes:
    """What is stored of a secret. Secrets are 256 random bits, so that a plain hash can't be searched through."""
    return sha256(secret.encode()).digest()


class TokenStore(Store):
    """Finding, making and revoking tokens."""

    async def find(self, hashed: bytes) -> Token | None:
        """The token of a hash, unless it was revoked."""
        row = await self.one("find_token", hashed)
        return None if row is None else Token(**dict(row))

    async def add(
        self,
        hashed: bytes,
        operator_id: str,
        name: str,
        scopes: Sequence[str],
        rider_ref: str | None,
        now: datetime,
        expires_at: datetime | None,
    ) -> bool:
        """A new token; False when there is no such operator."""
        found = await self.value("add_token", hashed, operator_id, name, scopes, rider_ref, now, expires_at)
        return found is not None

    async def list(self, operator_id: str | None) -> list[ListedToken]:
        """Every token of an operator, or of all."""
        return [ListedToken(**dict(row)) for row in await self.all("list_tokens", operator_id)]

    async def revoke(self, token_id: str, now: datetime) -> bool:
        """Revokes a token; False when there is none of this id, or it was revoked before."""
        return await self.run("revoke_token", token_id, now) > 0
