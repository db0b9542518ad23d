"""The account's secrets, read from where its settings name them, and again when they seem to have changed."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from service.adapters.providers.alipay.signing import BadKeyError, load_private_key, load_public_key
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError, read_secret
from service.adapters.providers.wechatpay import signing
from service.adapters.providers.wechatpay.settings import WechatPaySettings, named, wrong

API_KEY_BYTES = 32


class Keys(msgspec.Struct, frozen=True):
    """What we sign, decrypt and verify with. `texts` are the secrets as they were written."""

    merchant: RSAPrivateKey
    serial: str
    api_v3: bytes
    api_v2: str | None
    wechatpay: RSAPublicKey | None
    texts: tuple[str, ...]


class KeyRing:
    """The account's keys; those that are needed to verify answers of other keys live in `certificates`."""

    def __init__(self, account: MerchantAccount, settings: WechatPaySettings) -> None:
        """Raises AccountSettingsError naming the secret that can't be used."""
        self._account = account
        self._settings = settings
        self.present = self._read()

    def read_again(self, used: Keys) -> bool:
        """Whether there are other keys than those that were used; they are read again to see."""
        if self.present is used:
            try:
                read = self._read()
            except AccountSettingsError:  # Half written, say: the next failure reads them again.
                return False
            if read.texts != used.texts:
                self.present = read
        return self.present is not used

    def _read(self) -> Keys:
        texts = {name: self._text(name) for name in ("merchant_private_key", "api_v3_key")}
        optional = ("merchant_certificate", "api_v2_key", "wechatpay_public_key")
        texts |= {name: self._text(name) for name in optional if named(self._account, name)}
        name = "merchant_private_key"
        try:
            merchant, wechatpay = load_private_key(texts[name]), None
            serial = self._settings.merchant_serial_no or ""
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
            raise wrong(self._account, f"{name}: {error}") from None
        for name in ("api_v3_key", "api_v2_key"):
            if name in texts and len(texts[name].encode()) != API_KEY_BYTES:
                raise wrong(self._account, f"{name}: it is not {API_KEY_BYTES} bytes long")
        api_v3, api_v2 = texts["api_v3_key"].encode(), texts.get("api_v2_key")
        return Keys(merchant, serial, api_v3, api_v2, wechatpay, tuple(texts.values()))

    def _text(self, name: str) -> str:
        return read_secret(self._account.account_id, self._account.settings, name)
