"""What the fuzzers found, one input each: the doors take them or refuse them in words from now on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import doors
import pytest
from doors_answers import seeds_of_sandbox
from doors_bills import WECHAT, seeds_of_alipay, seeds_of_archives
from doors_http import seeds_of_bodies
from doors_notices import SIGNED, seeds_of_stripe
from doors_records import KEY
from event_records import binary
from fuzz_parts import Door, filled, written

GOOD = binary()
HEADERS = filled(GOOD.headers)
HELD = next(seed for seed in seeds_of_stripe() if b"capture_before" in seed)
DISPUTE = next(seed for seed in seeds_of_stripe() if b"charge.dispute" in seed)
PAID = b'{"mchid":"1900007291","out_trade_no":"K","trade_state":"SUCC\\u0000ESS","transaction_id":"4"}'


def _tariff(part: bytes) -> bytes:
    plan = b'{"currency":"CNY","price":1,"per_km_pricing":[{"start":0,"rate":1,"interval":1}]}'
    return b'{"tariff_id":"t","plan":%b,%b}' % (plan, part)


FOUND: dict[str, tuple[str, Callable[[], bytes]]] = {
    "the name of a header that is there twice has a NUL: no row of the quarantine took its path": (
        "record",
        lambda: written([(KEY, GOOD.key or b""), *HEADERS, (b"ce_\0x", b"1"), (b"ce_\0x", b"1")], GOOD.value),
    ),
    "an exported value is a text of bad UTF-8": ("line", lambda: b'{"value":"\xbf","key":"k"}'),
    "an export's first line is not UTF-8": ("trips", lambda: b"ride_id,sta\xa4ted_at,ended_at\n"),
    "a feed's fields that nobody reads have a NUL, or bad UTF-8": (
        "tariff",
        lambda: b'{"plan_id":"p","currency":"CNY","price":1,"x":"\\u0000"}',
    ),
    "a ride is over in the last hours of the year 9999: its start could not be awaited": (
        "line",
        lambda: (
            b'{"specversion":"1.0","id":"e","source":"urn:app","type":"io.farebox.session.cancelled.v1",'
            b'"time":"9999-12-31T03:59:59Z","data":{"session_id":"s"}}'
        ),
    ),
    "a tariff begins before the year 1": ("tariff", lambda: _tariff(b'"valid_from":"0001-01-01T00:00:00+14:00"')),
    "a tariff begins in the year 9999": ("tariff", lambda: _tariff(b'"valid_from":"9999-12-31T23:59:59Z"')),
    "a ride is lost after a hundred thousand years": (
        "tariff",
        lambda: _tariff(b'"rules":{"lost_end":{"after_hours":999999999,"charge":"review"}}'),
    ),
    "a long ride costs more than 64 bits hold": (
        "tariff",
        lambda: _tariff(b'"rules":{}').replace(b'"rate":1,', b'"rate":1e11,'),
    ),
    "a reservation lasts for two million years": (
        "tariff",
        lambda: _tariff(b'"rules":{"default_reserve_time":999999999999}'),
    ),
    "a document has a field that nobody knows, with a NUL: its refusal had it too": (
        "tariff",
        lambda: _tariff(b'"va\\u0000om":1'),
    ),
    "a port is set to bytes that are no UTF-8": (
        "settings",
        lambda: b"FAREBOX_DATABASE_URL: postgresql://u@h/f\nFAREBOX_HTTP_PORT: 80\xae",
    ),
    "a misspelt setting has a control character, and its refusal had a second line": (
        "settings",
        lambda: b"FAREBOX_DATABASE_URL: postgresql://u@h/f\nFAREBOX_HTTP_\x1ePORT: 80",
    ),
    "a signed form has a NUL": ("alipay-notice", lambda: written([SIGNED], b"notify_type=fund_auth_freeze&x=%00")),
    "a sealed resource has a NUL": (
        "wechatpay-notice",
        lambda: written([SIGNED, (b"event", b"TRANSACTION.SUCCESS")], PAID),
    ),
    "a dispute is told of in the year 3170843": (
        "stripe-notice",
        lambda: DISPUTE.replace(b"1790000000", b"99999999999999"),
    ),
    "a card payment can be captured before the year -3166904": (
        "stripe-notice",
        lambda: HELD.replace(b"1790000000", b"-99999999999999"),
    ),
    "a bill's row has a NUL": ("wechatpay-bill", lambda: WECHAT.replace("4200", "42\0").encode()),
    "a bill's row was paid before the year 1 in UTC": (
        "wechatpay-bill",
        lambda: WECHAT.replace("2026-11-21 18", "0001-01-01 00").encode(),
    ),
    "a bill's row was paid before the year 1 in UTC, at Alipay": (
        "alipay-bill",
        lambda: seeds_of_alipay()[0].replace(b"2026-11-21 18", b"0001-01-01 00"),
    ),
    "a notification is for an account with control characters": (
        "sandbox-notice",
        lambda: written(
            [SIGNED], b'{"id":"n","account_id":"c\x7f","about":"hold","data":{"key":"H","ref":"r","state":"open"}}'
        ),
    ),
    "a quote is for the year 1": (
        "body",
        lambda: next(
            seed.replace(b"2026-11-22T18:30:00+08:00", b"0001-01-01T00:00:00+14:00")
            for seed in seeds_of_bodies()
            if b'"at":"2026-11-22T18' in seed
        ),
    ),
    "a hold lasts until after the year 9999 in UTC": (
        "sandbox-answer",
        lambda: next(seed for seed in seeds_of_sandbox() if b"expires_at" in seed).replace(
            b"2026-11-22T10:00:00Z", b"9999-12-31T23:59:59-12:00"
        ),
    ),
    "an archive says that its first file begins before it": (
        "alipay-archive",
        lambda: seeds_of_archives()[1].replace(b"PK\x05\x06", b"\x00PK\x05\x06").replace(b"PK\x03\x04", b"PK\x03"),
    ),
    "an amount is a number of 64 bits, its fee another": (
        "stripe-notice",
        lambda: DISPUTE.replace(b"1500", b"9223372036854775807").replace(b"eur", b"isk"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What doors write goes where pytest removes it."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("doors"))
    yield
    tempfile.tempdir = before


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once_is_taken_or_refused(what: str) -> None:
    name, made = FOUND[what]
    (door,) = (door for door in doors.DOORS if door.name == name)
    door.enter(made())


@pytest.mark.parametrize("door", doors.DOORS, ids=lambda door: str(door.name))
def test_what_a_door_begins_with_is_taken(door: Door) -> None:
    for seed in door.seeds():
        door.enter(seed)
