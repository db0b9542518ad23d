"""A key that is revoked while there is work: nothing is sent in vain but the calls under way, nothing needs a person,
and once the key is right again everything is collected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from builders import Ride
from collecting_bench import Bench, open_bench
from msgspec.structs import replace
from rider_world import world
from sandbox_peer import API_KEY, Peer, peer

from service.adapters.postgres.agreements import OwnedAccount
from service.adapters.providers import Providers
from service.adapters.providers.port import AgreementRequest
from service.billing.agreements.asking import ConflictingAskError
from service.billing.agreements.standing import AgreementStatus
from service.billing.capabilities import Capabilities
from service.billing.outcomes import BARRED_FOR, Barred, Outcome, Unknown
from service.flows.accounts import list_accounts, merchant_account
from service.flows.agreements import Agreements
from service.flows.collection import Collection
from service.flows.collection.lanes import BARRED_MAX
from service.flows.holds import Holds
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account
from service.telemetry import ACCOUNT_USABLE
from service.web.health import Health
from service.wiring import while_usable
from service.wiring.accounts import AGAIN_SECONDS, DOUBTED_SECONDS, AccountWatch

ABLE = Capabilities()
AT_ONCE = 4


class Counting(AccountWatch):
    """Counts the answers that said that we are not accepted."""

    barred = 0

    def heard(self, account_no: int, answer: object) -> None:
        self.barred += isinstance(answer, Barred)
        super().heard(account_no, answer)


class Shop:
    """An account at the simulator, whose key stands in a file, and one process that collects it."""

    def __init__(self, bench: Bench, sandbox: Peer, owned: OwnedAccount, file: Path) -> None:
        self.bench, self.sandbox, self.owned, self.file = bench, sandbox, owned, file
        self.name = owned.account.account_id
        self.seconds = 0.0
        self.health = Health("collect")
        self.providers = Providers()
        self.watch = Counting(self.providers, self.health, lambda: self.seconds)
        self.collection = Collection(
            bench.database,
            self.providers.by_number,
            lambda: bench.now,
            lambda: bench.machine,
            concurrency=AT_ONCE,
            accounts=self.watch,
        )

    async def key_is(self, key: str) -> None:
        """From now on the provider accepts this key, and no other."""
        terms = terms_of(ABLE, confirm_agreement=False)
        await self.sandbox.call("PUT", "/accounts", Account(self.name, key, terms))

    async def look(self, seconds: float = 0) -> None:
        self.seconds += seconds
        await self.watch.look(self.owned)

    async def rides(self, count: int) -> list[Ride]:
        """Rides of riders whose agreements the provider knows, each of which is due."""
        provider, made = self.providers.of(merchant_account(self.owned.account)), []
        for _ in range(count):
            party = await self.bench.party()
            signed = await provider.begin_agreement(AgreementRequest(party.agreement_id, party.agreement_id, "CNY"))
            assert isinstance(signed, AgreementStatus) and signed.state == "active"
            await self.bench.connection.execute(
                "UPDATE agreement SET provider_key = agreement_id, provider_ref = $2 WHERE agreement_no = $1",
                party.agreement_no,
                signed.provider_ref,
            )
            made.append(await self.bench.ride(party, 300))
        return made

    async def turns(self, count: int) -> int:
        return sum([await self.collection.collect_round(self.bench.account_no) for _ in range(count)])

    async def states(self) -> dict[str, int]:
        rows = await self.bench.connection.fetch(
            "SELECT state, count(*) FROM debit WHERE account_no = $1 GROUP BY state", self.bench.account_no
        )
        return {row["state"]: row["count"] for row in rows}

    @property
    def told(self) -> float | None:
        return ACCOUNT_USABLE.labels(f"default.{self.name}")._value.get()  # type: ignore[no-any-return]  # Its own.


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    file = tmp_path / "key"
    file.write_text("the-first-key\n")
    async with shop_at(database_url, file) as made:
        yield made


@asynccontextmanager
async def shop_at(url: str, file: Path) -> AsyncIterator[Shop]:
    async with open_bench(url) as bench, peer() as sandbox:
        settings = {"api_key_file": str(file), "capabilities": msgspec.to_builtins(ABLE)}
        await bench.connection.execute(
            "UPDATE merchant_account SET provider = 'sandbox', base_url = $2, settings = $3::text::jsonb"
            " WHERE account_no = $1",
            bench.account_no,
            sandbox.url,
            msgspec.json.encode(settings).decode(),
        )
        [owned] = [
            owned for owned in await list_accounts(bench.database) if owned.account.account_no == bench.account_no
        ]
        made = Shop(bench, sandbox, owned, file)
        await made.key_is("the-first-key")
        await made.look()
        try:
            yield made
        finally:
            await made.providers.close()


async def test_a_key_that_is_revoked_under_load_stops_its_account_until_it_is_right_again(shop: Shop) -> None:
    rides = await shop.rides(3)
    while (await shop.states()).get("settled", 0) < len(rides):
        await shop.turns(1)
    rides += await shop.rides(40)
    await shop.bench.owe(rides[0], 2, -100)  # Something to give back, too.
    await shop.key_is("another-key")
    while shop.watch.usable(shop.bench.account_no):
        await shop.turns(1)
    await shop.turns(20)
    assert 1 <= shop.watch.barred <= AT_ONCE  # What was under way: all else waits for the account to be asked.
    await shop.look()
    assert (shop.health.refused_accounts, shop.told) == ([f"default.{shop.name}"], 0.0)
    in_vain = shop.watch.barred
    for _ in range(20):  # Five hours.
        shop.bench.pass_time(timedelta(minutes=15))
        assert await shop.turns(1) == 0
        await shop.look(AGAIN_SECONDS)
    assert shop.watch.barred == in_vain
    waiting = await shop.states()
    assert waiting.pop("settled") == 3 and waiting.keys() <= {"new", "submitting"}
    shop.file.write_text("another-key\n")  # No restart, and no settings changed.
    await shop.look(AGAIN_SECONDS)
    assert (shop.health.refused_accounts, shop.told) == ([], 1.0)
    while (await shop.states()).get("settled", 0) < len(rides):
        await shop.turns(1)
    await shop.turns(5)
    assert shop.watch.barred == in_vain
    attempts = "SELECT max(attempts) FROM debit WHERE account_no = $1"
    assert await shop.bench.connection.fetchval(attempts, shop.bench.account_no) == 1
    keys = {row["provider_key"] for ride in rides for row in await shop.bench.debits(ride)}
    taken = [line for line in await shop.sandbox.call("GET", "/books/debits") if line["key"] in keys]
    assert sorted(line["paid_minor"] - line["refunded_minor"] for line in taken) == [200] + [300] * (len(rides) - 1)


async def test_a_hold_and_an_agreement_wait_where_the_account_is_refused_and_say_so(database_url: str) -> None:
    async with world(database_url, hold_needed=True) as it:
        await it.sign()
        seconds, health = [0.0], Health("serve")
        watch = Counting(it.providers, health, lambda: seconds[0])
        it.agreements = Agreements(it.database, it.providers, it.now, it.machine_now, watch)
        it.holds = Holds(it.database, it.providers, it.now, it.machine_now, it.agreements.look_again, watch)
        [owned] = [one for one in await list_accounts(it.database) if one.account.account_no == it.account_no]
        right = Account(it.account_id, f"{API_KEY}-{it.account_id}", terms_of(Capabilities(hold_needed=True)))
        await it.sandbox.call("PUT", "/accounts", replace(right, api_key="another-key"))
        for session in ("s1", "s2", "s1"):
            reply = await it.ask(session)
            assert (reply.status, reply.unlock, reply.reason) == ("pending", False, "account_not_accepted")
        begun = await it.sign("later", "kim")
        assert (begun.state, begun.action, watch.barred) == ("pending", None, 1)
        await watch.look(owned)
        assert health.refused_accounts == [f"{it.operator_id}.{it.account_id}"]
        with pytest.raises(ConflictingAskError, match=f"`farebox account check {it.account_id}` says why"):
            await it.sign("never", "lee")  # Known to be refused: nothing is begun, and the account can be taken away.
        assert not await it.connection.fetchval("SELECT count(*) FROM agreement WHERE agreement_id = 'never'")
        await it.policy(unlock_while_pending=True)
        assert (await it.ask("s3")).unlock  # The operator's policy, as with a provider that does not answer.
        await it.sandbox.call("PUT", "/accounts", right)
        seconds[0] += AGAIN_SECONDS
        await watch.look(owned)
        it.pass_time(timedelta(minutes=1))
        assert (await it.ask("s1")).status == "allowed"
        await it.holds.resolve_round(it.account_no)
        assert await it.state("s2") == "open"
        assert (await it.sign("later", "kim")).state == "active"
        assert (await it.sign("never", "lee")).state == "active"
        assert watch.barred == 1


class Half:
    """A provider who finds the credentials good, or not, and can be asked about nothing else."""

    def __init__(self) -> None:
        self.wrong: Outcome | None = None
        self.checks = 0

    async def check(self) -> Outcome | None:
        self.checks += 1
        return self.wrong


async def test_what_is_not_permitted_is_told_and_stops_nothing_else(shop: Shop) -> None:
    provider, seconds, number = Half(), [0.0], shop.owned.account.account_no
    health, refund = Health("collect"), Barred(BARRED_FOR, "PERMISSION_MISSING", "the key may not POST refunds")
    opened = cast(Providers, SimpleNamespace(of=lambda _: provider))
    watch = AccountWatch(opened, health, lambda: seconds[0])

    async def looked(later: float) -> tuple[bool, list[str], int]:
        seconds[0] += later
        await watch.look(shop.owned)
        return watch.usable(number), health.refused_accounts, provider.checks

    named = [f"default.{shop.name}"]
    assert await looked(1) == (True, [], 1)
    watch.heard(number, refund)
    assert not watch.usable(number)  # Until he was asked.
    assert await looked(1) == (True, named, 2)
    watch.heard(number, refund)
    assert watch.usable(number)  # Known: all else goes on.
    assert await looked(1) == (True, named, 2)
    assert await looked(AGAIN_SECONDS) == (True, named, 3)
    watch.heard(number, Barred(BARRED_FOR, "UNAUTHORIZED"))
    provider.wrong = Barred(BARRED_FOR, "UNAUTHORIZED")
    assert not watch.usable(number)  # Another one.
    assert await looked(1) == (False, named, 4)
    provider.wrong = None
    assert await looked(AGAIN_SECONDS) == (True, [], 5)
    watch.heard(number, refund)
    provider.wrong = Unknown("timeout")  # Nobody says whether we are accepted: nothing is sent.
    assert await looked(1) == (False, [], 6)
    assert await looked(1) == (False, [], 6)
    provider.wrong = None
    assert await looked(AGAIN_SECONDS) == (True, named, 7)
    assert await looked(DOUBTED_SECONDS) == (True, [], 8)
    watch.heard(number, refund)
    provider.wrong = Unknown("timeout")
    assert await looked(1) == (False, [], 9)
    assert await looked(DOUBTED_SECONDS) == (True, [], 10)  # He never says: a call will tell.


async def test_an_accounts_rounds_stand_still_while_it_is_refused(shop: Shop) -> None:
    """Its policies, too: nobody is overdue for what can't be collected."""
    number, rounds = shop.owned.account.account_no, list[int]()

    async def one_round(account_no: int) -> int:
        rounds.append(account_no)
        return 1

    assert await while_usable(shop.watch, number, one_round) == 1
    await shop.key_is("another-key")
    shop.watch.heard(number, Barred(BARRED_FOR, "UNAUTHORIZED"))
    for _ in range(2):
        assert await while_usable(shop.watch, number, one_round) == 0
        await shop.look()
    shop.file.write_text("another-key\n")
    await shop.look(AGAIN_SECONDS)
    assert await while_usable(shop.watch, number, one_round) == 1
    assert rounds == [number, number]


async def test_calls_of_one_kind_that_are_not_permitted_are_not_made_again_and_again(database_url: str) -> None:
    async with open_bench(database_url) as bench:
        paid = [await bench.ride(await bench.party(), 300) for _ in range(3)]
        await bench.settle_down(3)
        bench.provider.forbidden.add("debit")
        waiting = [await bench.ride(await bench.party(), 300) for _ in range(60)]
        await bench.owe(paid[0], 2, -100)
        bench.provider.calls.clear()
        for _ in range(6):
            await bench.collection.collect_round(bench.account_no)
        tried = [what for what, _ in bench.provider.calls].count("debit")
        assert BARRED_MAX <= tried <= BARRED_MAX + 8, "those that were under way"
        assert (await bench.debits(paid[0]))[0]["refunded_minor"] == 100
        bench.provider.forbidden.clear()
        await bench.settle_down(12)
        assert {state for ride in waiting for state in await bench.states(ride)} == {("settled", 300, 300)}
