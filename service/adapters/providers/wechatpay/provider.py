"""One WeChat Pay account behind the port: which of its parts answers what."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal

import aiohttp

from service.adapters.clock import Clock
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
from service.adapters.providers.wechatpay import codes
from service.adapters.providers.wechatpay.agreements import Permissions
from service.adapters.providers.wechatpay.client import BAD_API_KEY, BAD_SIGNATURE, Client
from service.adapters.providers.wechatpay.codes import Problem
from service.adapters.providers.wechatpay.complaints import ask_complaint, tell_complaints_at
from service.adapters.providers.wechatpay.notices import read_notice
from service.adapters.providers.wechatpay.orders import Orders
from service.adapters.providers.wechatpay.payments import Payments
from service.adapters.providers.wechatpay.settings import capabilities_of, read_settings
from service.adapters.providers.wechatpay.statements import read_statement
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus, HoldAnswer
from service.billing.outcomes import Barred, NotFound, Outcome, Rejected, Unknown

CHECK_NUMBER = "FAREBOX_CREDENTIALS_CHECK"
"""An order that never was: asking for it shows whether the credentials are good."""


class WechatPayProvider:
    """One merchant at WeChat Pay, with one Pay Score service."""

    def __init__(self, account: MerchantAccount, session: aiohttp.ClientSession | None, now: Clock) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError naming what can't be used."""
        settings = read_settings(account)
        self.account = account
        self.capabilities = capabilities_of(settings)
        self._settings = settings
        self._client = Client(account, settings, session, now)
        self._permissions = Permissions(self._client, settings)
        self._orders = Orders(self._client, settings, self._permissions)
        self._payments = Payments(self._client, settings, self._permissions, self._orders)

    async def check(self) -> Outcome | None:
        """See the port. Asks for an order that never was, and whether the APIv3 key opens the platform certificates;
        a merchant in public-key mode may have none of these, and then that key is not tried."""
        order = await self._orders.order(HoldRef(CHECK_NUMBER))
        if isinstance(order, Rejected | Barred):
            hint = next((hint for code, hint in _HINTS.items() if code in order.code), "")
            return Rejected(order.code, f"{hint} {order.message}".strip())
        if order == Unknown(BAD_SIGNATURE):
            name = "wechatpay_public_key" if self._settings.public_key_id else "base_url"
            return Rejected("BAD_ANSWER_SIGNATURE", f"{name} is not that of WeChat Pay")
        failed = await self._client.fetch_certificates()
        if failed == BAD_API_KEY:
            return BAD_API_KEY
        if isinstance(order, Unknown) and failed is not None:
            return codes.outcome(failed) if isinstance(failed, Problem) else failed
        return None if isinstance(order, NotFound) or not isinstance(order, Outcome) else order

    async def begin_agreement(self, request: AgreementRequest) -> AgreementAnswer:
        """See the port. Where the rider confirms each order, there is nothing to sign before."""
        if self._settings.need_user_confirm:
            return AgreementStatus("active")
        return await self._permissions.begin(request)

    async def get_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        if self._settings.need_user_confirm:
            return AgreementStatus("active")
        return await self._permissions.get(agreement)

    async def revoke_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port. The order under way is still collected (排障手册 3.6 #2)."""
        if self._settings.need_user_confirm:
            return AgreementStatus("revoked")
        return await self._permissions.revoke(agreement)

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """See the port."""
        return await self._orders.open(request)

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._orders.get(hold)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._orders.release(hold)

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._orders.finish(hold)

    async def debit(self, request: DebitRequest) -> Outcome:
        """See the port. Without an order it is a payment that the rider approves: nothing moves before."""
        if request.hold is None:
            return await self._payments.request(request)
        return await self._orders.debit(request.hold, request)

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        if debit.hold is None:
            return await self._payments.get(debit)
        return await self._orders.get_debit(debit.hold, debit)

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """See the port."""
        if debit.hold is not None:
            return await self._orders.reduce(debit.hold, amount_minor)
        if amount_minor <= 0:
            return await self._payments.close(debit)
        return Rejected("NOT_POSSIBLE", "a payment that the rider makes himself is of one amount")

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """See the port."""
        if debit.hold is None:
            return await self._payments.close(debit)
        return await self._orders.settle_elsewhere(debit.hold, paid_at)

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return await (self._payments.close(debit) if debit.hold is None else self._orders.close(debit.hold))

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        if debit.hold is None:
            return Rejected("NOT_POSSIBLE", "only the rider can make this payment")
        return await self._orders.nudge(debit.hold)

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """See the port. On an order the rider pays the very order that WeChat Pay collects, so both can't succeed."""
        if request.hold is None:
            return await self._payments.request(request)
        return await self._orders.request_payment(request.hold, request)

    async def refund(self, request: RefundRequest) -> Outcome:
        """See the port."""
        return await self._payments.refund(request)

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """See the port."""
        return await self._payments.get_refund(refund)

    async def get_dispute(self, number: str) -> DisputeAnswer:
        """See the port."""
        return await ask_complaint(self._client, self._orders, number)

    async def listen(self, *, replace: bool) -> Listening | Outcome:
        """See the port: complaints are told at an address of the merchant's."""
        return await tell_complaints_at(self._client, self._settings.notify_url, replace=replace)

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """See the port."""
        return Rejected("NOT_POSSIBLE", "Pay Score itself records how the rider paid")

    def parse_notification(
        self, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Notification | BadNotification:
        """See the port."""
        return read_notice(self._client, self._settings, headers, body, now)

    async def statement(self, day: date) -> StatementAnswer:
        """See the port."""
        return await read_statement(self._client, day)

    async def close(self) -> None:
        """See the port."""
        await self._client.close()


_HINTS = {
    "SIGN_ERROR": "settings.mchid, the merchant's serial number and merchant_private_key do not belong together.",
    "MCH_NOT_EXISTS": "settings.mchid is no merchant.",
    str(codes.AUTHORIZATION_BAD): "merchant_private_key is not that of the merchant's serial number.",
    str(codes.MERCHANT_UNKNOWN): "settings.mchid is no merchant.",
    str(codes.APP_UNBOUND): "settings.appid is not bound to settings.mchid.",
    "APPID_MCHID_NOT_MATCH": "settings.appid is not bound to settings.mchid.",
    str(codes.NO_PERMISSION): "settings.service_id is not this merchant's, or Pay Score is not open to him.",
    "NO_AUTH": "settings.service_id is not open to this merchant and app.",
}
"""What to put right. Sources: see codes."""
