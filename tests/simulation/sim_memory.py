"""What every life of each process would work out again is worked out once in this process: it never changes."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization

from service.adapters.postgres import catalog

PLACES: tuple[tuple[Any, str], ...] = (
    (serialization, "load_pem_private_key"),  # The primes of a key are checked.
    (catalog, "load"),  # A tariff is built from its document.
)
"""Where a function stands whose answers are remembered by what it was asked."""


def remember() -> None:
    """From now on."""
    for place, name in PLACES:
        answer = getattr(place, name)
        if not hasattr(answer, "cache_info"):
            setattr(place, name, cache(answer))
