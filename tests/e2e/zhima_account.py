"""A merchant's account at the simulator's Alipay face, as an operator sets it up: keys, settings, address."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sandbox_peer import Peer

APP_ID, SELLER_ID = "2021000199990001", "2088000000000001"
LOGON = "***@example.com"
"""How every masked login ends that the simulator puts into its answers (buyer_logon_id)."""


async def open_zhima(provider: Peer, directory: Path, notify_url: str) -> dict[str, str]:
    """Makes the account `zhima` known to the provider; returns the settings that it needs here."""
    app, alipay = generate_private_key(65537, 2048), generate_private_key(65537, 2048)
    (directory / "app.pem").write_text(_private(app))
    (directory / "alipay.pem").write_text(_public(alipay))
    account = {
        "account_id": "zhima",
        "face": "alipay",
        "alipay": {"app_id": APP_ID, "public_key": _public(app), "seller_id": SELLER_ID},
        "terms": {"provider_retries": True, "hold_needed": True},
        "notify_url": notify_url,
        "keys": [_private(alipay)],
    }
    await provider.call("PUT", "/accounts", account)
    return {
        "product": "zhima",
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "notify_url": notify_url,
        "zm_service_id": "2022111500000000000093666900",
        "category_id": "RENT_BICYCLE",
        "app_private_key_file": str(directory / "app.pem"),
        "alipay_public_key_file": str(directory / "alipay.pem"),
    }


def _private(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _public(key: RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
