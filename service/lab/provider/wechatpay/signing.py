"""How WeChat Pay signs and encrypts (wechatpay-go, core/auth and utils): the characters that a signature covers, the
platform's certificates, AEAD_AES_256_GCM."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b, sha1

from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from service.lab.provider.rows import Account, WeChatMerchant
from service.lab.provider.signatures import VALID_FROM, VALID_UNTIL, private_key, public_half, sign

SCHEME = "WECHATPAY2-SHA256-RSA2048"


def request_content(method: str, target: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """What a merchant signed; `target` is the path with its query, as it was sent."""
    return f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"


def answer_content(timestamp: str, nonce: str, body: bytes) -> bytes:
    """What an answer's and a notification's signature covers."""
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


def encrypted(apiv3_key: str, nonce: str, associated_data: str, text: bytes) -> str:
    """AEAD_AES_256_GCM, base64; the nonce has 12 characters."""
    sealed = AESGCM(apiv3_key.encode()).encrypt(nonce.encode(), text, associated_data.encode())
    return b64encode(sealed).decode("ascii")


def signed_headers(account: Account, body: bytes, *, key: str | None = None, skew_s: float = 0.0) -> dict[str, str]:
    """The five headers of an answer or a notification, signed by the account's newest key or another, at the machine's
    time; `skew_s`: so many seconds off."""
    key = key or account.keys[0]
    timestamp = str(int((datetime.now(UTC) + timedelta(seconds=skew_s)).timestamp()))
    nonce = blake2b(timestamp.encode() + body, digest_size=16).hexdigest()
    return {
        "Wechatpay-Serial": serial_of(account, key),
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": sign(key, answer_content(timestamp, nonce, body)),
        "Wechatpay-Signature-Type": SCHEME,
    }


def serial_of(account: Account, key: str) -> str:
    """What merchants know a key of the platform by: the serial number of its certificate, or the id of a public key."""
    merchant = account.wechatpay
    return pub_key_id(merchant, key) if merchant and merchant.public_key_mode else certificate_serial(key)


def pub_key_id(merchant: WeChatMerchant, key: str) -> str:
    """PUB_KEY_ID_, the merchant's number, digits."""
    digits = int.from_bytes(sha1(public_half(key).encode(), usedforsecurity=False).digest()) % 10**22
    return f"PUB_KEY_ID_01{merchant.mchid}{digits:022d}"


def certificate_serial(key: str) -> str:
    """The serial number of a key's certificate: 40 hexadecimal digits."""
    return f"{_serial(key):040X}"


@lru_cache(maxsize=64)
def certificate(key: str) -> str:
    """The certificate of one of the platform's keys, PEM, signed by itself; a key has always the same."""
    private = private_key(key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tenpay.com sign (simulated)")])
    builder = x509.CertificateBuilder(name, name, private.public_key(), _serial(key), VALID_FROM, VALID_UNTIL)
    return builder.sign(private, SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _serial(key: str) -> int:
    """A number of 159 bits whose first digit is not 0 and whose last is no 0 either."""
    digest = int.from_bytes(sha1(public_half(key).encode(), usedforsecurity=False).digest())
    return (digest >> 2) | (1 << 157) | 1
