"""Keys and signatures of the faces that sign: RSA with SHA-256 and PKCS #1 v1.5, base64."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
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


def new_key() -> str:
    """A private key, PEM (PKCS #8)."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


@lru_cache(maxsize=64)
def public_half(private_key: str) -> str:
    """The public key that belongs to a private one, PEM."""
    return _private(private_key).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(private_key: str, content: bytes) -> str:
    """The signature of the content, base64."""
    return b64encode(_private(private_key).sign(content, padding.PKCS1v15(), SHA256())).decode("ascii")


def verified(public_key: str, content: bytes, signature: str) -> bool:
    """Whether the holder of the public key (PEM, or the base64 that stands between its lines) signed the content.

    Raises ValueError when the key is none.
    """
    try:
        _public(public_key).verify(b64decode(signature, validate=True), content, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, Base64Error):
        return False
    return True


def check_public_key(public_key: str) -> None:
    """Raises ValueError when the text is no RSA public key."""
    _public(public_key)


@lru_cache(maxsize=64)
def _private(pem: str) -> rsa.RSAPrivateKey:
    key = load_pem_private_key(pem.encode("ascii"), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("the private key is not of RSA")
    return key


@lru_cache(maxsize=64)
def _public(text: str) -> rsa.RSAPublicKey:
    try:
        pem = text.strip().startswith("-----")
        key = load_pem_public_key(text.encode()) if pem else load_der_public_key(b64decode("".join(text.split())))
    except ValueError as error:
        raise ValueError(f"a public key is PEM, or the base64 between its lines: {error}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("the public key is not of RSA")
    return key
