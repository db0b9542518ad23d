"""What is not collected through an order: payments that the rider makes himself (JSAPI), and refunds of any payment.

Sources: wechatpay-go (services/payments/jsapi, services/refunddomestic); pay.weixin.qq.com, JSAPI下单, 关闭订单,
申请退款.
"""

from __future__ import annotations

from secrets import token_hex

from service.adapters.providers.further import payable
from service.adapters.providers.port import DebitRef, DebitRequest, RefundRef, RefundRequest
from service.adapters.providers.wechatpay import codes, signing, wire
from service.adapters.providers.wechatpay.agreements import Permissions
from service.adapters.providers.wechatpay.client import Client
from service.adapters.providers.wechatpay.codes import Problem
from service.adapters.providers.wechatpay.orders import RIDER_MUST_PAY, Orders
from service.adapters.providers.wechatpay.settings import WechatPaySettings
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import (
    Closed,
    Conflict,
    MiniProgram,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Rejected,
    Throttled,
    Unreachable,
)

TRANSACTIONS = "/v3/pay/transactions"
REFUNDS = "/v3/refund/domestic/refunds"
DESCRIPTION_MAX, REFUND_REASON_MAX = 127, 80


class Payments:
    """One merchant's ordinary payments.

    Their number is our key of the debit, until WeChat Pay has closed that unpaid: because we asked for it, or by itself
    (after 7 days: JSAPI 开发指引, time_expire). It is ORDER_CLOSED for good then, and the rider pays the next one
    (`further`).
    """

    def __init__(self, client: Client, settings: WechatPaySettings, permissions: Permissions, orders: Orders) -> None:
        self._client = client
        self._settings = settings
        self._permissions = permissions
        self._orders = orders

    async def request(self, request: DebitRequest) -> Outcome:
        """Prepares a payment that the rider approves in WeChat: nothing moves before. The same content again prepares
        the same one, for two hours more."""
        wrong = wire.amount_wrong(request.amount_minor, request.currency)
        if wrong is not None:
            return wrong
        openid = await self._openid(request)
        if not isinstance(openid, str):
            return openid
        number, seen = await self._payable(request)
        if not isinstance(seen, wire.PaymentView | NotFound):
            return codes.not_sent(codes.of_query(seen))
        asked = {
            "appid": self._settings.appid,
            "mchid": self._settings.mchid,
            "description": wire.shortened(request.subject, DESCRIPTION_MAX) or self._settings.service_introduction,
            "out_trade_no": number,
            "notify_url": self._settings.notify_url,
            "amount": {"total": request.amount_minor, "currency": wire.CURRENCY},
            "payer": {"openid": openid},
        }
        answer = await self._client.post(f"{TRANSACTIONS}/jsapi", asked, wire.PREPAID)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if not isinstance(answer, wire.PrepaidView):
            return answer
        return NeedsRider(RIDER_MUST_PAY, self._action(answer.prepay_id))

    async def get(self, debit: DebitRef) -> Outcome:
        """What became of a payment: of the one number of it that is open or paid, where there is one."""
        _, seen = await self._payable(debit)
        if not isinstance(seen, wire.PaymentView):
            return codes.of_query(seen)
        outcome, total = wire.payment_outcome(seen), seen.amount.total if seen.amount else 0
        another = isinstance(outcome, NeedsRider) and total not in (0, debit.amount_minor)
        return Conflict(f"total {total}") if another else outcome

    async def close(self, debit: DebitRef) -> Outcome:
        """Closes a payment that was not made. The next number after a closed one is closed, too: the query may be older
        than its beginning."""
        number, seen = await self._payable(debit)
        if not isinstance(seen, wire.PaymentView | NotFound):
            return codes.of_query(seen)
        answer = await self._client.post(f"{_of(number)}/close", {"mchid": self._settings.mchid}, wire.NOTHING)
        if not isinstance(answer, Problem):
            return Closed() if isinstance(answer, wire.Nothing) else answer
        outcome = codes.outcome(answer)
        not_begun = isinstance(outcome, NotFound) and isinstance(seen, wire.PaymentView) and seen.out_trade_no != number
        return Closed() if not_begun else outcome

    async def refund(self, request: RefundRequest) -> Outcome:
        """Gives back of a payment, by WeChat Pay's number of it (an order's number is not taken: 排障手册 2.6 #8)."""
        wrong = wire.amount_wrong(request.amount_minor, request.currency)
        if wrong is not None:
            return wrong
        payment = await self._payment(request.debit, request.amount_minor)
        if not isinstance(payment, tuple):
            return payment
        transaction_id, total_minor = payment
        asked = {
            "transaction_id": transaction_id,
            "out_refund_no": request.key,
            "reason": wire.shortened(request.reason, REFUND_REASON_MAX) or "退款",
            "notify_url": self._settings.notify_url,
            "amount": {"refund": request.amount_minor, "total": total_minor, "currency": wire.CURRENCY},
        }
        answer = await self._client.post(REFUNDS, asked, wire.REFUND)
        if isinstance(answer, Problem):
            return codes.of_refund(answer)
        if isinstance(answer, Throttled) and not isinstance(answer, Unreachable):
            return Postponed(max(answer.retry_after, codes.REFUND_APART))
        return self._refunded(answer, request.key) if isinstance(answer, wire.RefundView) else answer

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """What became of a refund."""
        answer = await self._client.get(f"{REFUNDS}/{refund.key}", {}, wire.REFUND)
        if isinstance(answer, Problem):
            return codes.of_query(codes.outcome(answer))
        return self._refunded(answer, refund.key) if isinstance(answer, wire.RefundView) else codes.of_query(answer)

    async def _payable(self, debit: DebitRef | DebitRequest) -> tuple[str, wire.PaymentView | Outcome]:
        """The number under which a debit is or can still be paid, and how that stands, or the one that was closed last
        where it is not begun."""
        return await payable(
            debit.key, debit.key, self._payment_of, lambda seen: isinstance(wire.payment_outcome(seen), Closed)
        )

    async def _payment_of(self, number: str) -> wire.PaymentView | Outcome:
        """A payment by our number."""
        answer = await self._client.get(_of(number), {"mchid": self._settings.mchid}, wire.PAYMENT)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if isinstance(answer, wire.PaymentView) and answer.out_trade_no != number:
            return wire.ANOTHER_NUMBER
        return answer

    async def _openid(self, request: DebitRequest) -> str | Outcome:
        """Whom to ask for a payment: by the rider's permission; or, of one who confirms each order, by the ride's own,
        which names him once he has (查询支付分订单, openid). It is asked for each time and never kept."""
        if not self._settings.need_user_confirm or request.agreement.provider_ref is not None:
            openid = await self._permissions.openid(request.agreement)
            if isinstance(openid, AgreementStatus | NotFound):
                return Rejected("OPENID_UNKNOWN")
            return openid if isinstance(openid, str) else codes.not_sent(openid)
        order = await self._orders.order(request.beside) if request.beside is not None else NotFound()
        if isinstance(order, wire.OrderView) and order.openid:
            return order.openid
        if not isinstance(order, wire.OrderView | NotFound):
            return codes.not_sent(order)
        return Rejected("OPENID_UNKNOWN", "a rider who confirms each order is named by one that he has confirmed")

    def _refunded(self, view: wire.RefundView, key: str) -> Outcome:
        return wire.refund_outcome(view) if view.out_refund_no in ("", key) else wire.ANOTHER_NUMBER

    async def _payment(self, debit: DebitRef, amount_minor: int) -> tuple[str, int] | Outcome:
        """The payment that can give the amount back, and all that it was. An order may have been paid in parts."""
        if debit.hold is None:
            if debit.provider_ref is None:
                return Rejected("PAYMENT_UNKNOWN", "the debit has no number of a payment")
            return debit.provider_ref, debit.amount_minor
        order = await self._orders.order(debit.hold)
        if not isinstance(order, wire.OrderView):
            return Rejected("ORDER_NOT_EXIST") if isinstance(order, NotFound) else codes.not_sent(order)
        paid = wire.payments(order)
        named = debit.provider_ref
        if named is not None and paid.get(named, 0) >= amount_minor:
            return named, paid[named]
        for transaction_id, taken in paid.items():
            if taken >= amount_minor:
                return transaction_id, taken
        if order.state == "DOING":
            return Postponed(codes.PAYING_APART)
        return Rejected("NO_SUCH_PAYMENT", "no single payment of the order is as much as is to be given back")

    def _action(self, prepay_id: str) -> MiniProgram:
        """What wx.requestPayment is given (wechatpay-go, api_jsapi_request_payment.go)."""
        timestamp, nonce, package = self._client.timestamp(), token_hex(16), f"prepay_id={prepay_id}"
        key = self._client.keys.present.merchant
        params = {
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": signing.payment_signature(key, self._settings.appid, timestamp, nonce, package),
        }
        return MiniProgram(self._settings.appid, self._settings.payment_path, params)


def _of(number: str) -> str:
    return f"{TRANSACTIONS}/out-trade-no/{number}"
