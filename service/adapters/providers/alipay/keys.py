"""The account's keys: what we sign with, and whose signatures are believed, in either mode (接口加签方式)."""

from __future__ import annotations

from functools import partial

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from service.adapters.providers.alipay.certificates import Certificate, Roots, read_certificate, read_roots
from service.adapters.providers.alipay.settings import CERTIFICATES
from service.adapters.providers.keyring import KeyRing, Texts
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.rsa import BadKeyError, load_private_key, load_public_key
from service.adapters.providers.secrets import account_error, names_secret, read_secret


class Certified(msgspec.Struct, frozen=True):
    """Certificate mode: the number of the app's certificate, Alipay's certificate, and its roots."""

    app_sn: str
    alipay: Certificate
    roots: Roots


class Keys(msgspec.Struct, frozen=True):
    """The app's key, and Alipay's: a public key, or what certificates say."""

    app: RSAPrivateKey
    alipay: RSAPublicKey | Certified


def open_keys(account: MerchantAccount) -> KeyRing[Keys]:
    """The account's keys. Raises AccountSettingsError naming the one that can't be used."""
    return KeyRing(partial(_texts, account), partial(_made, account))


def _texts(account: MerchantAccount) -> Texts:
    certified = names_secret(account.settings, CERTIFICATES[0])
    names = ("app_private_key", *(CERTIFICATES if certified else ("alipay_public_key",)))
    return {name: read_secret(account.account_id, account.settings, name) for name in names}


def _made(account: MerchantAccount, texts: Texts) -> Keys:
    name = "app_private_key"
    try:
        app = load_private_key(texts[name])
        if "alipay_public_key" in texts:
            name = "alipay_public_key"
            return Keys(app, load_public_key(texts[name]))
        name = "app_certificate"
        own = read_certificate(texts[name])
        if own.key.public_numbers() != app.public_key().public_numbers():
            raise BadKeyError("it is not the certificate of app_private_key")
        name = "alipay_certificate"
        alipay = read_certificate(texts[name])
        name = "alipay_root_certificate"
        return Keys(app, Certified(own.sn, alipay, read_roots(texts[name])))
    except BadKeyError as error:
        raise account_error(account.account_id, f"{name}: {error}") from None
