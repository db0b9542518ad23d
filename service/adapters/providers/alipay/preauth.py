"""Fund-auth pre-authorisation (芝麻免押 where a credit service is named): the rider confirms each freeze in his app.

    app.freeze -> the rider confirms -> ride -> trade.pay with the authorisation, the rest is unfrozen

A debit that fails leaves its trade open for 15 days; the merchant tries again with the same parameters, and reports a
rider who still has not paid then. Sources: alipay-sdk-java-all, the classes `AlipayFundAuth*` and AlipayTradePayModel;
the rules of failed debits: developer.aliyun.com/ask/285623.
"""

from __future__ import annotations

import json
from typing import Any

from service.adapters.providers.alipay import codes, wire
from service.adapters.providers.alipay.base import AlipayAccount
from service.adapters.providers.alipay.codes import Problem
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DebitRef,
    DebitRequest,
    HoldRef,
    HoldRequest,
)
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus, HoldAnswer, HoldStatus
from service.billing.money import format_amount
from service.billing.outcomes import (
    CapExceeded,
    Conflict,
    Declined,
    NotFound,
    Outcome,
    Rejected,
    SignString,
    Unknown,
)

COMPLETED = '{"unfreezeBizInfo":{"bizComplete":"true"}}'
"""extra_param of an unfreeze that ends a credit order (docs.open.alipay.com, vy70oy)."""


class PreauthProvider(AlipayAccount):
    """One merchant account that freezes an amount before each ride."""

    async def begin_agreement(self, request: AgreementRequest) -> AgreementAnswer:
        """See the port. There is none at Alipay: the rider agrees to each freeze."""
        return AgreementStatus("active")

    async def get_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        return AgreementStatus("active")

    async def revoke_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        return AgreementStatus("revoked")

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """See the port. Alipay hears of it when the rider's app opens the string."""
        amount = wire.yuan(request.cap_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        return self._to_confirm(request.key, amount, wire.subject(request.subject))

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        seen = await self._authorisation(hold)
        if not isinstance(seen, wire.AuthView):
            return codes.of_query(seen)
        state = wire.AUTH_STATES.get(seen.order_status)
        frozen = wire.minor(seen.total_freeze_amount) or wire.minor(seen.amount)
        match state:
            case None:
                return Unknown(f"order_status {seen.order_status}")
            case "pending" if frozen and seen.order_title:
                return self._to_confirm(hold.key, format_amount(frozen, wire.CURRENCY), seen.order_title)
            case "released" if seen.status == "CLOSED":
                return HoldStatus("expired", seen.auth_no or None)
        return HoldStatus(state, seen.auth_no or None, frozen)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port. What was not confirmed is cancelled, what was frozen is unfrozen; what Alipay does not know
        can't be cancelled."""
        return await self._end(hold, HoldStatus("released", hold.provider_ref))

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port. Our debit unfreezes the rest by itself; a ride that was paid in another way is not debited."""
        return await self._end(hold, HoldStatus("completed", hold.provider_ref))

    async def debit(self, request: DebitRequest) -> Outcome:
        """See the port. The payer's number, which Alipay wants, is asked for each time and never kept."""
        if request.hold is None:
            return await self.request_payment(request)
        amount = wire.yuan(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        seen = await self._authorisation(request.hold)
        if not isinstance(seen, wire.AuthView):
            return Declined(False, "AUTH_ORDER_NOT_EXIST") if isinstance(seen, NotFound) else codes.not_sent(seen)
        unable = _unable(seen, request.amount_minor)
        if unable is not None:
            return unable
        payer = {"buyer_id": seen.payer_user_id} if seen.payer_user_id else {"buyer_open_id": seen.payer_open_id}
        asked = {
            "out_trade_no": request.key,
            "product_code": self._settings.auth_product_code,
            "auth_no": seen.auth_no,
            "auth_confirm_mode": "COMPLETE",
            "total_amount": amount,
            "subject": wire.subject(request.subject),
            "seller_id": self._settings.seller_id,
            **payer,
        }
        answer = await self._gateway.call("alipay.trade.pay", asked, wire.PAY)
        if isinstance(answer, Problem):
            return await self._refused(answer, request.key, request.attempt)
        if not isinstance(answer, wire.PayView):
            return answer
        if answer.out_trade_no not in ("", request.key):
            return wire.ANOTHER_NUMBER
        modes = self._settings.credit_pay_modes
        return wire.succeeded(answer.total_amount, answer.trade_no, answer.credit_pay_mode, modes)

    def _unpaid(self, debit: DebitRef) -> Outcome:
        """A trade that waits was declined, and may be tried again with the same parameters."""
        return super()._unpaid(debit) if debit.hold is None else Declined(True, "WAIT_BUYER_PAY")

    def _to_confirm(self, key: str, amount: str, title: str) -> HoldStatus:
        asked: dict[str, Any] = {
            "out_order_no": key,
            "out_request_no": key,
            "order_title": title,
            "amount": amount,
            "product_code": self._settings.freeze_product_code,
            "payee_user_id": self._settings.seller_id,
            "timeout_express": self._settings.freeze_timeout,
        }
        if self._settings.zm_service_id:
            extra = {"category": self._settings.category_id, "serviceId": self._settings.zm_service_id}
            asked |= {"extra_param": json.dumps(extra), "deposit_product_mode": "POSTPAY_UNCERTAIN"}
        action = SignString(self._gateway.app_string("alipay.fund.auth.order.app.freeze", asked))
        return HoldStatus("pending", action=action)

    async def _authorisation(self, hold: HoldRef) -> wire.AuthView | Outcome:
        asked = {"out_order_no": hold.key, "out_request_no": hold.key, "operation_type": "FREEZE"}
        answer = await self._gateway.call("alipay.fund.auth.operation.detail.query", asked, wire.AUTH)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if isinstance(answer, wire.AuthView) and answer.out_order_no not in ("", hold.key):
            return wire.ANOTHER_NUMBER
        return answer

    async def _end(self, hold: HoldRef, done: HoldStatus) -> HoldAnswer:
        """Ends a freeze, as far as it has come. Its time (timeout_express) begins only when the rider opens the string:
        until he does, nothing is there to be cancelled, and he may do so whenever he likes.

        Source: AlipayFundAuthOrderAppFreezeModel.timeout_express ("从商户客户端请求时间开始计算").
        """
        seen = await self._authorisation(hold)
        if isinstance(seen, NotFound):
            return HoldStatus("released", hold.provider_ref, unopened=True)
        if not isinstance(seen, wire.AuthView):
            return codes.of_query(seen)
        if seen.order_status != "INIT":
            return await self._unfreeze(hold, seen, done)
        asked = {"out_order_no": hold.key, "out_request_no": hold.key, "remark": "未使用"}
        closed = HoldStatus("released", hold.provider_ref)
        return await self._ended(hold, "alipay.fund.auth.operation.cancel", asked, closed)

    async def _unfreeze(self, hold: HoldRef, seen: wire.AuthView, done: HoldStatus) -> HoldAnswer:
        """Gives back what is still frozen; an authorisation that has ended is answered as it ended."""
        rest = wire.minor(seen.rest_amount)
        if seen.order_status != "AUTHORIZED" or not rest:
            ended = seen.order_status in ("FINISH", "CLOSED") or (seen.order_status == "AUTHORIZED" and rest == 0)
            return done if ended else Unknown(f"order_status {seen.order_status}")
        asked = {
            "auth_no": seen.auth_no,
            "out_request_no": f"{hold.key}_unfreeze",
            "amount": format_amount(rest, wire.CURRENCY),
            "remark": "行程结束",
        }
        if self._settings.zm_service_id:
            asked["extra_param"] = COMPLETED
        return await self._ended(hold, "alipay.fund.auth.order.unfreeze", asked, done)

    async def _ended(self, hold: HoldRef, method: str, asked: dict[str, str], done: HoldStatus) -> HoldAnswer:
        """Calls what ends a hold; a code that nobody listed is a reason to look, not to believe."""
        answer = await self._gateway.call(method, asked, wire.NOTHING)
        if not isinstance(answer, Problem):
            return done if isinstance(answer, wire.Nothing) else answer
        seen = await self._authorisation(hold)
        if isinstance(seen, wire.AuthView) and seen.order_status in ("FINISH", "CLOSED"):
            return done
        outcome = codes.outcome(answer)
        return outcome if isinstance(outcome, Rejected | Conflict | NotFound) else Unknown(answer.sub_code)


def _unable(seen: wire.AuthView, amount_minor: int) -> Outcome | None:
    """Why an authorisation can't pay the amount. One that is finished may have paid it: the trade itself tells."""
    if seen.order_status in ("INIT", "CLOSED"):
        return Declined(False, f"AUTH_{seen.order_status}")
    rest = wire.minor(seen.rest_amount)
    if seen.order_status == "AUTHORIZED" and rest is not None and amount_minor > rest:
        return CapExceeded(rest)
    return None
