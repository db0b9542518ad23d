"""The account's secrets, and what they are made into."""

from __future__ import annotations

from functools import partial

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from service.adapters.providers.keyring import KeyRing, Texts
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.rsa import BadKeyError, load_private_key, load_public_key
from service.adapters.providers.secrets import account_error, names_secret, read_secret
from service.adapters.providers.wechatpay import signing
from service.adapters.providers.wechatpay.settings import SECRETS, WechatPaySettings

API_KEY_BYTES = 32
_NEEDED = ("merchant_private_key", "api_v3_key")


class Keys(msgspec.Struct, frozen=True):
    """What we sign, decrypt and verify with; those that verify answers of platform certificates live in `client`."""

    merchant: RSAPrivateKey
    serial: str
    api_v3: bytes
    api_v2: str | None
    wechatpay: RSAPublicKey | None

    def __repr__(self) -> str:
        """Nothing that is secret."""
        return f"Keys(serial={self.serial!r})"


def open_keys(account: MerchantAccount, settings: WechatPaySettings) -> KeyRing[Keys]:
    """The account's keys. Raises AccountSettingsError naming the secret that can't be used."""
    return KeyRing(partial(_texts, account), partial(_made, account, settings))


def _texts(account: MerchantAccount) -> Texts:
    names = [name for name in SECRETS if name in _NEEDED or names_secret(account.settings, name)]
    return {name: read_secret(account.account_id, account.settings, name) for name in names}


def _made(account: MerchantAccount, settings: WechatPaySettings, texts: Texts) -> Keys:
    name = "merchant_private_key"
    try:
        merchant, wechatpay = load_private_key(texts[name]), None
        serial = settings.merchant_serial_no or ""
        if "merchant_certificate" in texts:
            name = "merchant_certificate"
            own = signing.certificate(texts[name].encode())
            if own.key.public_numbers() != merchant.public_key().public_numbers():
                raise BadKeyError("it is not the certificate of merchant_private_key")
            serial = own.serial
        if "wechatpay_public_key" in texts:
            name = "wechatpay_public_key"
            wechatpay = load_public_key(texts[name])
    except BadKeyError as error:
        raise account_error(account.account_id, f"{name}: {error}") from None
    for name in ("api_v3_key", "api_v2_key"):
        if name in texts and len(texts[name].encode()) != API_KEY_BYTES:
            raise account_error(account.account_id, f"{name}: it is not {API_KEY_BYTES} bytes long")
    return Keys(merchant, serial, texts["api_v3_key"].encode(), texts.get("api_v2_key"), wechatpay)
