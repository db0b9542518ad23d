"""The lab: two real servers that are there soon, and gone when they should be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from service.lab.kafka import create_topics
from service.lab.postgres import reachable_temp
from service.lab.processes import LabError
from service.lab.servers import Servers, lab

LAB = [sys.executable, "-m", "service", "lab"]


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def produce(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def consume(bootstrap: str, topic: str) -> bytes | None:
    """The first record of the topic."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(20):
            value: bytes | None = (await consumer.getone()).value
            return value


def there(path: Path) -> bool:
    return path.exists()


class RunningLab:
    """`farebox lab` as a process, ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines = [process.stdout.readline().rstrip("\n") for _ in range(2)]
        settings = dict(line.split("=", 1) for line in self.lines)
        self.servers = Servers(settings["FAREBOX_DATABASE_URL"], settings["FAREBOX_KAFKA_BOOTSTRAP"])
        self.household = psutil.Process(process.pid).children(recursive=True)

    def directory(self) -> Path:
        """The lab's own, from the command line of its PostgreSQL."""
        commands = [process.cmdline() for process in self.household]
        (data,) = {command[command.index("-D") + 1] for command in commands if "-D" in command}
        return Path(data).parents[1]


@contextmanager
def farebox_lab(*options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*LAB, *options], stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def all_gone(processes: list[psutil.Process]) -> bool:
    """None of them is there any more, or will be in a moment."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=60)
    return not alive


def first_of_household(pid: int) -> list[psutil.Process]:
    """The first guards and servers of a lab that is still starting."""
    while len(household := psutil.Process(pid).children(recursive=True)) < 4:
        pass
    return household


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir=reachable_temp()) as path:
        Path(path).chmod(0o711)
        yield Path(path) / "lab"


async def test_both_servers_can_be_used(servers: Servers, topic: Callable[[], Awaitable[str]]) -> None:
    assert await ask(servers.database_url, "SELECT 1") == 1
    name = await topic()
    await produce(servers.kafka_bootstrap, name, b"a ride")
    assert await consume(servers.kafka_bootstrap, name) == b"a ride"


async def test_a_module_has_a_migrated_database_of_its_own(servers: Servers, database_url: str) -> None:
    assert database_url != servers.database_url
    assert await ask(database_url, "SELECT count(*) FROM ride_revision") == 0


async def test_a_database_can_be_dropped_while_it_is_used(servers: Servers) -> None:
    url = await servers.create_database("short_lived")
    connection = await asyncpg.connect(url)
    await servers.drop_database("short_lived")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await ask(url, "SELECT 1")
    connection.terminate()


@pytest.mark.parametrize("name", ["", "Capital", "a-b", "a;b", 'a"b', "1st", "x" * 64])
async def test_a_name_that_would_need_care_is_no_database(servers: Servers, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        await servers.create_database(name)


async def test_topics_that_are_there_stay_as_they_are(servers: Servers, topic: Callable[[], Awaitable[str]]) -> None:
    name = await topic()
    await produce(servers.kafka_bootstrap, name, b"kept")
    await create_topics(servers.brokers, {name: 1})
    assert await consume(servers.kafka_bootstrap, name) == b"kept"


async def test_a_refused_topic_is_told(servers: Servers) -> None:
    with pytest.raises(KafkaError, match="not a name"):
        await create_topics(servers.brokers, {"not a name": 1})


async def test_what_a_killed_lab_left_goes_and_sigterm_leaves_nothing() -> None:
    forgotten = Path(tempfile.mkdtemp(prefix="farebox-lab-", dir=reachable_temp()))
    with farebox_lab() as process:
        running = RunningLab(process)
        own = running.directory()
        assert there(own) and not there(forgotten)
        listening = [
            connection.laddr.ip
            for member in running.household
            for connection in member.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
        process.terminate()
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0
    assert await all_gone(running.household)
    assert not there(own)


async def test_a_lab_killed_with_9_leaves_nothing() -> None:
    with farebox_lab() as process:
        running = RunningLab(process)
        own = running.directory()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
    assert await all_gone(running.household)
    assert not there(own)


async def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    with farebox_lab() as process:
        household = await asyncio.to_thread(first_of_household, process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0
    assert await all_gone(household)


async def test_a_lab_with_a_directory_keeps_data_and_addresses_over_ctrl_c(shared_dir: Path) -> None:
    with farebox_lab("--dir", str(shared_dir)) as process:
        first = RunningLab(process)
        await ask(first.servers.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        await create_topics(first.servers.brokers, {"kept": 1})
        await produce(first.servers.kafka_bootstrap, "kept", b"42")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert await all_gone(first.household)
    with farebox_lab("--dir", str(shared_dir)) as process:
        second = RunningLab(process)
        assert second.lines == first.lines
        assert await ask(second.servers.database_url, "SELECT answer FROM kept") == 42
        assert await consume(second.servers.kafka_bootstrap, "kept") == b"42"
        process.kill()
    assert await all_gone(second.household)


async def test_a_directory_belongs_to_one_lab_at_a_time(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lab.servers.STOPPING_S", 0)
    elsewhere = Servers("postgresql://elsewhere", "elsewhere:9092")
    empty = partial(lab, shared_dir, database_url=elsewhere.database_url, kafka_bootstrap=elsewhere.kafka_bootstrap)
    async with empty():
        with pytest.raises(LabError, match="another lab runs in"):
            async with empty():
                raise AssertionError
    async with empty() as servers:
        assert servers == elsewhere


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as somebody else")
async def test_root_is_told_when_the_directory_is_closed_to_others(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="closed to other users"):
        async with lab(tmp_path / "closed", kafka_bootstrap="elsewhere:9092"):
            raise AssertionError


def test_an_impossible_directory_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run([*LAB, "--dir", str(tmp_path / "file" / "lab")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be the lab's directory" in done.stderr
    assert "Traceback" not in done.stderr
