"""An operator's switches, merchant accounts and debits on the command line: what they do, print and refuse."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from builders import MIGRATED_AT
from command_line import Farebox, command
from sandbox_peer import Peer, peer

from service.billing.capabilities import Capabilities
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account

RIDE = (int((MIGRATED_AT - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds() * 1000) << 22) + 1
DEBIT = f"{RIDE}-1"


@pytest.fixture(scope="module")
def farebox(database_url: str) -> Farebox:
    return command(database_url, API_KEY="a guess")


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Peer]:
    async with peer() as found:
        yield found


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_a_mode_is_switched_and_shown(farebox: Farebox, database: Any) -> None:
    for wanted in ("shadow", "paused", "live"):
        assert (await farebox("operator", "mode", "default", wanted))[:2] == (0, f"operator default: {wanted}\n")
        assert await database.fetchval("SELECT mode FROM operator") == wanted
    assert (await farebox("operator", "show"))[1].splitlines()[:3] == [
        "mode         live",
        "bill from    every ride",
        "exposure     no limit",
    ]


async def test_the_calendar_and_the_hold_policy_are_changed_rule_by_rule_and_back(farebox: Farebox) -> None:
    code, told, _ = await farebox("operator", "calendar", "default", "due_days=10", "retry_from=09:00")
    assert code == 0
    assert [line.split() for line in told.splitlines() if line.endswith("*")] == [
        ["due_days", "10", "*"],
        ["retry_from", "09:00:00", "*"],
    ]
    _, told, _ = await farebox("operator", "calendar", "default", "due_days=")
    assert [line.split()[0] for line in told.splitlines() if line.endswith("*")] == ["retry_from"]
    for words in (("default",), ()):
        assert (await farebox("operator", "calendar", *words))[1] == told
    assert (await farebox("operator", "calendar", "due_days="))[1] == told
    assert "  *: not the default" in told.splitlines()
    assert "PT1H" in told
    assert "PT3600S" not in told
    _, told, _ = await farebox("operator", "hold-policy", "default", "answer_within=PT2S", "unlock_while_pending=true")
    assert "  answer_within         PT2S  *" in told.splitlines()
    assert "  unlock_while_pending  true  *" in told.splitlines()


async def test_exposure_is_an_amount_of_the_operators_currency(farebox: Farebox, database: Any) -> None:
    assert (await farebox("operator", "exposure", "default", "200"))[1] == (
        "operator default: exposure up to 200.00 CNY\n"
    )
    assert await database.fetchval("SELECT exposure_max_minor FROM operator") == 20_000
    assert (await farebox("operator", "exposure", "default", "--none"))[1] == "operator default: exposure no limit\n"


async def test_rides_are_billed_from_an_instant(farebox: Farebox, database: Any) -> None:
    _, told, _ = await farebox("operator", "bill-from", "default", "2027-01-01T00:00:00+08:00")
    assert told == "operator default: bills rides from 2027-01-01 00:00:00+08:00 on\n"
    assert "bill from    2027-01-01 00:00:00+08:00" in (await farebox("operator", "show"))[1].splitlines()
    assert await database.fetchval("SELECT bill_from FROM operator") == datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert (await farebox("operator", "bill-from", "default", "--none"))[1] == "operator default: bills every ride\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["operator", "mode", "default", "asleep"], "'asleep'"),
        (["operator", "mode", "nobody", "live"], "no operator 'nobody'"),
        (["operator", "show", "nobody"], "no operator 'nobody'"),
        (["operator", "calendar", "default", "due=3"], "there is no 'due'; there are debit_delay, due_days"),
        (["operator", "calendar", "default", "due_days=soon"], "calendar: due_days: expected a whole number"),
        (["operator", "calendar", "default", "due_days=-1"], "due_days can't be below 0"),
        (["operator", "calendar", "default", "report_days=6"], "told at least 7 days before he is reported"),
        (["operator", "calendar", "default", "debit_delay=-PT1H"], "debit_delay can't be below 0"),
        (["operator", "calendar", "default", "due_days"], "allowed is NAME=VALUE"),
        (["operator", "calendar", "default", "retry_from=20:00:00"], "retry_from 20:00:00 must be before retry_until"),
        (
            ["operator", "hold-policy", "default", "cap_minor=x"],
            "hold policy: cap_minor: expected a whole number",
        ),
        (["operator", "calendar", "default", "due_days=99999999999"], "due_days 99999999999: allowed are 0 to 3650"),
        (["operator", "exposure", "default", "1.005"], "can be paid"),
        (["operator", "exposure", "default", "much"], "is not a number"),
        (["operator", "exposure", "default", "-5"], "o such option"),
        (["operator", "exposure", "default"], "give either"),
        (["operator", "bill-from", "default", "tomorrow"], "with its offset"),
        (["operator", "bill-from", "default", "2027-01-01T00:00:00"], "without its offset"),
        (["operator", "bill-from", "default"], "give either"),
        (["account", "pause", "none", "--reason", "r"], "no merchant account none"),
        (["account", "resume", "none", "--reason", "r"], "no merchant account none"),
        (["account", "pause", "none"], "--reason"),
        (["account", "change", "none"], "no merchant account none"),
        (["debit", "refund-again", DEBIT], "there is no debit"),
        (["debit", "decide-refund", f"{DEBIT}-1", "given_back", "--reason", "r"], "there is no debit"),
        (["debit", "decide-refund", "none", "cancel", "--reason", "r"], "'none' is no refund"),
        (["debit", "decide-refund", DEBIT, "cancel", "--reason", "r"], f"'{DEBIT}' is no refund"),
        (
            ["debit", "decide-refund", f"{DEBIT}-1", "cancel", "--reason", "r", "--amount-minor", "5"],
            "are for `given_back`",
        ),
        (["account", "check", "none"], "no such account"),
        (["debit", "show", "none"], "'none' is no debit"),
        (["debit", "show", "99999999999999999999-1"], "'99999999999999999999-1' is no debit"),
        (["debit", "decide", DEBIT, "forget", "--reason", "r"], "'forget'"),
        (["debit", "suspend", DEBIT], "--reason"),
        (["debit", "list", "--operator", "nobody"], "no operator 'nobody'"),
        (["dispute", "open", DEBIT, "grudge"], "'grudge'"),
    ],
)
async def test_what_cannot_be_switched_is_told_in_words(farebox: Farebox, arguments: list[str], said: str) -> None:
    code, out, err = await farebox(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


async def test_accounts_are_checked_by_a_call_that_moves_nothing_and_paused(
    farebox: Farebox, sandbox: Peer, database: Any
) -> None:
    terms = terms_of(Capabilities())
    for name, key in (("good", "key-of-good"), ("bad", "a-guess")):
        await sandbox.call("PUT", "/accounts", Account(name, f"key-of-{name}", terms))
        added = await farebox(
            "account", "add", name, "--provider", "sandbox", "--url", sandbox.url, "--setting", f"api_key={key}"
        )
        assert added[0] == (0 if name == "good" else 3), added
        door = f"/v1/providers/sandbox/default.{name}/notifications"
        assert f"notifications: POST {door}\nregister https://HOST{door} at the provider" in added[1]
    code, told, _ = await farebox("account", "check")
    lines = told.splitlines()
    assert (code, lines[0]) == (1, "default.good  sandbox  good")
    assert lines[1].startswith("default.bad  sandbox  refused  UNAUTHORIZED ")
    assert (await farebox("account", "check", "good", "--operator", "default"))[:2] == (
        0,
        "default.good  sandbox  good\n",
    )
    refused = await farebox("account", "check", "good", FAREBOX_ENVIRONMENT="production")
    assert (refused[0], "refused" in refused[1]) == (1, True)
    trial = ("--provider", "sandbox", "--url", "http://127.0.0.1:9", "--setting", "api_key=k", "--unchecked")
    for production in (("add", "trial", *trial), ("change", "good", "--setting", "timeout_s=5")):
        code, _, said = await farebox("account", *production, FAREBOX_ENVIRONMENT="production")
        assert (code, "moves no real money, and FAREBOX_ENVIRONMENT is production" in said) == (2, True)
    assert "trial" not in (await farebox("account", "list"))[1]
    mended = await farebox("account", "change", "bad", "--setting", "api_key=key-of-bad", "--setting", "timeout_s=5")
    assert mended == (0, "account bad at sandbox changed\n", "")
    assert (await farebox("account", "check"))[0] == 0
    assert "timeout_s=5" in (await farebox("account", "list"))[1].splitlines()[1]
    spoilt = await farebox("account", "change", "bad", "--setting", "timeout_s=", "--setting", "api_key=wrong")
    assert (spoilt[0], "UNAUTHORIZED" in spoilt[2]) == (3, True)
    assert spoilt[2].endswith("put it right with `farebox account change bad --setting NAME=VALUE`\n"), "it is in use"
    assert "timeout_s" not in (await farebox("account", "list"))[1]
    for words, said in ((["--setting", "api_key="], "api_key"), (["--url", "nowhere"], "nowhere is no http")):
        left = await farebox("account", "change", "bad", *words)
        assert (left[0], said in left[2]) == (2, True)
    paused = await farebox("account", "pause", "good", "--reason", "it hangs", "--by", "night desk")
    assert paused[1] == "account default.good: paused, nothing new is submitted; `farebox stops` shows it\n"
    assert "  paused  " in (await farebox("account", "list"))[1].splitlines()[0]
    shown = (await farebox("stops"))[1].splitlines()
    assert {line.split("  ")[1] for line in shown} == {"debits", "refunds", "reports"}
    assert all("  account good  " in line and line.endswith(" by night desk: it hangs") for line in shown)
    goes_on = ("account", "resume", "good", "--reason", "mended")
    assert (await farebox(*goes_on))[1] == "account default.good: goes on\n"
    assert (await farebox("stops"))[1] == "nothing is paused\n"
    assert (await farebox(*goes_on))[1] == "account default.good: nothing of it alone was paused\n"
    assert not await database.fetchval("SELECT count(*) FROM stop WHERE resumed_at IS NULL")


async def test_a_merchants_number_is_a_text_and_a_quantity_is_not(farebox: Farebox, database: Any) -> None:
    url = "http://provider.invalid"
    words = ("--setting", "api_key=1900000109", "--setting", "timeout_s=5", "--unchecked")
    added = await farebox("account", "add", "numbers", "--provider", "sandbox", "--url", url, *words)
    assert added[0] == 0, added
    stored = await database.fetchval("SELECT settings FROM merchant_account WHERE account_id = 'numbers'")
    assert json.loads(stored) == {"api_key": "1900000109", "timeout_s": 5}
    await database.execute("DELETE FROM merchant_account WHERE account_id = 'numbers'")


@pytest.mark.parametrize("number", ["9999", "12345678901234E7", "1.50", "true", "null", '"9999"', "[1]"])
async def test_a_setting_that_is_a_text_stays_one_whatever_it_looks_like(
    farebox: Farebox, database: Any, number: str
) -> None:
    """A merchant's serial number looks like 1.2e20, and an app's like a quantity."""
    words = ("--provider", "wechatpay", "--url", "http://provider.invalid", "--unchecked")
    given = {
        "mchid": "9999",
        "appid": "1",
        "service_id": "00004000000000",
        "merchant_serial_no": "12345678901234E7",
        "service_introduction": number,
        "notify_url": "https://city.example/v1/providers/wechatpay/default.serial/notifications",
        "merchant_private_key_file": "/secrets/1",
        "api_v3_key_env": "V3",
        "public_key_id": "PUB_KEY_ID_0123",
        "wechatpay_public_key_file": "/secrets/2",
        "need_user_confirm": "false",
        "timeout_s": "5",
    }
    pairs = [word for item in given.items() for word in ("--setting", "=".join(item))]
    added = await farebox("account", "add", "serial", *words, *pairs)
    assert added[0] == 0, added
    assert f"the provider is told {given['notify_url']} with each call" in added[1]
    changed = await farebox(
        "account", "change", "serial", "--setting", "mchid=1900000109", "--setting", "timeout_s=6", "--unchecked"
    )
    assert changed[0] == 0, changed
    stored = await database.fetchval("SELECT settings FROM merchant_account WHERE account_id = 'serial'")
    assert json.loads(stored) == given | {"mchid": "1900000109", "need_user_confirm": False, "timeout_s": 6}
    await database.execute("DELETE FROM merchant_account WHERE account_id = 'serial'")


async def test_an_address_with_a_wrong_path_is_asked_about(farebox: Farebox) -> None:
    async with TestServer(web.Application()) as elsewhere:
        words = ("--provider", "sandbox", "--url", str(elsewhere.make_url("/")), "--setting", "api_key=k")
        added = await farebox("account", "add", "astray", *words)
    assert added[0] == 3
    assert "says: nothing is at this address (is its path right?): HTTP_404" in added[2]
    assert (await farebox("account", "remove", "astray"))[0] == 0


async def _a_debit(database: Any) -> None:
    """A debit that nobody could find out about."""
    await database.execute("INSERT INTO rider (operator_no, rider_ref) VALUES (1, 'r') ON CONFLICT DO NOTHING")
    await database.execute(
        "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)"
        " VALUES (1, 'unopened', 'sandbox', 'http://provider.invalid', $1) ON CONFLICT DO NOTHING",
        MIGRATED_AT,
    )
    await database.execute(
        "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone, language,"
        " provider_key, created_at, updated_at)"
        " SELECT 1, 'agr', rider_no, account_no, 'active', 'CNY', 'Asia/Shanghai', 'en', 'K', $1, $1"
        " FROM rider, merchant_account WHERE account_id = 'unopened'",
        MIGRATED_AT,
    )
    await database.execute(
        "INSERT INTO debit (ride_no, ordinal, slot, operator_no, agreement_no, account_no, session_key, session_id,"
        " currency, amount_minor, asked_minor, state, provider_key, attempts, transitions, begun_at, submitted_at,"
        " pay_by, created_at, updated_at)"
        " SELECT $2, 1, 0, 1, agreement_no, account_no, '00000000-0000-0000-0000-000000000000', 's-1', 'CNY', 250, 250,"
        " 'manual', 'KEY', 1, 3, $1, $1, $1, $1, $1 FROM agreement WHERE agreement_id = 'agr'",
        MIGRATED_AT,
        RIDE,
    )


async def test_a_debit_is_shown_decided_and_disputed(farebox: Farebox, database: Any) -> None:
    await _a_debit(database)
    line = f"{DEBIT}  session s-1  manual  0.00 of 2.50 CNY paid\n"
    assert (await farebox("debit", "list", "--state", "manual"))[:2] == (0, line)
    refused = await farebox("debit", "retry", DEBIT)
    assert refused[0] == 2
    assert refused[2].startswith(f"farebox: debit {DEBIT} is manual and can't be tried now: ")
    odd = await farebox("debit", "decide", DEBIT, "cancel", "--reason", "r", "--provider-reference", "P")
    assert (odd[0], "only a debit that is settled" in odd[2]) == (2, True)
    said = ("--reason", "in his books", "--by", "desk-7")
    done = await farebox("debit", "decide", DEBIT, "settled", *said, "--provider-reference", "P-77")
    assert done[:2] == (0, f"{DEBIT}  session s-1  settled  2.50 of 2.50 CNY paid  (support: desk-7: in his books)\n")
    for decision, code in (("settled", 0), ("cancel", 2), ("submit_again", 2)):
        again = await farebox("debit", "decide", DEBIT, decision, *said)
        assert (again[0], "is settled and can't be decided by hand" in again[2]) == (code, code > 0), decision
    idle = await farebox("debit", "resume", DEBIT)
    assert (idle[0], f"debit {DEBIT} is settled and was never suspended" in idle[2]) == (2, True)
    opened = await farebox("dispute", "open", DEBIT, "complaint")
    assert opened[1].startswith(f"{DEBIT}  session s-1  settled  complaint  2.50 of 2.50 CNY paid")
    closed = await farebox("dispute", "close", DEBIT, "resolved")
    assert closed[1].startswith(f"{DEBIT}  session s-1  settled  resolved  2.50 of 2.50 CNY paid")
    assert (await farebox("debit", "refunds"))[:2] == (0, "none\n")
    await database.execute(
        "INSERT INTO refund (ride_no, ordinal, refund_ordinal, slot, operator_no, agreement_no, account_no, currency,"
        " amount_minor, state, provider_key, debit_key, reason, code, created_at, updated_at)"
        " SELECT ride_no, ordinal, 1, slot, operator_no, agreement_no, account_no, currency, 100, 'failed', 'R', 'KEY',"
        " 'owed less', 'TOO_LATE', created_at, created_at FROM debit WHERE ride_no = $1",
        RIDE,
    )
    stands = (await farebox("debit", "refunds"))[1]
    assert stands.startswith(f"{DEBIT}-1  session s-1  failed  1.00 CNY  since 2026-")
    assert stands.endswith("+08:00  (TOO_LATE)\n")
    await database.execute("UPDATE refund SET state = 'new', code = NULL WHERE provider_key = 'R'")
    waits = (await farebox("debit", "refunds"))[1]
    assert (f"{DEBIT}-1  session s-1  new  1.00 CNY" in waits, waits.endswith("  (owed less)\n")) == (True, True)
    await database.execute("UPDATE refund SET state = 'failed', code = 'TOO_LATE' WHERE provider_key = 'R'")
    for refund, why in (("1", "only one that is manual can"), ("2", "has no refund 2"), ("x", "has no refund x")):
        refused = await farebox("debit", "decide-refund", f"{DEBIT}-{refund}", "cancel", "--reason", "r")
        assert (refused[0], why in refused[2]) == (2, True)
    for state in ("failed", "manual"):
        await database.execute("UPDATE refund SET state = $1 WHERE provider_key = 'R'", state)
        nothing = await farebox("debit", "refund-again", DEBIT)
        assert (nothing[0], "has nothing to give back that its provider takes" in nothing[2]) == (2, True)
    await database.execute("UPDATE debit SET refunding_minor = 100 WHERE ride_no = $1", RIDE)
    assert (await farebox("debit", "decide-refund", f"{DEBIT}-1", "given_back", *said))[0] == 0
    await _given_back(farebox, database, said)
    shown = (await farebox("debit", "show", DEBIT))[1]
    decided = "refund 1 decided given_back: support: desk-7: in his books"
    for told in ("manual -> settled", "P-77", "succeeded (support: desk-7: in his books)", decided):
        assert told in shown


async def _given_back(farebox: Farebox, database: Any, said: tuple[str, ...]) -> None:
    """What the rider got outside of the 1.50 that its ride does not owe, and of what was paid in cash."""
    assert (await farebox("debit", "refunds"))[:2] == (0, "none\n")
    odd, much = [await farebox("debit", "given-back", DEBIT, amount, *said) for amount in ("0.505", "1.51")]
    assert (odd[0], "give an amount of CNY that can be paid" in odd[2]) == (2, True)
    assert (much[0], "only 1.50 of it is still to go back to the rider" in much[2]) == (2, True)
    for _ in range(2):  # It is typed twice.
        assert (await farebox("debit", "given-back", DEBIT, "1.50", *said))[0] == 0
    assert await database.fetchval("SELECT given_back_minor FROM debit WHERE ride_no = $1", RIDE) == 150
    await database.execute(
        "INSERT INTO refund_unordered SELECT account_no, 're_9', ride_no, ordinal, 'pi_9', 30, created_at FROM debit"
        " WHERE ride_no = $1",
        RIDE,
    )
    console = (await farebox("debit", "refunds"))[1]
    assert console.startswith(f"{DEBIT}  session s-1  not_ordered_here  0.30 CNY  since")
    assert console.endswith("(refund re_9 of payment pi_9)\n")
    assert (await farebox("debit", "given-back", DEBIT, "0.30", *said, "--refund", "re_9"))[0] == 2, "it is all owed"
    await database.execute("UPDATE debit SET given_back_minor = 120 WHERE ride_no = $1", RIDE)
    assert (await farebox("debit", "given-back", DEBIT, "0.30", *said, "--refund", "re_9"))[0] == 0
    assert (await farebox("debit", "refunds"))[:2] == (0, "none\n")
    outside = "UPDATE debit SET given_back_minor = 0, paid_minor = 100, forgone_minor = 150, outside_minor = 150"
    await database.execute(f"{outside} WHERE ride_no = $1", RIDE)
    await database.execute(
        "INSERT INTO obligation (ride_no, revision, slot, operator_no, agreement_no, kind, amount_minor, currency,"
        " occurred_at) SELECT ride_no, 1, slot, operator_no, agreement_no, 'charge', 20, currency, created_at"
        " FROM debit WHERE ride_no = $1",
        RIDE,
    )
    listed = (await farebox("debit", "refunds"))[1]
    assert listed.startswith(f"{DEBIT}  session s-1  paid_elsewhere  1.30 CNY  since")
