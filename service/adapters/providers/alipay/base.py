"""What both Alipay products do alike: trades that are asked about, closed, paid by the rider, refunded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Literal

import aiohttp

from service.adapters.clock import Clock
from service.adapters.providers.alipay import codes, wire
from service.adapters.providers.alipay.codes import Problem
from service.adapters.providers.alipay.complaints import ask_complaint
from service.adapters.providers.alipay.gateway import ZONE, Gateway
from service.adapters.providers.alipay.notices import read_notice
from service.adapters.providers.alipay.settings import AlipaySettings, capabilities_of
from service.adapters.providers.alipay.statements import read_statement
from service.adapters.providers.further import FURTHER, payable
from service.adapters.providers.port import (
    BadNotification,
    DebitRef,
    DebitRequest,
    DisputeAnswer,
    Listening,
    MerchantAccount,
    Notification,
    RefundRef,
    RefundRequest,
    StatementAnswer,
)
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Barred,
    Closed,
    NeedsRider,
    NotFound,
    Outcome,
    Rejected,
    SignString,
    Succeeded,
    Unknown,
)

RIDER_MUST_PAY = "RIDER_MUST_PAY"
CHECK_NUMBER = "FAREBOX_CREDENTIALS_CHECK"
"""A trade that never was: asking for it shows whether the credentials are good."""
APP_PRODUCT = "QUICK_MSECURITY_PAY"
"""alipay.trade.app.pay's product (AlipayTradeAppPayModel)."""
PAID_WITHIN = timedelta(minutes=1)
"""So long before something else may be tried a payment can no longer be begun."""


class AlipayAccount:
    """One merchant account at Alipay, but for what its product does in its own way."""

    def __init__(
        self, account: MerchantAccount, settings: AlipaySettings, session: aiohttp.ClientSession | None, now: Clock
    ) -> None:
        """Connections are its own unless given some. Raises AccountSettingsError for keys that can't be used."""
        self.account = account
        self.capabilities = capabilities_of(settings)
        self._settings = settings
        self._gateway = Gateway(account, settings, session, now)
        self._sync_type = "CREDIT_DEDUCT" if settings.product == "zhima" else "CREDIT_AUTH"

    async def check(self) -> Outcome | None:
        """See the port. Asks for a trade that never was."""
        answer = await self._trade(CHECK_NUMBER)
        match answer:
            case NotFound() | wire.TradeView():
                return None
            case Unknown(reason=codes.BAD_SIGNATURE):
                key = "alipay_certificate" if self._gateway.certified else "alipay_public_key"
                return Rejected("BAD_ANSWER_SIGNATURE", f"{key} is not the key with which Alipay signs")
            case Rejected(code=code, message=message) | Barred(code=code, message=message):
                return Rejected(code, " ".join(part for part in (_HINTS.get(code, ""), message) if part))
        return answer

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        number, trade = await self._payable(debit)
        if not isinstance(trade, wire.TradeView):
            return codes.of_query(trade)
        his = number is not None and number.endswith(FURTHER)
        waiting = self._rider_pays() if his else self._unpaid(debit)
        waiting = wire.another_amount(trade.total_amount, debit.amount_minor) or waiting
        outcome = self._meaning(trade, waiting)
        return Accepted(trade.trade_no or None) if outcome == Accepted() else outcome

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """See the port: one number is one collection of one amount."""
        if amount_minor <= 0:
            return await self.close_debit(debit)
        return Rejected("NOT_POSSIBLE", "Alipay lowers no debit; what is too much is given back once it is paid")

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        number, trade = await self._payable(debit)
        if not isinstance(trade, wire.TradeView):
            return codes.of_query(trade)
        if _unopened(debit, number, trade):
            return NotFound()
        return await self._close(debit, number) if self._open(trade) else self._over(trade)

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """See the port. Tells Zhima that the rider has paid (COMPLETE), then closes the trade, in this order: said
        after the closing it would not be said again when we die in between.

        Source: AlipayTradeOrderinfoSyncModel.order_biz_info.
        """
        number, trade = await self._payable(debit)
        if not isinstance(trade, wire.TradeView):
            return codes.of_query(trade)
        if _unopened(debit, number, trade):
            return NotFound()
        if not self._open(trade):
            return self._over(trade)
        told = await self._sync(trade.trade_no, "COMPLETE", f"{debit.key}_complete")
        return await self._close(debit, number) if isinstance(told, Accepted) else told

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """See the port."""
        return Rejected("NOT_POSSIBLE", "Alipay has no call that makes it try again")

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """See the port. The rider pays the very number of the debit, so that he and we can't both succeed."""
        amount = wire.yuan(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        number, trade = await self._payable(request)
        if number is None:
            assert not isinstance(trade, wire.TradeView)
            return trade
        if isinstance(trade, wire.TradeView) and not self._open(trade) and trade.out_trade_no == number:
            return self._over(trade)
        asked = {
            "out_trade_no": number,
            "total_amount": amount,
            "subject": wire.subject(request.subject),
            "product_code": APP_PRODUCT,
            "seller_id": self._settings.seller_id,
        }
        if request.payable_until is not None:  # AlipayTradeAppPayModel.time_expire
            void_at = (request.payable_until - PAID_WITHIN).astimezone(ZONE)
            asked["time_expire"] = void_at.strftime("%Y-%m-%d %H:%M:%S")
        return NeedsRider(RIDER_MUST_PAY, SignString(self._gateway.app_string("alipay.trade.app.pay", asked)))

    async def refund(self, request: RefundRequest) -> Outcome:
        """See the port. A repeat answers 10000 too: only `fund_change` and the query tell (AlipayTradeRefundModel)."""
        amount = wire.yuan(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        trade = await self._named(request.debit)
        if not isinstance(trade, dict):
            return trade
        asked = {**trade, "refund_amount": amount, "out_request_no": request.key}
        asked["refund_reason"] = wire.subject(request.reason)
        answer = await self._gateway.call("alipay.trade.refund", asked, wire.REFUND)
        if isinstance(answer, Problem):
            return codes.of_refund(answer)
        if not isinstance(answer, wire.RefundView):
            return answer
        said = {"trade_no": answer.trade_no, "out_trade_no": answer.out_trade_no}
        if any(said[name] not in ("", number) for name, number in trade.items()):
            return wire.ANOTHER_NUMBER
        if answer.fund_change == "Y":
            return Succeeded(request.amount_minor, request.key)
        seen = await self.get_refund(RefundRef(request.key, request.debit))
        return seen if isinstance(seen, Succeeded) else Accepted(request.key)

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """See the port. Without a state Alipay knows no such refund, or it failed: the same number may be sent again.

        Source: AlipayTradeFastpayRefundQueryResponse.refund_status.
        """
        trade = await self._named(refund.debit)
        if not isinstance(trade, dict):
            return codes.of_query(trade)
        asked = {**trade, "out_request_no": refund.key}
        answer = await self._gateway.call("alipay.trade.fastpay.refund.query", asked, wire.REFUND_QUERY)
        if isinstance(answer, Problem):
            return codes.of_query(codes.outcome(answer))
        if not isinstance(answer, wire.RefundQueryView):
            return codes.of_query(answer)
        if not answer.refund_status:
            return NotFound()
        if answer.out_request_no not in ("", refund.key):
            return wire.ANOTHER_NUMBER
        amount = wire.minor(answer.refund_amount)
        if answer.refund_status == wire.REFUNDED and amount:
            return Succeeded(amount, refund.key)
        return Unknown(f"refund_status {answer.refund_status}")

    async def get_dispute(self, number: str) -> DisputeAnswer:
        """See the port. Alipay only announces complaints."""
        return await ask_complaint(self._gateway, number)

    async def listen(self, *, replace: bool) -> Listening | Outcome:
        """See the port: messages are subscribed to at the open platform."""
        return Listening()

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """See the port. Source: the status words COMPLETE and VIOLATED of orderinfo.sync for pre-authorisations
        (developer.aliyun.com/ask/285623; COMPLETE also in AlipayTradeOrderinfoSyncModel)."""
        if self.capabilities.reports_performance == "provider":
            return Rejected("NOT_POSSIBLE", "Zhima itself records how the rider paid")
        number = await self._number(debit)
        trade = await self._trade(number) if isinstance(number, str) else number
        if not isinstance(trade, wire.TradeView):
            return trade
        return await self._sync(trade.trade_no, "COMPLETE" if record == "completed" else "VIOLATED", key)

    def parse_notification(
        self, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Notification | BadNotification:
        """See the port. Alipay's protocol knows no oldest time: repeats are told by the notification's id."""
        return read_notice(self._settings, self._gateway.notification_wrong, body)

    async def statement(self, day: date) -> StatementAnswer:
        """See the port."""
        return await read_statement(self._gateway, day)

    async def close(self) -> None:
        """See the port."""
        await self._gateway.close()

    async def _number(self, debit: DebitRef | DebitRequest) -> str | Outcome:
        """The out_trade_no under which a debit is collected, or why it can't be told."""
        return debit.key

    async def _payable(self, debit: DebitRef | DebitRequest) -> tuple[str | None, wire.TradeView | Outcome]:
        """The number under which a debit is or can still be paid, and how its trade stands.

        That is the debit's own number, until Alipay has closed it unpaid (after 15 days, AlipayTradePayModel; when the
        rider opened it and let its time pass): nothing moves under it any more, and he pays the next one.
        """
        number = await self._number(debit)
        if not isinstance(number, str):
            return None, number
        return await payable(
            number, debit.key, self._trade, lambda trade: isinstance(self._meaning(trade, Accepted()), Closed)
        )

    def _unpaid(self, debit: DebitRef) -> Outcome:
        """What it means that a debit's trade waits for the buyer."""
        return self._rider_pays()

    def _rider_pays(self) -> Outcome:
        return NeedsRider("WAIT_BUYER_PAY")

    def _meaning(self, trade: wire.TradeView, waiting: Outcome) -> Outcome:
        return wire.debit_outcome(trade, waiting, self._settings.credit_pay_modes)

    def _open(self, trade: wire.TradeView) -> bool:
        return self._meaning(trade, Accepted()) == Accepted()

    def _over(self, trade: wire.TradeView) -> Outcome:
        """What is said of a trade that waits for nobody to a wish that it be paid or stopped."""
        state = self._meaning(trade, Accepted())
        return AlreadyDone() if isinstance(state, Succeeded) else state

    async def _refused(self, problem: Problem, number: str, attempt: int) -> Outcome:
        """What a refused debit means. "Closed" may be an unpaid trade, one that was given back, or its order: the trade
        tells, and one that Alipay does not know will not come."""
        if problem.sub_code != codes.TRADE_HAS_CLOSE:
            return codes.of_debit(problem, attempt)
        trade = await self._trade(number)
        state = self._meaning(trade, Unknown(problem.sub_code)) if isinstance(trade, wire.TradeView) else trade
        if isinstance(state, NotFound | Closed):
            return Closed(problem.sub_code)
        return AlreadyDone() if isinstance(state, Succeeded) else codes.of_query(state)

    async def _trade(self, number: str) -> wire.TradeView | Outcome:
        answer = await self._gateway.call("alipay.trade.query", {"out_trade_no": number}, wire.TRADE)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if isinstance(answer, wire.TradeView) and answer.out_trade_no != number:
            return wire.ANOTHER_NUMBER
        return answer

    async def _close(self, debit: DebitRef, number: str | None) -> Outcome:
        """Closes a trade; one that can't be closed is looked at."""
        answer = await self._gateway.call("alipay.trade.close", {"out_trade_no": number}, wire.NOTHING)
        if not isinstance(answer, Problem):
            return Closed() if isinstance(answer, wire.Nothing) else answer
        if answer.sub_code not in codes.TRADE_STATE_WRONG:
            return codes.outcome(answer)
        state = await self.get_debit(debit)
        if isinstance(state, Succeeded):
            return AlreadyDone()
        return state if isinstance(state, Closed | NotFound) else Unknown(answer.sub_code)

    async def _sync(self, trade_no: str, status: str, request_no: str) -> Outcome:
        """Tells Zhima how a trade was performed; the same request number changes nothing a second time."""
        asked: dict[str, Any] = {
            "trade_no": trade_no,
            "out_request_no": request_no,
            "biz_type": self._sync_type,
            "order_biz_info": f'{{"status":"{status}"}}',
        }
        answer = await self._gateway.call("alipay.trade.orderinfo.sync", asked, wire.NOTHING)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        return Accepted(trade_no) if isinstance(answer, wire.Nothing) else answer

    async def _named(self, debit: DebitRef) -> dict[str, str] | Outcome:
        """How a paid trade is named: by Alipay's number where it is known."""
        if debit.provider_ref is not None:
            return {"trade_no": debit.provider_ref}
        number, trade = await self._payable(debit)
        if number is None:
            assert not isinstance(trade, wire.TradeView)
            return trade
        return {"out_trade_no": number}


def _unopened(debit: DebitRef, number: str | None, trade: wire.TradeView) -> bool:
    """Whether the trades so far are closed, and the rider may still open the next one."""
    return debit.handed_out and trade.out_trade_no != number


_HINTS = {
    "isv.invalid-app-id": "settings.app_id is not an app at this gateway.",
    "isv.invalid-signature": "app_private_key does not belong to the public key that Alipay has of this app.",
    "isv.missing-signature-key": "Alipay has no public key of this app yet.",
    "isv.missing-app-cert-sn": "the app is in certificate mode (公钥证书): app_certificate is needed.",
    "isv.app-cert-not-exist": "app_certificate is not the one that Alipay has of this app.",
    "isv.app-cert-expired": "app_certificate has expired: apply for another one at the open platform.",
    "isv.alipay-cert-not-exist": "Alipay has issued no certificate of its own for this app yet.",
    "isv.missing-alipay-root-cert-sn": "alipay_root_certificate has no certificate of RSA.",
    "isv.invalid-alipay-root-cert-sn": "alipay_root_certificate is not Alipay's alipayRootCert.crt, or an old one.",
    "isv.insufficient-isv-permissions": "the app has no permission for trades: sign the product for it.",
    "isv.insufficient-user-permissions": "the merchant has not given the app permission.",
}
"""What to put right. Codes: GWERR; those of certificates: opendocs.alipay.com/common/02kdnf."""
