"""What riders read at the provider: his language, the operator's word, and the same each time it is said."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from collecting_bench import Bench, open_bench
from fakes import FakeProvider
from rider_world import world

from service.adapters.providers.port import DebitRequest, HoldRequest
from service.billing.agreements.standing import HoldAnswer
from service.billing.capabilities import Capabilities
from service.billing.outcomes import Outcome, Unknown

PRICE = 300
HOLDING = Capabilities(hold_needed=True)
WORDS = {"title": {"zh": "城市单车", "en": "City bike"}}


class Listener(FakeProvider):
    """A provider that knows each debit and each hold it was asked for, word by word."""

    def __init__(self, account_no: int, capabilities: Capabilities | None = None) -> None:
        super().__init__(account_no, capabilities)
        self.debits: list[DebitRequest] = []
        self.opened: list[HoldRequest] = []
        self.silent = False

    async def debit(self, request: DebitRequest) -> Outcome:
        self.debits.append(request)
        return await super().debit(request)

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        self.opened.append(request)
        return Unknown("silent") if self.silent else await super().open_hold(request)


def listen(bench: Bench, capabilities: Capabilities | None = None) -> Listener:
    """The bench's provider is one that listens."""
    bench.provider = listener = Listener(bench.account_no, capabilities)
    bench.collection = bench.collector()
    return listener


async def set_up(bench: Bench, settings: object) -> None:
    """The operator changes the account's settings."""
    text = "UPDATE merchant_account SET settings = $2 WHERE account_no = $1"
    await bench.connection.execute(text, bench.account_no, msgspec.json.encode(settings).decode())


@pytest.mark.parametrize(
    ("language", "settings", "subject", "line"),
    [
        ("zh", {}, "用车 2026-11-22 17:00", ("duration", "1 次 × 3 元")),
        ("en", {}, "Ride 2026-11-22 17:00", ("duration", "1 ride × 3 CNY")),
        ("zh", {"title": "City bike"}, "City bike 2026-11-22 17:00", ("duration", "1 次 × 3 元")),
        ("zh", WORDS, "城市单车 2026-11-22 17:00", ("duration", "1 次 × 3 元")),
        ("en", WORDS, "City bike 2026-11-22 17:00", ("duration", "1 ride × 3 CNY")),
        ("en", {"title": {"zh": "单车"}}, "Ride 2026-11-22 17:00", ("duration", "1 ride × 3 CNY")),
    ],
)
async def test_a_debit_is_called_by_the_operators_word_in_the_riders_language_and_by_his_clock(
    database_url: str, language: str, settings: object, subject: str, line: tuple[str, str]
) -> None:
    async with open_bench(database_url) as bench:
        listener = listen(bench)
        await set_up(bench, settings)
        party = await bench.party()
        await bench.connection.execute(
            "UPDATE agreement SET language = $2 WHERE agreement_no = $1", party.agreement_no, language
        )
        await bench.ride(party, PRICE)
        await bench.collection.submit_round(bench.account_no)
        [asked] = listener.debits
        assert asked.subject == subject
        assert [(item.name, item.description) for item in asked.items] == [line]


async def test_a_debit_and_its_hold_are_asked_for_again_in_the_words_of_the_first_time(database_url: str) -> None:
    """The account's word changes while neither has been answered: other words under the same key are a conflict."""
    async with open_bench(database_url, HOLDING) as bench:
        listener, holder = listen(bench, HOLDING), bench.holder()
        await set_up(bench, {"title": "骑行"})
        ride = await bench.ride(await bench.party(), PRICE)
        listener.silent = True
        listener.faults["*"] = ["throttled"]
        for settings in ({"title": "骑行"}, {"title": "用车"}, {"title": "租车"}):
            await set_up(bench, settings)
            await bench.collection.submit_round(bench.account_no)
            await holder.resolve_round(bench.account_no)
            bench.pass_time(timedelta(minutes=5))
        listener.silent = False
        for _ in range(6):
            await holder.resolve_round(bench.account_no)
            await bench.collection.submit_round(bench.account_no)
            bench.pass_time(timedelta(minutes=5))
        assert await bench.states(ride) == [("settled", PRICE, PRICE)]
        holds, debits = listener.opened, listener.debits
        assert len(holds) > 1 and {(hold.key, hold.title, hold.subject) for hold in holds} == {
            (holds[0].key, "骑行", "骑行 2026-11-22 17:00")
        }
        assert len(debits) > 1 and {debit.subject for debit in debits} == {"骑行 2026-11-22 17:00"}
        assert {debit.hold.title for debit in debits if debit.hold} == {"骑行"}


async def test_what_is_paid_for_the_same_ride_once_more_is_called_so(database_url: str) -> None:
    async with open_bench(database_url) as bench:
        listener = listen(bench)
        ride = await bench.ride(await bench.party(), PRICE)
        await bench.settle_down(3)
        await bench.owe(ride, 2, 200)
        await bench.settle_down(3)
        assert [debit.subject for debit in listener.debits] == ["用车 2026-11-22 17:00", "用车 补款 2026-11-22 17:00"]


async def test_a_hold_before_the_ride_keeps_its_words_while_the_setting_changes(database_url: str) -> None:
    async with world(database_url, hold_needed=True) as it:
        await it.sign(language="en")
        asked = "SELECT title, left(subject, 18) FROM hold WHERE session_id = $1 AND operator_no = $2"
        for session_id, title in (("s1", '{"en": "City bike"}'), ("s2", '"Van"'), ("s1", '"Van"')):
            await it.connection.execute(
                "UPDATE merchant_account SET settings = jsonb_set(settings::jsonb, '{title}', $2::jsonb)"
                " WHERE account_no = $1",
                it.account_no,
                title,
            )
            assert (await it.ask(session_id)).status == "allowed"
        told = [tuple(await it.connection.fetchrow(asked, name, it.operator_no) or ()) for name in ("s1", "s2")]
        assert told == [("City bike", "City bike 2026-11-"), ("Van", "Van 2026-11-22 18:")]
