"""An installation for a test: its own database, topic and group, and real `farebox intake` processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import asyncpg
import nursery
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupCoordinatorNotAvailableError

from service.adapters.kafka import RecordSink
from service.adapters.kafka_access import Brokers
from service.adapters.kafka_admin import bounds_of
from service.lab.kafka import create_topics
from service.lab.servers import Servers
from service.lab.trip_events import TripRecord, publish

PARTITIONS = 4
Running: TypeAlias = Process | nursery.Born
PATIENCE_S = 90.0


class Installation:
    """Settings and servers of one installation, the connection to look into it, and the processes that run on it."""

    def __init__(self, name: str, servers: Servers, url: str, logs: Path) -> None:
        self.topic = f"{name}.sessions"
        self.group = name
        self.bootstrap = servers.kafka_bootstrap
        self.settings = {
            "FAREBOX_DATABASE_URL": url,
            "FAREBOX_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
            "FAREBOX_TOPIC_SESSIONS": self.topic,
            "FAREBOX_TOPIC_BILLING": f"{name}.billing",
            "FAREBOX_TOPIC_QUARANTINE": f"{name}.quarantine",
            "FAREBOX_GROUP": self.group,
            "FAREBOX_SESSION_TIMEOUT_MS": "2000",
            "FAREBOX_REBALANCE_TIMEOUT_MS": "3000",
        }
        self.connection: asyncpg.Connection[asyncpg.Record]
        self._logs = logs
        self._sink = RecordSink(servers.brokers)
        self._processes: list[Running] = []

    async def open(self) -> None:
        """Connects, and makes the topics."""
        self.connection = await asyncpg.connect(self.settings["FAREBOX_DATABASE_URL"])
        names = [self.settings[f"FAREBOX_TOPIC_{which}"] for which in ("SESSIONS", "BILLING", "QUARANTINE")]
        await create_topics(Brokers(self.bootstrap), dict.fromkeys(names, PARTITIONS))
        await self._sink.start()

    async def close(self) -> None:
        """Ends whatever still runs."""
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        await self._sink.stop()
        await self.connection.close()

    async def intake(self, **settings: str) -> Running:
        """Starts an intake process."""
        return await self.role("intake", **settings)

    async def role(self, role: str, **settings: str) -> Running:
        """Starts a role's process, forked with everything loaded."""
        with self._log() as log:
            process = await nursery.farebox_forked(role, env=os.environ | self.settings | settings, output=log)
        self._processes.append(process)
        return process

    async def role_by_its_command_line(self, role: str, **settings: str) -> Running:
        """Starts a role's process as it is in a container, where the list of processes shows how."""
        words = (sys.executable, "-m", "service", role)
        with self._log() as log:
            process = await asyncio.create_subprocess_exec(
                *words, env=os.environ | self.settings | settings, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def _log(self) -> BinaryIO:
        return (self._logs / f"{self.group}-{len(self._processes)}.log").open("wb")

    async def farebox(self, *arguments: str | Path) -> str:
        """Runs a command to its end and returns what it said."""
        process = await asyncio.create_subprocess_exec(
            *nursery.farebox(*arguments),
            env=os.environ | self.settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    async def publish(self, records: Sequence[TripRecord]) -> None:
        """Puts records on the topic."""
        await publish(self._sink, self.topic, records, None, lambda _: None)

    async def taken(self) -> int:
        """How many records were taken, over all partitions."""
        count: int = await self.connection.fetchval("SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_offset")
        return count

    async def committed(self) -> int:
        """The offsets that lag tools see, over all partitions."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.group)
        finally:
            await admin.close()
        return sum(max(place.offset, 0) for place in offsets.values())

    async def published(self) -> int:
        """How many records are on the topic."""
        bounds = await bounds_of(Brokers(self.bootstrap), self.topic, list(range(PARTITIONS)))
        return sum(end for _, end in bounds.values())

    async def all_taken(self) -> None:
        """Returns when every record was taken."""
        end = await self.published()

        async def taken() -> bool:
            return await self.taken() >= end

        await self.until(taken, f"{end} records taken")

    async def shares(self) -> dict[str, set[int]]:
        """The partitions of each member of the group; none while it is rebalanced or its coordinator comes up."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            (answer,) = await admin.describe_consumer_groups([self.group])
        except GroupCoordinatorNotAvailableError:
            return {}
        finally:
            await admin.close()
        (group,) = answer.to_object()["groups"]
        if group["state"] != "Stable":
            return {}
        shares = {}
        for member in group["members"]:
            assignment = ConsumerProtocolMemberAssignment.decode(member["member_assignment"])
            shares[member["member_id"]] = {partition.partition for partition in assignment.partitions()}
        return shares

    async def shared_by(self, members: int) -> dict[str, set[int]]:
        """Waits until so many members share the partitions, each with some."""
        found: dict[str, set[int]] = {}

        async def shared() -> bool:
            found.clear()
            found.update(await self.shares())
            return len(found) == members and all(found.values())

        await self.until(shared, f"partitions shared by {members}")
        return found

    async def until(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        """Asks again and again; an intake that ended by itself, or patience that is over, fails with the logs."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await true():
                    assert not any((process.returncode or 0) > 0 for process in self._processes), self.logs()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not {what} after {PATIENCE_S} s\n{self.logs()}") from None

    def running(self) -> list[int]:
        """The numbers of the processes that have not ended."""
        return [process.pid for process in self._processes if process.returncode is None]

    def logs(self) -> str:
        """The last lines of every process."""
        files = sorted(self._logs.glob(f"{self.group}-*.log"))
        return "\n".join(f"{file.name}:\n" + "\n".join(file.read_text().splitlines()[-12:]) for file in files)


@contextlib.asynccontextmanager
async def installed(servers: Servers, template: str, logs: Path) -> AsyncIterator[Installation]:
    """A new installation; its database is gone afterwards."""
    name = f"e2e_{secrets.token_hex(6)}"
    url = await servers.create_database(name, template=template)
    installation = Installation(name, servers, url, logs)
    try:
        await installation.open()
        yield installation
    finally:
        await installation.close()
        await servers.drop_database(name)
