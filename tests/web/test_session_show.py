"""A ride and its debits explained on the command line: the same as the doors tell, for people."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from command_line import Farebox, command
from msgspec.structs import replace
from ride_builders import at, event, whole
from web_world import WebWorld, web_world

from service.cli.told import session_lines
from service.flows.stops import list_stops, resume, stop
from service.web.shapes import SessionView


@pytest.fixture(scope="module")
def farebox(database_url: str) -> Farebox:
    return command(database_url)


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    """One ride with everything that can become of one: an extra charge, a refund, a chargeback."""
    async with web_world(database_url) as it:
        await it.clock(60)
        await it.take(*whole("full", vehicle_id="v-7"))
        await it.collect()
        extra = {"kind": "extra", "code": "damage", "amount_minor": 500, "currency": "CNY", "reason": "a bent wheel"}
        await it.ask("POST", "/v1/sessions/full/charges", {**extra, "tax_rate": "0.13"}, key="k-wheel")
        await it.collect()
        (first, _) = (await it.get("/v1/sessions/full"))["debits"]
        asked = {"amount_minor": 100, "reason": "loose", "by": "desk-7"}
        await it.ask("POST", f"/v1/debits/{first['debit_id']}/refunds", asked, key="k-brake")
        await it.collect()
        await it.collect()
        held = {"number": 1, "kind": "chargeback", "state": "lost", "amount_minor": 150, "taken_minor": 150}
        disputes = json.dumps([held | {"fee_minor": 15, "ref": "dp_1"}])
        change = "UPDATE debit SET dispute = 'lost', disputes = $1, disputed_minor = 150 WHERE ordinal = 1"
        await it.sql(change, disputes)
        yield it


def lines_of(told: str, name: str) -> list[str]:
    """The lines under a name, their spaces made one."""
    _, _, after = told.partition(f"\n{name}\n")
    found = []
    for line in after.splitlines():
        if not line.startswith("  "):
            break
        found.append(" ".join(line.split()))
    return found


async def test_what_an_app_named_is_shown_and_not_obeyed_by_a_terminal(it: WebWorld, farebox: Farebox) -> None:
    started, ended = whole("obeyed")
    await it.take(replace(started, id="\x1b[2J\x9b31m\r\n\u202e[red]"), ended)
    code, told, err = await farebox("session", "show", "obeyed")
    assert (code, err) == (0, "")
    assert told.replace("\n", "").isprintable()
    assert r"id \x1b[2J\x9b31m\r\n\u202e[red] of" in told


async def test_a_ride_is_explained_from_its_events_to_what_is_open(it: WebWorld, farebox: Farebox) -> None:
    code, told, err = await farebox("session", "show", "full")
    assert (code, err) == (0, "")
    assert told.splitlines()[:3] == [
        "full  closed  operator default, times in Asia/Shanghai",
        "  agreement agr-1  rider anna  vehicle v-7  tariff bike version 1",
        "  2026-11-22 12:00:00+08:00 to 2026-11-22 12:20:00+08:00, 0:20:00",
    ]
    assert lines_of(told, "charge") == [
        "price 1 ride x 1.50 1.50 /plan/price",
        "per_min 1 x 15 min x 1.00 1.00 /plan/per_min_pricing/0",
        "extra 1 fee x 5.00 5.00 adjustment:k-wheel [damage]",
        "refund 1 ride x -1.00 -1.00 adjustment:k-brake [refund]",
        "total 6.50 CNY (tax 0.50)",
    ]
    assert lines_of(told, "adjustments") == [
        "k-wheel 2026-11-22 13:00:00+08:00 extra damage 5.00 CNY, counted 5.00, tax in it 0.58"
        " by operator default: a bent wheel",
        "k-brake 2026-11-22 13:00:00+08:00 refund 1.00 CNY, counted -1.00, tax in it -0.08 by desk-7: loose",
    ]
    assert lines_of(told, "revisions") == [
        "1 2026-11-22 13:00:00+08:00 closed 2.50 CNY, owed +2.50 by started, ended",
        "price 1 ride x 1.50 1.50 /plan/price",
        "per_min 1 x 15 min x 1.00 1.00 /plan/per_min_pricing/0",
        "total 2.50 CNY",
        "2 2026-11-22 13:00:00+08:00 closed 7.50 CNY, owed +5.00 by adjusted",
        "price 1 ride x 1.50 1.50 /plan/price",
        "per_min 1 x 15 min x 1.00 1.00 /plan/per_min_pricing/0",
        "extra 1 fee x 5.00 5.00 adjustment:k-wheel [damage]",
        "total 7.50 CNY (tax 0.58)",
        "3 2026-11-22 13:00:00+08:00 closed 6.50 CNY, owed -1.00 by adjusted",
    ]
    assert lines_of(told, "events")[0] == "started 2026-11-22 12:00:00+08:00 rides[0] 0 id started of urn:app"
    sums = "owed 6.50, paid 7.50, given back 1.00, to be given back 0.00, open 0.00, taken back by a bank 1.50 CNY"
    assert told.endswith(f"\n{sums}\n")


async def test_what_was_decided_without_an_event_was_decided_by_keep(it: WebWorld) -> None:
    ride = msgspec.convert(await it.get("/v1/sessions/full"), SessionView)
    silent = replace(ride, revisions=[replace(ride.revisions[0], events=[])])
    (first, *_) = lines_of("\n".join(session_lines(silent, "default", ZoneInfo("Asia/Shanghai"), at(60))), "revisions")
    assert first.endswith("closed 2.50 CNY, owed +2.50 by keep, at a deadline or when what it waited for was there")


async def test_the_debits_of_a_ride_are_found_by_every_name_they_have(it: WebWorld, farebox: Farebox) -> None:
    first, second = (await it.get("/v1/sessions/full"))["debits"]
    shown = (await farebox("session", "show", "full"))[1]
    by_session, by_id, by_number = [
        (await farebox("debit", "show", wanted))[1]
        for wanted in ("full", first["debit_id"], first["provider_reference"])
    ]
    assert by_id == by_number
    assert by_session == by_id + (await farebox("debit", "show", second["debit_id"]))[1]
    zone, *rest = by_id.splitlines()
    assert zone == "times in Asia/Shanghai"
    assert lines_of(shown, "debits")[: len(rest)] == [" ".join(line.split()) for line in rest]
    assert rest[0] == f"{first['debit_id']}  session full  settled  lost  2.50 of 2.50 CNY paid"
    assert rest[2] == "  pay by 2026-12-07 13:00:00+08:00"
    assert rest[3] == "  settled 2026-11-22 13:00:00+08:00"
    assert (
        rest[-1] == "  dispute 1  chargeback, lost  about 1.50, the bank has 1.50, fee 0.15 CNY  at the provider dp_1"
    )
    [refund] = second["refunds"]  # The newest debit gives back first.
    told = f"1.00 CNY  succeeded  loose  key {refund['provider_key']}  at the provider {refund['provider_reference']}"
    assert by_session.endswith(f"\n  refund {second['debit_id']}-1  2026-11-22 13:00:00+08:00  {told}\n")
    assert (refund["reason"], refund["because"]) == ("owed less", "loose")
    by_rider = [
        (await it.get("/v1/sessions/full", by="anna"))["debits"][1],
        await it.get(f"/v1/debits/{second['debit_id']}", by="anna"),
    ]
    assert [debit["refunds"][0]["because"] for debit in by_rider] == [None, None]


async def test_a_ride_without_a_charge_says_what_is_known(it: WebWorld, farebox: Farebox) -> None:
    await it.take(event("started", 35, session="riding"))
    code, told, _ = await farebox("session", "show", "riding")
    assert code == 0
    assert told.splitlines()[0] == "riding  open  operator default, times in Asia/Shanghai"
    assert told.splitlines()[2] == "  2026-11-22 12:35:00+08:00 not ended"
    assert "charge\n" not in told
    assert "owed" not in told


async def test_a_debit_that_was_due_for_a_while_says_that_it_waits(it: WebWorld, farebox: Farebox) -> None:
    """It read "tried next" with an instant that had passed: what is refused, paused or stopped is not the debit's."""
    assert await stop(it.database, 1, "debits", reason="audit", by="desk-7", now=at(60))
    await it.take(*whole("held", vehicle_id="v-8"))
    await it.collect()
    shown = []
    for minutes in (60, 62):
        await it.clock(minutes)
        shown.append(lines_of((await farebox("session", "show", "held"))[1], "debits")[2])
        assert shown[-1] in " ".join((await farebox("debit", "show", "held"))[1].split())
    assert shown == [
        "tried next 2026-11-22 13:00:00+08:00",
        "waits to be tried since 2026-11-22 13:00:00+08:00",
    ]
    [standing] = await list_stops(it.database, 1)
    await resume(it.database, 1, standing.stop_no, reason="done", by="desk-7", now=at(62))
    await it.clock(60)


async def test_a_revision_by_an_event_in_conflict_says_so(it: WebWorld, farebox: Farebox) -> None:
    start, end = whole("twice")
    await it.take(start, end)
    await it.take(replace(end, id="another", time=at(35)))
    told = (await farebox("session", "show", "twice"))[1]
    assert lines_of(told, "revisions")[-1].endswith("closed by ended in conflict")
    assert [line.split()[0] for line in lines_of(told, "conflicts")] == ["ended"]
    assert "ended in conflict" not in (await farebox("session", "show", "full"))[1]


async def test_rides_are_listed_by_state_rider_and_agreement(it: WebWorld, farebox: Farebox) -> None:
    await it.take(*whole("listed", until=5, agreement_id="agr-2"))
    await it.take(event("ended", 5, session="no-start", agreement_id="agr-2"))
    code, told, err = await farebox("session", "list", "--limit", "2")
    assert (code, err) == (0, "")
    assert told.splitlines() == [
        "no-start  incomplete (start_missing)  - to 2026-11-22 12:05:00+08:00  agreement agr-2",
        "listed  closed  1.50 CNY  2026-11-22 12:00:00+08:00 to 2026-11-22 12:05:00+08:00  agreement agr-2  rider bert",
    ]
    incomplete, charged = told.splitlines(True)
    for arguments, found in (
        (("--state", "incomplete"), incomplete),
        (("--agreement", "agr-2"), charged),
        (("--rider", "bert", "--state", "closed"), charged),
        (("--rider", "bert", "--state", "review"), "none\n"),
        (("--rider", "nobody"), "none\n"),
    ):
        assert await farebox("session", "list", *arguments) == (0, found, "")


async def test_what_a_bank_has_taken_back_is_a_sum_of_its_own(it: WebWorld, farebox: Farebox) -> None:
    assert (await it.get("/v1/sessions/full"))["charged_back_minor"] == 150
    for language, row in (("en", "Taken back by your bank<td>1.50 CNY"), ("zh", "已由银行收回<td>1.50 元")):
        path = f"/v1/sessions/full/receipt?language={language}"
        assert (await it.get(path))["charged_back_minor"] == 150
        assert f"<td colspan=3>{row}" in (await it.get(f"{path}&format=html")).decode()


async def test_json_is_what_the_doors_answer(it: WebWorld, farebox: Farebox) -> None:
    code, told, _ = await farebox("session", "show", "full", "--json")
    answered: dict[str, Any] = await it.get("/v1/sessions/full")
    assert (code, json.loads(told)) == (0, answered)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["session", "show", "none"], "operator default has no ride 'none'"),
        (["session", "show", "full", "--operator", "other"], "operator other has no ride 'full'"),
        (["session", "show", "full", "--operator", "nobody"], "no operator 'nobody'"),
        (["debit", "show", "none"], "'none' is no debit"),
        (["debit", "show", "99999999999999999999-1"], "'99999999999999999999-1' is no debit"),
        (["debit", "show", "full", "--operator", "other"], "'full' is no debit"),
        (["debit", "show", "full", "--operator", "nobody"], "no operator 'nobody'"),
        (["debit", "suspend", "full", "--reason", "r"], "there is no debit 'full'"),
    ],
)
async def test_what_is_not_there_is_told_in_words(
    it: WebWorld, farebox: Farebox, arguments: list[str], said: str
) -> None:
    code, out, err = await farebox(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
