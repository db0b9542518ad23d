"""A refused record for `rental.sessions.quarantine`: as it came, byte for byte, with what is wrong in its headers."""

from service.billing.events import Malformed, RawRecord
from service.billing.facts import EncodedFact

QUARANTINE_PREFIX = "farebox_"
"""Headers that start so were added by us; without them the record is the one that was refused."""


def encode_quarantined(record: RawRecord, refused: Malformed) -> EncodedFact:
    """The record with its reason, path and place on Kafka; a record without key or value gets empty ones."""
    added = {
        "reason": refused.reason,
        "path": refused.path,
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
    }
    headers = [header for header in record.headers if not header[0].startswith(QUARANTINE_PREFIX)]
    headers += [(QUARANTINE_PREFIX + name, text.encode()) for name, text in added.items()]
    return EncodedFact(record.key or b"", headers, record.value or b"")
