"""Keys and signatures of the faces that sign: RSA with SHA-256 and PKCS #1 v1.5, base64."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

KEY_BITS = 2048
VALID_FROM, VALID_UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2070, 1, 1, tzinfo=UTC)
"""Every certificate's, so that a virtual clock and the machine's are both within."""


def new_key() -> str:
    """A private key, PEM (PKCS #8)."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


@lru_cache(maxsize=64)
def public_half(private: str) -> str:
    """The public key that belongs to a private one, PEM."""
    return private_key(private).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(private: str, content: bytes) -> str:
    """The signature of the content, base64."""
    return b64encode(private_key(private).sign(content, padding.PKCS1v15(), SHA256())).decode("ascii")


def verified(public: str, content: bytes, signature: str) -> bool:
    """Whether the holder of the public key (PEM, or the base64 that stands between its lines) signed the content.

    Raises ValueError when the key is none.
    """
    try:
        public_key(public).verify(b64decode(signature, validate=True), content, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, Base64Error):
        return False
    return True


@lru_cache(maxsize=64)
def private_key(pem: str) -> rsa.RSAPrivateKey:
    """A private key; raises ValueError when the text is none of RSA."""
    key = load_pem_private_key(pem.encode("ascii"), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("the private key is not of RSA")
    return key


@lru_cache(maxsize=64)
def public_key(text: str) -> rsa.RSAPublicKey:
    """A public key, PEM or the base64 between its lines; raises ValueError when the text is none of RSA."""
    try:
        pem = text.strip().startswith("-----")
        key = load_pem_public_key(text.encode()) if pem else load_der_public_key(b64decode("".join(text.split())))
    except ValueError as error:
        raise ValueError(f"a public key is PEM, or the base64 between its lines: {error}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("the public key is not of RSA")
    return key
