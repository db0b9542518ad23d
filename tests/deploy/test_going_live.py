"""The runbook's order of going live, run line by line as it stands, against a real database and the simulator."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import nursery
from sandbox_peer import Peer, peer

from service.lab.provider.rows import Account, AlipayMerchant, Terms
from service.lab.provider.signatures import new_key, public_half

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text(encoding="utf-8")
FILES = {"van.json": "service/lab/data/tariffs/bike.json", "agreements.csv": "schemas/examples/imports/agreements.csv"}
"""What stands in for the operator's own files."""
GATEWAY = "https://openapi.alipay.com/gateway.do"


def lines() -> Iterator[tuple[str | None, list[str]]]:
    """Each command inside the pod in the order written, and the file that it gets on standard input."""
    section = RUNBOOK[RUNBOOK.index("## First rides") : RUNBOOK.index("## The first live day")]
    for block in re.findall(r"(?ms)^```\n(.*?)^```", section):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            piped = words[1] if words[0] == "cat" else None
            yield piped, words[words.index("--") + 1 :]


async def run(words: list[str], piped: str | None, **settings: str) -> tuple[int, str]:
    """What a command in the pod ends with, and says."""
    command = nursery.farebox(*words[1:]) if words[0] == "farebox" else words
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:1", "COLUMNS": "400"} | settings,
    )
    said, _ = await process.communicate((ROOT / FILES[piped]).read_bytes() if piped else b"")
    return process.returncode or 0, said.decode()


async def at_the_provider(simulator: Peer, keys: Path, settings: dict[str, str]) -> None:
    """What the operator has ordered from Alipay: an app whose key is ours, and Alipay's key beside it."""
    private = new_key()
    merchant = AlipayMerchant(settings["app_id"], public_half(private), settings["seller_id"])
    terms = Terms(provider_retries=True, hold_needed=True)
    account = Account("zhima", terms=terms, notify_url=settings["notify_url"], face="alipay", alipay=merchant)
    await simulator.call("PUT", "/accounts", account)
    (theirs, *_) = (await simulator.call("GET", "/keys?account=zhima"))["public_keys"]
    (keys / "alipay-app.pem").write_text(private)
    (keys / "alipay.pem").write_text(theirs)


async def test_every_line_of_going_live_does_what_it_says(database_url: str, tmp_path: Path) -> None:
    commands = list(lines())
    added = next(words for _, words in commands if words[:3] == ["farebox", "account", "add"])
    settings = dict(word.split("=", 1) for word in added if re.match(r"\w+=", word))
    said: dict[str, str] = {}
    async with peer() as simulator:
        await at_the_provider(simulator, tmp_path, settings)
        for piped, written in commands:
            here = [re.sub("/(secrets|tmp)/", f"{tmp_path}/", word) for word in written]
            words = [word.replace(GATEWAY, f"{simulator.url}/gateway.do") for word in here]
            code, told = await run(words, piped, FAREBOX_DATABASE_URL=database_url)
            # The agreements of the example are nobody's at the simulator: each line is refused by what he says.
            assert code == (1 if words[:3] == ["farebox", "import", "agreements"] else 0), (written, told)
            said[" ".join(written[1:3])] = told
    assert "city.zhima  alipay  good" in said["account check"]
    assert "city-bike: version 1 published, CNY" in said["tariff import"]
    assert len(commands) > 10
