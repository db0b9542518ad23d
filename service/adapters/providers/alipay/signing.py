"""Alipay's RSA2 signatures: which characters of a request, an answer, a notification are signed.

Sources: alipay-sdk-java-all (AlipaySignature, AlipaySignatureTest), alipay-sdk-nodejs-all (checkNotifySign), and the
vectors in tests/vectors/signatures.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from service.adapters.providers.rsa import sign

_JSON = json.JSONDecoder()
_WHITE = re.compile(r"[ \t\r\n]+")


class Envelope(msgspec.Struct, frozen=True):
    """An answer taken apart: the node that is signed, as it stands in the body, its signature, and the number of the
    certificate that it is signed by in certificate mode; "" where there is none."""

    node: str
    content: str
    sign: str
    cert_sn: str = ""


def request_content(params: Mapping[str, str]) -> str:
    """What is signed of a request: what has a value but `sign`, sorted, not url-encoded; `sign_type` stays in."""
    return _joined(params, {"sign"}, empty=False)


def signed_form(key: RSAPrivateKey, params: Mapping[str, str]) -> dict[str, str]:
    """The parameters that have a value, with their signature."""
    given = {name: value for name, value in params.items() if value}
    return {**given, "sign": sign(key, request_content(given))}


def order_string(key: RSAPrivateKey, params: Mapping[str, str]) -> str:
    """What the rider's app hands to the Alipay SDK (`sdkExecute`): the signed parameters, url-encoded."""
    form = signed_form(key, params)
    return "&".join(f"{name}={quote(form[name], safe='')}" for name in (*sorted(form.keys() - {"sign"}), "sign"))


def notification_contents(form: Mapping[str, str]) -> Iterator[str]:
    """What may have been signed of a notification, likeliest first.

    Without `sign` and `sign_type` (rsaCheckV1: trades), or without `sign` alone (rsaCheckV2: messages of some types);
    Alipay's documents sign empty values too, its newer SDKs leave them out. `alipay_cert_sn`, which certificate mode
    adds, is left out by smartwalle/alipay (VerifySign) and left in by Alipay's own SDKs, which never mention it there.
    """
    seen: set[str] = set()
    certified = [{"sign", "sign_type", "alipay_cert_sn"}, {"sign", "alipay_cert_sn"}]
    for left_out in (*certified, {"sign", "sign_type"}, {"sign"}):
        for empty in (True, False):
            content = _joined(form, left_out, empty=empty)
            if content not in seen:
                seen.add(content)
                yield content


def answer_contents(content: str) -> Iterator[str]:
    r"""What may have been signed of an answer: the node as it stands, or with `\/` as `/` (Alipay's SDKs try both)."""
    yield content
    if "\\/" in content:
        yield content.replace("\\/", "/")


def envelope(body: bytes, method: str) -> Envelope | None:
    """The `<method>_response` (or `error_response`) of an answer; None when the body is not such an answer, whole.

    The signature covers the raw characters of that node, so they are cut out of the body and never written anew.
    """
    try:
        nodes = _members(body.decode())
    except (ValueError, RecursionError):  # Not UTF-8, not JSON, or nested without end.
        return None
    for node in (f"{method.replace('.', '_')}_response", "error_response"):
        content = nodes.get(node)
        if content is not None:
            told = [_JSON.decode(nodes.get(name, '""')) for name in ("sign", "alipay_cert_sn")]
            return Envelope(node, content, *told) if all(isinstance(text, str) for text in told) else None
    return None


def _members(text: str) -> dict[str, str]:
    """The members of one JSON object, each value as it is written; raises ValueError for anything else."""
    members: dict[str, str] = {}
    at = _expect(text, 0, "{")
    while True:
        name, at = _JSON.raw_decode(text, _skip(text, at))
        start = _skip(text, _expect(text, at, ":"))
        _, at = _JSON.raw_decode(text, start)
        if not isinstance(name, str) or name in members:
            raise ValueError("a member's name is no text, or stands twice")
        members[name] = text[start:at]
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at += 1
            continue
        if _skip(text, _expect(text, at, "}")) != len(text):
            raise ValueError("there is more after the object")
        return members


def _expect(text: str, at: int, sign_: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign_:
        raise ValueError(f"no {sign_} at {at}")
    return at + 1


def _skip(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return at if found is None else found.end()


def _joined(params: Mapping[str, str], left_out: set[str], *, empty: bool) -> str:
    return "&".join(
        f"{name}={params[name]}" for name in sorted(params) if name not in left_out and (empty or params[name])
    )
