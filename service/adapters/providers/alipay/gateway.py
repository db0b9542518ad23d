"""The client of Alipay's gateway (`gateway.do`): signed form posts, answers believed only with Alipay's signature."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.adapters.clock import Clock
from service.adapters.providers.alipay import signing
from service.adapters.providers.alipay.certificates import Certificate, believed
from service.adapters.providers.alipay.codes import BAD_SIGNATURE, REFUSED_UNREAD_CODES, SIGNATURE_REFUSED, Problem
from service.adapters.providers.alipay.keys import Certified, Keys, open_keys
from service.adapters.providers.alipay.settings import AlipaySettings
from service.adapters.providers.exchange import ELSEWHERE, REFUSED_UNREAD, Reply, decoded, exchange, is_at, open_session
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.rsa import verified
from service.adapters.providers.vain import Vain
from service.billing.outcomes import Rejected, Throttled, Unknown

T = TypeVar("T")

ZONE = ZoneInfo("Asia/Shanghai")
"""Alipay's clock: every time on its wire is this zone's."""
SUCCESS = "10000"
CERTIFICATE_DOWNLOAD = "alipay.open.app.alipaycert.download"
_ENCODE = msgspec.json.Encoder().encode
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8", "Accept": "application/json"}


class _Head(msgspec.Struct, frozen=True):
    """What every answer begins with."""

    code: str = ""
    sub_code: str = ""
    sub_msg: str = ""
    msg: str = ""


class _Downloaded(msgspec.Struct, frozen=True):
    """AlipayOpenAppAlipaycertDownloadResponse: PEM, in base64."""

    code: str = ""
    alipay_cert_content: str = ""


_HEAD = msgspec.json.Decoder(_Head)
_DOWNLOADED = msgspec.json.Decoder(_Downloaded)


class Gateway:
    """One app at the gateway. Keys are read again when a signature fails, so that they can be changed without a
    restart; certificates by which Alipay has replaced its own are fetched."""

    def __init__(
        self, account: MerchantAccount, settings: AlipaySettings, session: aiohttp.ClientSession | None, now: Clock
    ) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError."""
        self._settings = settings
        self._now = now
        base = account.base_url.rstrip("/")
        self._url = base if base.endswith(".do") else f"{base}/gateway.do"
        self._keys = open_keys(account)
        self._fetched: dict[str, Certificate] = {}
        self._vain, self._vain_notices = Vain(), Vain()  # Anybody can send a notification; an answer is Alipay's own.
        self._fetching = asyncio.Lock()
        self._fetch: asyncio.Task[None] | None = None
        self._session = session or open_session(account)

    @property
    def certified(self) -> bool:
        """Whether the account is in certificate mode."""
        return isinstance(self._keys.present.alipay, Certified)

    async def call(
        self, method: str, biz: Mapping[str, Any], shape: msgspec.json.Decoder[T]
    ) -> T | Problem | Throttled | Rejected | Unknown:
        """Calls a method; `biz` is sent exactly as it was signed. Problem: Alipay itself says why not.

        Where the app's signature is refused and its key has changed meanwhile, the call, which was not executed, is
        made again.
        """
        content = _ENCODE(biz).decode()
        used = self._keys.present
        answer = await self._ask(method, content, shape)
        if isinstance(answer, Problem) and answer.sub_code in SIGNATURE_REFUSED and await self._keys_changed(used):
            answer = await self._ask(method, content, shape)
        return answer

    def app_string(self, method: str, biz: Mapping[str, Any], *, return_url: str | None = None) -> str:
        """The order string with which the rider's app calls the method itself; nothing is sent."""
        keys = self._keys.present
        params = self._common(keys, method) | {"biz_content": _ENCODE(biz).decode(), "return_url": return_url or ""}
        return signing.order_string(keys.app, params)

    def notification_wrong(self, form: Mapping[str, str]) -> str | None:
        """Why a notification is not believed; None when Alipay signed it. Its key is read again before that is denied.

        One that is signed by a certificate that is not known yet is refused, and that is fetched: it is sent again.
        """
        number = form.get("alipay_cert_sn", "")
        if self._form_signed(form, number):
            return None
        used = self._keys.present
        if self._keys.read_again(used) and self._form_signed(form, number):
            return None
        if number and self.certified and self._key_of(number) is None:
            if self._fetch is None or self._fetch.done():
                self._fetch = asyncio.get_running_loop().create_task(self._know(number, self._vain_notices))
            return "it is signed by a certificate that is not known"
        return "the signature is wrong"

    async def download(self, url: str) -> Reply | Throttled | Rejected | Unknown:
        """A file that the gateway gave the address of: its bills lie at dwbillcenter.alipay.com (opendocs.alipay.com,
        alipay.data.dataservice.bill.downloadurl.query)."""
        if not is_at(url, self._url, "alipay.com"):
            return ELSEWHERE
        return await exchange(self._session, "GET", url, {}, None)

    async def close(self) -> None:
        """Closes the connections."""
        if self._fetch is not None:
            self._fetch.cancel()
        await self._session.close()

    async def _ask(
        self, method: str, content: str, shape: msgspec.json.Decoder[T]
    ) -> T | Problem | Throttled | Rejected | Unknown:
        sealed = await self._send(method, content)
        if not isinstance(sealed, signing.Envelope):
            return sealed
        return await self._believed(sealed, shape)

    async def _send(self, method: str, content: str) -> signing.Envelope | Throttled | Rejected | Unknown:
        """System parameters go into the address, the content into the body, as alipay-sdk-java-all does it."""
        keys = self._keys.present
        form = signing.signed_form(keys.app, self._common(keys, method) | {"biz_content": content})
        body = urlencode({"biz_content": form.pop("biz_content")}).encode()
        reply = await exchange(self._session, "POST", f"{self._url}?{urlencode(form)}", _HEADERS, body)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            unread = reply.status in REFUSED_UNREAD
            return Rejected(f"HTTP_{reply.status}") if unread else Unknown(f"HTTP {reply.status}")
        return signing.envelope(reply.body, method) or Unknown("the answer can't be read")

    async def _believed(self, sealed: signing.Envelope, shape: msgspec.json.Decoder[T]) -> T | Problem | Unknown:
        """The answer once its signature is good. Alipay does not sign every refusal of the gateway (its SDKs take those
        as they are); such a one is believed only where nothing was executed."""
        content = sealed.content.encode()
        head = decoded(content, _HEAD)
        if sealed.sign and (sealed.cert_sn or not self.certified):
            if not await self._signed(sealed):
                return Unknown(BAD_SIGNATURE)
        elif head is None or head.code not in REFUSED_UNREAD_CODES:
            return Unknown("the answer is not signed" if not sealed.sign else "the answer names no certificate")
        if head is None:
            return Unknown("the answer has no code")
        if head.code != SUCCESS:
            return Problem(head.code, head.sub_code, head.sub_msg or head.msg)
        answer = decoded(content, shape)
        return Unknown("the answer has another shape") if answer is None else answer

    async def _signed(self, sealed: signing.Envelope) -> bool:
        used = self._keys.present
        if self._answer_signed(sealed):
            return True
        if await self._keys_changed(used) and self._answer_signed(sealed):
            return True
        if self._key_of(sealed.cert_sn) is not None:
            return False
        await self._know(sealed.cert_sn, self._vain)
        return self._answer_signed(sealed)

    def _answer_signed(self, sealed: signing.Envelope) -> bool:
        key = self._key_of(sealed.cert_sn)
        contents = signing.answer_contents(sealed.content)
        return key is not None and any(verified(key, content, sealed.sign) for content in contents)

    def _form_signed(self, form: Mapping[str, str], number: str) -> bool:
        key = self._key_of(number)
        contents = signing.notification_contents(form)
        return key is not None and any(verified(key, content, form.get("sign", "")) for content in contents)

    def _key_of(self, number: str) -> RSAPublicKey | None:
        """Alipay's key: in certificate mode that of the certificate with this number, "" for the account's own."""
        alipay = self._keys.present.alipay
        if isinstance(alipay, RSAPublicKey):
            return alipay
        known = alipay.alipay if number in ("", alipay.alipay.sn) else self._fetched.get(number)
        return known.key if known is not None and self._now() < known.not_after else None

    async def _know(self, number: str, vain: Vain) -> None:
        """Fetches the certificate of this number, unless that was in vain too often just now.

        The answer to this need not be signed (Alipay's SDKs do not ask): the roots vouch for what is in it.
        """
        async with self._fetching:
            alipay = self._keys.present.alipay
            if self._key_of(number) is not None or vain.often or not isinstance(alipay, Certified):
                return
            sealed = await self._send(CERTIFICATE_DOWNLOAD, _ENCODE({"alipay_cert_sn": number}).decode())
            told = decoded(sealed.content.encode(), _DOWNLOADED) if isinstance(sealed, signing.Envelope) else None
            chain = _text(told.alipay_cert_content) if told is not None else ""
            new = believed(chain, alipay.roots, alipay.alipay, self._now())
            if new is not None:
                self._fetched[new.sn] = new
            if self._key_of(number) is None:
                vain.again()

    def _common(self, keys: Keys, method: str) -> dict[str, str]:
        common = {
            "app_id": self._settings.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": self._now().astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
            "notify_url": self._settings.notify_url,
        }
        if isinstance(keys.alipay, Certified):
            common |= {"app_cert_sn": keys.alipay.app_sn, "alipay_root_cert_sn": keys.alipay.roots.sn}
        return common

    async def _keys_changed(self, used: Keys) -> bool:
        """Whether the keys are others than those that were used, now that they are read again."""
        return await asyncio.to_thread(self._keys.read_again, used)


def _text(content: str) -> str:
    """What base64 stands for, "" for anything else."""
    try:
        return b64decode("".join(content.split()), validate=True).decode("utf-8", "replace")
    except Base64Error:
        return ""
