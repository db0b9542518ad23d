"""Probes and metrics of the serving role, for those who run it: no token."""

from __future__ import annotations

import msgspec
from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.web.access import OPEN
from service.web.answers import Asked, answer
from service.web.doors import doors_of
from service.web.problems import RETRY_AFTER_SECONDS, ProblemError


class ProbeView(msgspec.Struct, frozen=True):
    """How the process is; `refused_accounts` are merchant accounts whose provider refuses their credentials or
    settings: what is about the others goes on."""

    status: str
    role: str
    refused_accounts: list[str] = []


@get("/livez", opt=OPEN, tags=["probes"])
async def livez(request: Asked) -> Response[ProbeView]:
    """Alive: the process answers."""
    return answer(request, ProbeView("alive", "serve"))


@get("/readyz", opt=OPEN, tags=["probes"])
async def readyz(request: Asked) -> Response[ProbeView]:
    """Ready: PostgreSQL answered a moment ago, and nobody asked the process to stop."""
    waiting_for = doors_of(request).health.waiting_for
    if waiting_for is not None:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        raise ProblemError(503, "unavailable", f"waiting for {waiting_for}", headers=headers)
    return answer(request, ProbeView("ready", "serve", doors_of(request).health.refused_accounts))


@get("/metrics", opt=OPEN | {"text": True}, tags=["probes"])
async def metrics() -> Response[bytes]:
    """Prometheus metrics of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST.partition("; charset")[0])  # It is added again.
