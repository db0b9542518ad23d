"""One call to Stripe: form-encoded, with its version and idempotency key, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec

from service.adapters.providers.exchange import REFUSED_UNREAD, Reply, decoded, exchange, open_session
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError, for_a_header, read_secret
from service.adapters.providers.stripe.settings import StripeSettings
from service.adapters.providers.stripe.wire import PROBLEM, ErrorBody, Page, Refused
from service.billing.outcomes import Rejected, Throttled, Unknown

T = TypeVar("T")

Trouble = Refused | Throttled | Rejected | Unknown
Form = Sequence[tuple[str, str | int]]

PAGE = 100
"""The most that Stripe lists at once (docs.stripe.com/api/pagination)."""
PAGES_MAX = 20_000
"""Two million rows: no account moves as much in a day, and a server that never comes to an end is left."""


class Calls:
    """The connections of one account. A key that was rotated in its file is read again when it is refused, once."""

    def __init__(
        self, account: MerchantAccount, settings: StripeSettings, session: aiohttp.ClientSession | None
    ) -> None:
        """Raises AccountSettingsError when the key is nowhere, or of the other mode."""
        self.account = account
        self.settings = settings
        self._base = account.base_url.rstrip("/") + "/v1/"
        self._secret_key = self._read_key()
        self._session = session or open_session(account)

    async def get(self, path: str, shape: msgspec.json.Decoder[T], form: Form = ()) -> T | Trouble:
        """Reads."""
        query = f"{path}?{urlencode(form)}" if form else path
        return await self._ask("GET", query, None, shape, None)

    async def post(self, path: str, shape: msgspec.json.Decoder[T], form: Form, key: str | None) -> T | Trouble:
        """Does something. `key`: under which Stripe does it once and answers the same again, for at least 24 hours
        (docs.stripe.com/api/idempotent_requests); None where doing it twice is as good as once."""
        return await self._ask("POST", path, urlencode(form).encode(), shape, key)

    async def pages(self, path: str, shape: msgspec.json.Decoder[Page[T]], form: Form) -> list[T] | Trouble:
        """Everything of a list; nothing at all if one page is missing."""
        found: list[T] = []
        after: Form = ()
        for _ in range(PAGES_MAX):
            page = await self.get(path, shape, [*form, ("limit", PAGE), *after])
            if not isinstance(page, Page):
                return page
            found += page.data
            if not page.has_more:
                return found
            if not page.data:
                return Unknown("a page without rows that is not the last")
            before, after = after, [("starting_after", str(getattr(page.data[-1], "id", "")))]
            if after == before:
                return Unknown("a list that does not go on")
        return Unknown(f"a list of more than {PAGES_MAX} pages")

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def _ask(
        self, method: str, path: str, data: bytes | None, shape: msgspec.json.Decoder[T], key: str | None
    ) -> T | Trouble:
        used = self._secret_key
        reply = await self._send(method, path, data, key)
        if isinstance(reply, Reply) and reply.status == 401:
            self._secret_key = await asyncio.to_thread(self._key_or, used)
            if self._secret_key != used:
                reply = await self._send(method, path, data, key)
        if not isinstance(reply, Reply):
            return reply
        if reply.status == 200:
            answer = decoded(reply.body, shape)
            return Unknown("an answer that can't be read") if answer is None else answer
        problem = decoded(reply.body, PROBLEM)
        call = f"{method} {path.partition('?')[0]}"
        if problem is not None and reply.status >= 400:
            return Refused(reply.status, problem.error, call)
        if reply.status in REFUSED_UNREAD:
            return Refused(reply.status, ErrorBody(), call)
        return Unknown(f"HTTP {reply.status} with a body that can't be read")

    async def _send(
        self, method: str, path: str, data: bytes | None, key: str | None
    ) -> Reply | Throttled | Rejected | Unknown:
        headers = {"Authorization": f"Bearer {self._secret_key}", "Stripe-Version": self.settings.api_version}
        if data is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if key is not None:
            headers["Idempotency-Key"] = key
        return await exchange(self._session, method, self._base + path, headers, data)

    def _read_key(self) -> str:
        """The key, which says by itself whether it is a live one (docs.stripe.com/keys)."""
        name = "secret_key"
        account_id = self.account.account_id
        key = for_a_header(account_id, name, read_secret(account_id, self.account.settings, name))
        kinds = tuple(f"{kind}_{self.settings.mode}_" for kind in ("sk", "rk"))
        if not key.startswith(kinds):
            raise AccountSettingsError(
                f"merchant account {self.account.account_id}: the secret key is not one of mode"
                f" {self.settings.mode}: it must begin with {' or '.join(kinds)}"
            )
        return key

    def _key_or(self, used: str) -> str:
        try:
            return self._read_key()
        except AccountSettingsError:
            return used
