"""Probes and metrics of the roles that serve no API: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Hashable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.telemetry import REPEAT_SECONDS, ROLE_READY, logger

LOG = logger("health")


class Outage:
    """A server that is away: since when and when it was last said (both monotonic), and who misses it."""

    def __init__(self, at: float) -> None:
        self.since = self.said = at
        self.missed_by: set[Hashable] = set()


class Health:
    """What a role says of itself: alive while the process runs, ready while both of its neighbours answer."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.waiting_for: str | None = "start"
        self.refused_accounts: list[str] = []  # Merchant accounts whose provider refuses them: the others go on.
        self.leaving = False
        self._outages: dict[str, Outage] = {}
        ROLE_READY.labels(role).set(0)

    def ready(self) -> None:
        """The last round went through."""
        if self.waiting_for is not None and not self.leaving:
            self.waiting_for = None
            ROLE_READY.labels(self.role).set(1)

    def leave(self) -> None:
        """The process was told to stop: it is not ready, and will not be again."""
        self.wait("stopping")
        self.leaving = True

    def wait(self, reason: str) -> None:
        """Something the role needs is away; it waits for it."""
        self.waiting_for = reason
        ROLE_READY.labels(self.role).set(0)

    def away(self, server: str, by: Hashable, error: BaseException) -> None:
        """Work `by` did not find a server: one line when it goes away, and one a minute while it is."""
        now = time.monotonic()
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        self.wait(f"{server}: {type(error).__name__}")
        if server not in self._outages:
            self._outages[server] = Outage(now)
            LOG.warning("a server is away: waiting for it", server=server, error=said)
        outage = self._outages[server]
        outage.missed_by.add(by)
        if now - outage.said >= REPEAT_SECONDS:
            outage.said = now
            LOG.warning("a server is still away", server=server, seconds=round(now - outage.since), error=said)

    def back(self, by: Hashable) -> None:
        """Work `by` went through: the role is ready when no work misses a server."""
        self.found(by)
        if not self._outages:
            self.ready()

    def found(self, by: Hashable) -> None:
        """Work `by` misses no server: one is back when no work misses it any more, which is one line."""
        for server, outage in list(self._outages.items()):
            outage.missed_by.discard(by)
            if not outage.missed_by:
                del self._outages[server]
                seconds = round(time.monotonic() - outage.since, 1)
                LOG.info("a server is back", server=server, seconds=seconds)


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
