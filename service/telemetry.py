"""JSON logs, every metric by name with its meaning, one span per batch."""

from __future__ import annotations

import logging
import sys
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
DEBITS = Counter("farebox_debit_transitions_total", "Transitions of debits, by the state after them", ["state"])
REFUNDS = Counter(
    "farebox_refund_changes_total",
    "Refunds opened or changed, by the state after it; one that failed or is manual waits for somebody",
    ["state"],
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
    "farebox_account_usable", "0 while a merchant account's provider refuses its credentials or settings", ["account"]
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


def configure_logs(level: str, role: str) -> None:
    """JSON lines on standard error, one per event, each with the role that wrote it."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
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


def logger(name: str) -> Any:
    """A structured logger; events are short phrases, facts are fields."""
    return structlog.get_logger(component=name)
