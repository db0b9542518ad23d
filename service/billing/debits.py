"""The life of a debit (collection.md): one total function over states and events."""

from __future__ import annotations

from service.billing.capabilities import Capabilities
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

__all__ = [
    "Accepted",
    "AlreadyDone",
    "CapExceeded",
    "Capabilities",
    "Closed",
    "Conflict",
    "Declined",
    "NeedsRider",
    "NotFound",
    "Outcome",
    "Rejected",
    "Succeeded",
    "Throttled",
    "Unknown",
]
