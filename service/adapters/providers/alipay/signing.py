"""Alipay's RSA2 signatures (SHA256withRSA, PKCS#1 v1.5, base64): what is signed in requests, answers, notifications.

Sources: alipay-sdk-java-all (AlipaySignature, AlipaySignatureTest), alipay-sdk-nodejs-all (checkNotifySign), and the
vectors in tests/vectors/signatures.json. Measured with RSA-2048: signing in a thread costs 20 % more than signing on
the spot and brings no more signatures per second on two cores, so it is done on the spot.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

KEY_BITS_MIN = 2048
_JSON = json.JSONDecoder()
_WHITE = " \t\r\n"


class BadKeyError(ValueError):
    """The text is no RSA key that can be used; says why, never what it is."""


class Envelope(msgspec.Struct, frozen=True):
    """An answer taken apart: the node that is signed, as it stands in the body, and its signature, "" where none is."""

    node: str
    content: str
    sign: str


def load_private_key(text: str) -> RSAPrivateKey:
    """The app's private key: PEM, or bare base64 (PKCS#8 or PKCS#1) as Alipay's key tool writes it.

    Raises BadKeyError.
    """
    try:
        if "-----BEGIN" in text:
            key = serialization.load_pem_private_key(text.encode(), None)
        else:
            key = serialization.load_der_private_key(_bare(text), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKeyError(f"no private key: {error}") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < KEY_BITS_MIN:
        raise BadKeyError(f"no RSA key of {KEY_BITS_MIN} bits or more")
    return key


def load_public_key(text: str) -> RSAPublicKey:
    """Alipay's public key (not the app's own): PEM, or bare base64 as the open platform shows it.

    Raises BadKeyError.
    """
    try:
        if "-----BEGIN" in text:
            key = serialization.load_pem_public_key(text.encode())
        else:
            key = serialization.load_der_public_key(_bare(text))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKeyError(f"no public key: {error}") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS_MIN:
        raise BadKeyError(f"no RSA key of {KEY_BITS_MIN} bits or more")
    return key


def sign(key: RSAPrivateKey, content: str) -> str:
    """The signature of a canonical string, base64."""
    return b64encode(key.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())).decode("ascii")


def verified(key: RSAPublicKey, content: str, signature: str) -> bool:
    """Whether the signature is that of the content; what is no base64 is not."""
    try:
        key.verify(b64decode(signature, validate=True), content.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, Base64Error, ValueError):
        return False
    return True


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
    Alipay's documents sign empty values too, its newer SDKs leave them out.
    """
    seen: set[str] = set()
    for left_out in ({"sign", "sign_type"}, {"sign"}):
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
            given = _JSON.decode(nodes["sign"]) if "sign" in nodes else ""
            return Envelope(node, content, given) if isinstance(given, str) else None
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
    while at < len(text) and text[at] in _WHITE:
        at += 1
    return at


def _joined(params: Mapping[str, str], left_out: set[str], *, empty: bool) -> str:
    return "&".join(
        f"{name}={params[name]}" for name in sorted(params) if name not in left_out and (empty or params[name])
    )


def _bare(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except Base64Error:
        raise ValueError("neither PEM nor base64") from None
