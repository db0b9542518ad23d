"""The client of WeChat Pay's APIv3: signed JSON calls, answers believed only with WeChat Pay's signature.

Answers are signed by one of WeChat Pay's platform certificates, which are fetched when an unknown serial number turns
up, or by its public key (serial PUB_KEY_ID_...). While a merchant changes from one to the other both occur.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.adapters.clock import Clock
from service.adapters.providers.exchange import ELSEWHERE, Reply, decoded, exchange, is_at, open_session
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.rsa import BadKeyError, sign
from service.adapters.providers.vain import Vain
from service.adapters.providers.wechatpay import codes, signing
from service.adapters.providers.wechatpay.codes import UNSIGNED_WORDS, Problem
from service.adapters.providers.wechatpay.keys import open_keys
from service.adapters.providers.wechatpay.settings import WechatPaySettings
from service.adapters.providers.wechatpay.signing import PlatformCertificate, Sealed
from service.billing.outcomes import Rejected, Throttled, Unknown

T = TypeVar("T")
Failed = Problem | Throttled | Rejected | Unknown

CERTIFICATES = "/v3/certificates"
BAD_SIGNATURE = "the answer's signature is wrong"
BAD_API_KEY = Rejected("API_V3_KEY", "api_v3_key does not open what WeChat Pay encrypts for this merchant")
_ENCODE = msgspec.json.Encoder().encode


class _Refusal(msgspec.Struct, frozen=True):
    code: str
    message: str = ""


class Envelope(msgspec.Struct, frozen=True):
    """AEAD_AES_256_GCM."""

    algorithm: str
    nonce: str
    ciphertext: str
    associated_data: str = ""


class _Certificate(msgspec.Struct, frozen=True):
    encrypt_certificate: Envelope


class _Certificates(msgspec.Struct, frozen=True):
    data: tuple[_Certificate, ...]


_REFUSAL = msgspec.json.Decoder(_Refusal)
_CERTIFICATES = msgspec.json.Decoder(_Certificates)


class Client:
    """One merchant at WeChat Pay."""

    def __init__(
        self, account: MerchantAccount, settings: WechatPaySettings, session: aiohttp.ClientSession | None, now: Clock
    ) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError."""
        self._settings = settings
        self._now = now
        self._base = account.base_url.rstrip("/")
        self.keys = open_keys(account, settings)
        self._certificates: dict[str, PlatformCertificate] = {}
        self._vain, self._vain_notices = Vain(), Vain()  # Anybody can send a notification; an answer is WeChat Pay's.
        self._fetching = asyncio.Lock()
        self._fetch: asyncio.Task[object] | None = None
        self._session = session or open_session(account)

    async def get(self, path: str, query: Mapping[str, str], shape: msgspec.json.Decoder[T]) -> T | Failed:
        """Asks. `path` is encoded already."""
        return await self._call("GET", f"{path}?{urlencode(query)}" if query else path, None, shape)

    async def post(self, path: str, content: Mapping[str, Any], shape: msgspec.json.Decoder[T]) -> T | Failed:
        """Tells; `content` is sent exactly as it was signed. Problem: WeChat Pay itself says why not."""
        return await self._call("POST", path, _ENCODE(content), shape)

    async def put(self, path: str, content: Mapping[str, Any], shape: msgspec.json.Decoder[T]) -> T | Failed:
        """Tells something else; as `post`."""
        return await self._call("PUT", path, _ENCODE(content), shape)

    async def download(self, url: str) -> Reply | Throttled | Rejected | Unknown:
        """A file that a signed answer gave the address of; it is not signed itself. Our signature goes nowhere else: it
        lies at api.mch.weixin.qq.com (pay.weixin.qq.com, 申请交易账单)."""
        if not is_at(url, self._base, "mch.weixin.qq.com"):
            return ELSEWHERE
        parts = urlsplit(url)
        return await self._send("GET", url, f"{parts.path}?{parts.query}", None)

    async def fetch_certificates(self) -> Failed | None:
        """Fetches the platform certificates; None when there are some. What they encrypt only the APIv3 key opens."""
        reply = await self._send("GET", self._base + CERTIFICATES, CERTIFICATES, None)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            return _problem(reply)
        listed = decoded(reply.body, _CERTIFICATES)
        if listed is None:
            return Unknown("the list of certificates can't be read")
        fetched: dict[str, PlatformCertificate] = {}
        for each in listed.data:
            pem = self.decrypted(each.encrypt_certificate)
            if pem is None:
                return BAD_API_KEY
            try:
                known = signing.certificate(pem)
            except BadKeyError as error:
                return Unknown(str(error))
            fetched[known.serial] = known
        sealed = signing.sealed(reply.headers, reply.body, self._now())
        if isinstance(sealed, str):
            return Unknown(f"the list of certificates: {sealed}")
        own = fetched.get(signing.serial_of(sealed.serial))
        key = own.key if own else self._key_of(sealed.serial)
        if key is None or not signing.opened(key, sealed):
            return Unknown(BAD_SIGNATURE)
        self._certificates = fetched  # Several at once while they are being replaced.
        return None

    def notification_signed(self, headers: Mapping[str, str], body: bytes, now: datetime) -> str | None:
        """Why a notification is not believed; None when WeChat Pay signed it.

        One by a certificate that is not known yet is refused, and the certificates are fetched: it is sent again.
        """
        sealed = signing.sealed(headers, body, now)
        if isinstance(sealed, str):
            return sealed
        key = self._key_of(sealed.serial)
        if key is None:
            if not sealed.serial.startswith("PUB_KEY_ID_") and (self._fetch is None or self._fetch.done()):
                self._fetch = asyncio.get_running_loop().create_task(self._know(sealed.serial, self._vain_notices))
            return "it is signed by a certificate that is not known"
        if signing.opened(key, sealed):
            return None
        used = self.keys.present
        if self.keys.read_again(used) and (key := self._key_of(sealed.serial)) and signing.opened(key, sealed):
            return None
        return "its signature is wrong"

    def decrypted(self, envelope: Envelope) -> bytes | None:
        """What an envelope holds; the APIv3 key is read again before that is denied."""
        if envelope.algorithm != "AEAD_AES_256_GCM":
            return None
        used = self.keys.present
        content = self._opened(envelope)
        return self._opened(envelope) if content is None and self.keys.read_again(used) else content

    def signed(self, content: str) -> str:
        """The merchant's own signature."""
        return sign(self.keys.present.merchant, content)

    def timestamp(self) -> str:
        """When something is signed, as WeChat Pay writes it: seconds since 1970."""
        return str(int(self._now().timestamp()))

    async def close(self) -> None:
        """Closes the connections."""
        if self._fetch is not None:
            self._fetch.cancel()
        await self._session.close()

    async def _call(self, method: str, target: str, body: bytes | None, shape: msgspec.json.Decoder[T]) -> T | Failed:
        """Makes a call; where our own signature is refused and our key has changed meanwhile, which means that nothing
        was executed, once more."""
        used = self.keys.present
        answer = await self._ask(method, target, body, shape)
        refused = isinstance(answer, Problem) and answer.status == 401
        if refused and await asyncio.to_thread(self.keys.read_again, used):
            return await self._ask(method, target, body, shape)
        return answer

    async def _ask(self, method: str, target: str, body: bytes | None, shape: msgspec.json.Decoder[T]) -> T | Failed:
        reply = await self._send(method, self._base + target, target, body)
        if not isinstance(reply, Reply):
            return reply
        wrong = await self._forged(reply)
        if wrong is not None:
            problem = _problem(reply) if reply.status >= 400 else None
            unread = isinstance(problem, Problem) and (problem.status == 401 or problem.code in UNSIGNED_WORDS)
            unsigned = "Wechatpay-Signature" not in reply.headers
            return problem if problem is not None and unread and unsigned else Unknown(wrong)
        if reply.status >= 300:
            return _problem(reply)
        answer = decoded(reply.body or b"{}", shape)
        return Unknown("the answer has another shape") if answer is None else answer

    async def _send(
        self, method: str, url: str, target: str, body: bytes | None
    ) -> Reply | Throttled | Rejected | Unknown:
        keys, timestamp, nonce = self.keys.present, self.timestamp(), token_hex(16)
        content = signing.request_content(method, target, timestamp, nonce, (body or b"").decode())
        signature = sign(keys.merchant, content)
        headers = {
            "Authorization": signing.authorization(self._settings.mchid, keys.serial, timestamp, nonce, signature),
            "Accept": "application/json",
            "User-Agent": "farebox",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._settings.public_key_id is not None:
            headers["Wechatpay-Serial"] = self._settings.public_key_id
        return await exchange(self._session, method, url, headers, body)

    async def _forged(self, reply: Reply) -> str | None:
        """Why an answer is not believed; None when WeChat Pay signed it."""
        sealed = signing.sealed(reply.headers, reply.body, self._now())
        if isinstance(sealed, str):
            return f"the answer: {sealed}"
        key = self._key_of(sealed.serial)
        if key is None:
            await self._know(sealed.serial, self._vain)
            key = self._key_of(sealed.serial)
        if key is None:
            return "the answer is signed by a key that is not known"
        if signing.opened(key, sealed):
            return None
        used = self.keys.present
        changed = await asyncio.to_thread(self.keys.read_again, used)
        return None if changed and self._opens(sealed) else BAD_SIGNATURE

    def _opens(self, sealed: Sealed) -> bool:
        key = self._key_of(sealed.serial)
        return key is not None and signing.opened(key, sealed)

    async def _know(self, serial: str, vain: Vain) -> None:
        """Fetches certificates for a serial number, unless that was in vain too often just now."""
        if serial.startswith("PUB_KEY_ID_"):
            return
        async with self._fetching:
            if self._key_of(serial) is not None or vain.often:
                return
            await self.fetch_certificates()
            if self._key_of(serial) is None:
                vain.again()

    def _key_of(self, serial: str) -> RSAPublicKey | None:
        if serial.startswith("PUB_KEY_ID_"):
            return self.keys.present.wechatpay if serial == self._settings.public_key_id else None
        known = self._certificates.get(signing.serial_of(serial))
        return known.key if known is not None and self._now() < known.not_after else None

    def _opened(self, envelope: Envelope) -> bytes | None:
        key = self.keys.present.api_v3
        return signing.decrypted(key, envelope.nonce, envelope.associated_data, envelope.ciphertext)


def _problem(reply: Reply) -> Problem | Unknown:
    refusal = decoded(reply.body, _REFUSAL)
    if refusal is None or not refusal.code:
        return Unknown(f"HTTP {reply.status}")
    number = codes.number_of(reply.headers.get("Request-ID", ""))
    return Problem(reply.status, refusal.code, number, refusal.message)
