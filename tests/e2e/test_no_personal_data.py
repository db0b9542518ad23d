"""No name, phone, identity number or score is kept or logged: planted wherever others could say one, searched for
everywhere after a run. The one place where what came is kept as it came is the quarantine (README, "Personal data")."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

import aiohttp
import pytest
from installation import Installation, installed
from intake_world import BIKE
from sandbox_peer import API_KEY, NOTIFY_SECRET, Peer, peer
from talkative import Person, Talkative, talkative
from zhima_account import LOGON, open_zhima

from service.lab.demo.truth import read_topic
from service.lab.processes import free_ports
from service.lab.provider.rows import Account, Terms
from service.lab.servers import Servers
from service.lab.trip_events import TripRecord

ROLES = ("intake", "collect", "publish", "keep")
EVENT, ENVELOPE, STRANGER, MALFORMED = Person("event"), Person("envelope"), Person("stranger"), Person("malformed")
PROVIDER, NOTICE, FORGED, GARBLED = Person("provider"), Person("notice"), Person("forged"), Person("garbled")
CALLER, FILE = Person("caller"), Person("file")
PEOPLE = (EVENT, ENVELOPE, STRANGER, MALFORMED, PROVIDER, NOTICE, FORGED, GARBLED, CALLER, FILE)
WRITES = ("agreements", "eligibility", "holds", "quotes", "sessions/ride-1/charges", "sessions/ride-1/corrections")
AS_IT_CAME = {
    "quarantine": {"record_key", "record_headers", "record_value"},
    "batch_facts": {"facts"},
}
"""Where a malformed record is kept byte for byte, the second until it is published to the quarantine's topic."""


class City:
    """An installation with everything running, and a rider's life in it."""

    def __init__(
        self,
        installation: Installation,
        provider: Peer,
        ports: Mapping[str, int],
        said: Talkative,
        http: aiohttp.ClientSession,
    ) -> None:
        self.installation = installation
        self.provider = provider
        self.ports = ports
        self.said = said
        self.http = http
        self.token = ""
        self.calls = 0

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """A call of the rental app's backend, as soon as somebody listens."""
        self.calls += 1
        told = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": f"call-{self.calls}"} | headers
        url = f"http://127.0.0.1:{self.ports['serve']}{path}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with self.http.request(method, url, headers=told, data=data) as answer:
            raw = await answer.read()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(raw) if is_json and raw else raw

    async def value(self, query: str) -> Any:
        return await self.installation.connection.fetchval(query)

    async def until(self, query: str, wanted: Any) -> None:
        """Waits until a query gives a value."""

        async def there() -> bool:
            return bool(await self.value(query) == wanted)

        await self.installation.until(there, f"{query} = {wanted}")


@asynccontextmanager
async def city(servers: Servers, template: str, logs: Path) -> AsyncIterator[City]:
    async with (
        peer() as provider,
        talkative(provider.url, PROVIDER) as (url, said),
        installed(servers, template, logs) as installation,
        aiohttp.ClientSession() as http,
    ):
        ports = dict(zip(("serve", *ROLES), free_ports(1 + len(ROLES)), strict=True))
        made = City(installation, provider, ports, said, http)
        installation.settings |= {"FAREBOX_LOG_LEVEL": "debug", "FAREBOX_HTTP_PORT": str(ports["serve"])}
        terms = Terms(confirm_agreement=False)
        await provider.call("PUT", "/accounts", Account("city", API_KEY, terms, notify_secret=NOTIFY_SECRET))
        tariff = logs / "tariff.json"
        tariff.write_text(json.dumps(BIKE))
        await installation.farebox("tariff", "import", tariff)
        await installation.farebox(
            *("account", "add", "city", "--provider", "sandbox", "--url", url),
            *("--setting", f"api_key={API_KEY}", "--setting", f"notify_secret={NOTIFY_SECRET}"),
        )
        notify_url = f"http://127.0.0.1:{ports['serve']}/v1/providers/alipay/default.zhima/notifications"
        settings = await open_zhima(provider, logs, notify_url)
        chosen = [word for name, text in settings.items() for word in ("--setting", f"{name}={json.dumps(text)}")]
        await installation.farebox("account", "add", "zhima", "--provider", "alipay", "--url", url, *chosen)
        scopes = ("--scope", "status:read", "--scope", "billing:write", "--scope", "ops")
        made.token = (await installation.farebox("token", "create", *scopes)).strip().splitlines()[-1].strip()
        for role in ROLES:
            await installation.role(role, FAREBOX_HEALTH_PORT=str(ports[role]))
        await installation.role("serve")
        await installation.until(lambda: answering(made), "serving")
        yield made


async def answering(city: City) -> bool:
    try:
        status, _ = await city.call("GET", "/readyz")
    except aiohttp.ClientConnectionError:
        return False
    return status == 200


def record(kind: str, session: str, at: datetime, data: dict[str, Any], **headers: str) -> TripRecord:
    """A well-formed event in binary mode, with whatever else in its headers."""
    told = {
        "ce_specversion": "1.0",
        "ce_id": f"{session}/{kind}",
        "ce_source": "urn:test",
        "ce_type": f"io.farebox.session.{kind}.v1" if kind in ("started", "ended") else kind,
        "ce_time": at.isoformat(),
    }
    terms = {"session_id": session, "agreement_id": "agr-1", "tariff_id": "bike"}
    encoded = [(name, text.encode()) for name, text in (told | headers).items()]
    return TripRecord(at, session.encode(), encoded, json.dumps(terms | data, ensure_ascii=False).encode())


def structured(kind: str, session: str, at: datetime) -> TripRecord:
    """A well-formed event in structured mode: a person among its attributes, and in its data."""
    event = {
        "specversion": "1.0",
        "type": f"io.farebox.session.{kind}.v1",
        "source": "urn:test",
        "id": f"{session}/{kind}",
        "time": at.isoformat(),
        "ridername": ENVELOPE.in_words(),
        "data": {"session_id": session, "agreement_id": "agr-1", "tariff_id": "bike", **EVENT.all_of_it()},
    }
    headers = [("content-type", b"application/cloudevents+json")]
    return TripRecord(at, session.encode(), headers, json.dumps(event, ensure_ascii=False).encode())


async def sign_at_alipay(city: City) -> None:
    """A rider who signs in his own app, and has an order for his ride."""
    asked = {"agreement_id": "agr-9", "rider_ref": "rider-9", "account_id": "zhima"}
    status, told = await city.call("POST", "/v1/agreements", asked)
    assert status == 201, told
    rider = f"{city.provider.url}/alipay/rider?answer=confirm"
    async with city.http.post(rider, data=told["action"]["order_string"].encode()) as said:
        assert '"9000"' in await said.text()
    await city.until("SELECT state FROM agreement WHERE agreement_id = 'agr-9'", "active")
    asked = {"session_id": "ride-9", "agreement_id": "agr-9", "tariff_id": "bike"}
    status, told = await city.call("POST", "/v1/holds", asked)
    assert (status, told["status"]) == (200, "allowed"), told


async def ride(city: City) -> None:
    """Rides, one of which the provider declines, records of others, and one that can't be read."""
    since = datetime.now(UTC) - timedelta(hours=2)
    until = since + timedelta(minutes=20)
    named = {"ce_ridername": ENVELOPE.fields["mobile"], "x-rider": ENVELOPE.in_words()}
    await city.installation.publish(
        [
            record("started", "ride-1", since, EVENT.all_of_it(), **named),
            record("ended", "ride-1", until, EVENT.all_of_it(), **named),
            structured("started", "ride-2", since),
            structured("ended", "ride-2", until),
            record("ended", "ride-2", until - timedelta(minutes=1), EVENT.all_of_it(), ce_id="another end"),
            record("started", "ride-9", since, {"agreement_id": "agr-9"}),
            record("ended", "ride-9", until, {"agreement_id": "agr-9"}),
            record("com.example.rider.registered", "ride-1", since, STRANGER.all_of_it()),
            record("started", "ride-1", since, {"session_id": 7, **MALFORMED.all_of_it()}, **_bad_headers()),
        ]
    )
    await city.installation.all_taken()
    await city.until("SELECT count(*) FROM debit WHERE state = 'settled'", 3)


def _bad_headers() -> dict[str, str]:
    return {"x-rider": MALFORMED.in_words()}


async def agree(city: City) -> None:
    """Agreements: one that works, one that the provider refuses, and what no caller may say."""
    await city.provider.script("refuse", op="agreement.begin", on="rider-2", code="RIDER_NOT_VERIFIED")
    for agreement, rider in (("agr-1", "rider-1"), ("agr-2", "rider-2")):
        asked = {"agreement_id": agreement, "rider_ref": rider, "account_id": "city"}
        status, told = await city.call("POST", "/v1/agreements", asked)
        assert status in (200, 201), told
    asked = {"agreement_id": "agr-3", "rider_ref": "rider-3", "account_id": "city", **CALLER.all_of_it()}
    for path in WRITES:
        for body in (asked, CALLER.in_words().encode()):
            status, told = await city.call("POST", f"/v1/{path}", body)
            assert status in (400, 422), (path, told)
    for path in ("sessions/{}", "riders/{}", "debits/{}", "sessions?rider_ref={}"):
        status, _ = await city.call("GET", f"/v1/{path}".format(CALLER.fields["identity_no"]))
        assert status in (200, 400, 404), path


async def notify(city: City) -> None:
    """What the provider tells by itself: genuine, forged, and signed rubbish, each with a person in it."""
    row = await city.installation.connection.fetchrow("SELECT * FROM debit WHERE session_id = 'ride-1'")
    assert row is not None
    debit = {
        "key": row["provider_key"],
        "ref": row["provider_ref"],
        "state": "paid",
        "currency": "CNY",
        "amount_minor": row["amount_minor"],
        "paid_minor": row["amount_minor"],
    }

    def notice(person: Person, **changed: Any) -> bytes:
        body = {"id": f"n-{person.told_by}", "account_id": "city", "about": "debit", "data": debit | person.all_of_it()}
        return json.dumps(body | person.all_of_it() | changed, ensure_ascii=False).encode()

    assert await _tell(city, notice(NOTICE)) == 200
    assert await _tell(city, notice(FORGED), signed_with="another key") == 401
    assert await _tell(city, notice(GARBLED, data=[GARBLED.in_words()])) == 400


async def _tell(city: City, body: bytes, signed_with: str = NOTIFY_SECRET) -> int:
    seconds = int(datetime.now(UTC).timestamp())
    digest = hmac.digest(signed_with.encode(), f"{seconds}.".encode() + body, "sha256").hex()
    headers = {"farebox-signature": f"t={seconds},v1={digest}", "X-Buyer": FORGED.told_by}
    path = "/v1/providers/sandbox/default.city/notifications"
    status, _ = await city.call("POST", path, body, **headers)
    return status


@pytest.fixture
async def lived(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[City]:
    """A city after a day: everything was said that could be, everything was published."""
    async with city(servers, migrated_template, tmp_path) as made:
        await agree(made)
        await sign_at_alipay(made)
        await ride(made)
        await notify(made)
        status, told = await made.call("POST", "/v1/sessions/ride-2/charges", charge())
        assert status == 200, told
        await made.until("SELECT count(*) FROM debit WHERE state = 'settled'", 4)
        await bring(made, tmp_path)
        unpublished = "SELECT count(*) FROM batch_facts"
        await made.until(unpublished, 0)
        yield made


async def bring(city: City, directory: Path) -> None:
    """A debt of another system, and files that say more than they may: they are refused, and none of it is repeated."""
    file, columns = directory / "debts.csv", "reference,agreement_id,code,amount_minor,currency,due_since"
    debt = "D-1,agr-1,ride,730,CNY,2026-01-03T21:05:00+08:00"
    person, words = ",".join(FILE.fields.values()), FILE.in_words()
    one_in_each = ["".join(f"{words}," if index == place else f"{cell}," for index, cell in enumerate(debt.split(",")))
                   for place in range(6)]  # fmt: skip
    for code, lines in (
        (0, (columns, debt)),
        (2, (f"{columns},{','.join(FILE.fields)}", f"{debt},{person}")),
        (2, (f"{debt},{person}",)),
        (1, (columns, *(line.rstrip(",") for line in one_in_each), f"{debt},{person}")),
    ):
        file.write_text("\n".join(lines), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "import", "debts", str(file)),
            env=os.environ | city.installation.settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        assert (process.returncode, told_in(said)) == (code, []), said
    await city.until("SELECT state FROM debit WHERE session_id = 'debt-D-1'", "settled")


def charge() -> dict[str, Any]:
    return {"kind": "extra", "code": "damage", "amount_minor": 100, "currency": "CNY", "reason": "bell"}


async def test_what_others_say_about_a_rider_is_neither_kept_nor_logged(lived: City, tmp_path: Path) -> None:
    assert lived.said.logons > 0, "Alipay names the rider in its answers"
    assert lived.said.said[200] > 5 and lived.said.broken == {"POST /v1/debits": 0}
    found = await in_tables(lived) + await in_topics(lived) + in_logs(tmp_path) + await in_metrics(lived)
    assert found == []
    kept = await in_tables(lived, but={})
    assert {what.partition(":")[0] for what in kept} == {"quarantine.record_headers", "quarantine.record_value"}
    assert {what.split(": ")[1] for what in kept} == {MALFORMED.told_by}, "kept as it came: nothing may be lost"


def told_in(text: str, *, but: Person | None = None) -> list[str]:
    """Whose data stands in a text."""
    marks = {mark: one.told_by for one in PEOPLE if one is not but for mark in one.marks()}
    marks |= dict.fromkeys((LOGON, LOGON.encode().hex()), "alipay")
    return [f"{told_by}: {mark}" for mark, told_by in marks.items() if mark in text]


async def in_tables(city: City, but: Mapping[str, set[str]] = AS_IT_CAME) -> list[str]:
    """Every column of every table, bytes as hex; in the columns of `but`, a malformed record may stand."""
    connection, found = city.installation.connection, []
    columns = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns JOIN pg_class ON relname = table_name"
        " WHERE table_schema = current_schema() AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    assert len(columns) > 150
    for table, column in columns:
        text = await connection.fetchval(
            Template('SELECT string_agg("$column"::text, chr(10)) FROM "$table"').substitute(table=table, column=column)
        )
        allowed = MALFORMED if column in but.get(table, ()) else None
        found += [f"{table}.{column}: {what}" for what in told_in(text or "", but=allowed)]
    return found


async def in_topics(city: City) -> list[str]:
    """Keys, headers and values of all that was published."""
    settings, found = city.installation.settings, []
    for name, allowed in (("BILLING", None), ("QUARANTINE", MALFORMED)):
        records = await read_topic(city.installation.bootstrap, settings[f"FAREBOX_TOPIC_{name}"])
        assert records, name
        for one in records:
            told = [one.key or b"", one.value or b"", *(value for _, value in one.headers)]
            text = "\n".join(part.decode("utf-8", "replace") for part in told)
            found += [f"{name}: {what}" for what in told_in(text, but=allowed)]
    return found


def in_logs(logs: Path) -> list[str]:
    """What every process said, at the level that says most."""
    files = sorted(logs.glob("e2e_*.log"))
    assert len(files) == 1 + len(ROLES)
    return [f"{file.name}: {what}" for file in files for what in told_in(file.read_text())]


async def in_metrics(city: City) -> list[str]:
    """Names and labels."""
    found = []
    for role, port in city.ports.items():
        async with city.http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200
            found += [f"metrics of {role}: {what}" for what in told_in(await answer.text())]
    return found
