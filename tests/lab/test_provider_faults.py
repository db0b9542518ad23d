"""What goes wrong at the sandbox provider is drawn from its seed, and its notifications arrive at least once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from sandbox_peer import API_KEY, NOTIFY_SECRET, Peer, debit_request, peer, provider_at, sign

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    BadNotification,
    MerchantAccount,
    Notification,
    Provider,
)
from service.billing.outcomes import Succeeded, Unknown
from service.lab.provider.faults import Faults, Rates
from service.lab.provider.rows import Account, Terms
from service.lab.provider.server import Plan

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
START = "from service.cli.simulator import provider_simulator as start; start()"


def drawn(seed: int, keys: list[str]) -> dict[str, list[str]]:
    faults = Faults(seed, Rates(lost=0.1, throttle=0.1, error_after=0.1))
    told: dict[str, list[str]] = {}
    for key in keys:
        for _ in range(3):
            fault = faults.of_call("debit.take", "shop", key)
            told.setdefault(key, []).append(fault.kind if fault else "")
    return told


def test_rates_are_drawn_from_the_seed_whatever_the_order_of_calls() -> None:
    keys = [f"d{number}" for number in range(1000)]
    assert drawn(7, keys) == drawn(7, keys[::-1])
    assert drawn(7, keys) != drawn(8, keys)
    counted = Counter(kind for kinds in drawn(7, keys).values() for kind in kinds)
    assert all(250 < counted[kind] < 350 for kind in ("lost", "throttle", "error_after")), counted


async def test_a_seeded_share_of_wallets_is_short_a_few_times_and_then_pays() -> None:
    async with (
        peer(Plan(seed=3, rates=Rates(decline=0.3))) as at,
        provider_at(at, "short", new_key_after_decline=False) as provider,
    ):
        agreement = await sign(at, provider, "ag")
        tries = []
        for number in range(60):
            request = debit_request(f"d{number}", agreement, 1)
            tries.append(1)
            while not isinstance(await provider.debit(request), Succeeded):
                tries[-1] += 1
        assert set(tries) == {1, 2, 3, 4}
        assert 8 <= sum(count > 1 for count in tries) <= 30


class Inbox:
    """An address that provider's notifications are sent to; `answer` says how each is taken."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.answer: Callable[[], int] = lambda: 200

    async def take(self, request: web.BaseRequest) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.came.put_nowait((headers, await request.read()))
        return web.Response(status=self.answer())

    async def next(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(20):
            return await self.came.get()


@asynccontextmanager
async def inbox() -> AsyncIterator[tuple[Inbox, str]]:
    it = Inbox()
    runner = web.ServerRunner(web.Server(it.take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield it, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def notified(plan: Plan | None = None) -> AsyncIterator[tuple[Peer, Provider, Inbox]]:
    """A simulator that notifies an inbox, on a clock that stands still, and an adapter that can read it."""
    async with peer(plan) as at, inbox() as (box, url):
        await at.call("PUT", "/clock", {"now": AT, "speed": 0})
        account = Account("shop", API_KEY, Terms(confirm_agreement=False), url, NOTIFY_SECRET)
        await at.call("PUT", "/accounts", account)
        settings = {"api_key": API_KEY, "notify_secret": NOTIFY_SECRET}
        provider = open_provider(MerchantAccount(1, "shop", "sandbox", at.url, settings))
        try:
            yield at, provider, box
        finally:
            await provider.close()


async def test_a_notification_says_who_it_is_from_and_what_became_of_what() -> None:
    async with notified() as (at, provider, box):
        agreement = await sign(at, provider, "ag")
        await box.next()
        await provider.debit(debit_request("d", agreement))
        headers, body = await box.next()
        read = provider.parse_notification(headers, body, datetime.now(UTC))
        assert isinstance(read, Notification)
        assert (read.about, read.key, read.ack.status) == ("debit", "d", 200)
        assert isinstance(read.answer, Succeeded) and read.answer.amount_minor == 250


async def test_a_dispute_is_told_by_the_number_of_its_debit() -> None:
    async with notified() as (at, provider, box):
        agreement = await sign(at, provider, "ag")
        paid = await provider.debit(debit_request("d", agreement))
        assert isinstance(paid, Succeeded)
        for _ in range(2):
            await box.next()
        named = {"account_id": "shop", "debit": "d", "kind": "chargeback"}
        for state, told in (("open", "opened"), ("won", "won")):
            await at.call("POST", "/disputes", named | {"state": state})
            read = provider.parse_notification(*await box.next(), datetime.now(UTC))
            assert isinstance(read, Notification) and read.dispute is not None
            assert (read.dispute.debit_ref, read.dispute.kind, read.dispute.state, read.dispute.amount_minor) == (
                paid.provider_ref,
                "chargeback",
                told,
                250,
            )


async def test_a_bank_may_take_the_rest_by_another_chargeback_once_the_first_is_over() -> None:
    async with notified() as (at, provider, _):
        agreement = await sign(at, provider, "ag")
        await provider.debit(debit_request("d", agreement))
        named = {"account_id": "shop", "debit": "d", "kind": "chargeback"}
        asked = ({"amount_minor": 30}, {"another": True}, {"state": "lost"}, {"another": True}, {"state": "won"})
        told = [await at.call("POST", "/disputes", named | more) for more in asked]
        assert [(one["state"], one["amount_minor"]) for one in told] == [
            ("open", 30),
            ("open", 30),
            ("lost", 30),
            ("open", 220),
            ("won", 220),
        ]
        await at.books()


async def test_the_books_say_what_banks_have_taken_back() -> None:
    """Paid less refunded was above what the merchant has, and above his own ledger's."""
    async with notified() as (at, provider, _):
        agreement = await sign(at, provider, "ag")
        await provider.debit(debit_request("d", agreement))
        named, found = {"account_id": "shop", "debit": "d"}, []
        for kind, more in (
            ("complaint", {}),
            ("complaint", {"state": "resolved"}),
            ("chargeback", {"amount_minor": 30}),
            ("chargeback", {"state": "lost"}),
            ("chargeback", {"another": True}),
            ("chargeback", {"state": "won"}),
        ):
            await at.call("POST", "/disputes", named | {"kind": kind} | more)
            [account], [line] = (await at.books())["accounts"], await at.call("GET", "/books/debits")
            found.append((account["charged_back_minor"], line["charged_back_minor"]))
        assert found == [(minor, minor) for minor in (0, 0, 30, 30, 250, 30)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda headers, body: (headers, body.replace(b"250", b"999")), "the signature is wrong"),
        (lambda headers, body: ({}, body), "the signature has no time"),
        (lambda headers, body: ({"farebox-signature": "t=1²,v1=00"}, body), "the signature has no time"),
        (lambda headers, body: ({"farebox-signature": "t=1,v1=ü"}, body), "the signature is wrong"),
    ],
)
async def test_a_notification_that_was_tampered_with_is_not_believed(
    change: Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]], reason: str
) -> None:
    async with notified() as (at, provider, box):
        agreement = await sign(at, provider, "ag")
        await box.next()
        await provider.debit(debit_request("d", agreement))
        headers, body = change(*await box.next())
        read = provider.parse_notification(headers, body, datetime.now(UTC))
        assert isinstance(read, BadNotification)
        assert (read.reason, read.ack.status) == (reason, 401)


async def test_an_old_notification_and_one_for_another_account_are_not_believed() -> None:
    async with notified() as (at, provider, box):
        await sign(at, provider, "ag")
        headers, body = await box.next()
        for off, believed in ((299, True), (301, False), (-301, False)):
            read = provider.parse_notification(headers, body, datetime.now(UTC) + timedelta(seconds=off))
            assert isinstance(read, Notification) is believed, off
        settings = {"api_key": API_KEY, "notify_secret": NOTIFY_SECRET}
        other = open_provider(MerchantAccount(2, "other", "sandbox", at.url, settings))
        read = other.parse_notification(headers, body, datetime.now(UTC))
        assert isinstance(read, BadNotification) and "for account 'shop'" in read.reason
        await other.close()


async def test_a_notification_is_repeated_until_it_is_taken_and_keeps_its_number() -> None:
    async with notified() as (at, provider, box):
        answers = iter([500, 404, 200])
        box.answer = lambda: next(answers)
        await sign(at, provider, "ag")
        numbers = []
        for wait in (1, 5, 0):
            _, body = await box.next()
            numbers.append(msgspec.json.decode(body)["id"])
            while wait and not (await at.call("GET", "/books"))["notices_waiting"]:
                pass
            face = datetime.fromisoformat((await at.call("GET", "/clock"))["now"])
            await at.call("PUT", "/clock", {"now": face + timedelta(seconds=wait), "speed": 0})
        assert len(set(numbers)) == 1
        async with asyncio.timeout(20):
            while (await at.call("GET", "/books"))["notices_waiting"]:
                pass


@pytest.mark.parametrize(("fault", "times"), [("notify_twice", 2), ("notify_tampered", 1)])
async def test_duplicates_and_tampered_ones_come_by_script(fault: str, times: int) -> None:
    async with notified() as (at, provider, box):
        agreement = await sign(at, provider, "ag")
        await box.next()
        await at.script(fault, on="d")
        await provider.debit(debit_request("d", agreement))
        for _ in range(times):
            headers, body = await box.next()
            read = provider.parse_notification(headers, body, datetime.now(UTC))
            assert isinstance(read, BadNotification if fault == "notify_tampered" else Notification)


async def test_a_process_killed_in_the_middle_keeps_its_books(tmp_path: Path) -> None:
    account = msgspec.json.encode(Account("shop", API_KEY, Terms(confirm_agreement=False))).decode()

    def start() -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", START, "--dir", str(tmp_path), "--account", account]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    async def paid(url: str) -> dict[str, int]:
        async with aiohttp.ClientSession() as session, session.get(url + "/books/debits") as answer:
            lines = msgspec.json.decode(await answer.read())
        return {line["key"]: line["payments"] for line in lines}

    process, url = await asyncio.to_thread(start)
    try:
        provider = open_provider(MerchantAccount(1, "shop", "sandbox", url, {"api_key": API_KEY}))
        agreement = AgreementRef("ag")
        await provider.begin_agreement(AgreementRequest("ag", "rider", "CNY"))
        calls = [asyncio.create_task(provider.debit(debit_request(f"d{n}", agreement, 1))) for n in range(200)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        process.send_signal(signal.SIGKILL)
        outcomes = await asyncio.gather(*calls)
        await provider.close()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        assert process.stdout is not None
        process.stdout.close()
    again, url = await asyncio.to_thread(start)
    try:
        books = await paid(url)
        answered = {f"d{n}" for n, outcome in enumerate(outcomes) if isinstance(outcome, Succeeded)}
        assert answered and answered <= books.keys()
        assert set(books.values()) == {1}
        assert any(isinstance(outcome, Unknown) for outcome in outcomes) or len(answered) == 200
    finally:
        again.terminate()
        assert await asyncio.to_thread(again.wait) == 0
        assert again.stdout is not None
        again.stdout.close()
