"""Stripe behind the port: cards that riders keep with it, debited off session (docs.stripe.com; see README.md here).

Settings of an account: `secret_key_env` or `secret_key_file`, `webhook_secret_env` or `webhook_secret_file`, those of
`settings.StripeSettings` and those of `exchange.Limits`. The key's file is read again when the key is refused, the
webhook secret's when a signature is: both can be replaced without a restart. Two webhook secrets may stand in the file,
a line each.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal
from urllib.parse import quote

import aiohttp

from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    BadNotification,
    DebitRef,
    DebitRequest,
    DisputeAnswer,
    DisputeStatus,
    HoldRef,
    HoldRequest,
    Listening,
    MerchantAccount,
    Notification,
    RefundRef,
    RefundRequest,
    StatementAnswer,
)
from service.adapters.providers.secrets import AccountSettingsError, read_secret
from service.adapters.providers.stripe.agreements import Agreements
from service.adapters.providers.stripe.calls import Calls
from service.adapters.providers.stripe.debits import Debits
from service.adapters.providers.stripe.disputes import dispute_status
from service.adapters.providers.stripe.holds import Holds
from service.adapters.providers.stripe.intents import Intents
from service.adapters.providers.stripe.meaning import of_query, refusal
from service.adapters.providers.stripe.notices import read_notice, signed
from service.adapters.providers.stripe.refunds import Refunds
from service.adapters.providers.stripe.settings import capabilities_of, read_settings
from service.adapters.providers.stripe.statements import read_statement
from service.adapters.providers.stripe.wire import ANYTHING, BALANCE, DISPUTE, Balance, Dispute, Page, Refused
from service.billing.agreements.standing import AgreementAnswer, HoldAnswer
from service.billing.outcomes import Outcome, Rejected

NEEDED = ("payment_intents", "setup_intents", "refunds", "customers", "disputes", "balance_transactions")
"""What a restricted key must be able to read; that it may write too shows only when it does."""


class StripeProvider:
    """One merchant account at Stripe, in one currency."""

    def __init__(self, account: MerchantAccount, session: aiohttp.ClientSession | None = None) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError for settings that can't be used."""
        self.account = account
        self._settings = read_settings(account)
        self.capabilities = capabilities_of(self._settings)
        self._webhook_secrets = self._read_webhook_secrets()
        self._calls = Calls(account, self._settings, session)
        intents = Intents(self._calls)
        self._agreements = Agreements(self._calls)
        self._holds = Holds(self._calls, intents)
        self._debits = Debits(self._calls, intents)
        self._refunds = Refunds(self._calls, intents)

    async def check(self) -> Outcome | None:
        """See the port. Names a key that is refused, one of the other mode, and one that may not read what is
        needed."""
        balance = await self._calls.get("balance", BALANCE)
        if not isinstance(balance, Balance):
            return refusal(balance) if isinstance(balance, Refused) else balance
        if balance.livemode != (self._settings.mode == "live"):
            told = "live" if balance.livemode else "test"
            return Rejected("MODE_DIFFERS", f"mode is {self._settings.mode} in the settings, {told} at Stripe")
        for what in NEEDED:
            page = await self._calls.get(what, ANYTHING, [("limit", 1)])
            if not isinstance(page, Page):
                return refusal(page) if isinstance(page, Refused) else page
        return None

    async def begin_agreement(self, request: AgreementRequest) -> AgreementAnswer:
        """See the port."""
        return await self._agreements.begin(request)

    async def get_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        return await self._agreements.get(agreement)

    async def revoke_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        return await self._agreements.revoke(agreement)

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """See the port."""
        return await self._holds.open(request)

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._holds.get(hold)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._holds.release(hold)

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._holds.finish(hold)

    async def debit(self, request: DebitRequest) -> Outcome:
        """See the port, and `debits` for why one PaymentIntent serves all attempts."""
        return await self._debits.take(request)

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return await self._debits.get(debit)

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """See the port."""
        if amount_minor <= 0:
            return await self._debits.stop(debit)
        return await self._debits.reduce(debit, amount_minor)

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """See the port."""
        return await self._debits.stop(debit)

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return await self._debits.stop(debit)

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """See the port: Stripe has no such call."""
        return Rejected("NOT_POSSIBLE", "Stripe does not retry by itself")

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """See the port. Prepared first where the debit has no PaymentIntent yet."""
        return await self._debits.request_payment(request)

    async def refund(self, request: RefundRequest) -> Outcome:
        """See the port."""
        return await self._refunds.make(request)

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """See the port."""
        return await self._refunds.get(refund)

    async def get_dispute(self, number: str) -> DisputeAnswer:
        """See the port (docs.stripe.com/api/disputes/retrieve)."""
        told = await self._calls.get(f"disputes/{quote(number, safe='')}", DISPUTE)
        if not isinstance(told, Dispute):
            return of_query(told)
        status = dispute_status(told)
        return (status,) if isinstance(status, DisputeStatus) else status

    async def listen(self, *, replace: bool) -> Listening | Outcome:
        """See the port: endpoints of webhooks are made in the dashboard, where their secret is shown."""
        return Listening()

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """See the port: nobody reports to Stripe how a rider paid."""
        return Rejected("NOT_POSSIBLE", "Stripe keeps no such record")

    def parse_notification(
        self, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Notification | BadNotification:
        """See the port."""
        if not signed(self._webhook_secrets, headers.get("stripe-signature", ""), body):
            self._webhook_secrets = self._webhook_secrets_or(self._webhook_secrets)
        return read_notice(self._webhook_secrets, self._settings, headers, body, now)

    async def statement(self, day: date) -> StatementAnswer:
        """See the port."""
        return await read_statement(self._calls, day)

    async def close(self) -> None:
        """See the port."""
        await self._calls.close()

    def _read_webhook_secrets(self) -> tuple[str, ...]:
        if not any(name.startswith("webhook_secret") for name in self.account.settings):
            return ()
        return tuple(read_secret(self.account.account_id, self.account.settings, "webhook_secret").split())

    def _webhook_secrets_or(self, used: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return self._read_webhook_secrets()
        except AccountSettingsError:
            return used
