"""A ride over HTTP: everything about it from one snapshot, its fare, its receipt."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from command_line import command
from msgspec.structs import replace
from ride_builders import adjustment, at, event, tariff, whole
from web_world import WebWorld, instant, web_world

from service.billing.events import Position
from service.billing.opening import SOURCE
from service.billing.rating import rate
from service.billing.sessions import Usage
from service.billing.words import Language, line_text
from service.flows.decisions import adjust_ride
from service.web import receipts
from service.web.receipts import ReceiptView, printable
from service.web.shapes import SessionView
from service.web.views import charge_view


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        yield it


async def test_a_charged_ride_is_told_from_its_events_to_its_debit(it: WebWorld) -> None:
    await it.clock(30)
    start, end = whole("told", 0, 20, vehicle_id="v-7", position=Position("rides", 3, 41))
    await it.take(start, end)
    await it.collect()
    ride = await it.get("/v1/sessions/told")
    assert (ride["state"], ride["reason"], ride["revision"]) == ("closed", None, 1)
    assert (ride["agreement_id"], ride["rider_ref"], ride["vehicle_id"]) == ("agr-1", "anna", "v-7")
    assert (ride["tariff_id"], ride["tariff_version"]) == ("bike", 1)
    assert ride["usage"]["duration_us"] == 20 * 60_000_000
    assert [(line["code"], line["quantity"], line["amount"]) for line in ride["charge"]["lines"]] == [
        ("price", "1", "1.50"),
        ("per_min", "1", "1.00"),
    ]
    assert (ride["charge"]["amount_minor"], ride["currency"], ride["owed"], ride["owed_minor"]) == (
        250,
        "CNY",
        True,
        250,
    )
    assert [(item["kind"], item["amount_minor"]) for item in ride["obligations"]] == [("charge", 250)]
    assert [(item["kind"], item["topic"], item["partition"], item["offset"]) for item in ride["events"]] == [
        ("started", "rides", 3, 41),
        ("ended", "rides", 3, 41),
    ]
    (debit,) = ride["debits"]
    assert (debit["state"], debit["amount_minor"], debit["paid_minor"]) == ("settled", 250, 250)
    assert [step["to_state"] for step in debit["transitions"]][-1] == "settled"
    assert (ride["paid_minor"], ride["open_minor"]) == (250, 0)


async def test_a_ride_under_way_has_no_charge_and_a_running_fare(it: WebWorld) -> None:
    await it.clock(40)
    await it.take(event("started", 35, session="running", agreement_id="agr-2"))
    ride = await it.get("/v1/sessions/running")
    assert (ride["state"], ride["charge"], ride["usage"], ride["ended_at"]) == ("open", None, None, None)
    assert ride["open_minor"] == 0
    fare = await it.get("/v1/sessions/running/fare")
    assert (fare["final"], fare["balance_assumed"]) == (False, "rider")
    assert (fare["fare"]["amount_minor"], instant(fare["as_of"])) == (150, at(40))
    await it.clock(35 + 16)
    assert (await it.get("/v1/sessions/running/fare"))["fare"]["amount_minor"] == 250
    await it.clock(35 + 3 * 24 * 60)  # So long a ride is rated in a thread.
    assert (await it.get("/v1/sessions/running/fare"))["fare"]["amount_minor"] == 3000


async def test_the_decision_that_closes_a_ride_shows_the_version_that_its_start_froze(it: WebWorld) -> None:
    await it.clock(30)
    start, end = whole("frozen")
    await it.take(start)
    await it.take(end)
    ride = await it.get("/v1/sessions/frozen")
    assert [(step["state"], step["tariff_version"]) for step in ride["revisions"]] == [("open", 1), ("closed", 1)]
    assert ride["open_minor"] == 250, "charged, and nothing was collected yet"


async def test_the_running_fare_counts_what_earlier_rides_used_of_the_day(it: WebWorld) -> None:
    await it.clock(200)
    await it.agree("agr-cap", "capped")
    terms: dict[str, Any] = {"agreement_id": "agr-cap", "tariff_id": "capped"}
    start, end = whole("first-of-day", 100, 190, **terms)
    await it.take(start, end, event("started", 195, session="second-of-day", **terms))
    assert (await it.get("/v1/sessions/first-of-day"))["amount_minor"] == 500
    fare = await it.get("/v1/sessions/second-of-day/fare")
    assert fare["fare"]["amount_minor"] == 0
    assert fare["fare"]["balance"] == [{"window": "day:capped:2026-11-22", "used": "5.00"}]


async def test_the_fare_of_a_closed_ride_is_its_charge(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("final"))
    fare = await it.get("/v1/sessions/final/fare")
    assert (fare["final"], fare["balance_assumed"]) == (True, "charge")
    assert fare["fare"] == (await it.get("/v1/sessions/final"))["charge"]


@pytest.mark.parametrize(
    ("session", "terms", "state", "reason"),
    [
        ("nobody", {"agreement_id": "agr-none"}, "parked", "unknown_agreement"),
        ("nothing", {"tariff_id": "none"}, "parked", "unknown_tariff"),
    ],
)
async def test_a_parked_ride_says_what_it_waits_for(
    it: WebWorld, session: str, terms: dict[str, Any], state: str, reason: str
) -> None:
    await it.clock(30)
    await it.take(*whole(session, **terms))
    ride = await it.get(f"/v1/sessions/{session}")
    assert (ride["state"], ride["reason"], ride["charge"]) == (state, reason, None)
    fare = await it.get(f"/v1/sessions/{session}/fare")
    assert (fare["final"], fare["fare"], fare["reason"]) == (False, None, reason)
    assert session in [item["session_id"] for item in (await it.get("/v1/sessions?state=parked"))["items"]]


async def test_a_contradicting_event_is_shown_and_moves_nothing(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("torn"))
    await it.take(event("ended", 50, "another", session="torn", position=Position("rides", 1, 9)))
    ride = await it.get("/v1/sessions/torn")
    assert [(item["id"], item["partition"], item["offset"]) for item in ride["conflicts"]] == [("another", 1, 9)]
    assert (ride["revision"], ride["owed_minor"]) == (2, 250)
    assert [item["owing_minor"] for item in ride["revisions"]] == [250, 0]
    told = [event for revision in ride["revisions"] for event in revision["events"]]
    assert {item["id"]: item["counts"] for item in told} == {"started": True, "ended": True, "another": False}


async def test_of_two_ends_before_the_charge_the_one_that_counts_is_shown(it: WebWorld) -> None:
    """The one that happened first, in whichever order they came: it may be the one in conflict."""
    await it.clock(60)
    late = event("ended", 40, "late", session="two-ends")
    await it.take(event("started", 0, session="two-ends"), late, event("ended", 20, "early", session="two-ends"))
    ride = await it.get("/v1/sessions/two-ends")
    assert ride["owed_minor"] == 250
    assert [(item["id"], item["counts"]) for item in ride["events"]] == [
        ("started", True), ("late", False), ("early", True)
    ]  # fmt: skip
    assert [(item["id"], item["counts"]) for item in ride["conflicts"]] == [("early", True)]


async def test_an_unchanged_ride_need_not_be_sent_again(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("same"))
    first = await it.ask("GET", "/v1/sessions/same")
    tag = first.headers["etag"]
    again = await it.ask("GET", "/v1/sessions/same", headers={"If-None-Match": f'"x", {tag}'})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    await it.take(event("ended", 25, "late", session="same"))
    changed = await it.ask("GET", "/v1/sessions/same", headers={"If-None-Match": tag})
    assert changed.status == 200
    assert changed.headers["etag"] != tag


async def test_a_list_goes_on_where_its_page_ends(it: WebWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.web.sessions.AT_ONCE", 3)
    await it.clock(30)
    await it.agree("agr-many", "many")
    names = [f"many-{number}" for number in range(5)]
    for name in names:
        await it.take(*whole(name, agreement_id="agr-many"))
    found: list[str] = []
    path = "/v1/sessions?rider_ref=many&limit=2"
    cursor = None
    while True:
        page = await it.get(path + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["items"]) <= 2
        found += [item["session_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == names[::-1]
    everything = [item["session_id"] for item in (await it.get("/v1/sessions?limit=200"))["items"]]
    assert [name for name in everything if name in names] == names[::-1]
    assert [item["session_id"] for item in (await it.get("/v1/sessions?session_id=many-3"))["items"]] == ["many-3"]


async def test_a_ride_known_only_by_its_end_is_listed_as_incomplete(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(event("ended", 20, session="half"))
    page = await it.get("/v1/sessions?state=incomplete")
    (item,) = [item for item in page["items"] if item["session_id"] == "half"]
    assert (item["reason"], item["started_at"], instant(item["ended_at"])) == ("start_missing", None, at(20))


async def test_a_receipt_speaks_the_riders_language_as_json_and_on_paper(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("paper", vehicle_id="<b>"))
    receipt = await it.get("/v1/sessions/paper/receipt")
    assert (receipt["language"], receipt["amount"], receipt["contact"]) == ("en", "2.50", "call 400")
    assert [line["text"] for line in receipt["lines"]] == ["Base price", "Time"]
    assert receipt["started_at"] == "2026-11-22T12:00:00+08:00"
    chinese = await it.get("/v1/sessions/paper/receipt?language=zh")
    assert [line["text"] for line in chinese["lines"]] == ["起步价", "时长费"]
    assert [line["unit"] for line in chinese["lines"]] == ["次", "15 分钟"]
    page = await it.ask("GET", "/v1/sessions/paper/receipt", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "2.50 CNY" in page.body.decode()
    assert "&lt;b&gt;" in page.body.decode()
    assert "<td>1 × 15 min<td>1.00<td>1.00" in page.body.decode()
    page = await it.ask("GET", "/v1/sessions/paper/receipt?language=zh&format=html")
    assert "<td>1 × 15 分钟<td>1.00<td>1.00" in page.body.decode()
    assert "<td>2.50 元" in page.body.decode()
    capped = msgspec.convert(receipt, ReceiptView)
    caps = ("day:bike:2026-11-22", "month:bike:2026-11", "cap:3")
    lines = [msgspec.structs.replace(capped.lines[0], text="Cap", window=window) for window in caps]
    paper = printable(msgspec.structs.replace(capped, lines=lines))
    assert all(f"<td>Cap ({window})" in paper for window in ("2026-11-22", "2026-11", "cap:3"))


async def test_the_receipt_of_a_moment_shows_no_duration(it: WebWorld) -> None:
    """A debt that was brought over is one: it looked like a ride of 0:00:00."""
    await it.clock(30)
    await it.take(*whole("moment", 5, 5))
    await it.take(*whole("lasting", 5, 6))
    shown = {}
    for session in ("moment", "lasting"):
        page = await it.ask("GET", f"/v1/sessions/{session}/receipt?format=html&language=en")
        shown[session] = [word for word in ("From", "To", "Duration") if f"<dt>{word}<dd>" in page.body.decode()]
    assert shown == {"moment": ["From"], "lasting": ["From", "To", "Duration"]}


async def test_a_ride_without_a_charge_has_no_receipt(it: WebWorld) -> None:
    await it.clock(40)
    await it.take(event("started", 35, session="unpaid"))
    answer = await it.ask("GET", "/v1/sessions/unpaid/receipt")
    assert (answer.status, answer.body["type"]) == (409, "urn:farebox:problem:conflict")


async def test_a_ride_that_is_not_billed_here_says_so_and_has_no_receipt(it: WebWorld, database_url: str) -> None:
    """It looked like one that is paid by nobody: 2.50 in all, 0.00 paid, 0.00 open."""
    await it.clock(30)
    await it.sql("UPDATE operator SET mode = 'shadow' WHERE operator_id = 'default'")
    await it.take(*whole("shadow", 0, 20))
    await it.sql("UPDATE operator SET mode = 'live' WHERE operator_id = 'default'")
    ride = await it.get("/v1/sessions/shadow")
    assert (ride["amount_minor"], ride["owed"], ride["owed_minor"]) == (250, False, 0)
    (listed,) = [one for one in (await it.get("/v1/sessions"))["items"] if one["session_id"] == "shadow"]
    assert (listed["amount_minor"], listed["owed"]) == (250, False)
    lines = (await command(database_url)("session", "list"))[1].splitlines()
    assert [line for line in lines if "not billed here" in line] == [line for line in lines if "shadow" in line] != []
    refused = await it.ask("GET", "/v1/sessions/shadow/receipt")
    assert (refused.status, "is not billed here" in refused.body["detail"]) == (409, True)


async def test_a_voided_ride_that_was_paid_has_a_receipt_and_what_it_had_cost_is_explained(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("undone"))
    await it.collect()
    assert [one["charge"] for one in (await it.get("/v1/sessions/undone"))["revisions"]] == [None], "it stands"
    await it.take(event("voided", 31, session="undone"))
    promised = await it.get("/v1/sessions/undone/receipt")
    assert (promised["paid_minor"], promised["refunded_minor"], promised["to_refund_minor"]) == (250, 0, 250)
    await it.collect()
    await it.collect()
    receipt = await it.get("/v1/sessions/undone/receipt?language=zh")
    assert [(line["text"], line["amount"]) for line in receipt["lines"]] == [
        ("起步价", "1.50"),
        ("时长费", "1.00"),
        ("行程已撤销", "-2.50"),
    ]
    money = [receipt[name] for name in ("amount_minor", "tax_minor", "paid_minor", "refunded_minor", "open_minor")]
    assert (money, receipt["duration"], receipt["revision"]) == ([0, 0, 250, 250, 0], "0:20:00", 2)
    ride = await it.get("/v1/sessions/undone")
    first, second = ride["revisions"]
    assert (ride["charge"], second["charge"]) == (None, None)
    assert [(line["code"], line["amount"]) for line in first["charge"]["lines"]] == [
        ("price", "1.50"),
        ("per_min", "1.00"),
    ]


async def test_a_code_of_the_operators_own_has_a_name_that_riders_read_in_their_language(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("helmet"))
    asked = {"kind": "extra", "code": "helmet_lost", "amount_minor": 500, "currency": "CNY", "reason": "left it there"}
    named = asked | {"label": {"zh": "头盔遗失", "en": "lost helmet"}}
    await it.ask("POST", "/v1/sessions/helmet/charges", named, key="k-helmet")
    told = [await it.get(f"/v1/sessions/helmet/receipt?language={language}") for language in ("zh", "en")]
    assert [receipt["lines"][2]["text"] for receipt in told] == ["附加费用：头盔遗失", "Extra charge: lost helmet"]
    await it.collect()
    [row] = await it.sql("SELECT items FROM debit WHERE session_id = 'helmet'")
    assert [item["name"] for item in json.loads(row[0])] == ["Base price", "Time", "Extra charge: lost helmet"]
    await it.take(*whole("bell"))
    await it.ask("POST", "/v1/sessions/bell/charges", asked | {"label": {"zh": "车铃遗失"}}, key="k-bell")
    english = await it.get("/v1/sessions/bell/receipt?language=en")
    assert english["lines"][2]["text"] == "Extra charge: 车铃遗失", "better than a code of ours"
    for label in ({"de": "Helm"}, {"zh": ""}, {"zh": "x" * 41}, {"en": "a\nb"}, "helmet"):
        answer = await it.ask("POST", "/v1/sessions/helmet/charges", asked | {"label": label}, key="k-bad")
        assert answer.status == 422, label
    for mute in ({}, {"zh": None, "en": None}):
        answer = await it.ask("POST", "/v1/sessions/helmet/charges", asked | {"label": mute}, key="k-mute")
        assert (answer.status, answer.fields) == (422, ["/label"]), mute
        assert "give zh, en or both" in answer.body["detail"]


async def test_what_support_added_or_took_off_is_shown_with_what_came_of_it(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("adjusted"))
    given = [
        adjustment("extra", 600, "a-1", tax_rate=Decimal("0.2")),
        adjustment("goodwill", 800, "a-2", code="apology"),
        adjustment("extra", 100, "a-3", code="bell_stolen", regardless=True),
    ]
    for one in given:
        await adjust_ride(it.database, it.doors.knowledge, it.doors.knowledge.operators[1], "adjusted", one)
    ride = await it.get("/v1/sessions/adjusted")
    assert (ride["amount_minor"], ride["owed_minor"]) == (150, 150)
    assert [item["kind"] for item in ride["obligations"]] == ["charge", "extra", "goodwill", "extra"]
    assert [line["path"] for line in ride["charge"]["lines"][-3:]] == [f"adjustment:a-{no}" for no in (1, 2, 3)]
    first, second, third = ride["adjustments"]
    assert (first["code"], first["counted_minor"], first["tax_minor"], first["tax_rate"]) == ("damage", 600, 100, "0.2")
    assert (second["counted_minor"], second["reason"], second["by"]) == (-800, "as the photos show", "support-7")
    assert (third["regardless"], instant(third["decided_at"])) == (True, at(30))
    seen = (await it.get("/v1/sessions/adjusted", by="anna"))["adjustments"]
    assert seen == [item | {"reason": None, "by": None} for item in ride["adjustments"]]


async def test_a_receipt_names_what_was_added_and_taken_off_and_a_voided_ride_s_rest(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("billed"))
    for one in (
        adjustment("extra", 100, "a-1", code="bell_stolen", regardless=True),
        adjustment("goodwill", 300, "a-2", code="apology"),
    ):
        await adjust_ride(it.database, it.doors.knowledge, it.doors.knowledge.operators[1], "billed", one)
    receipt = await it.get("/v1/sessions/billed/receipt")
    assert [line["text"] for line in receipt["lines"][2:]] == ["Extra charge: bell_stolen", "Goodwill: apology"]
    languages: tuple[Language, ...] = ("en", "zh")
    assert [line_text("refund", "adjustment:a-3", "refund", language) for language in languages] == ["Refund", "退款"]
    assert line_text("lapsed", "adjustment:a-3", "refund", "en") == "Lapsed with the ride: refund"
    await it.take(event("voided", 31, session="billed"))
    receipt = await it.get("/v1/sessions/billed/receipt?language=zh")
    assert [(line["text"], line["amount"]) for line in receipt["lines"]] == [
        ("附加费用：bell_stolen", "1.00"),
        ("优惠减免：致歉", "-3.00"),
        ("随撤销失效：致歉", "2.50"),
    ]
    assert (receipt["amount"], receipt["open_minor"]) == ("0.50", 50)
    assert receipt["notes"] == ["行程已撤销，其余项目仍需支付。"]
    page = await it.ask("GET", "/v1/sessions/billed/receipt?format=html&language=en")
    assert "<p>The ride was taken back; what is left is owed all the same.<p>Questions: " in page.body.decode()


async def test_a_receipt_says_that_an_end_was_lost_and_what_another_system_left_open(it: WebWorld) -> None:
    await it.clock(30)
    await it.take(*whole("noted"))
    ride = msgspec.convert(await it.get("/v1/sessions/noted"), SessionView)
    assert ride.usage is not None
    lost = replace(ride, usage=replace(ride.usage, lost_end="ride_max"))
    debt = replace(ride, events=[replace(event, source=SOURCE) for event in ride.events])
    voided = replace(lost, state="voided")
    told = [receipts.receipt(one, "en", ("City", ""), ZoneInfo("UTC")).notes for one in (ride, lost, debt, voided)]
    assert [[note.split()[:5] for note in notes] for notes in told] == [
        [],
        [["The", "end", "of", "this", "ride"]],
        [["What", "was", "open", "in", "another"]],
        [["The", "ride", "was", "taken", "back;"]],
    ]


async def test_a_receipt_s_fees_say_which_zone_and_how_it_was_parked(it: WebWorld) -> None:
    """Two zones were two lines of the same name, in JSON and on paper."""
    await it.clock(30)
    await it.take(*whole("fees"))
    ride = msgspec.convert(await it.get("/v1/sessions/fees"), SessionView)
    rules = {"zone_fees": {"LAKE": "2.50", "A/B~": "1.25", "rack": 1}, "parking_fees": {"invalid": 3}}
    used = Usage(started_at=at(0), ended_at=at(20), duration_us=1_200_000_000)
    usage = replace(used, zone_fees=("LAKE", "A/B~", "rack", "nowhere"), parking_category="invalid")
    fees = replace(ride, charge=charge_view(rate(usage, tariff(rules))))
    languages: tuple[Language, ...] = ("en", "zh")
    english, chinese = (receipts.receipt(fees, one, ("City", ""), ZoneInfo("UTC")) for one in languages)
    named = ["Zone fee: LAKE", "Zone fee: A/B~", "Zone fee: rack", "Unknown zone: nowhere"]
    assert [line.text for line in english.lines if line.unit == "fee"] == [*named, "Parking: not permitted there"]
    named = ["区域调度费：LAKE", "区域调度费：A/B~", "区域调度费：rack", "未知区域：nowhere"]
    assert [line.text for line in chinese.lines if line.unit == "项"] == [*named, "停车费：违规停放"]
    assert "<td>Zone fee: A/B~<td>1 fee<td>1.25<td>1.25" in printable(english)
