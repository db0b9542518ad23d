"""Facts as they leave: CloudEvents with ids that never change, amounts in minor units, lines as they were encoded."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from event_records import SESSION, binary

from service.billing.events import Malformed, RawRecord, RideEvent, decode
from service.billing.facts import EncodedFact, encode_fact, encode_lines, fact_event_type, fact_id, sources_of
from service.billing.facts import data as shapes
from service.billing.facts.parts import ChargeLine, Contact, SourceEvent
from service.billing.facts.quarantine import encode_quarantined
from service.billing.outcomes import ClientSecret, MiniProgram, OpenUrl, SignString

SCHEMAS = Path(__file__).parents[2] / "schemas/facts"
NOW = datetime(2026, 11, 22, 3, 4, 5, 250000, UTC)
LATER = datetime(2026, 11, 29, tzinfo=UTC)
LINES = (
    ChargeLine("unlock", Decimal(1), "ride", Decimal("1.50"), Decimal("1.50"), "/plan/price"),
    ChargeLine("per_min", Decimal(2), "15 min", Decimal("1.475"), Decimal("2.950"), "/plan/per_min_pricing/0"),
)
SOURCE = SourceEvent("ended", "urn:mds:provider:5c1f", "e-1", "rental.sessions", 3, 41)
RIDE: dict[str, Any] = {
    "operator_id": "default",
    "session_id": SESSION,
    "agreement_id": "agr-1",
    "rider_ref": "rider-1",
}
CHARGE: dict[str, Any] = {
    **RIDE,
    "revision": 2,
    "tariff_id": "bike-std",
    "tariff_version": 3,
    "currency": "CNY",
    "amount_minor": 445,
    "lines": encode_lines(LINES),
    "sources": (SOURCE,),
}
HOLD: dict[str, Any] = {**RIDE, "hold_id": "h-1"}
DEBIT: dict[str, Any] = {**RIDE, "debit_id": "d-1", "amount_minor": 445, "currency": "CNY"}
REMINDER: dict[str, Any] = {
    **DEBIT,
    "due_at": LATER,
    "contact": Contact("City Bikes", phone="+86 21 5555 0100"),
    "language": "zh",
}
REFUND: dict[str, Any] = {**DEBIT, "refund_id": "r-1"}
DISPUTE: dict[str, Any] = {**DEBIT, "dispute_id": "p-1", "nature": "complaint"}
AGREEMENT: dict[str, Any] = {
    "operator_id": "default",
    "agreement_id": "agr-1",
    "rider_ref": "rider-1",
    "provider": "sandbox",
}
STATE: dict[str, Any] = {**RIDE, "revision": 1, "reason": "end_before_start", "sources": (SOURCE,)}
FACTS: dict[str, shapes.Fact] = {
    "charge.rated": shapes.ChargeRated(**CHARGE, started_at=NOW, ended_at=LATER, meters=2345),
    "charge.revised": shapes.ChargeRevised(**{**CHARGE, "lines": encode_lines(())}, difference_minor=-445),
    "hold.opened": shapes.HoldOpened(**HOLD, cap_minor=3000, currency="CNY", expires_at=LATER),
    "hold.refused": shapes.HoldRefused(**HOLD, reason="overdue"),
    "hold.released": shapes.HoldReleased(**HOLD),
    "debit.submitted": shapes.DebitSubmitted(**DEBIT),
    "debit.settled": shapes.DebitSettled(**DEBIT, paid_minor=445, settled_at=NOW, provider_reference="2026112200"),
    "debit.declined": shapes.DebitDeclined(**DEBIT, reason="balance", retry_at=LATER, attempt=2),
    "debit.needs_rider": shapes.DebitNeedsRider(**DEBIT, reason="bank", action=ClientSecret("pi_1_secret_2")),
    "debit.overdue": shapes.DebitOverdue(**DEBIT, due_at=NOW, unpaid_minor=445),
    "debit.written_off": shapes.DebitWrittenOff(**DEBIT, written_off_minor=445),
    "reminder.due": shapes.ReminderDue(**REMINDER, how_to_pay=OpenUrl("https://pay.example/d-1"), attempt_at=LATER),
    "reminder.overdue": shapes.ReminderOverdue(**REMINDER, how_to_pay=SignString("alipay_sdk=…")),
    "reminder.report_notice": shapes.ReminderReportNotice(
        **REMINDER, how_to_pay=MiniProgram("wx1", "pages/pay", {"debit": "d-1"}), report_at=LATER
    ),
    "performance.reported": shapes.PerformanceReported(**RIDE, debit_id="d-1", record="completed"),
    "refund.settled": shapes.RefundSettled(**REFUND, provider_reference="2026112201"),
    "refund.failed": shapes.RefundFailed(**REFUND, reason="account closed"),
    "dispute.opened": shapes.DisputeOpened(**DISPUTE),
    "dispute.closed": shapes.DisputeClosed(**DISPUTE, outcome="resolved"),
    "agreement.active": shapes.AgreementActive(**AGREEMENT, currency="CNY", cap_minor=20_000, valid_until=LATER),
    "agreement.refused": shapes.AgreementRefused(**AGREEMENT, reason="NAME_NOT_VERIFIED"),
    "agreement.revoked": shapes.AgreementRevoked(**AGREEMENT, reason="by the rider"),
    "agreement.expired": shapes.AgreementExpired(**AGREEMENT, reason="never signed"),
    "session.review": shapes.SessionReview(**STATE),
    "session.parked": shapes.SessionParked(**STATE),
    "session.conflict": shapes.SessionConflict(**STATE, contradicting=(SOURCE,)),
}


def sent(name: str, ordinal: int | str = 1) -> EncodedFact:
    return encode_fact(FACTS[name], ordinal=ordinal, at=NOW)


def read_by_sdk(fact: EncodedFact) -> Any:
    return from_kafka_event(KafkaMessage(headers=dict(fact.headers), key=fact.key, value=fact.value))


def test_there_is_a_sample_of_every_fact() -> None:
    assert list(FACTS) == list(shapes.FACT_TYPES)


@pytest.mark.parametrize("name", FACTS)
def test_the_cloudevents_sdk_reads_every_fact_and_it_fits_its_schema(name: str) -> None:
    event = read_by_sdk(sent(name))
    key = "agr-1" if name.startswith("agreement.") else SESSION
    assert event.get_type() == fact_event_type(name) == f"io.farebox.billing.{name}.v1"
    assert event.get_source() == "urn:farebox:operator:default"
    assert event.get_time() == NOW
    assert event.get_subject() == key == sent(name).key.decode()
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    whole = {**event.get_attributes(), "time": NOW.isoformat(), "data": json.loads(sent(name).value)}
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(whole)


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_comes_back_as_it_was(name: str) -> None:
    back = msgspec.json.decode(sent(name).value, type=shapes.FACT_TYPES[name])
    assert msgspec.json.encode(back) == msgspec.json.encode(FACTS[name])


def test_an_id_is_the_same_when_written_again_and_never_anothers() -> None:
    about = [
        (operator, name, key, ordinal)
        for operator in ("a", "b", "ab")
        for name in ("charge.rated", "charge.revised")
        for key in ("s1", "s", "bs1")
        for ordinal in (1, 2, 12, "d-1/1")
    ]
    assert len({fact_id(*one) for one in about}) == len(about)
    assert fact_id("default", "charge.rated", SESSION, 2) == dict(sent("charge.rated", 2).headers)["ce_id"].decode()
    assert sent("charge.rated", 2) == sent("charge.rated", 2)


def test_a_charge_carries_its_lines_as_exact_text_and_its_sources() -> None:
    data = json.loads(sent("charge.rated").value)
    assert [line["amount"] for line in data["lines"]] == ["1.50", "2.950"]
    assert bytes(encode_lines(LINES)) in sent("charge.rated").value
    assert data["amount_minor"] == sum(Decimal(line["amount"]) for line in data["lines"]) * 100
    assert data["sources"] == [
        {
            "kind": "ended",
            "source": "urn:mds:provider:5c1f",
            "id": "e-1",
            "topic": "rental.sessions",
            "partition": 3,
            "offset": 41,
        }
    ]
    event = decode(binary())
    assert isinstance(event, RideEvent)
    assert sources_of((event, event)) == (SOURCE, SOURCE)


def test_a_quarantined_record_keeps_every_byte_and_names_its_place() -> None:
    record = RawRecord(
        "rental.sessions", 3, 41, 0, b"\xff", b"\x00\xfe", (("ce_id", b"\xff"), ("farebox_path", b"old"))
    )
    refused = decode(record)
    assert isinstance(refused, Malformed)
    out = encode_quarantined(record, refused)
    assert (out.key, out.value) == (record.key, record.value)
    assert out.headers == [
        ("ce_id", b"\xff"),
        ("farebox_reason", refused.reason.encode()),
        ("farebox_path", b"headers.ce_type"),
        ("farebox_topic", b"rental.sessions"),
        ("farebox_partition", b"3"),
        ("farebox_offset", b"41"),
    ]


def test_a_quarantined_record_is_refused_again_for_the_same_reason() -> None:
    record = binary({"session_id": SESSION})
    refused = decode(record)
    assert isinstance(refused, Malformed)
    out = encode_quarantined(record, refused)
    again = RawRecord("rental.sessions.quarantine", 0, 0, 0, out.key, out.value, tuple(out.headers))
    assert decode(again) == refused
