"""The client of Alipay's gateway (`gateway.do`): signed form posts, answers believed only with Alipay's signature."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from service.adapters.providers.alipay import signing
from service.adapters.providers.alipay.codes import BAD_SIGNATURE, REFUSED_UNREAD_CODES, SIGNATURE_REFUSED, Problem
from service.adapters.providers.alipay.settings import AlipaySettings
from service.adapters.providers.exchange import REFUSED_UNREAD, Reply, decoded, exchange, open_session
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError, read_secret
from service.billing.outcomes import Rejected, Throttled, Unknown

T = TypeVar("T")

ZONE = ZoneInfo("Asia/Shanghai")
"""Alipay's clock: every time on its wire is this zone's."""
SUCCESS = "10000"
_ENCODE = msgspec.json.Encoder().encode
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8", "Accept": "application/json"}


class _Head(msgspec.Struct, frozen=True):
    """What every answer begins with."""

    code: str = ""
    sub_code: str = ""
    sub_msg: str = ""
    msg: str = ""


_HEAD = msgspec.json.Decoder(_Head)


class _Keys(msgspec.Struct, frozen=True):
    """The account's secrets, read, and as they were written."""

    app: RSAPrivateKey
    alipay: RSAPublicKey
    texts: tuple[str, str]


class Gateway:
    """One app at the gateway. Keys are read again when a signature fails, so that they can be changed without a
    restart."""

    def __init__(
        self, account: MerchantAccount, settings: AlipaySettings, session: aiohttp.ClientSession | None
    ) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError."""
        self._account = account
        self._settings = settings
        base = account.base_url.rstrip("/")
        self._url = base if base.endswith(".do") else f"{base}/gateway.do"
        self._keys = self._read_keys()
        self._session = session or open_session(account)

    async def call(
        self, method: str, biz: Mapping[str, Any], shape: msgspec.json.Decoder[T]
    ) -> T | Problem | Throttled | Rejected | Unknown:
        """Calls a method; `biz` is sent exactly as it was signed. Problem: Alipay itself says why not.

        Where the app's signature is refused and its key has changed meanwhile, the call, which was not executed, is
        made again.
        """
        content = _ENCODE(biz).decode()
        used = self._keys
        answer = await self._ask(method, content, shape)
        if isinstance(answer, Problem) and answer.sub_code in SIGNATURE_REFUSED and await self._keys_changed(used):
            answer = await self._ask(method, content, shape)
        return answer

    def app_string(self, method: str, biz: Mapping[str, Any], *, return_url: str | None = None) -> str:
        """The order string with which the rider's app calls the method itself; nothing is sent."""
        params = self._common(method) | {"biz_content": _ENCODE(biz).decode(), "return_url": return_url or ""}
        return signing.order_string(self._keys.app, params)

    def notification_signed(self, form: Mapping[str, str]) -> bool:
        """Whether Alipay signed the notification; its key is read again before that is denied."""
        if self._form_signed(form):
            return True
        used = self._keys
        self._keys = self._read_keys_or(used)
        return self._keys is not used and self._form_signed(form)

    async def download(self, url: str) -> Reply | Throttled | Rejected | Unknown:
        """A file that the gateway gave the address of."""
        return await exchange(self._session, "GET", url, {}, None)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def _ask(
        self, method: str, content: str, shape: msgspec.json.Decoder[T]
    ) -> T | Problem | Throttled | Rejected | Unknown:
        """System parameters go into the address, the content into the body, as alipay-sdk-java-all does it."""
        form = signing.signed_form(self._keys.app, self._common(method) | {"biz_content": content})
        body = urlencode({"biz_content": form.pop("biz_content")}).encode()
        reply = await exchange(self._session, "POST", f"{self._url}?{urlencode(form)}", _HEADERS, body)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            unread = reply.status in REFUSED_UNREAD
            return Rejected(f"HTTP_{reply.status}") if unread else Unknown(f"HTTP {reply.status}")
        return await self._believed(signing.envelope(reply.body, method), shape)

    async def _believed(self, sealed: signing.Envelope | None, shape: msgspec.json.Decoder[T]) -> T | Problem | Unknown:
        """The answer once its signature is good. Alipay does not sign every refusal of the gateway (its SDKs take those
        as they are); such a one is believed only where nothing was executed."""
        if sealed is None:
            return Unknown("the answer can't be read")
        content = sealed.content.encode()
        head = decoded(content, _HEAD)
        if sealed.sign:
            if not await self._signed(sealed):
                return Unknown(BAD_SIGNATURE)
        elif head is None or head.code not in REFUSED_UNREAD_CODES:
            return Unknown("the answer is not signed")
        if head is None:
            return Unknown("the answer has no code")
        if head.code != SUCCESS:
            return Problem(head.code, head.sub_code, head.sub_msg or head.msg)
        answer = decoded(content, shape)
        return Unknown("the answer has another shape") if answer is None else answer

    async def _signed(self, sealed: signing.Envelope) -> bool:
        used = self._keys
        if self._answer_signed(sealed):
            return True
        return await self._keys_changed(used) and self._answer_signed(sealed)

    def _answer_signed(self, sealed: signing.Envelope) -> bool:
        contents = signing.answer_contents(sealed.content)
        return any(signing.verified(self._keys.alipay, content, sealed.sign) for content in contents)

    def _form_signed(self, form: Mapping[str, str]) -> bool:
        contents = signing.notification_contents(form)
        return any(signing.verified(self._keys.alipay, content, form.get("sign", "")) for content in contents)

    def _common(self, method: str) -> dict[str, str]:
        now = datetime.now(UTC).astimezone(ZONE)
        return {
            "app_id": self._settings.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": now.strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
            "notify_url": self._settings.notify_url,
        }

    async def _keys_changed(self, used: _Keys) -> bool:
        """Whether the keys are others than those that were used, now that they are read again."""
        if self._keys is used:
            self._keys = await asyncio.to_thread(self._read_keys_or, used)
        return self._keys is not used

    def _read_keys_or(self, used: _Keys) -> _Keys:
        try:
            read = self._read_keys()
        except AccountSettingsError:  # Half written, say: the next failure reads them again.
            return used
        return used if read.texts == used.texts else read

    def _read_keys(self) -> _Keys:
        account = self._account
        texts = (
            read_secret(account.account_id, account.settings, "app_private_key"),
            read_secret(account.account_id, account.settings, "alipay_public_key"),
        )
        name = "app_private_key"
        try:
            app = signing.load_private_key(texts[0])
            name = "alipay_public_key"
            return _Keys(app, signing.load_public_key(texts[1]), texts)
        except signing.BadKeyError as error:
            raise AccountSettingsError(f"merchant account {account.account_id}: {name}: {error}") from None
