"""The intakes of a world: real ones, as members of a group that Kafka's model rebalances, stops and takes for dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, Protocol, TypeAlias, cast

import asyncpg
from mortal_database import Connections
from sim_topic import CLUSTER, GROUP, PARTITIONS, TOPIC, Topic, TopicSource
from turns import Process, Turns

from service.adapters.kafka_access import KAFKA_UNAVAILABLE
from service.adapters.postgres import RACES, UNAVAILABLE
from service.adapters.postgres.intake import FenceLostError
from service.adapters.postgres.streams import NOTHING_READ
from service.flows.clock import BusinessClock
from service.flows.intake import Intake, IntakeSettings
from service.flows.intake.streams import Streams
from service.flows.knowledge import Knowledge

Rows: TypeAlias = Callable[..., Awaitable[list[dict[str, Any]]]]
"""Any statement's rows, at once."""
SESSION_S = 10.0
"""So long without a sign of life, virtual seconds, and the group goes on without a member."""
IDLE_TRANSACTION_S = 20.0
"""So long may a transaction be idle before the server ends it (service.adapters.postgres.session_settings)."""
STOPPED_S = (3.0, 15.0, 70.0, 700.0)
AWAY_S = (0.5, 5.0, 40.0)
"""How long a process that died stays away, before it is started again."""
AHEAD_OF_KAFKA_S = (0.01, 1.0, 5.0)
"""How long one that was taken for dead goes on before it hears of that."""


class Place(Protocol):
    """What the intakes must know of a world."""

    turns: Turns
    connections: Connections
    random: Random
    running: Any

    def now(self) -> datetime:
        """The world's time."""


class Member:
    """One life of one intake: the real flow, over the real gate, over the model of Kafka's client."""

    def __init__(self, name: str, world: Place, topic: Topic) -> None:
        self.process = Process(name)
        self.kept: list[Any] = []
        self.heard = self.joined = 0
        """The rebalance that the client heard of last, and the one for which it gave its partitions back."""
        self._rejoining = asyncio.Lock()
        self.looked = False
        """Whether it has looked at its partitions since somebody last wanted to know how far they were read."""
        self._world = world
        self.source = TopicSource(topic, world.turns, self.process, world.now)
        streams = Streams(self.source, GROUP, TOPIC, CLUSTER, "earliest")
        knowledge = Knowledge(BusinessClock(world.now), world.random.choice((0, 1, 1000)))
        settings = IntakeSettings(world.random.choice((1, 2, 3, 500)), 50)
        self.intake = Intake(self.source, streams, knowledge, self._connect, settings)
        self.source.on_revoked = self.intake.on_revoked

    async def _connect(self, _: str) -> asyncpg.Connection[asyncpg.Record]:
        kept = await self._world.connections.keep(self._world.turns, self.process)
        self.kept.append(kept)
        return cast("asyncpg.Connection[asyncpg.Record]", kept)

    async def round(self) -> None:
        """One round, recovered as the role does it."""
        self.looked = True
        try:
            await self.intake.round()
        except (FenceLostError, *RACES, *UNAVAILABLE, *KAFKA_UNAVAILABLE) as error:
            await self.intake.recover(error)

    async def rejoin(self, rebalance: int) -> None:
        """The client hears of a rebalance: it gives its partitions back and is ready for others."""
        await self._world.turns.turn(self.process, "rejoin")
        async with self._rejoining:
            if rebalance > self.heard:
                self.heard = rebalance
                await self.source.revoked()
                self.joined = rebalance

    async def take(self, rebalance: int, partitions: Sequence[int]) -> None:
        """The client hears what it has now, unless it has heard of a later rebalance: aiokafka takes one after the
        other, and what it had is given back before anything is assigned anew."""
        await self._world.turns.turn(self.process, "assigned")
        if rebalance == self.heard:
            await self.source.given(partitions)

    @property
    def busy(self) -> bool:
        """Whether another round has something to do: records, partitions to seek, a batch that is being written."""
        return self.source.unread or not self.looked or self.intake._writing is not None

    def bury(self) -> None:
        """Its connections are free for others."""
        for kept in self.kept:
            kept.terminate()


class Group:
    """Kafka's side: who is taken to be alive, and who has which partition. Eager: all give everything back first."""

    def __init__(self, turns: Turns, random: Random) -> None:
        self._turns = turns
        self._random = random
        self._broker = Process("kafka")
        self._again = self._rebalancing = False
        self._rebalances = 0
        self.members: list[Member] = []

    def join(self, member: Member) -> None:
        """A member that is new, or was taken for dead."""
        if member not in self.members:
            self.members.append(member)
            self.rebalance()

    def suspect(self, member: Member) -> None:
        """Nothing was heard from a member for the length of a session."""
        if member in self.members and (member.process.dead or member.process.frozen):
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        """Divides the partitions anew, once more if that is being done."""
        self._again = True
        if not self._rebalancing:
            self._rebalancing = True
            self._turns.start(self._broker, "rebalance", self._until_all_agree())

    async def _until_all_agree(self) -> None:
        while self._again:
            self._again = False
            await self._once()
        self._rebalancing = False

    async def _once(self) -> None:
        asked = list(self.members)
        self._rebalances += 1
        this = self._rebalances
        for member in asked:
            if not member.process.dead:
                self._turns.start(member.process, f"{member.process.name} rejoins", member.rejoin(this))
        for _ in range(round(SESSION_S)):
            await asyncio.sleep(0)
            if all(member.joined == this for member in asked):
                break
            await asyncio.sleep(1)
        there = [member for member in asked if member.joined == this and not member.process.dead]
        self.members = [member for member in self.members if member in there or member not in asked]
        partitions = list(range(PARTITIONS))
        self._random.shuffle(partitions)
        for number, member in enumerate(there):
            mine = sorted(partitions[number :: len(there)])
            self._turns.start(member.process, f"{member.process.name} is assigned", member.take(this, mine))


class Fleet:
    """The intakes by number, each started again after it died."""

    def __init__(self, world: Place, topic: Topic, size: int) -> None:
        self._world = world
        self._random = Random(f"fleet {world.random.random()}")
        self.topic = topic
        self.group = Group(world.turns, self._random)
        self._members: list[Member | None] = [None] * size
        self._born_at = [world.now()] * size
        self.timers = 0
        """How many things Kafka is waiting for: time must not pass them by."""

    def due(self) -> list[tuple[datetime, str, int]]:
        """When which intake is to be started, or has a round to do."""
        found = []
        for number, member in enumerate(self._members):
            if member is None or member.process.dead:
                found.append((self._born_at[number], "intake", number))
            elif not member.process.frozen and member.busy and not self._world.running[_round_of(number)]:
                found.append((self._world.now(), "intake", number))
        return found

    def begin(self, number: int) -> None:
        """Starts the intake, or a round of it."""
        member = self._members[number]
        if member is None or member.process.dead:
            if member is not None:
                member.bury()
            born = self._members[number] = Member(f"intake-{number}", self._world, self.topic)
            self.group.join(born)
            return
        name = _round_of(number)
        self._world.running[name] += 1
        self._world.turns.start(member.process, name, member.round())

    def look(self) -> None:
        """Each looks how far its partitions are read."""
        for member in self._members:
            if member is not None:
                member.looked = False

    def died(self, process: Process) -> None:
        """A process was killed: Kafka notices later, and it is started again."""
        number, member = self._of(process)
        if member is not None:
            self._born_at[number] = self._world.now() + timedelta(seconds=self._random.choice(AWAY_S))
            self._later(SESSION_S, lambda: self.group.suspect(member))

    def freeze(self, process: Process) -> bool:
        """A process is stopped; False where it is no intake: nobody else is."""
        _, member = self._of(process)
        if member is None:
            return False
        process.frozen = True
        seconds = self._random.choice(STOPPED_S)
        if seconds > IDLE_TRANSACTION_S:
            for kept in member.kept:
                self._world.turns.start(Process("postgres"), "expires", kept.expire())
        self._later(SESSION_S, lambda: self.group.suspect(member))
        self._later(seconds, lambda: self._wake(member))
        return True

    def thaw(self) -> None:
        """All that are stopped go on."""
        for member in self._members:
            if member is not None and member.process.frozen:
                self._wake(member)

    def end(self) -> None:
        """The world is over."""
        for member in self._members:
            if member is not None:
                self._world.turns.kill(member.process)
                member.bury()

    def _wake(self, member: Member) -> None:
        if member.process.frozen:
            member.process.frozen = False
            self._later(self._random.choice(AHEAD_OF_KAFKA_S), lambda: self._heard(member))

    def _heard(self, member: Member) -> None:
        if not member.process.dead:
            self.group.join(member)

    def _of(self, process: Process) -> tuple[int, Member | None]:
        for number, member in enumerate(self._members):
            if member is not None and member.process is process:
                return number, member
        return 0, None

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        def now() -> None:
            self.timers -= 1
            act()

        self.timers += 1
        self._world.turns.loop.call_later(seconds, now)


async def open_fleet(world: Place, rows: Rows) -> Fleet:
    """The intakes of a new world, on a topic that goes on where the world before it ended; no time has passed yet."""
    begun = await rows("SELECT partition, next_offset FROM stream_offset WHERE topic = $1", TOPIC)
    anew = "UPDATE stream_offset SET read_through_at = $2, record_digest = NULL WHERE topic = $1 RETURNING 1"
    await rows(anew, TOPIC, NOTHING_READ)
    await rows("WITH swept AS (DELETE FROM sweep), forgotten AS (DELETE FROM watch) SELECT 1")
    topic = Topic({row["partition"]: row["next_offset"] for row in begun})
    return Fleet(world, topic, world.random.choice((1, 2, 2, 3)))


async def unread(fleet: Fleet, rows: Rows) -> list[str]:
    """What is wrong with how the topic was read when all is at rest: not to its end, or its chain of batches broken."""
    found = []
    asked = """
SELECT s.partition, s.next_offset, s.seq, s.digest, b.seq AS last_seq, b.digest AS last_digest FROM stream_offset s
LEFT JOIN LATERAL (SELECT seq, digest FROM batch WHERE writer_no = s.writer_no ORDER BY seq DESC LIMIT 1) b ON true
WHERE s.topic = $1 ORDER BY 1"""
    for row in await rows(asked, TOPIC):
        if row["next_offset"] != fleet.topic.end(row["partition"]):
            found.append(f"partition {row['partition']} is read up to {row['next_offset']} of its end")
        if row["seq"] and (row["seq"], row["digest"]) != (row["last_seq"], row["last_digest"]):
            found.append(f"partition {row['partition']} is at batch {row['seq']}, its last is {row['last_seq']}")
    found += [f"in quarantine: {row}" for row in await rows("SELECT fault, reason FROM quarantine")]
    return found


def _round_of(number: int) -> str:
    return f"intake-{number} round"
