"""Probes and metrics of the roles that serve no API: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.telemetry import ROLE_READY


class Health:
    """What a role says of itself: alive while the process runs, ready while both of its neighbours answer."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.waiting_for: str | None = "start"
        self.refused_accounts: list[str] = []  # Merchant accounts whose provider refuses them: the others go on.
        ROLE_READY.labels(role).set(0)

    def ready(self) -> None:
        """The last round went through."""
        if self.waiting_for is not None:
            self.waiting_for = None
            ROLE_READY.labels(self.role).set(1)

    def wait(self, reason: str) -> None:
        """Something the role needs is away; it waits for it."""
        self.waiting_for = reason
        ROLE_READY.labels(self.role).set(0)


async def start_health(health: Health, host: str, port: int) -> web.AppRunner:
    """Serves the probes of a role; raises OSError when the port is in use. `cleanup()` of what it returns ends it."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "role": health.role})

    async def readyz(_: web.Request) -> web.Response:
        refused = {"refused_accounts": health.refused_accounts} if health.refused_accounts else {}
        if health.waiting_for is None:
            return web.json_response({"status": "ready", "role": health.role, **refused})
        body = {"status": "waiting", "role": health.role, "waiting_for": health.waiting_for, **refused}
        return web.json_response(body, status=503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
