"""What the service sets apart or survives because of a bug of its own: it says so in its log and its metrics."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from service.telemetry import SET_ASIDE


@contextmanager
def caught(trips: list[str]) -> Iterator[None]:
    """Each exception that is logged within it is appended to `trips`, and so is what is set aside without one.

    Nothing else is logged anywhere.
    """

    def keep(_: Any, __: str, event: Any) -> Any:
        if event.get("exc_info"):
            trips.append(f"{event['event']}: {traceback.format_exc()}")
        raise structlog.DropEvent

    before, aside = structlog.get_config(), _set_aside()
    structlog.configure(processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)
        if _set_aside() != aside and not trips:
            trips.append(f"farebox_collection_trips_total was {aside}, is {_set_aside()}")


def _set_aside() -> float:
    return sum(sample.value for metric in SET_ASIDE.collect() for sample in metric.samples if "_total" in sample.name)
