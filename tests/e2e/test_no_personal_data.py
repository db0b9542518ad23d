"""No name, phone, identity number or score is kept or logged: planted wherever others could say one, searched for
everywhere after a run. The one place where what came is kept as it came is the quarantine (README, "Personal data").

So are our own secrets: passwords, tokens and keys stand in no log, metric, table, topic, answer or command line, and in
no variable but the one that is there for it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlencode, urlsplit

import nursery
import pytest
from private_city import ROLES, SIGNERS, TOLD, City, city
from process_list import command_lines, variables
from sandbox_peer import API_KEY, NOTIFY_SECRET
from talkative import LOGON, Person

from service.lab.demo.merchants import PROVIDERS
from service.lab.demo.truth import read_topic
from service.lab.servers import Servers
from service.lab.trip_events import TripRecord

EVENT, ENVELOPE, STRANGER, MALFORMED = Person("event"), Person("envelope"), Person("stranger"), Person("malformed")
NOTICE, FORGED, GARBLED = Person("notice"), Person("forged"), Person("garbled")
CALLER, FILE = Person("caller"), Person("file")
PEOPLE = (EVENT, ENVELOPE, STRANGER, MALFORMED, NOTICE, FORGED, GARBLED, CALLER, FILE, *TOLD.values())
WRITES = ("agreements", "eligibility", "holds", "quotes", "sessions/ride-1/charges", "sessions/ride-1/corrections")
AS_IT_CAME = {
    "quarantine": {"record_key", "record_headers", "record_value"},
    "batch_facts": {"facts"},
}
"""Where a malformed record is kept byte for byte, the second until it is published to the quarantine's topic."""
FORGED_HEADERS = {
    "Stripe-Signature": f"t=1,v1={FORGED.told_by}",
    "Wechatpay-Signature": FORGED.told_by,
    "Wechatpay-Serial": FORGED.fields["identity_no"],
    "Wechatpay-Timestamp": "1",
    "Wechatpay-Nonce": FORGED.fields["zm_score"],
}
SAID = {
    "sandbox": ("200",),
    "alipay": (
        *(f"zhima.credit.payafteruse.{what}" for what in ("creditagreement.query", "creditbizorder.order")),
        *(f"alipay.{what}" for what in ("trade.pay", "trade.refund", "merchant.tradecomplain.query")),
        "alipay.fund.auth.operation.detail.query",
    ),
    "alipay notice": ("trade_status_sync", "fund_auth_freeze", "alipay.merchant.tradecomplain.changed"),
    "wechatpay": (
        *(f"POST /v3/payscore/{what}" for what in ("permissions", "serviceorder", "serviceorder/*/complete")),
        *("POST /v3/refund/domestic/refunds", "GET /v3/merchant-service/complaints-v2/*"),
    ),
    "wechatpay notice": (
        *("PAYSCORE.USER_OPEN_SERVICE", "PAYSCORE.USER_PAID"),
        *("REFUND.SUCCESS", "COMPLAINT.CREATE"),
    ),
    "stripe": (
        *(f"POST {what} 200" for what in ("customers", "setup_intents", "payment_intents", "refunds")),
        *(f"POST payment_intents confirm {status}" for status in (200, 402)),
    ),
    "stripe notice": ("payment_intent.succeeded", "charge.dispute.created"),
}
"""What each provider has told of people, at the least."""


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


async def sign(city: City) -> None:
    """A rider at each provider signs, and has a hold for his ride; one whose card is declined comes without."""
    for account_id in SIGNERS:
        await city.signs(account_id, f"agr-{account_id}", f"rider-{account_id}")
        await city.unlocks(f"ride-{account_id}", f"agr-{account_id}", f"rider-{account_id}")
    await city.signs("stripe", "agr-poor", "rider-poor", poor=True)


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
            *(
                record(kind, f"ride-{name}", at, {"agreement_id": f"agr-{name}"})
                for name in (*SIGNERS, "poor")
                for kind, at in (("started", since), ("ended", until))
            ),
            record("com.example.rider.registered", "ride-1", since, STRANGER.all_of_it()),
            record("started", "ride-1", since, {"session_id": 7, **MALFORMED.all_of_it()}, **_bad_headers()),
        ]
    )
    await city.installation.all_taken()
    await city.until("SELECT count(*) FROM debit WHERE state = 'settled'", 6)
    await city.until("SELECT state FROM debit WHERE session_id = 'ride-poor'", "retry_wait")


async def give_back(city: City) -> None:
    """Each of the riders gets something back, and complains, or has his bank do it."""
    for account_id in SIGNERS:
        _, told = await city.call("GET", f"/v1/sessions/ride-{account_id}")
        asked = {"amount_minor": 1, "reason": "bell"}
        status, refund = await city.call("POST", f"/v1/debits/{told['debits'][0]['debit_id']}/refunds", asked)
        assert status == 202, refund
    await city.until("SELECT count(*) FROM refund WHERE state = 'succeeded'", len(SIGNERS))
    for line in await city.provider.call("GET", "/books/debits"):
        account_id = line["rider"].removeprefix("rider-")
        if account_id in SIGNERS:
            named = {"account_id": account_id, "debit": line["key"], "kind": "complaint"}
            await city.provider.call("POST", "/disputes", named)
    payment = await city.value("SELECT provider_ref FROM debit WHERE session_id = 'ride-stripe'")
    dispute = {"id": "dp_1", "status": "needs_response", "amount": 100, "currency": "cny", "payment_intent": payment}
    event = {"id": "evt_1", "type": "charge.dispute.created", "livemode": False, "data": {"object": dispute}}
    async with city.http.post(city.said.url + notifications("stripe"), json=event) as answer:
        assert answer.status == 200
    await city.until("SELECT count(*) FROM debit WHERE dispute IS NOT NULL", len(SIGNERS))


def notifications(account_id: str) -> str:
    """Where an account's provider tells what happened."""
    return f"/v1/providers/{PROVIDERS[account_id]}/default.{account_id}/notifications"


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
    for account_id in SIGNERS:
        for body in (notice(FORGED), urlencode(FORGED.flat()).encode(), FORGED.in_words().encode()):
            status, _ = await city.call("POST", notifications(account_id), body, **FORGED_HEADERS)
            assert status in (400, 401), account_id


async def _tell(city: City, body: bytes, signed_with: str = NOTIFY_SECRET) -> int:
    seconds = int(datetime.now(UTC).timestamp())
    digest = hmac.digest(signed_with.encode(), f"{seconds}.".encode() + body, "sha256").hex()
    headers = {"farebox-signature": f"t={seconds},v1={digest}", "X-Buyer": FORGED.told_by}
    status, _ = await city.call("POST", notifications("city"), body, **headers)
    return status


@pytest.fixture
async def lived(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[City]:
    """A city after a day: everything was said that could be, everything was published."""
    async with city(servers, migrated_template, tmp_path) as made:
        await agree(made)
        await sign(made)
        await ride(made)
        await give_back(made)
        await notify(made)
        status, told = await made.call("POST", "/v1/sessions/ride-2/charges", charge())
        assert status == 200, told
        await made.until("SELECT count(*) FROM debit WHERE state = 'settled'", 7)
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
            *nursery.farebox("import", "debts", file),
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
    assert lived.said.broken == {"POST /v1/debits": 0}
    said = {f"{told_by} {what}" for told_by, told in SAID.items() for what in told}
    assert said - set(lived.said.said) == set()
    found = await in_tables(lived) + await in_topics(lived) + in_logs(tmp_path) + await in_metrics(lived)
    assert found == []
    assert await where_secrets_stand(lived, tmp_path) == {
        "merchant_account.settings": {"api_key", "notify_secret"},  # The sandbox provider's alone, who is a workbench.
        "variable FAREBOX_DATABASE_URL": {"password"},
    }
    kept = await in_tables(lived, but={})
    assert {what.partition(":")[0] for what in kept} == {"quarantine.record_headers", "quarantine.record_value"}
    assert {what.split(": ")[1] for what in kept} == {MALFORMED.told_by}, "kept as it came: nothing may be lost"


def told_in(text: str, *, but: Person | None = None) -> list[str]:
    """Whose data stands in a text."""
    marks = {mark: one.told_by for one in PEOPLE if one is not but for mark in one.marks()}
    marks |= dict.fromkeys((LOGON, LOGON.encode().hex()), "alipay")
    return [f"{told_by}: {mark}" for mark, told_by in marks.items() if mark in text]


async def in_tables(city: City, but: Mapping[str, set[str]] = AS_IT_CAME) -> list[str]:
    """Every column of every table; in the columns of `but`, a malformed record may stand."""
    found = []
    for place, text in (await columns(city)).items():
        table, _, column = place.partition(".")
        allowed = MALFORMED if column in but.get(table, ()) else None
        found += [f"{place}: {what}" for what in told_in(text, but=allowed)]
    return found


async def columns(city: City) -> dict[str, str]:
    """What stands in each `table.column`, bytes as hex."""
    connection, found = city.installation.connection, {}
    rows = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns JOIN pg_class ON relname = table_name"
        " WHERE table_schema = current_schema() AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    assert len(rows) > 150
    for table, column in rows:
        text = await connection.fetchval(
            Template('SELECT string_agg("$column"::text, chr(10)) FROM "$table"').substitute(table=table, column=column)
        )
        found[f"{table}.{column}"] = text or ""
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
    files = texts(logs)
    assert len(files) == 1 + len(ROLES)
    return [f"{name}: {what}" for name, text in files.items() for what in told_in(text)]


def texts(logs: Path) -> dict[str, str]:
    """The log of each process."""
    return {file.name: file.read_text() for file in sorted(logs.glob("e2e_*.log"))}


async def in_metrics(city: City) -> list[str]:
    """Names and labels."""
    return [f"metrics of {role}: {what}" for role, text in (await metrics(city)).items() for what in told_in(text)]


async def metrics(city: City) -> dict[str, str]:
    """What each role shows."""
    found = {}
    for role, port in city.ports.items():
        async with city.http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200
            found[role] = await answer.text()
    return found


async def where_secrets_stand(city: City, logs: Path) -> dict[str, set[str]]:
    """The secrets that are found at all, by place: tables, topics, logs, metrics, answers, the roles' variables and
    command lines, and every command line on this machine: those secrets that no other test has."""
    places = await metrics(city) | await columns(city) | texts(logs)
    for name in ("BILLING", "QUARANTINE"):
        records = await read_topic(city.installation.bootstrap, city.installation.settings[f"FAREBOX_TOPIC_{name}"])
        places[name] = repr([(one.key, one.value, one.headers) for one in records])
    roles, shown = city.installation.running(), command_lines()
    assert len(roles) == len(city.ports)
    for role in roles:
        for name, text in variables(role).items():
            places[f"variable {name}"] = f"{places.get(f'variable {name}', '')}\n{text}"
    places["command lines of roles"] = "\n".join(shown[role] for role in roles)
    places["answers"] = "\n".join(city.answers)
    assert len(city.answers) > 60
    secrets = secrets_of(city, logs)
    found = {place: {name for name, secret in secrets.items() if secret in text} for place, text in places.items()}
    own = secrets.items() - {("api_key", API_KEY), ("notify_secret", NOTIFY_SECRET)}
    found["command lines"] = {name for name, secret in own if any(secret in line for line in shown.values())}
    return {place: names for place, names in found.items() if names}


def secrets_of(city: City, directory: Path) -> dict[str, str]:
    """What nobody may learn, by name."""
    password = urlsplit(city.installation.settings["FAREBOX_DATABASE_URL"]).password
    assert password
    secrets = {"password": password, "token": city.token, "api_key": API_KEY, "notify_secret": NOTIFY_SECRET}
    for name in ("zhima-app.pem", "preauth-app.pem", "wechatpay-merchant.pem"):
        secrets[name] = (directory / name).read_text().splitlines()[7]
        assert len(secrets[name]) == 64
    for name in ("wechatpay-v2", "wechatpay-v3", "stripe-key", "stripe-webhook"):
        secrets[name] = (directory / name).read_text()
    return secrets
