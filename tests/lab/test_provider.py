"""The sandbox provider itself: honest books, keys that are remembered, every way of behaving that terms can say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sandbox_peer import Peer, peer

from service.lab.provider import debits, refunds
from service.lab.provider.agreements import begin
from service.lab.provider.books import Books
from service.lab.provider.journal import Journal
from service.lab.provider.oracle import problems
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, AskAgreement, AskDebit, AskRefund, Terms
from service.lab.provider.server import Plan

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


class Merchant:
    """A merchant account's calls over HTTP, as they are on the wire."""

    def __init__(self, peer: Peer, account_id: str) -> None:
        self.peer = peer
        self.headers = {"Authorization": f"Bearer {account_id}"}

    async def call(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        data = msgspec.json.encode(body) if method == "POST" else None
        url = f"{self.peer.url}/v1/{path}"
        async with self.peer.session.request(method, url, data=data, headers=self.headers) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def debit(self, key: str, amount_minor: int = 100, **more: Any) -> tuple[int, Any]:
        asked = {"key": key, "agreement": "ag", "amount_minor": amount_minor, "currency": "CNY"} | more
        return await self.call("POST", "debits", **asked)

    async def state(self, key: str) -> Any:
        return (await self.call("GET", f"debits/{key}"))[1].get("state")


@asynccontextmanager
async def merchant(plan: Plan | None = None, **terms: Any) -> AsyncIterator[Merchant]:
    async with peer(plan) as at:
        await at.call("PUT", "/clock", {"now": AT, "speed": 0})
        account = Account("shop", "shop", Terms(**({"confirm_agreement": False} | terms)))
        await at.call("PUT", "/accounts", account)
        it = Merchant(at, "shop")
        await it.call("POST", "agreements", key="ag", rider="rider", currency="CNY")
        yield it
        assert (await at.call("GET", "/books"))["problems"] == []


async def later(it: Merchant, by: timedelta) -> None:
    face = await it.peer.call("GET", "/clock")
    await it.peer.call("PUT", "/clock", {"now": datetime.fromisoformat(face["now"]) + by, "speed": 0})


async def balance(it: Merchant, balance_minor: int) -> None:
    await it.peer.call("PUT", "/wallets", [{"rider": "rider", "currency": "CNY", "balance_minor": balance_minor}])


async def test_without_the_right_key_nothing_is_answered() -> None:
    async with merchant() as it:
        assert (await Merchant(it.peer, "thief").call("GET", "account"))[0] == 401
        status, told = await it.call("GET", "nowhere")
        assert (status, told["error"]["code"]) == (404, "NO_SUCH_ADDRESS")
        status, told = await it.call("POST", "debits", key="d")
        assert (status, told["error"]["code"]) == (400, "INVALID_REQUEST")


async def test_the_same_key_answers_the_same_and_another_request_under_it_is_a_conflict() -> None:
    async with merchant() as it:
        first = await it.debit("d")
        assert (first[0], first[1]["state"]) == (200, "paid")
        assert await it.debit("d") == first
        status, told = await it.debit("d", 101)
        assert (status, told["error"]["code"]) == (409, "KEY_CONFLICT")
        other = await it.call("POST", "agreements", key="ag", rider="another", currency="CNY")
        assert other[0] == 409


async def test_a_forgotten_key_debits_again() -> None:
    async with merchant(key_window_s=3600) as it:
        await it.debit("d")
        await later(it, timedelta(hours=1))
        await it.debit("d")
        books = await it.peer.books()
        assert (books["accounts"][0]["debits_paid"], books["accounts"][0]["paid_minor"]) == (2, 200)


async def test_a_provider_that_retries_collects_when_the_wallet_is_filled() -> None:
    async with merchant(provider_retries=True, retry_s=(3600,)) as it:
        await balance(it, 99)
        assert (await it.debit("d"))[1]["state"] == "accepted"
        assert (await it.call("GET", "debits/d"))[1]["code"] == "BALANCE_NOT_ENOUGH"
        await balance(it, 100)
        assert await it.state("d") == "accepted"
        await later(it, timedelta(hours=1))
        assert await it.state("d") == "paid"


async def test_a_provider_that_gives_up_closes_the_debit() -> None:
    async with merchant(provider_retries=True, retry_s=(3600,), give_up_s=7200) as it:
        await balance(it, 0)
        await it.debit("d")
        for _ in range(2):
            assert await it.state("d") == "accepted"
            await later(it, timedelta(hours=1))
        assert await it.state("d") == "closed"
        status, told = await it.call("POST", "debits/d/settle_elsewhere")
        assert (status, told["state"]) == (200, "closed")


async def test_a_partial_debit_takes_what_there_is_and_waits_for_the_rest() -> None:
    async with merchant(partial=True, retry_s=(60,)) as it:
        await balance(it, 40)
        _, told = await it.debit("d")
        assert (told["state"], told["paid_minor"]) == ("accepted", 40)
        await balance(it, 60)
        await later(it, timedelta(minutes=1))
        assert await it.state("d") == "paid"
        line = await it.peer.debit("d")
        assert (line["paid_minor"], line["payments"]) == (100, 2)


async def test_what_is_decided_later_is_accepted_first() -> None:
    async with merchant(decide_s=86_400.0, refund_s=60.0) as it:
        assert (await it.debit("d"))[1]["state"] == "accepted"
        await later(it, timedelta(days=1))
        assert await it.state("d") == "paid"
        refund = await it.call("POST", "refunds", key="r", debit="d", amount_minor=100)
        assert refund[1]["state"] == "pending"
        second = await it.call("POST", "refunds", key="r2", debit="d", amount_minor=1)
        assert (second[0], second[1]["error"]["code"]) == (422, "REFUND_TOO_MUCH")
        await later(it, timedelta(minutes=1))
        assert (await it.call("GET", "refunds/r"))[1]["state"] == "paid"


@pytest.mark.parametrize(
    ("terms", "code"), [({"holds_max": 3}, "TOO_MANY_HOLDS"), ({"unpaid_max": 0}, "TOO_MANY_UNPAID")]
)
async def test_a_fourth_running_hold_or_one_beside_an_unpaid_debit_is_refused(terms: dict[str, Any], code: str) -> None:
    async with merchant(hold_needed=True, **terms) as it:
        for number in range(3):
            await it.call("POST", "holds", key=f"h{number}", agreement="ag", currency="CNY")
        await balance(it, 0)
        await it.debit("d", hold="h0")
        _, told = await it.call("POST", "holds", key="h4", agreement="ag", currency="CNY")
        assert (told["state"], told["code"]) == ("refused", code)


async def test_a_hold_that_nobody_ends_expires() -> None:
    async with merchant(hold_needed=True, hold_life_s=3600) as it:
        await it.call("POST", "holds", key="h", agreement="ag", currency="CNY")
        await later(it, timedelta(hours=1))
        assert (await it.call("GET", "holds/h"))[1]["state"] == "expired"
        status, told = await it.debit("d", hold="h")
        assert (status, told["error"]["code"]) == (402, "HOLD_CLOSED")


async def test_the_riders_page_opens_only_for_whom_it_was_given() -> None:
    async with merchant(confirm_agreement=True) as it:
        _, told = await it.call("POST", "agreements", key="new", rider="rider", currency="CNY")
        async with it.peer.session.get(told["action_url"]) as page:
            assert (page.status, page.content_type) == (200, "text/html")
        async with it.peer.session.post(told["action_url"][:-1] + "x", data={"answer": "confirm"}) as answer:
            assert answer.status == 403
        async with it.peer.session.post(told["action_url"], data={"answer": "refuse"}) as answer:
            assert answer.status == 200
        assert (await it.call("GET", "agreements/new"))[1]["state"] == "refused"


@pytest.mark.parametrize("about", ["agreement", "hold"])
async def test_a_riders_page_takes_no_other_answer_than_it_offers(about: str) -> None:
    """It was taken for a refusal, for good."""
    async with merchant(confirm_agreement=True, confirm_hold=True) as it:
        _, told = await it.call("POST", "agreements", key="new", rider="rider", currency="CNY")
        if about == "hold":
            await answered(it, (await it.call("GET", "agreements/ag"))[1], "confirm")
            _, told = await it.call("POST", "holds", key="h", agreement="ag", currency="CNY")
        for word in ("pay", "yes", "", None):
            status, said = await answered(it, told, word)
            assert (status, "allowed: confirm, refuse" in said["error"]["message"]) == (422, True), word
        assert (await answered(it, told, "confirm"))[1]["state"] in ("active", "open")


async def test_a_rider_who_refuses_to_pay_or_says_what_nobody_knows_has_not_paid() -> None:
    async with merchant(confirm_agreement=False) as it:
        asked = {"key": "d", "agreement": "ag", "amount_minor": 100, "currency": "CNY"}
        _, told = await it.call("POST", "payments", **asked)
        for word in ("yes", "refused", "", None):
            status, said = await answered(it, told, word)
            assert (status, "allowed: pay, refuse" in said["error"]["message"]) == (422, True), word
        status, said = await answered(it, told, "refuse")
        assert (status, said["state"], said["code"]) == (200, "declined", "RIDER_MUST_PAY")
        assert (await it.call("GET", "debits/d"))[1] == told, "the debit stays as it is"
        async with it.peer.session.get(told["action_url"]) as page:
            assert 'value="refuse"' in await page.text()
        assert (await answered(it, told, "pay"))[1]["state"] == "paid"
        _, other = await it.call("POST", "payments", **asked | {"key": "e"})
        assert (await answered(it, other, "confirm"))[1]["state"] == "paid", "as on every page"
        assert (await answered(it, told, "refuse"))[1]["state"] == "paid", "too late"


async def answered(it: Merchant, told: Any, word: str | None) -> tuple[int, Any]:
    """What the rider's page says once he has answered."""
    data = None if word is None else {"answer": word}
    async with it.peer.session.post(told["action_url"], data=data) as answer:
        return answer.status, msgspec.json.decode(await answer.read())


async def test_the_books_survive_a_restart_and_a_torn_last_line(tmp_path: Path) -> None:
    plan = Plan(directory=tmp_path)
    async with merchant(plan) as it:
        await it.debit("paid")
        await it.peer.script("later", on="waiting", seconds=3600)
        await it.debit("waiting")
        before = await it.peer.books()
    with (tmp_path / "books.jsonl").open("ab") as journal:
        journal.write(b'[{"type":"wallet","rider":"rider","curr')
    async with peer(plan) as again:
        it = Merchant(again, "shop")
        assert await again.books() == before
        assert (await it.debit("paid"))[1]["state"] == "paid"
        await later(it, timedelta(hours=1))
        assert await it.state("waiting") == "paid"
        assert (await again.books())["accounts"][0]["debits_paid"] == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(("debit", "refund", "close", "rider")), st.integers(0, 3), st.integers(0, 120)),
        max_size=40,
    ),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_money_is_neither_made_nor_lost(
    tmp_path: Path, calls: list[tuple[str, int, int]], partial: bool, provider_retries: bool
) -> None:
    path = tmp_path / "property.jsonl"
    path.unlink(missing_ok=True)
    books = Books(Journal(path), 150)
    account = Account(
        "shop", "shop", Terms(confirm_agreement=False, partial=partial, provider_retries=provider_retries)
    )
    books.put(account)
    begin(books, account, AskAgreement("ag", "rider", "CNY"), AT)
    for number, (what, which, amount) in enumerate(calls):
        try:
            match what:
                case "debit":
                    asked = AskDebit(f"d{which}", "ag", amount, "CNY")
                    debits.take(books, account, asked, AT, debits.Fate(lambda _: None))
                case "refund":
                    asked_back = AskRefund(f"r{number}", f"d{which}", amount)
                    refunds.refund(books, account, asked_back, AT, lambda _: None)
                case "close":
                    debits.close(books, account, f"d{which}", "CLOSED", AT)
                case "rider":
                    debits.pay_by_rider(books, account, f"d{which}", AT)
        except RefusedError:
            continue
    assert problems(books) == []
    assert all(wallet.balance_minor >= 0 for wallet in books.wallets.values())
    books.close()
    reread = Books(Journal(path), 150)
    assert (reread.wallets, reread.debits_by_number, reread.entries) == (
        books.wallets,
        books.debits_by_number,
        books.entries,
    )
    reread.close()


async def test_what_the_rider_is_to_pay_of_an_open_debit_is_no_second_one_where_keys_are_ignored() -> None:
    """It was doubled by that: the provider went on collecting the one, and told of the other."""
    async with merchant(forgets_keys=True, decide_s=60.0) as it:
        await it.debit("d")
        asked = {"key": "d", "agreement": "ag", "amount_minor": 100, "currency": "CNY"}
        assert (await it.call("POST", "payments", **asked))[1]["state"] == "accepted"
        assert (await it.peer.call("GET", "/books"))["accounts"][0]["debits"] == {"accepted": 1}
