"""Alipay's signatures against the vendors' public vectors, and what must not fool them."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.providers import rsa as rsa_keys
from service.adapters.providers.alipay import signing

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "signatures.json").read_bytes())
KEY = rsa.generate_private_key(65537, 2048)
PLAIN = '{"code":"10000","out_trade_no":"2015","trade_no":"2019"}'


def vector(name: str) -> dict[str, Any]:
    return next(vector for vector in VECTORS if vector["name"] == name)


def test_a_request_is_signed_as_the_vendors_clients_sign_it() -> None:
    given_ = vector("alipay-request-zhima-trade-pay")
    content = signing.request_content(given_["params"] | {"sign": "not signed", "app_auth_token": ""})
    assert content == given_["canonical"]
    assert rsa_keys.verified(rsa_keys.load_public_key(given_["public_key_pem"]), content, given_["signature"])


def test_a_trades_notification_is_verified_and_no_other_content_is() -> None:
    given_ = vector("alipay-notify-trade_status_sync-rsa2")
    key, form = rsa_keys.load_public_key(given_["public_key_pem"]), given_["form"]
    assert given_["canonical"] in list(signing.notification_contents(form))
    assert any(rsa_keys.verified(key, content, form["sign"]) for content in signing.notification_contents(form))
    for name in form.keys() - {"sign", "sign_type"}:
        tampered = form | {name: form[name] + "0"}
        contents = signing.notification_contents(tampered)
        assert not any(rsa_keys.verified(key, content, form["sign"]) for content in contents), name


@pytest.mark.parametrize("left_out", [{"sign"}, {"sign", "sign_type"}])
def test_messages_are_verified_with_and_without_their_sign_type(left_out: set[str]) -> None:
    form = {"msg_method": "x.changed", "sign_type": "RSA2", "biz_content": "{}", "nothing": ""}
    content = "&".join(f"{name}={form[name]}" for name in sorted(form.keys() - left_out))
    signature = rsa_keys.sign(KEY, content)
    contents = signing.notification_contents(form | {"sign": signature})
    assert any(rsa_keys.verified(KEY.public_key(), content, signature) for content in contents)


@pytest.mark.parametrize(
    "node",
    [
        vector("alipay-response-extract-nested-array")["expect_content"],
        PLAIN,
        '{"code":"10000","nested":{"a":1,"b":"2"},"out_trade_no":"2015"}',
        '{"code":"10000","out_trade_no":"201{5}0320010101001{}"}',
        '{"code":"10000","out_{trade}_{no}":"201{5}032{}"}',
        '{"code":"100}00","msg":"Suc}cess","array":["{1","2"],"trade_no":"2019062{3220"}',
        '{"co{de":"100}00","ms}g":"Suc}cess","ne{sted":{"a":1},"{out_{trade}_{no}":"2"}',
        r'{"co{de":"100}00","ms}g":"Suc\"}cess","array":["\"{1"],"trade_no}":"20\"19062{3"}',
        '{"code":"10000\\\\",         "msg": "Success",     "\\\\out_trade_no\\\\": "\\\\\\\\2015\\\\\\\\"     }',
        '"eyJjb2RlIjoiMTAwMDAifQ=="',
    ],
)
@pytest.mark.parametrize("form", ["{%s:%s,%s}", " { %s  :  %s ,\n %s } ", '{%s:%s,%s,"alipay_cert_sn":"a}"}'])
def test_the_signed_node_is_cut_out_as_it_stands(node: str, form: str) -> None:
    """The cases of alipay-sdk-java-all, AlipaySignatureTest."""
    body = form % ('"alipay_trade_create_response"', node, '"sign":"TS355N0Q"')
    sealed = signing.envelope(body.encode(), "alipay.trade.create")
    number = "a}" if "alipay_cert_sn" in form else ""
    assert sealed == signing.Envelope("alipay_trade_create_response", node, "TS355N0Q", number)


def test_the_vectors_body_is_taken_apart() -> None:
    given_ = vector("alipay-response-extract-nested-array")
    sealed = signing.envelope(given_["raw_body"].encode(), "alipay.trade.create")
    assert sealed is not None
    assert (sealed.content, sealed.sign) == (given_["expect_content"], "TS355N0Q...")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b'{"alipay_trade_create_response":{"code":"10000"',
        b'{"alipay_trade_create_response":{"code":"10000"}} and more',
        b'{"alipay_trade_create_response":{},"alipay_trade_create_response":{"code":"10000"},"sign":"x"}',
        b'{"alipay_trade_pay_response":{"code":"10000"},"sign":"x"}',
        b'{"alipay_trade_create_response":{"code":"10000"},"sign":7}',
        b'["alipay_trade_create_response"]',
        b"{1:2}",
        b"\xff\xfe",
        b'{"alipay_trade_create_response":' + b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_not_taken_apart(body: bytes) -> None:
    assert signing.envelope(body, "alipay.trade.create") is None


def test_the_gateways_own_refusals_are_taken_apart_signed_or_not() -> None:
    sealed = signing.envelope(b'{"error_response":{"code":"40002"}}', "alipay.trade.create")
    assert sealed == signing.Envelope("error_response", '{"code":"40002"}', "")


values = st.dictionaries(st.text("abcdefgh_", min_size=1), st.text(min_size=1), min_size=1)


@given(values)
def test_an_order_string_carries_what_was_signed(params: dict[str, str]) -> None:
    text = signing.order_string(KEY, params)
    read = dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True))
    signature = read.pop("sign")
    assert read == params
    assert rsa_keys.verified(KEY.public_key(), signing.request_content(params), signature)


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.text() | st.integers(), st.lists, max_leaves=5)))
def test_any_node_is_cut_out_of_any_answer(node: dict[str, Any]) -> None:
    content = json.dumps(node)
    body = json.dumps({"before": node})[:-1] + f', "a_b_response" : {content}, "sign":"s"}}'
    assert signing.envelope(body.encode(), "a.b") == signing.Envelope("a_b_response", content, "s")


@pytest.mark.parametrize("encoding", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_keys_are_read_as_pem_and_as_alipays_tool_writes_them(encoding: PrivateFormat) -> None:
    pem = KEY.private_bytes(Encoding.PEM, encoding, NoEncryption()).decode()
    bare = b64encode(KEY.private_bytes(Encoding.DER, encoding, NoEncryption())).decode()
    wrapped = "\n".join(bare[at : at + 64] for at in range(0, len(bare), 64))
    for text in (pem, bare, wrapped):
        assert rsa_keys.sign(rsa_keys.load_private_key(text), "a") == rsa_keys.sign(KEY, "a")
    public = KEY.public_key()
    der = b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for text in (public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), der):
        assert rsa_keys.verified(rsa_keys.load_public_key(text), "a", rsa_keys.sign(KEY, "a"))


def test_what_is_no_key_says_so_without_showing_it() -> None:
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused.
    curve = ec.generate_private_key(ec.SECP256R1())
    for key in (short, curve):
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        with pytest.raises(rsa_keys.BadKeyError, match="no RSA key of 2048 bits"):
            rsa_keys.load_private_key(text)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(rsa_keys.BadKeyError, match="no RSA key of 2048 bits"):
            rsa_keys.load_public_key(public)
    for text in ("secret?", b64encode(b"secret").decode(), "-----BEGIN PRIVATE KEY-----\nsecret\n"):
        for load in (rsa_keys.load_private_key, rsa_keys.load_public_key):
            with pytest.raises(rsa_keys.BadKeyError) as refused:
                load(text)
            assert "secret" not in str(refused.value)
    assert not rsa_keys.verified(KEY.public_key(), "a", "no base64!")
