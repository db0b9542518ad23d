"""The sandbox provider (`service.lab.provider`) behind the port: JSON over HTTP, a bearer key, HMAC notifications.

Settings of an account: `SandboxSettings`, its secrets by reference too (`api_key_file`, `api_key_env` …), and those of
`exchange.open_session`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec
from msgspec.structs import replace

from service.adapters.providers import sandbox_wire as wire
from service.adapters.providers.exchange import REFUSED_UNREAD, Reply, decoded, exchange, open_session
from service.adapters.providers.given import given_settings
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    BadNotification,
    DebitRef,
    DebitRequest,
    DisputeAnswer,
    HoldRef,
    HoldRequest,
    Listening,
    MerchantAccount,
    Notification,
    RefundRef,
    RefundRequest,
    StatementAnswer,
)
from service.adapters.providers.sandbox_notices import read_notice
from service.adapters.providers.secrets import AccountSettingsError, account_error, for_a_header, read_secret
from service.adapters.providers.titles import Title
from service.billing.agreements.standing import AgreementAnswer, HoldAnswer
from service.billing.capabilities import Capabilities
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Declined,
    NeedsRider,
    OpenUrl,
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

T = TypeVar("T")

_ENCODE = msgspec.json.Encoder().encode
_AGREEMENT = msgspec.json.Decoder(wire.AgreementView)
_HOLD = msgspec.json.Decoder(wire.HoldView)
_DEBIT = msgspec.json.Decoder(wire.DebitView)
_REFUND = msgspec.json.Decoder(wire.RefundView)
_PROBLEM = msgspec.json.Decoder(wire.ProblemBody)
_LINES = msgspec.json.Decoder(list[wire.StatementLine])
_ANYTHING = msgspec.json.Decoder(dict[str, Any])


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an account beside those of `exchange.Limits`; the secrets stand in them only here."""

    api_key: str | None = None
    notify_secret: str | None = None
    capabilities: Capabilities = Capabilities()
    title: Title | None = None


def capabilities_of(account: MerchantAccount) -> Capabilities:
    """What the account's settings declare; a debit that goes through no hold is refused once the agreement is over,
    whatever is declared. Raises AccountSettingsError, for a name that nobody knows, too.

    No real provider collects in parts and closes what is unpaid, and no outcome of the port says that the part taken
    before a debit was closed is all: where that answer was lost, the rest would be waited for, for ever.
    """
    declared = given_settings(account, SandboxSettings, ("api_key", "notify_secret"), ()).capabilities
    if declared.partial_debit and declared.closes_unpaid:
        raise account_error(
            account.account_id,
            "settings.capabilities: partial_debit and closes_unpaid exclude"
            ' each other, and closes_unpaid is true by default: give "closes_unpaid": false, and "close": false to the'
            " simulator's account",
        )
    return declared if declared.hold_needed else replace(declared, revoking_ends_collection=True)


class SandboxProvider:
    """One merchant account at the sandbox provider."""

    def __init__(self, account: MerchantAccount, session: aiohttp.ClientSession | None = None) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError for settings that can't be used."""
        self.account = account
        self.capabilities = capabilities_of(account)
        self._base = account.base_url.rstrip("/") + "/v1/"
        self._api_key = self._secret("api_key")
        named = any(name.startswith("notify_secret") for name in account.settings)
        self._notify_secret = self._secret("notify_secret") if named else None
        self._session = session or open_session(account)

    async def check(self) -> Outcome | None:
        """See the port. Says so, too, when the provider's terms are not the capabilities of the settings."""
        answer = await self._ask("GET", "account", None, _ANYTHING)
        if not isinstance(answer, dict):
            return answer
        terms = answer.get("terms")
        differences = _differences(self.capabilities, terms if isinstance(terms, dict) else {})
        return Rejected("CAPABILITIES_DIFFER", "; ".join(differences)) if differences else None

    async def begin_agreement(self, request: AgreementRequest) -> AgreementAnswer:
        """See the port."""
        asked = {
            "key": request.key,
            "rider": request.rider,
            "currency": request.currency,
            "cap_minor": request.cap_minor,
            "return_url": request.return_url,
        }
        return await self._agreement("POST", "agreements", asked, request.key)

    async def get_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        return await self._agreement("GET", f"agreements/{agreement.key}", None, agreement.key)

    async def revoke_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        return await self._agreement("POST", f"agreements/{agreement.key}/revoke", {}, agreement.key)

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """See the port."""
        asked = {
            "key": request.key,
            "agreement": request.agreement.key,
            "currency": request.currency,
            "cap_minor": request.cap_minor,
            "subject": request.subject,
        }
        return await self._hold("POST", "holds", asked, request.key)

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._hold("GET", f"holds/{hold.key}", None, hold.key)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._hold("POST", f"holds/{hold.key}/release", {}, hold.key)

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._hold("POST", f"holds/{hold.key}/finish", {}, hold.key)

    async def debit(self, request: DebitRequest) -> Outcome:
        """See the port. From a provider that retries by itself an answer is at best Accepted."""
        outcome = await self._debit("POST", "debits", _debit_asked(request), request.key)
        if self.capabilities.provider_retries and isinstance(outcome, Succeeded):
            return Accepted(outcome.provider_ref)
        return outcome

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return await self._debit("GET", f"debits/{debit.key}", None, debit.key)

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """See the port."""
        outcome = await self._debit("POST", f"debits/{debit.key}/reduce", {"amount_minor": amount_minor}, debit.key)
        return Accepted() if isinstance(outcome, Declined) else outcome

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """See the port."""
        return await self._debit("POST", f"debits/{debit.key}/settle_elsewhere", {}, debit.key)

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return await self._debit("POST", f"debits/{debit.key}/close", {}, debit.key)

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return await self._debit("POST", f"debits/{debit.key}/nudge", {}, debit.key)

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """See the port."""
        answer = await self._ask("POST", "payments", _debit_asked(request), _DEBIT)
        if not isinstance(answer, wire.DebitView):
            return answer
        if answer.state in ("accepted", "declined") and answer.action_url:
            return NeedsRider(wire.RIDER_MUST_PAY, OpenUrl(answer.action_url))
        outcome = wire.debit_outcome(answer)
        return AlreadyDone() if isinstance(outcome, Succeeded) else outcome

    async def refund(self, request: RefundRequest) -> Outcome:
        """See the port."""
        asked = {
            "key": request.key,
            "debit": request.debit.key,
            "amount_minor": request.amount_minor,
            "reason": request.reason,
        }
        return await self._refund("POST", "refunds", asked, request.key)

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """See the port."""
        return await self._refund("GET", f"refunds/{refund.key}", None, refund.key)

    async def get_dispute(self, number: str) -> DisputeAnswer:
        """See the port: its notifications say all there is."""
        return Rejected("NOT_POSSIBLE", "the sandbox tells disputes whole")

    async def listen(self, *, replace: bool) -> Listening | Outcome:
        """See the port: an account is opened with its address."""
        return Listening()

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """See the port."""
        asked = {"debit": debit.key, "record": record, "key": key}
        answer = await self._ask("POST", "reports", asked, _ANYTHING)
        return Accepted() if isinstance(answer, dict) else answer

    def parse_notification(
        self, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Notification | BadNotification:
        """See the port."""
        return read_notice(self.account.account_id, self._notify_secret, headers, body, now)

    async def statement(self, day: date) -> StatementAnswer:
        """See the port."""
        lines = await self._ask("GET", f"statements/{day.isoformat()}", None, _LINES)
        return wire.statement(day, lines) if isinstance(lines, list) else wire.of_query(lines)

    async def close(self) -> None:
        """See the port."""
        await self._session.close()

    async def _ask(
        self, method: str, path: str, asked: dict[str, Any] | None, shape: msgspec.json.Decoder[T]
    ) -> T | Outcome:
        """A call and its answer in `shape`, or an Outcome. A key that was rotated is read again, once."""
        data = None if asked is None else _ENCODE(asked)
        used = self._api_key
        reply = await self._send(method, path, data)
        if isinstance(reply, Reply) and reply.status == 401:
            self._api_key = await asyncio.to_thread(self._secret_or, used)
            if self._api_key != used:
                reply = await self._send(method, path, data)
        if not isinstance(reply, Reply):
            return reply
        if reply.status == 200 or (reply.status == 402 and shape is _DEBIT):
            answer = decoded(reply.body, shape)
            if answer is not None:
                return answer
        problem = decoded(reply.body, _PROBLEM)
        unread = reply.status in REFUSED_UNREAD
        if problem is None and unread:
            return Rejected(f"HTTP_{reply.status}")
        if problem is None or reply.status < 400:
            return Unknown(f"HTTP {reply.status} with a body that can't be read")
        return wire.refusal(problem.error, refused_unread=unread)

    async def _send(self, method: str, path: str, data: bytes | None) -> Reply | Throttled | Rejected | Unknown:
        headers = {"Authorization": f"Bearer {self._api_key}", "Content-Type": "application/json"}
        return await exchange(self._session, method, self._base + path, headers, data)

    async def _agreement(self, method: str, path: str, asked: dict[str, Any] | None, key: str) -> AgreementAnswer:
        answer = await self._ask(method, path, asked, _AGREEMENT)
        if isinstance(answer, wire.AgreementView):
            return wire.agreement_status(answer) if answer.key == key else wire.ANOTHER_KEY
        return wire.of_query(answer) if method == "GET" else answer

    async def _hold(self, method: str, path: str, asked: dict[str, Any] | None, key: str) -> HoldAnswer:
        answer = await self._ask(method, path, asked, _HOLD)
        if isinstance(answer, wire.HoldView):
            return wire.hold_status(answer) if answer.key == key else wire.ANOTHER_KEY
        return wire.of_query(answer) if method == "GET" else answer

    async def _debit(self, method: str, path: str, asked: dict[str, Any] | None, key: str) -> Outcome:
        answer = await self._ask(method, path, asked, _DEBIT)
        if isinstance(answer, wire.DebitView):
            return wire.debit_outcome(answer) if answer.key == key else wire.ANOTHER_KEY
        return wire.of_query(answer) if method == "GET" else answer

    async def _refund(self, method: str, path: str, asked: dict[str, Any] | None, key: str) -> Outcome:
        answer = await self._ask(method, path, asked, _REFUND)
        if isinstance(answer, wire.RefundView):
            return wire.refund_outcome(answer) if answer.key == key else wire.ANOTHER_KEY
        return wire.of_query(answer) if method == "GET" else answer

    def _secret(self, name: str) -> str:
        secret = read_secret(self.account.account_id, self.account.settings, name, literal=True)
        return for_a_header(self.account.account_id, name, secret)

    def _secret_or(self, used: str) -> str:
        try:
            return self._secret("api_key")
        except AccountSettingsError:
            return used


_TERMS = {
    "provider_retries": "provider_retries",
    "nudge": "nudges",
    "hold_needed": "hold_needed",
    "confirm_hold": "hold_confirmed_by_rider",
    "partial": "partial_debit",
    "further_debits": "further_debit",
    "reduce_pending": "reduces_pending",
    "reduce_declined": "reduces_declined",
    "close": "closes_unpaid",
    "new_key_after_decline": "new_key_after_decline",
    "revoking_ends_debits": "revoking_ends_collection",
}
"""What the provider calls the abilities that we declare."""
_WINDOWS = {"key_window_s": "same_key_window", "refund_window_s": "refund_window"}
"""How long he does something, in seconds; None: for ever."""


def _differences(declared: Capabilities, terms: dict[str, Any]) -> list[str]:
    """All that the provider does otherwise than is declared. He may keep keys and refund for longer, and debit less."""
    told = []
    for name, ability in _TERMS.items():
        if ability == "revoking_ends_collection" and not declared.hold_needed:
            continue  # Without a hold it does, whatever is declared.
        does, believed = terms.get(name), getattr(declared, ability)
        if does != believed:
            told.append(f"{ability} is {_json(believed)} in the settings, {_json(does)} at the provider ({name})")
    for name, ability in _WINDOWS.items():
        kept, window = terms.get(name), getattr(declared, ability)
        if kept is not None and (window is None or kept < window.total_seconds()):
            told.append(f"{ability} is {_json(window)} in the settings, {kept} s at the provider ({name})")
    least = terms.get("amount_min_minor", 1)
    if least > declared.debit_min_minor:
        told.append(
            f"debit_min_minor is {declared.debit_min_minor} in the settings, {least} at the provider (amount_min_minor)"
        )
    return told


def _json(value: Any) -> str:
    return _ENCODE(value).decode()


def _debit_asked(request: DebitRequest) -> dict[str, Any]:
    return {
        "key": request.key,
        "agreement": request.agreement.key,
        "amount_minor": request.amount_minor,
        "currency": request.currency,
        "hold": request.hold.key if request.hold else None,
        "subject": request.subject,
    }
