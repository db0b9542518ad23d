"""The README and the runbook are held to their word: commands, settings, links, outputs, and the first event itself."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import re
import shlex
import string
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
import nursery
import pytest

from service.cli.app import farebox
from service.lab.processes import free_ports
from service.lab.provider.rows import Account
from service.lab.provider.server import Plan, simulator
from service.settings import settings_table

TOP = Path(__file__).resolve().parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
RUNBOOK = (TOP / "deploy/runbook.md").read_text(encoding="utf-8")
DOCUMENTS = {"README.md": README, "deploy/runbook.md": RUNBOOK}
PAGES = DOCUMENTS | {
    str(page.relative_to(TOP)): page.read_text(encoding="utf-8")
    for page in sorted((TOP / "service/adapters/providers").rglob("*.md"))
}
MAKEFILE = (TOP / "Makefile").read_text(encoding="utf-8")
PATIENCE_S = 60.0
ROLES = ("intake", "collect", "serve")
"""The roles that the first event needs."""

BLOCK = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
INLINE = re.compile(r"`farebox ([^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return [code for found, code in BLOCK.findall(text) if found == language]


def shell_words(text: str) -> Iterator[list[str]]:
    """The words of each command in the shell blocks; comments, `export NAME=` and `$( )` around them are gone."""
    for block in [*blocks(text, "sh"), *blocks(text, "")]:
        for line in block.replace("\\\n", " ").splitlines():
            inner = re.search(r"\$\((.*)\)", line)
            words = shlex.split(inner[1] if inner else line, comments=True)
            if words:
                yield words[:-1] if words[-1] == "&" else words


def farebox_calls(text: str) -> Iterator[list[str]]:
    """The arguments of each `farebox` command in the shell blocks, also of those that `kubectl exec … --` runs."""
    for words in shell_words(text):
        inner = words[words.index("--") + 1 :] if "--" in words else words
        if inner[0] in ("farebox", ".venv/bin/farebox"):
            yield inner[1:]


def command_of(words: list[str]) -> tuple[click.Command, str, list[str]]:
    """The command that the words name, its whole name, and the words after it; fails where there is none."""
    command: click.Command = farebox
    context, rest = click.Context(farebox), list(words)
    path: list[str] = []
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command farebox {' '.join([*path, name])}"
        command = found
        path.append(name)
    return command, " ".join(path), rest


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The whole name of every command that is not hidden."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        if not found.hidden:
            yield from leaves(found, (*path, name))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_a_block_is_one_that_would_run(name: str) -> None:
    calls = list(farebox_calls(DOCUMENTS[name]))
    assert calls
    for words in calls:
        command, path, rest = command_of(words)
        assert not isinstance(command, click.Group), f"farebox {' '.join(words)} does nothing"
        command.make_context(path, list(rest))


@pytest.mark.parametrize("name", PAGES)
def test_every_command_in_a_sentence_is_there_with_its_options(name: str) -> None:
    mentions = INLINE.findall(PAGES[name])
    assert mentions or name not in DOCUMENTS
    for mention in mentions:
        command, path, rest = command_of(mention.split())
        known = {option for parameter in command.params for option in parameter.opts}
        unknown = [word for word in rest if word.startswith("-") and word not in known | {"-h", "--help"}]
        assert not unknown, f"farebox {path} knows no {unknown}"


def test_the_table_of_commands_has_every_command_and_no_other() -> None:
    listed = set()
    for cell in re.findall(r"(?m)^\| (`farebox [^|]+`) \|", README):
        first, *others = re.findall(r"`([^`]+)`", cell)
        words = first.removeprefix("farebox ").split()
        listed |= {" ".join(words)} | {" ".join([*words[:-1], other]) for other in others}
    assert listed == set(leaves(farebox))


def test_the_table_of_settings_is_the_code_s() -> None:
    rows = [
        f"| `{variable}` | {meaning} | {default if default == 'required' else f'`{default}`'} |"
        for variable, meaning, default in settings_table()
    ]
    table = "\n".join(["", "| variable | meaning | default |", "|---|---|---|", *rows, ""])
    shown = re.search(r"<!-- settings -->(.*?)<!-- /settings -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == table, f"put this table between the marks:\n{table}"


def test_every_setting_that_is_spoken_of_is_one() -> None:
    assert set(re.findall(r"\bFAREBOX_[A-Z_]+", README)) <= {variable for variable, _, _ in settings_table()}


def test_every_make_target_is_there() -> None:
    calls = [words for words in shell_words(README) if words[0] == "make"]
    calls += [["make", *mention.split()] for mention in re.findall(r"`make ([^`]+)`", README)]
    assert calls
    for _, *words in calls:
        targets = [word for word in words if "=" not in word]
        assert [target for target in targets if not re.search(rf"(?m)^{target}:", MAKEFILE)] == []
        for word in words:
            assert "=" not in word or word.partition("=")[0] in MAKEFILE


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file(name: str) -> None:
    links = [link for link in LINK.findall(PAGES[name]) if not link.startswith("#")]
    assert [link for link in links if not (TOP / name).parent.joinpath(link.partition("#")[0]).exists()] == []


def test_every_name_of_the_code_is_there() -> None:
    names = re.findall(r"`(service(?:\.\w+)+)`", README)
    assert names
    for name in names:
        assert pkgutil.resolve_name(name) is not None


async def run(*words: str, env: dict[str, str] | None = None) -> str:
    """Runs a farebox command at the top of the repository and returns all that it said."""
    process = await asyncio.create_subprocess_exec(
        *nursery.farebox(*words),
        cwd=TOP,
        env=os.environ | (env or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_explained_charge_is_what_the_command_prints(tmp_path: Path) -> None:
    section = README.partition("## How to read a charge")[2].partition("\n## ")[0]
    plan = tmp_path / "van.json"
    plan.write_text(blocks(section, "json")[0])
    (words,) = [call for call in farebox_calls(section) if call[0] == "quote"]
    assert await run(*(str(plan) if word == "van.json" else word for word in words)) == blocks(section, "")[0]


FIRST_EVENT = README.partition("## Your own first event")[2].partition("\n## ")[0]


@asynccontextmanager
async def role(name: str, env: dict[str, str], log: Path) -> AsyncIterator[None]:
    """A role as a process of its own, as `farebox all` starts it."""
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", name), env=os.environ | env, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def curl(words: list[str], values: dict[str, str]) -> tuple[int, Any]:
    """What a `curl` line of the README does: status and body; status 0 where nobody listens yet."""
    url, *options = [string.Template(word).substitute(values) for word in words if word not in ("curl", "-sS")]
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = dict(pairs).get("-d")
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request("POST" if body else "GET", url, data=body) as answer,
        ):
            return answer.status, await answer.json(content_type=None)
    except aiohttp.ClientConnectionError:
        return 0, None


async def until(words: list[str], values: dict[str, str], true: Callable[[int, Any], bool], logs: Path) -> Any:
    """Asks again until the answer is the one; patience that is over shows what the roles said."""
    status, body = 0, None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not true(status, body):
                await asyncio.sleep(0.05)
                status, body = await curl(words, values)
    except TimeoutError:
        said = "\n".join((logs / f"{name}.log").read_text() for name in ROLES)
        raise AssertionError(f"still {status} {body}\n{said}") from None
    return body


async def test_the_first_event_becomes_the_charge_that_is_shown(
    database_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    sessions = await topic()
    env = {
        "FAREBOX_DATABASE_URL": database_url,
        "FAREBOX_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "FAREBOX_TOPIC_SESSIONS": sessions,
        "FAREBOX_GROUP": sessions,
        "FAREBOX_SESSION_TIMEOUT_MS": "2000",
        "FAREBOX_REBALANCE_TIMEOUT_MS": "3000",
        "FAREBOX_HTTP_PORT": str(port),
    }
    calls = {" ".join(words[:2]): words for words in farebox_calls(FIRST_EVENT)}
    account = next(words for words in calls.values() if words[0] == "provider-simulator")
    known = msgspec.json.decode(account[account.index("--account") + 1], type=Account)
    script = tmp_path / "first_ride.py"
    script.write_text(blocks(FIRST_EVENT, "python")[0])
    sign, ask = [words for words in shell_words(FIRST_EVENT) if words[0] == "curl"]
    (ride,) = [words for words in shell_words(FIRST_EVENT) if "first_ride.py" in words]
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(simulator(Plan(accounts=(known,))))
        add = calls["account add"]
        await run(*calls["tariff import"], env=env)
        await run(*(provider if word.startswith("http:") else word for word in add), env=env)
        token = (await run(*calls["token create"], env=env)).strip()
        for name in ROLES:
            await stack.enter_async_context(role(name, env, tmp_path / f"{name}.log"))
        values = {"API": f"http://127.0.0.1:{port}", "TOKEN": token}
        agreement = await until(sign, values, lambda status, _: status == 201, tmp_path)
        assert agreement["state"] == "active"
        arguments = ride[ride.index("first_ride.py") + 1 :]
        process = await asyncio.create_subprocess_exec(sys.executable, script, *arguments, env=os.environ | env)
        assert await process.wait() == 0
        told = await until(ask, values, lambda _, body: bool(body) and body.get("paid_minor") == 250, tmp_path)
    assert shown_money() == {name: told[name] for name in shown_money()}
    assert shown_lines() == [{name: line[name] for name in shown_lines()[0]} for line in told["charge"]["lines"]]


def shown_money() -> dict[str, Any]:
    """What the README shows of the ride before its charge."""
    before, _, _ = blocks(FIRST_EVENT, "json")[0].partition('"charge"')
    money: dict[str, Any] = json.loads("{" + before.rstrip().rstrip(",") + "}")
    return money


def shown_lines() -> list[dict[str, str]]:
    """The charge's lines as the README shows them."""
    return [json.loads(line + "}") for line in re.findall(r'(\{"code".*?), \.\.\.\}', blocks(FIRST_EVENT, "json")[0])]
