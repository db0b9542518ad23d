"""What support and finance do to a debit over HTTP: done once, shown in its life, refused with what to do instead."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from command_line import command
from ride_builders import adjustment, event, whole
from web_world import WebWorld, web_world

from service.billing.keys import provider_key, session_key_bytes
from service.flows.decisions import adjust_ride
from service.flows.stops import list_stops, resume, stop


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        yield it


async def debit(it: WebWorld, session: str, fault: str = "later", **more: Any) -> Any:
    """The debit of a ride: accepted and not decided, or what another fault makes of it."""
    assert it.sandbox is not None
    key = provider_key(session_key_bytes("default", session), "debit", 1)
    await it.sandbox.script(fault, on=key, op="debit.take", seconds=36_000, **more)
    await it.take(*whole(session))
    await it.collect()
    (found,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    return found


async def post(it: WebWorld, debit: Any, what: str, body: Any = None, **more: Any) -> Any:
    return await it.ask("POST", f"/v1/debits/{debit['debit_id']}/{what}", body, **more)


def lives(told: Any) -> list[str]:
    return [item["to_state"] for item in told["transitions"]]


async def test_a_debit_that_waits_is_suspended_and_goes_on_when_it_is_resumed(it: WebWorld) -> None:
    waiting = await debit(it, "short", "decline", code="BALANCE_NOT_ENOUGH")
    assert waiting["state"] == "retry_wait"
    stopped = await post(it, waiting, "suspend", {"reason": "the lock failed"})
    assert (stopped.status, stopped.body["suspended"], stopped.body["due_at"]) == (200, True, None)
    assert stopped.body["reason"] == "support: the lock failed"
    assert stopped.body["transitions"][-1]["why"] == "suspended: support: the lock failed"
    again = await post(it, waiting, "suspend", {"reason": "the lock failed"})
    assert (again.status, again.body) == (200, stopped.body)
    going_on = await post(it, waiting, "resume")
    assert (going_on.status, going_on.body["suspended"]) == (200, False)
    assert going_on.body["due_at"] is not None
    assert going_on.body == await it.get(f"/v1/debits/{waiting['debit_id']}")
    repeated = await post(it, waiting, "resume")
    assert (repeated.status, repeated.body) == (200, going_on.body)


async def test_a_debit_that_is_tried_while_debits_are_stopped_says_what_holds_it_up(
    it: WebWorld, database_url: str
) -> None:
    """A retry was answered with 200, and nothing was tried until the stop was found."""
    waiting = await debit(it, "held-up", "decline", code="BALANCE_NOT_ENOUGH")
    farebox, named = command(database_url), {"reason": "a wrong tariff", "by": "ops"}
    await stop(it.database, 1, "debits", now=it.doors.now(), tariff_id="bike", **named)
    await stop(it.database, 1, "refunds", now=it.doors.now(), **named)
    ((number, _),) = [(one.stop_no, one) for one in await list_stops(it.database, 1) if one.what == "debits"]
    try:
        tried = await post(it, waiting, "retry")
        assert (tried.status, tried.body["stops"]) == (
            200,
            [{"what": "debits", "stop_no": number, "reason": "a wrong tariff"}],
        )
        await it.sql("UPDATE operator SET mode = 'paused' WHERE operator_no = 1")
        path = f"/v1/debits/{waiting['debit_id']}"
        paused = {"what": "debits", "stop_no": 0, "reason": "operator paused"}
        assert (await it.get(path))["stops"] == [paused, *tried.body["stops"]]
        assert (await it.get("/v1/sessions/held-up"))["debits"][0]["stops"] == [paused, *tried.body["stops"]]
        assert (await it.get(path, by="anna"))["stops"] == []
        told = (await farebox("debit", "retry", waiting["debit_id"]))[1].splitlines()[1:]
        resumed = f"(`farebox resume {number}` ends it)"
        assert told == [
            "  not sent because of operator paused (`farebox operator mode OPERATOR live` ends it)",
            f"  not sent because of stop {number} {resumed}: a wrong tariff",
        ]
        assert told == (await farebox("debit", "show", waiting["debit_id"]))[1].splitlines()[5:7]
    finally:
        await it.sql("UPDATE operator SET mode = 'live' WHERE operator_no = 1")
        for one in await list_stops(it.database, 1):
            await resume(it.database, 1, one.stop_no, now=it.doors.now(), **named)
    await it.collect()
    sent = await it.get(path)
    assert (sent["state"], sent["stops"]) == ("settled", [])
    assert [step["why"] for step in sent["transitions"]].count("retry asked") == 1, "at the same instant"


async def test_a_refund_that_is_stopped_says_what_holds_it_up(it: WebWorld, database_url: str) -> None:
    """Only `farebox stops` knew: refund-again answered with 0 and nothing else."""
    named = {"reason": "a wrong tariff", "by": "ops"}
    await it.take(*whole("refund-held-up"))
    await it.collect()
    (paid,) = (await it.get("/v1/sessions/refund-held-up"))["debits"]
    await stop(it.database, 1, "refunds", now=it.doors.now(), **named)
    await stop(it.database, 1, "debits", now=it.doors.now(), **named)
    numbers = {one.what: one.stop_no for one in await list_stops(it.database, 1)}
    try:
        assert (await post(it, paid, "refunds", {"amount_minor": 100, "reason": "loose"})).status == 202
        await it.collect()
        again = await post(it, paid, "refunds/retry")
        assert again.status == 202
        assert again.body["stops"] == [{"what": "refunds", "stop_no": numbers["refunds"], "reason": "a wrong tariff"}]
        told = (await command(database_url)("debit", "refund-again", paid["debit_id"]))[1].splitlines()[1:]
        assert [line.partition(" (")[0] for line in told] == [
            f"  refunds are not sent because of stop {numbers['refunds']}"
        ]
    finally:
        for number in numbers.values():
            await resume(it.database, 1, number, now=it.doors.now(), **named)
    await it.collect()
    given = await it.get(f"/v1/debits/{paid['debit_id']}")
    assert (given["refunded_minor"], given["stops"]) == (100, [])


async def test_a_debit_that_never_stood_still_is_not_resumed(it: WebWorld) -> None:
    """It said 200 of one that was settled elsewhere, which goes on nowhere."""
    cash = await debit(it, "not-suspended")
    for done, stands in ((None, "is pending and"), ("settle-elsewhere", "is settled_elsewhere and")):
        if done is not None:
            assert (await post(it, cash, done, {"reason": "T-77"})).status == 200
        refused = await post(it, cash, "resume")
        assert (refused.status, refused.fields) == (409, ["path:debit_id"])
        assert f"{stands} was never suspended" in refused.body["detail"]
    decided = await post(it, cash, "decide", {"decision": "settled", "reason": "T-77"})  # The same reason.
    assert (decided.status, decided.fields) == (409, ["path:debit_id"])


async def test_a_debit_paid_in_cash_is_settled_elsewhere_once(it: WebWorld) -> None:
    open_one = await debit(it, "cash")
    asked = {"reason": "paid in cash at the shop"}
    first = await post(it, open_one, "settle-elsewhere", asked, key="k-cash")
    assert (first.status, first.body["state"], first.body["forgone_minor"]) == (200, "settled_elsewhere", 250)
    replayed = await post(it, open_one, "settle-elsewhere", asked, key="k-cash")
    assert (replayed.body, replayed.headers["idempotency-replayed"]) == (first.body, "true")
    another = await post(it, open_one, "settle-elsewhere", asked)
    assert (another.status, lives(another.body)) == (200, lives(first.body))
    other = await post(it, open_one, "settle-elsewhere", {"reason": "no"}, key="k-cash")
    assert (other.status, other.body["type"]) == (422, "urn:farebox:problem:key-reused")


async def test_what_was_paid_in_cash_and_is_not_owed_is_handed_back_once(it: WebWorld) -> None:
    open_one = await debit(it, "handed-back")
    await post(it, open_one, "settle-elsewhere", {"reason": "paid at the shop"})
    early = await post(it, open_one, "given-back", {"amount_minor": 100, "reason": "T-78"})
    assert (early.status, early.fields) == (409, ["/amount_minor"])
    assert "1.00 CNY can't have been given back" in early.body["detail"]
    less = {"kind": "goodwill", "code": "sorry", "amount_minor": 100, "currency": "CNY", "reason": "wet"}
    assert (await it.ask("POST", "/v1/sessions/handed-back/charges", less)).status == 200
    owing = await it.get("/v1/sessions/handed-back")
    assert (owing["outside_minor"], owing["to_refund_minor"]) == (250, 100)
    asked = {"amount_minor": 100, "reason": "T-78", "by": "desk-7"}
    done = await post(it, open_one, "given-back", asked, key="k-hand")
    assert (done.status, done.body["outside_minor"], done.body["given_back_minor"]) == (200, 150, 0)
    ride = done.body["ride"]
    assert (ride["outside_minor"], ride["to_refund_minor"], ride["open_minor"]) == (150, 0, 0)
    assert done.body["transitions"][-1]["why"] == "given back 1.00 CNY: support: desk-7: T-78"
    replayed = await post(it, open_one, "given-back", asked, key="k-hand")
    assert (replayed.body, replayed.headers["idempotency-replayed"]) == (done.body, "true")
    again = await post(it, open_one, "given-back", asked)  # Under a key of its own: it was typed twice.
    assert (again.status, again.body) == (200, done.body)
    more = await post(it, open_one, "given-back", asked | {"reason": "T-79"})
    assert (more.status, more.fields) == (409, ["/amount_minor"])
    shown = await it.get(f"/v1/debits/{open_one['debit_id']}", by="anna")
    assert shown["transitions"][-1]["why"] == "given back 1.00 CNY: support"


async def test_what_support_says_of_a_debit_is_for_those_who_work_here(it: WebWorld) -> None:
    """A rider's own token and the topic are told that support did it, and not its words."""
    debits = [await debit(it, f"said-{what}", "decline", code="BALANCE_NOT_ENOUGH") for what in ("a", "b", "c")]
    await post(it, debits[0], "suspend", {"reason": "Mr Li objects"})
    await post(it, debits[1], "settle-elsewhere", {"reason": "Mr Li paid", "by": "desk-7"})
    await it.sql("UPDATE debit SET state = 'manual', due_at = NULL WHERE session_id = 'said-c'")
    decision = {"decision": "cancel", "reason": "Mr Li moved", "by": "desk-7"}
    decided = [(await post(it, debits[2], "decide", decision | who)).status for who in ({}, {}, {"by": "desk-8"})]
    assert decided == [200, 200, 409]
    reasons = [(await it.get(f"/v1/debits/{one['debit_id']}"))["reason"] for one in debits]
    assert reasons == [f"support: {said}" for said in ("Mr Li objects", "desk-7: Mr Li paid", "desk-7: Mr Li moved")]
    listed = {one["debit_id"]: one for one in (await it.get("/v1/debits?agreement_id=agr-1", by="anna"))["items"]}
    for one, last in zip(debits, ("suspended", "paid elsewhere", "operator decided"), strict=True):
        path = f"/v1/debits/{one['debit_id']}"
        shown = await it.get(path, by="anna")
        (of_ride,) = (await it.get(f"/v1/sessions/{one['session_id']}", by="anna"))["debits"]
        assert "Mr Li" in str(await it.get(path))
        assert not re.search("Mr Li|desk-7", str([shown, of_ride, listed[one["debit_id"]]]))
        assert {view["reason"] for view in (shown, of_ride, listed[one["debit_id"]])} == {"support"}
        assert shown["transitions"][-1]["why"] == f"{last}: support"
    assert not [record for record in await it.sent("billing") if re.search(b"Mr Li|desk-7", record.value or b"")]


@pytest.mark.parametrize(
    ("decision", "state", "paid"), [("settled", "settled", 250), ("cancel", "cancelled", 0), ("submit_again", None, 0)]
)
async def test_an_unclear_debit_is_decided_by_hand(it: WebWorld, decision: str, state: str | None, paid: int) -> None:
    unclear = await debit(it, f"unclear-{decision}")
    early = await post(it, unclear, "decide", {"decision": decision, "reason": "too early"})
    assert (early.status, early.fields) == (409, ["path:debit_id"])
    assert "is pending and can't be decided by hand" in early.body["detail"]
    await it.sql("UPDATE debit SET state = 'manual', due_at = NULL WHERE session_id = $1", f"unclear-{decision}")
    asked = {"decision": decision, "reason": "seen in the provider's books"}
    done = await post(it, unclear, "decide", asked)
    assert (done.status, done.body["state"], done.body["paid_minor"]) == (200, state or "submitting", paid)
    assert done.body["provider_key"] == unclear["provider_key"]
    again = await post(it, unclear, "decide", asked)  # Whoever asked may have died before he read the answer.
    assert (again.status, again.body) == (200, done.body)
    for other in {"settled", "cancel", "submit_again"} - {decision}:  # It was swallowed where the reason was the same.
        late = await post(it, unclear, "decide", asked | {"decision": other})
        assert (late.status, late.fields) == (409, ["path:debit_id"])
        assert f"is {done.body['state']} and can't be decided by hand" in late.body["detail"]
    assert await it.get(f"/v1/debits/{unclear['debit_id']}") == done.body


async def test_a_debit_of_which_nothing_is_said_is_listed_and_may_be_decided(it: WebWorld, database_url: str) -> None:
    silent, other = [await debit(it, name) for name in ("silent", "said")]
    words = "its provider says neither yes nor no: code NEVER_HEARD"
    await it.sql("UPDATE debit SET reason = $1 WHERE session_id = 'silent'", words)
    listed = (await command(database_url)("debit", "list", "--unanswered"))[1]
    assert listed == f"{silent['debit_id']}  session silent  pending  0.00 of 2.50 CNY paid  ({words})\n"
    asked = {"decision": "settled", "reason": "in his books"}
    assert (await post(it, other, "decide", asked)).status == 409
    done = await post(it, silent, "decide", asked)
    assert (done.status, done.body["state"], done.body["paid_minor"]) == (200, "settled", 250)


async def test_what_a_ride_owes_by_now_is_told_to_whoever_decides_and_nothing_is_taken_for_a_voided_one(
    it: WebWorld, database_url: str
) -> None:
    """Nobody was told, and the whole debit was sent again, to be given back."""
    farebox, asked = command(database_url), {"reason": "not in his books"}
    unclear = {name: await debit(it, name) for name in ("as-it-was", "less-by-now", "undone")}
    await it.sql("UPDATE debit SET state = 'manual', due_at = NULL WHERE session_id = ANY($1)", list(unclear))
    words = "its provider says neither yes nor no: code NEVER_HEARD"
    operator = it.doors.knowledge.operators[1]
    await adjust_ride(it.database, it.doors.knowledge, operator, "less-by-now", adjustment("goodwill", 100))
    await it.take(event("voided", 31, session="undone"))
    await it.collect()
    owing = {}
    for name, owed in (("as-it-was", "2.50"), ("less-by-now", "1.50"), ("undone", "0.00")):
        shown = (await farebox("debit", "show", unclear[name]["debit_id"]))[1].splitlines()
        owing[name] = [line for line in shown if "its ride owes" in line]
        assert owing[name][0].startswith(f"  its ride owes {owed} of these 2.50 CNY now")
    assert owing["less-by-now"][0].endswith(" now: what is taken above that goes back")
    _, sent, _ = await farebox("debit", "decide", unclear["less-by-now"]["debit_id"], "submit_again", "--reason", "r")
    assert sent.splitlines()[1:] == owing["less-by-now"], "also of what is on its way"
    assert (await post(it, unclear["as-it-was"], "decide", asked | {"decision": "submit_again"})).status == 200
    for state in ("unknown", "manual"):
        await it.sql("UPDATE debit SET state = $1, reason = $2 WHERE session_id = 'undone'", state, words)
        refused = await post(it, unclear["undone"], "decide", asked | {"decision": "submit_again"})
        assert (refused.status, refused.fields) == (409, ["/decision"])
        assert "its ride owes nothing any more: `cancel` it" in refused.body["detail"]
    over = await post(it, unclear["undone"], "decide", asked | {"decision": "cancel"})
    await it.collect()
    ride = await it.get("/v1/sessions/undone")
    [cancelled] = ride["debits"]
    assert (over.status, cancelled["state"], cancelled["forgone_minor"], ride["open_minor"]) == (200, "cancelled", 0, 0)


async def test_a_debit_that_waits_for_its_day_is_tried_now(it: WebWorld) -> None:
    waiting = await debit(it, "impatient", "decline", code="BALANCE_NOT_ENOUGH")
    assert waiting["state"] == "retry_wait"
    now = await post(it, waiting, "retry")
    assert (now.status, now.body["state"], now.body["due_at"]) == (200, "retry_wait", now.body["updated_at"])
    await it.collect()
    assert (await it.get(f"/v1/debits/{waiting['debit_id']}"))["state"] == "settled"
    late = await post(it, waiting, "retry")
    assert (late.status, late.fields) == (409, ["path:debit_id"])


async def test_why_a_debit_is_not_tried_is_one_thing(it: WebWorld) -> None:
    """It was a sentence of sixty words on whatever could be, Alipay's ways at an account of the sandbox among them."""
    one = await debit(it, "not-now", "decline", code="BALANCE_NOT_ENOUGH")
    stands: list[tuple[str, bool, str | None, int | None, str, str]] = [
        ("retry_wait", True, None, None, "retry_wait, suspended", "resume it"),
        ("retry_wait", False, "complaint", None, "retry_wait, disputed", "its complaint is to be closed first"),
        ("retry_wait", False, None, 100, "retry_wait", "its provider is being asked to lower it"),
        ("needs_rider", False, None, None, "needs_rider", "it waits for its rider"),
        ("manual", False, None, None, "manual", "say what became of it (`decide`)"),
        ("cancelled", False, None, None, "cancelled", "nothing more is asked of its rider"),
    ]
    for *columns, named, why in stands:
        await it.sql(
            "UPDATE debit SET state = $1, suspended = $2, dispute = $3, lowering_to = $4 WHERE session_id = 'not-now'",
            *columns,
        )
        refused = await post(it, one, "retry")
        told = f"debit {one['debit_id']} is {named} and can't be tried now: {why}"
        assert (refused.status, refused.body["detail"]) == (409, told)


async def test_a_complaint_is_opened_and_resolved(it: WebWorld) -> None:
    open_one = await debit(it, "complaint")
    none = await post(it, open_one, "disputes/close", {"result": "resolved"})
    assert (none.status, none.fields) == (409, ["path:debit_id"])
    opened = await post(it, open_one, "disputes", {"kind": "complaint"})
    assert (opened.status, opened.body["dispute"]) == (200, "complaint")
    other = await post(it, open_one, "disputes", {"kind": "chargeback"})
    assert (other.status, other.fields) == (409, ["/kind"])
    odd = await post(it, open_one, "disputes/close", {"result": "won"})
    assert (odd.status, odd.fields) == (422, ["/result"])
    closed = await post(it, open_one, "disputes/close", {"result": "resolved"})
    assert (closed.status, closed.body["dispute"]) == (200, "resolved")
    kinds = [record.headers for record in await it.sent("billing")]
    assert sum("dispute.opened" in str(headers) for headers in kinds) == 1
    assert sum("dispute.closed" in str(headers) for headers in kinds) == 1


async def test_what_a_state_forbids_says_what_to_do_instead(it: WebWorld) -> None:
    await it.take(*whole("done"))
    await it.collect()
    (settled,) = (await it.get("/v1/sessions/done"))["debits"]
    for what, said in (("suspend", "refunded"), ("settle-elsewhere", "refunded")):
        answer = await post(it, settled, what, {"reason": "late"})
        assert (answer.status, answer.body["type"]) == (409, "urn:farebox:problem:conflict")
        assert "is settled and can't be" in answer.body["detail"]
        assert said in answer.body["detail"]
    assert lives(await it.get(f"/v1/debits/{settled['debit_id']}")) == ["new", "submitting", "settled"]


@pytest.mark.parametrize(
    ("what", "body", "status", "fields"),
    [
        ("suspend", None, 400, ["/"]),
        ("suspend", {}, 422, ["/reason"]),
        ("suspend", {"reason": ""}, 422, ["/reason"]),
        ("suspend", {"reason": "x", "by": "me too"}, 422, ["/by"]),
        ("settle-elsewhere", {"reason": "a\x00b"}, 422, ["/reason"]),
        ("given-back", {"amount_minor": 0, "reason": "r"}, 422, ["/amount_minor"]),
        ("given-back", {"amount_minor": 1}, 422, ["/reason"]),
        ("decide", {"decision": "forget", "reason": "r"}, 422, ["/decision"]),
        ("decide", {"decision": "cancel"}, 422, ["/reason"]),
        ("decide", {"decision": "cancel", "reason": "r", "provider_reference": "P1"}, 422, ["/provider_reference"]),
        ("disputes", {"kind": "grudge"}, 422, ["/kind"]),
        ("disputes", {}, 422, ["/kind"]),
        ("disputes/close", {"result": "drawn"}, 422, ["/result"]),
    ],
)
async def test_a_wish_that_cannot_be_read_names_its_field(
    it: WebWorld, what: str, body: Any, status: int, fields: list[str]
) -> None:
    if not await it.sql("SELECT 1 FROM debit WHERE session_id = 'unread'"):
        await debit(it, "unread")
    (one,) = (await it.get("/v1/sessions/unread"))["debits"]
    answer = await post(it, one, what, body)
    assert (answer.status, answer.fields) == (status, fields), answer.body
    for name in ("none", "1-1", "99999999999999999999-1", "%00"):
        missing = await it.ask("POST", f"/v1/debits/{name}/{what}", {"reason": "r", "kind": "complaint"} | (body or {}))
        assert missing.status in (404, 422)
