"""WeChat Pay's signatures against the vendor's public vectors, and what must not fool them."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from wechatpay_double import key_of, sealed_headers, serial_of

from service.adapters.providers.rsa import BadKeyError, load_public_key, sign, verified
from service.adapters.providers.wechatpay import signing

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "signatures.json").read_bytes())
AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


def vector(name: str) -> dict[str, Any]:
    return next(vector for vector in VECTORS if vector["name"] == name)


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_a_request_is_signed_as_the_vendors_client_signs_it() -> None:
    given = vector("wechatpay-authorization-with-body")
    parts = (given["method"], given["path"], given["timestamp"], given["nonce"], given["body"])
    content = signing.request_content(*parts)
    assert content == given["canonical"]
    assert verified(load_public_key(given["public_key_pem"]), content, given["signature"])
    header = signing.authorization(
        given["mchid"], given["serial_no"], given["timestamp"], given["nonce"], given["signature"]
    )
    scheme, _, fields = header.partition(" ")
    assert scheme == given["scheme"]
    assert dict(field.split("=", 1) for field in fields.split(",")) == {
        "mchid": f'"{given["mchid"]}"',
        "nonce_str": f'"{given["nonce"]}"',
        "timestamp": f'"{given["timestamp"]}"',
        "serial_no": f'"{given["serial_no"]}"',
        "signature": f'"{given["signature"]}"',
    }


def test_a_notification_of_the_vendors_is_verified_and_opened() -> None:
    given = vector("wechatpay-notify-PAYSCORE.USER_OPEN_SERVICE")
    headers, body = lower(given["headers"]), given["body"].encode()
    at = datetime.fromtimestamp(int(headers["wechatpay-timestamp"]), UTC)
    sealed = signing.sealed(headers, body, at)
    assert isinstance(sealed, signing.Sealed) and sealed.content == given["canonical"]
    own = signing.certificate(given["certificate_pem"].encode())
    assert own.serial == signing.serial_of(sealed.serial)
    assert signing.opened(own.key, sealed)
    envelope = json.loads(body)["resource"]
    key = given["api_v3_key"].encode()
    opened = signing.decrypted(key, envelope["nonce"], envelope["associated_data"], envelope["ciphertext"])
    assert opened == given["plaintext"].encode()
    tampered = signing.sealed(headers, body.replace(b"2021", b"2022"), at)
    assert isinstance(tampered, signing.Sealed) and not signing.opened(own.key, tampered)


def test_an_envelope_opens_with_its_own_key_nonce_and_data_alone() -> None:
    given = vector("wechatpay-go-aes-gcm")
    key, nonce, data = given["api_v3_key"].encode(), given["nonce"], given["associated_data"]
    assert signing.decrypted(key, nonce, data, given["ciphertext"]) == given["plaintext"].encode()
    assert signing.decrypted(b"x" * 16, nonce, data, given["ciphertext"]) is None
    assert signing.decrypted(key, nonce, data + "0", given["ciphertext"]) is None
    assert signing.decrypted(key, "0" * 12, data, given["ciphertext"]) is None
    assert signing.decrypted(key, nonce, data, given["ciphertext"][:-4] + "AAAA") is None
    assert signing.decrypted(key, nonce, data, "no base64!") is None
    assert signing.decrypted(b"short", nonce, data, given["ciphertext"]) is None


def test_a_probe_is_no_signature() -> None:
    headers = lower(sealed_headers("platform", b"{}", AT))
    genuine = signing.sealed(headers, b"{}", AT)
    assert isinstance(genuine, signing.Sealed) and signing.opened(key_of("platform").public_key(), genuine)
    probe = signing.sealed(headers | {"wechatpay-signature": "WECHATPAY/SIGNTEST/" + genuine.signature}, b"{}", AT)
    assert isinstance(probe, signing.Sealed) and not signing.opened(key_of("platform").public_key(), probe)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"wechatpay-signature": ""}, "it is not signed"),
        ({"wechatpay-serial": ""}, "it is not signed"),
        ({"wechatpay-nonce": ""}, "it is not signed"),
        ({"wechatpay-timestamp": ""}, "it is not signed"),
        ({"wechatpay-timestamp": "soon"}, "its time can't be read"),
        ({"wechatpay-timestamp": "-1"}, "its time can't be read"),
        ({"wechatpay-timestamp": "９"}, "its time can't be read"),
        ({"wechatpay-timestamp": "9" * 30}, "its time can't be read"),
        ({"wechatpay-signature-type": "WECHATPAY2-SM2-WITH-SM3"}, "its signature is of another type"),
    ],
)
def test_what_is_not_signed_as_agreed_is_told(changed: dict[str, str], why: str) -> None:
    assert signing.sealed(lower(sealed_headers("platform", b"{}", AT)) | changed, b"{}", AT) == why


def test_the_signatures_type_may_be_left_out() -> None:
    headers = lower(sealed_headers("platform", b"{}", AT))
    del headers["wechatpay-signature-type"]
    assert isinstance(signing.sealed(headers, b"{}", AT), signing.Sealed)


@pytest.mark.parametrize(("seconds", "believed"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_window_is_five_minutes_to_either_side(seconds: int, believed: bool) -> None:
    headers = lower(sealed_headers("platform", b"{}", AT))
    read = signing.sealed(headers, b"{}", AT + timedelta(seconds=seconds))
    assert isinstance(read, signing.Sealed) is believed


def test_a_body_that_is_no_text_is_not_verified() -> None:
    headers = lower(sealed_headers("platform", b"{}", AT))
    assert signing.sealed(headers, b"\xff", AT) == "its body is not UTF-8"


def test_serial_numbers_are_compared_as_numbers() -> None:
    assert signing.serial_of("00aBc1") == "ABC1"
    assert signing.serial_of("PUB_KEY_ID_0abc") == "PUB_KEY_ID_0abc"
    assert signing.serial_of(serial_of("platform").lower()) == serial_of("platform")


def test_a_payment_is_signed_in_four_lines() -> None:
    """The lines of wechatpay-skills, 签名与验签规则 7."""
    signed = signing.payment_signature(key_of("merchant"), "wx2421b1c4370ec43b", "1554208460", "n", "prepay_id=wx2014")
    assert signed == sign(key_of("merchant"), "wx2421b1c4370ec43b\n1554208460\nn\nprepay_id=wx2014\n")


def test_a_page_is_signed_over_its_sorted_parameters() -> None:
    """By openssl: printf 'a=1&b=2&key=K' | openssl dgst -sha256 -hmac K"""
    signed = signing.page_signature("K", {"b": "2", "a": "1", "c": ""})
    assert signed == "E876CF830B3006382756D30BE4B2EE729C4D8DB9FEC634C7B9D33DEF40C7D604"


@pytest.mark.parametrize(
    "text", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b64encode(b"x")]
)
def test_what_is_no_certificate_is_named(text: bytes) -> None:
    with pytest.raises(BadKeyError, match="no certificate"):
        signing.certificate(text)
