"""The application: every route, the same guards of each, one way to answer errors."""

from __future__ import annotations

from functools import cache
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig

from service.web import (
    adjustments,
    agreements,
    corrections,
    debit_wishes,
    debits,
    fares,
    holds,
    notifications,
    payments,
    probes,
    quarantine,
    receipts,
    riders,
    sessions,
    tariffs,
)
from service.web.access import authorize
from service.web.answers import BODY_BYTES_MAX
from service.web.doors import Doors
from service.web.leaving import Leaving
from service.web.limits import TimeLimit
from service.web.measuring import Measuring
from service.web.openapi import document_of, page_of, serve_document
from service.web.problems import HANDLERS, refuse_unknown_parameters
from service.web.slashes import App, put_slashes_back

ROUTES: tuple[HTTPRouteHandler, ...] = (
    sessions.list_sessions,
    sessions.get_session,
    fares.get_fare,
    receipts.get_receipt,
    corrections.correct,
    adjustments.charge_session,
    fares.quote,
    tariffs.list_tariffs,
    tariffs.get_tariff,
    tariffs.put_tariff,
    agreements.list_agreements,
    agreements.create_agreement,
    agreements.get_agreement,
    agreements.revoke_agreement,
    agreements.eligibility,
    holds.ask_hold,
    holds.get_hold,
    holds.release_hold,
    debits.list_debits,
    debits.get_debit,
    adjustments.refund_debit,
    payments.ask_payment,
    debit_wishes.retry_debit,
    debit_wishes.retry_refunds,
    debit_wishes.suspend_debit,
    debit_wishes.resume_debit,
    debit_wishes.settle_debit_elsewhere,
    debit_wishes.give_debit_back,
    debit_wishes.decide_debit,
    debit_wishes.open_dispute,
    debit_wishes.close_dispute,
    riders.get_rider,
    notifications.notify,
    quarantine.list_quarantine,
    quarantine.get_quarantined,
    quarantine.replay_quarantined,
    quarantine.discard_quarantined,
    probes.livez,
    probes.readyz,
    probes.metrics,
)
"""Every route that the OpenAPI document describes."""


def create_app(doors: Doors) -> Litestar:
    """The application over these doors."""
    document = openapi_document()
    return App(
        route_handlers=[*ROUTES, *serve_document(document, page_of(document))],
        guards=[put_slashes_back, authorize, refuse_unknown_parameters],
        middleware=[Measuring(), Leaving(doors.health), TimeLimit(doors.settings.request_seconds)],
        exception_handlers=HANDLERS,
        openapi_config=None,
        request_max_body_size=BODY_BYTES_MAX,
        state=State({"doors": doors}),
    )


@cache
def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of every route."""
    config = OpenAPIConfig(title="Farebox", version="1", description=_ABOUT, use_handler_docstrings=True)
    described = Litestar(route_handlers=list(ROUTES), openapi_config=config)
    return document_of(described.openapi_schema.to_schema(), ROUTES)


_ABOUT = (
    "Rides, what they cost, and whether they are paid. Money is whole minor units beside its currency; exact decimals"
    " are strings; instants are RFC 3339. Lists are pages with a cursor. Errors are problem documents (RFC 9457)."
    " Every request needs a bearer token (`farebox token create`), and sees one operator's data, or one rider's."
)
