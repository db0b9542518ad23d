"""One HTTP exchange with a provider: an answer, or an outcome that says what may have happened instead."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from service.adapters.providers.ceiling import Ceiling, HeldBackError
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import account_error
from service.billing.instants import InstantError, utc
from service.billing.outcomes import Rejected, Throttled, Unknown, Unreachable
from service.billing.refusals import in_words

T = TypeVar("T")

CONNECT_RETRY = timedelta(seconds=2)
RETRY_AFTER_DEFAULT = timedelta(seconds=1)
RETRY_AFTER_MAX = timedelta(hours=1)
ANSWER_BYTES_MAX = 16 << 20
SECRET_BYTES_MIN = 8
"""Shorter keys are made up for a trial, and words of their own."""
REFUSED_UNREAD = frozenset({400, 401, 403, 404, 405, 406, 411, 413, 414, 415, 422, 426, 431})
"""Statuses with which a server says that it did not even begin: any other one may have executed."""


class Limits(msgspec.Struct, frozen=True):
    """Settings of an account: how long a whole call may last, how long connecting, how many connections at once, and
    the most calls per second of one process (see `ceiling`)."""

    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    connect_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    connections_max: Annotated[int, msgspec.Meta(gt=0)] = 64
    calls_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None


_LIMITS = set(Limits.__struct_fields__)


class Reply(msgspec.Struct, frozen=True):
    """An answer that came whole. Its status is not 429, 3xx or 5xx. Case does not matter in names of `headers`."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


def open_session(account: MerchantAccount) -> aiohttp.ClientSession:
    """The connections of one account: bounded, and every call has an end.

    Raises AccountSettingsError.
    """
    try:
        limits = msgspec.convert({name: account.settings[name] for name in _LIMITS & account.settings.keys()}, Limits)
    except msgspec.ValidationError as error:
        raise account_error(account.account_id, f"settings.{in_words(str(error), Limits)}") from None
    timeout = aiohttp.ClientTimeout(total=limits.timeout_s, connect=limits.connect_timeout_s)
    connector = aiohttp.TCPConnector(limit=limits.connections_max, keepalive_timeout=30)
    middlewares = () if limits.calls_per_second is None else (Ceiling(limits.calls_per_second),)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, raise_for_status=False, middlewares=middlewares)


def is_at(url: str, base_url: str, domain: str) -> bool:
    """Whether an address that a provider's answer named leads to the provider: to the host of the account's `base_url`,
    or into the provider's `domain`. Nothing else is called, whoever signed the answer."""
    try:
        host, own = urlsplit(url).hostname or "", urlsplit(base_url).hostname
    except ValueError:
        return False
    return urlsplit(url).scheme in ("http", "https") and (host == own or host.endswith(f".{domain}"))


ELSEWHERE = Unknown("the file is not at the provider's own address")


async def exchange(
    session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str], data: bytes | None
) -> Reply | Throttled | Rejected | Unknown:
    """Sends a call. Unreachable when it provably never left, Throttled when it was turned away, Rejected when it can't
    be sent at all."""
    try:
        async with session.request(method, url, headers=headers, data=data, allow_redirects=False) as answer:
            body = bytearray()
            async for part in answer.content.iter_any():  # One read gives but what has arrived so far.
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    return Unknown("the answer is too long")
            return _believed(answer, _without(bytes(body), headers.get("Authorization", "")))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        # A POST is never sent a second time by the client: nothing left.
        return Unreachable(CONNECT_RETRY, _in_the_way(error, urlsplit(url).hostname or ""))
    except HeldBackError as held:
        return Throttled(timedelta(seconds=held.wait_s))
    except aiohttp.InvalidURL as error:
        return Rejected("INVALID_URL", str(error))
    except TimeoutError:
        return Unknown("timeout")
    except (aiohttp.ClientError, OSError) as error:
        return Unknown(type(error).__name__)


def _in_the_way(error: aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError, host: str) -> str:
    """Why no connection was made, in words that stay the same as long as it does."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as wrong):
            return f"the certificate of {host} is not trusted: {wrong.verify_message}"
        case aiohttp.ClientSSLError():
            return f"TLS with {host} fails: {error.os_error}"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {host} leads nowhere: {error.os_error.strerror}"
        case aiohttp.ClientConnectorError():
            said = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
            return f"no connection to {host}: {said}"
        case _:
            return f"no connection to {host} in time"


def _believed(answer: aiohttp.ClientResponse, body: bytes) -> Reply | Throttled | Rejected | Unknown:
    if answer.status == 429:
        return Throttled(_retry_after(answer.headers.get("Retry-After", "")))
    if 300 <= answer.status < 400:
        return Rejected(f"HTTP_{answer.status}", "redirected: the account's base_url is wrong")
    if answer.status >= 500:
        return Unknown(f"HTTP {answer.status}")
    return Reply(answer.status, body, answer.headers)


def _without(body: bytes, authorization: str) -> bytes:
    """The answer without what we proved ourselves by, should it quote that: its words are stored, shown and logged."""
    secret = authorization.partition(" ")[2].encode()
    return body.replace(secret, b"***") if len(secret) >= SECRET_BYTES_MIN else body


def _retry_after(text: str) -> timedelta:
    try:
        return min(max(timedelta(seconds=float(text)), timedelta(0)), RETRY_AFTER_MAX)
    except (ValueError, OverflowError):
        return RETRY_AFTER_DEFAULT


def decoded(body: bytes, shape: msgspec.json.Decoder[T]) -> T | None:
    """The body in its shape, or None: truncated, HTML, nested without end, or something else; and where a text has a
    NUL, a number more than 64 bits or an instant lies outside of the calendar, which no answer needs."""
    if b"\\u0000" in body:
        return None
    try:
        told = shape.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: bad Unicode, or a number of 4,300 digits.
        return None
    return told if _fits(told) else None


def _fits(told: object) -> bool:
    """Whether each whole number fits into PostgreSQL's `bigint`, and each instant is one that anybody can mean."""
    if isinstance(told, datetime):
        try:
            utc(told)
        except InstantError:
            return False
    if isinstance(told, msgspec.Struct):
        return all(_fits(getattr(told, name)) for name in told.__struct_fields__)
    if isinstance(told, list | tuple):
        return all(map(_fits, told))
    if isinstance(told, dict):
        return all(map(_fits, told.values()))
    return not isinstance(told, int) or told in _INT8


_INT8 = range(-(2**63), 2**63)
