"""JSON logs, every metric by name with its meaning, one span per batch."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram

TRACER = trace.get_tracer("farebox")
"""One span per batch of a flow; which exporter, if any, is OpenTelemetry's own configuration."""

EVENTS = Counter("farebox_events_total", "Ride events taken from Kafka, by what became of them", ["result"])
REVISIONS = Counter("farebox_revisions_total", "Decisions about rides, by the state after them", ["state"])
CHARGED = Counter("farebox_charged_minor_total", "What rides were charged, in minor units", ["currency"])
BATCH_SECONDS = Histogram(
    "farebox_intake_seconds",
    "Seconds of one intake batch, by step",
    ["step"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
BATCH_FAILURES = Counter("farebox_intake_failures_total", "Intake batches that were rolled back, by reason", ["reason"])
LAG = Gauge("farebox_intake_lag_records", "Records before the end of the partition", ["partition"])
QUARANTINED = Counter("farebox_quarantined_total", "Records held in quarantine, by whose fault", ["fault"])
CACHED_RIDES = Gauge("farebox_cached_rides", "Open rides this intake process remembers")
PUBLISHED = Counter("farebox_published_total", "Records published to Kafka, by channel", ["channel"])
DEBITS = Counter(
    "farebox_debit_transitions_total",
    "Transitions of debits, by the state after them; one that is manual or unanswered waits for somebody",
    ["state"],
)
REFUNDS = Counter(
    "farebox_refund_changes_total",
    "Refunds opened or changed, by the state after it; one that failed, is returned, manual or stands_still waits for"
    " somebody",
    ["state"],
)
SENT_AGAIN = Counter(
    "farebox_sent_again_total",
    "Debits and refunds sent once more since their provider found nothing of them, by what they are",
    ["what"],
)
UNORDERED = Counter(
    "farebox_unordered_refunds_total", "Refunds of our payments told by notifications that nobody here has ordered"
)
UNEXPLAINED = Counter("farebox_unexplained_payments_total", "Payments told by notifications that no debit knows of")
SET_ASIDE = Counter(
    "farebox_collection_trips_total",
    "Rides, debits and refunds set aside: our own rules trip over them",
    ["what"],
)
ASIDE = Gauge("farebox_set_aside", "Rides, debits and refunds that are set aside now, by what they are", ["what"])
STOPS = Counter("farebox_stops_total", "What was stopped by itself because debits left the usual", ["what"])
PROVIDER_SECONDS = Histogram(
    "farebox_provider_seconds",
    "Seconds of one call to a payment provider, by account and answer",
    ["account", "call", "answer"],
)
NOTIFICATIONS = Counter(
    "farebox_notifications_total", "Notifications of payment providers, by what became of them", ["account", "result"]
)
ACCOUNT_USABLE = Gauge(
    "farebox_account_usable",
    "0 while a merchant account's provider refuses its credentials, its settings or some of its calls",
    ["account"],
)
PARKED_AGE = Gauge("farebox_parked_oldest_seconds", "Business seconds since the oldest parked ride's first event")
WATCHED = Gauge("farebox_watched_rides", "Rides that will be looked at again by themselves, by kind", ["kind"])
HTTP_REQUESTS = Counter("farebox_http_requests_total", "Requests answered, by route and status", ["route", "status"])
HTTP_SECONDS = Histogram(
    "farebox_http_seconds",
    "Seconds from a request to its answer, by route",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
ROLE_READY = Gauge("farebox_ready", "1 while the role does its work, 0 while it waits for a server", ["role"])


REPEAT_SECONDS = 60.0
"""How long what was said is not said again."""
KINDS_MAX = 1000


class Repeated:
    """What is said again and again: one of a kind passes each minute, the others are counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self.held: dict[str, int] = {}
        """How many of each kind were held back since one passed."""

    def passes(self, kind: str) -> int | None:
        """How many of the kind were held back before this one, which is to be said; None where it is not."""
        now = self._clock()
        if now - self._said.get(kind, -REPEAT_SECONDS) < REPEAT_SECONDS:
            self.held[kind] = self.held.get(kind, 0) + 1
            return None
        if len(self._said) >= KINDS_MAX:
            self._said.clear()
        self._said[kind] = now
        return self.held.pop(kind, 0)


class LibraryLines(logging.Handler):
    """What libraries log, as lines of ours: one of a kind a minute, with the number of those that were `held_back`.

    A failure that is one of `away` is a server that does not answer: it is named, without a trace. One that the library
    calls `retriable` (Kafka's, such as a group whose coordinator was never asked for before) it tries again by itself:
    that is no error of anybody's.
    """

    def __init__(self, role: str, away: tuple[type[BaseException], ...]) -> None:
        super().__init__()
        self._role = role
        self._away = away
        self._repeated = Repeated()

    def emit(self, record: logging.LogRecord) -> None:
        """Says a record, or counts it."""
        template = str(record.msg).partition("\n")[0]
        trouble = record.exc_info[1] if record.exc_info else None
        named = f" ({type(trouble).__name__})" if trouble is not None else ""
        kind = f"{record.name}: " + re.sub(r"\d+", "0", template) + named
        held = self._repeated.passes(kind)
        if held is None:
            return
        more: dict[str, Any] = {"held_back": held} if held else {}
        if isinstance(trouble, self._away):
            more["error"] = f"{type(trouble).__name__}: {trouble}"
        elif trouble is not None:
            more["exc_info"] = trouble
        parts = record.args if isinstance(record.args, tuple) else ()
        passing = any(isinstance(part, Exception) and getattr(part, "retriable", False) for part in parts)
        level = min(record.levelno, logging.WARNING) if passing else record.levelno
        logger(record.name).log(level, record.getMessage(), role=self._role, **more)

    def close(self) -> None:
        """Says how many were held back and never told."""
        if self._repeated.held:
            held = self._repeated.held
            logger("libraries").warning("held back until the end", role=self._role, held_back=held)
            self._repeated.held = {}
        super().close()


def configure_logs(level: str, role: str, away: tuple[type[BaseException], ...] = ()) -> None:
    """JSON lines on standard error, one per event, each with the role that wrote it: ours, those of libraries and
    warnings, and what ends the process as a bug. `away`: failures of libraries that are told without a trace."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryLines)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(LibraryLines(role, away))
    logging.captureWarnings(True)
    sys.excepthook = _bug
    sys.unraisablehook = lambda raised: _bug(raised.exc_type, raised.exc_value, raised.exc_traceback)
    threading.excepthook = lambda raised: _bug(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _bug(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """What nothing of ours expected."""
    if issubclass(kind, KeyboardInterrupt) or error is None:
        sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]  # Python prints either.
        return
    logger("process").critical("our error", exc_info=error)


def logger(name: str) -> Any:
    """A structured logger; events are short phrases, facts are fields."""
    return structlog.get_logger(component=name)
