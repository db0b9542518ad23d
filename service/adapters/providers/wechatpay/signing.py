"""WeChat Pay's APIv3 signatures (SHA256withRSA, PKCS#1 v1.5, base64) and its AES-GCM envelopes.

Sources: wechatpay-go (core/auth/credentials, core/auth/validators, utils/aes.go) and the vectors in
tests/vectors/signatures.json; the rider's page: wechatpay-skills, JsapiInvokeDetail.md (APIv2 key, HMAC-SHA256).
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.adapters.providers.rsa import BadKeyError, checked, sign, verified

SCHEME = "WECHATPAY2-SHA256-RSA2048"
WINDOW = timedelta(seconds=300)
"""How far the time of an answer or a notification may be from ours (wechatpay-go, consts.FiveMinute)."""


class Sealed(msgspec.Struct, frozen=True):
    """Who signed an answer or a notification, over what."""

    serial: str
    content: str
    signature: str


class PlatformCertificate(msgspec.Struct, frozen=True):
    """One of WeChat Pay's certificates; its serial number is upper-case hex."""

    serial: str
    key: RSAPublicKey
    not_after: datetime


def request_content(method: str, target: str, timestamp: str, nonce: str, body: str) -> str:
    """What is signed of a request; `target` is path and query."""
    return f"{method}\n{target}\n{timestamp}\n{nonce}\n{body}\n"


def authorization(mchid: str, serial: str, timestamp: str, nonce: str, signature: str) -> str:
    """The Authorization header of a signed request."""
    return (
        f'{SCHEME} mchid="{mchid}",nonce_str="{nonce}",timestamp="{timestamp}",'
        f'serial_no="{serial}",signature="{signature}"'
    )


def answer_content(timestamp: str, nonce: str, body: str) -> str:
    """What is signed of an answer or a notification."""
    return f"{timestamp}\n{nonce}\n{body}\n"


def sealed(headers: Mapping[str, str], body: bytes, now: datetime) -> Sealed | str:
    """The signature of an answer or a notification, or why there is none to verify.

    A signature type other than ours is refused; none is given by some senders, and none is needed.
    """
    timestamp, nonce = headers.get("wechatpay-timestamp", ""), headers.get("wechatpay-nonce", "")
    serial, signature = headers.get("wechatpay-serial", ""), headers.get("wechatpay-signature", "")
    if not (timestamp and nonce and serial and signature):
        return "it is not signed"
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        return "its signature is of another type"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 11):
        return "its time can't be read"
    if abs(int(timestamp) - now.timestamp()) > WINDOW.total_seconds():
        return "its time is more than five minutes from ours"
    try:
        return Sealed(serial, answer_content(timestamp, nonce, body.decode()), signature)
    except UnicodeDecodeError:
        return "its body is not UTF-8"


def opened(key: RSAPublicKey, what: Sealed) -> bool:
    """Whether the key's owner signed it. A probe (WECHATPAY/SIGNTEST/...) is no base64 and fails like any forgery."""
    return verified(key, what.content, what.signature)


def decrypted(key: bytes, nonce: str, associated_data: str, ciphertext: str) -> bytes | None:
    """The content of an AEAD_AES_256_GCM envelope; None when the key is another one or the envelope was changed."""
    try:
        return AESGCM(key).decrypt(nonce.encode(), b64decode(ciphertext, validate=True), associated_data.encode())
    except (InvalidTag, Base64Error, ValueError):
        return None


def certificate(pem: bytes) -> PlatformCertificate:
    """One of WeChat Pay's certificates, or the merchant's own; raises BadKeyError."""
    try:
        read = x509.load_pem_x509_certificate(pem)
        key = checked(read.public_key())
    except BadKeyError:
        raise
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKeyError(f"no certificate: {error}") from None
    return PlatformCertificate(f"{read.serial_number:X}", key, read.not_valid_after_utc)


def serial_of(text: str) -> str:
    """A serial number as it is compared: upper-case hex without leading zeros; a public key's id as it is."""
    return text if text.startswith("PUB_KEY_ID_") else text.upper().lstrip("0")


def payment_signature(key: RSAPrivateKey, appid: str, timestamp: str, nonce: str, package: str) -> str:
    """paySign, with which the rider's app opens a payment.

    Source: wechatpay-go, services/payments/jsapi/api_jsapi_request_payment.go.
    """
    return sign(key, f"{appid}\n{timestamp}\n{nonce}\n{package}\n")


def page_signature(api_v2_key: str, params: Mapping[str, str]) -> str:
    """The sign of what a rider's app hands to Pay Score's own pages (APIv2: sorted, HMAC-SHA256, upper-case hex)."""
    content = "&".join(f"{name}={params[name]}" for name in sorted(params) if params[name]) + f"&key={api_v2_key}"
    return hmac.new(api_v2_key.encode(), content.encode(), sha256).hexdigest().upper()
