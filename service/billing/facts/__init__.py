"""Facts for `rental.billing`: a fact of `facts.data` becomes a binary-mode CloudEvent, encoded once.

The id derives from what the fact is about (operator, name, key, ordinal): written again after a restore it is the same.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from service.billing.events import RideEvent
from service.billing.events.ride_data import PAUSING
from service.billing.facts.data import (
    FACT_TYPES,
    AgreementActive,
    AgreementExpired,
    AgreementRefused,
    AgreementRevoked,
    Fact,
)
from service.billing.facts.parts import SourceEvent

TYPE_PREFIX = "io.farebox.billing."


class EncodedFact(NamedTuple):
    """A Kafka record of `rental.billing`, ready to be sent."""

    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes


SOURCES_MAX = 200
"""A fact names as many events at most."""


def encode_fact(fact: Fact, *, ordinal: int | str, at: datetime) -> EncodedFact:
    """The record of a fact that became true at `at` (UTC, business clock).

    `ordinal` tells facts of one name about one key apart, and must come out the same whenever the fact is written
    again: the ride's revision for a charge, "debit id/attempt" for a debit.
    """
    assert at.tzinfo is UTC
    name, type_header = _NAMES[type(fact)]
    key = fact_key(fact)
    key_bytes = key.encode()
    headers = [
        _SPECVERSION,
        type_header,
        ("ce_source", b"urn:farebox:operator:" + fact.operator_id.encode()),
        ("ce_id", fact_id(fact.operator_id, name, key, ordinal).encode()),
        ("ce_time", _ENCODER.encode(at)[1:-1]),
        ("ce_subject", key_bytes),
        ("ce_partitionkey", key_bytes),
        _CONTENT_TYPE,
    ]
    return EncodedFact(key_bytes, headers, _ENCODER.encode(fact))


def encode_lines(lines: Sequence[msgspec.Struct]) -> msgspec.Raw:
    """Lines of a charge as the JSON that facts carry: encoded once, spliced into each fact and row as they are."""
    return msgspec.Raw(_ENCODER.encode(lines))


def sources_of(events: Sequence[RideEvent]) -> tuple[SourceEvent, ...]:
    """The ids and Kafka positions of the events that a fact rests on, in their order; of more than SOURCES_MAX no
    pauses, so that Kafka takes the fact."""
    if len(events) > SOURCES_MAX:
        events = [event for event in events if event.kind not in PAUSING][:SOURCES_MAX]
    return tuple(
        SourceEvent(event.kind, event.source, event.id, place.topic, place.partition, place.offset)
        for event in events
        for place in (event.position,)
    )


def fact_key(fact: Fact) -> str:
    """What the fact is about, the Kafka key: the agreement for facts of an agreement, else the session."""
    if isinstance(fact, AgreementActive | AgreementRefused | AgreementRevoked | AgreementExpired):
        return fact.agreement_id
    session_id = getattr(fact, "session_id", None)
    assert isinstance(session_id, str)
    return session_id


def fact_id(operator_id: str, name: str, key: str, ordinal: int | str) -> str:
    """The id of the one fact of this name, about this key of this operator, with this ordinal: 32 hex digits."""
    return blake2b(f"{operator_id}\0{name}\0{key}\0{ordinal}".encode(), digest_size=16).hexdigest()


def fact_event_type(name: str) -> str:
    """The CloudEvents `type` of a fact: `charge.rated` → `io.farebox.billing.charge.rated.v1`."""
    return f"{TYPE_PREFIX}{name}.v1"


_ENCODER = msgspec.json.Encoder()
_SPECVERSION = ("ce_specversion", b"1.0")
_CONTENT_TYPE = ("content-type", b"application/json")
_NAMES: dict[type[Fact], tuple[str, tuple[str, bytes]]] = {
    shape: (name, ("ce_type", fact_event_type(name).encode())) for name, shape in FACT_TYPES.items()
}
