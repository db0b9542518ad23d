"""Digests of facts and batches: an altered, removed or invented row is found by reading."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b

DIGEST_BYTES = 16
BATCH_BITS = 40
"""A batch number is `writer_no << 40 | seq`."""


def revision_digest(before: bytes, row: str) -> bytes:
    """The digest of a ride's revision: over the one before it (b"" for the first) and its own canonical row.

    `row` is the text that `service.billing.batch.canonical_row` makes of the revision's columns.
    """
    return blake2b(before + row.encode(), digest_size=DIGEST_BYTES).digest()


def batch_digest(before: bytes, digests: Iterable[bytes]) -> bytes:
    """The digest of a batch: over the writer's batch before it and what this one wrote, in the order of writing.

    `digests` are those of its revisions in the order of (ride number, revision), then the fingerprint of its facts and
    that of its own columns (`batch_columns`).
    """
    chain = blake2b(before, digest_size=DIGEST_BYTES)
    for digest in digests:
        chain.update(digest)
    return chain.digest()


def batch_columns(revisions: int, owing: Iterable[int], business_at: datetime, machine_at: datetime) -> bytes:
    """The fingerprint of what a batch's own row says: how many revisions, which rides owe something new, and when."""
    instants = (instant.astimezone(UTC).isoformat(timespec="microseconds") for instant in (business_at, machine_at))
    return fingerprint("\t".join([str(revisions), ",".join(map(str, owing)), *instants]).encode())


def fingerprint(content: bytes) -> bytes:
    """The digest of bytes that stand for themselves: a batch's facts, a record, a document."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def batch_no(writer_no: int, seq: int) -> int:
    """The number that revisions carry to say which transaction wrote them."""
    return writer_no << BATCH_BITS | seq
