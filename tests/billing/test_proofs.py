"""Digests: an altered, removed, invented or exchanged row is found by reading."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.billing.proofs import BATCH_BITS, DIGEST_BYTES, batch_digest, batch_no, fingerprint, revision_digest

digests = st.lists(st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES), unique=True, min_size=1, max_size=6)


@given(digests, st.data())
def test_a_batch_without_one_of_its_rows_has_another_digest(rows: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    assert batch_digest(b"", rows) != batch_digest(b"", rows[:index] + rows[index + 1 :])


@given(digests, st.randoms(use_true_random=False))
def test_the_order_of_rows_matters(rows: list[bytes], chance: object) -> None:
    other = list(reversed(rows))
    assert (batch_digest(b"", rows) == batch_digest(b"", other)) == (rows == other)


def test_a_chain_says_what_was_before() -> None:
    rows = [fingerprint(b"a")]
    first = batch_digest(b"", rows)
    assert len(first) == DIGEST_BYTES
    assert batch_digest(first, rows) != first
    assert revision_digest(b"", "row") != revision_digest(first, "row")


@given(st.integers(1, 2**22), st.integers(1, 2**BATCH_BITS - 1))
def test_a_batch_number_tells_writer_and_sequence(writer_no: int, seq: int) -> None:
    number = batch_no(writer_no, seq)
    assert (number >> BATCH_BITS, number & (2**BATCH_BITS - 1)) == (writer_no, seq)
    assert number < 2**63
