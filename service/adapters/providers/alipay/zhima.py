"""芝麻先享 (zhima.credit.payafteruse) with a dynamic amount: an agreement, an order before each ride, one debit.

    sign -> order -> ride -> trade.pay on the order -> Alipay collects, for days if need be -> finish

Sources: alipay-sdk-java-all, the classes `ZhimaCreditPayafteruse*` and AlipayTradePayModel; the flow is that of
Alipay's agent-skill "芝麻先享（动态金额模式）" (opendocs.alipay.com/open/03vtf0).
"""

from __future__ import annotations

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
from service.billing.outcomes import (
    Accepted,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NotFound,
    Outcome,
    Rejected,
    SignString,
    Unknown,
)

PRODUCT = "CREDIT_PAY_AFTER_USE"
_AGREEMENTS = "zhima.credit.payafteruse.creditagreement"
_ORDERS = "zhima.credit.payafteruse.creditbizorder"


class ZhimaProvider(AlipayAccount):
    """One merchant account whose riders have signed 芝麻先享."""

    async def begin_agreement(self, request: AgreementRequest) -> AgreementAnswer:
        """See the port. Alipay hears of it when the rider's app opens the string."""
        asked: dict[str, Any] = {
            "out_agreement_no": request.key,
            "zm_service_id": self._settings.zm_service_id,
            "category_id": self._settings.category_id,
            "product_code": PRODUCT,
        }
        if request.return_url:
            asked |= {"return_back_link": request.return_url, "cancel_back_link": request.return_url}
        action = SignString(self._gateway.app_string(f"{_AGREEMENTS}.sign", asked))
        return AgreementStatus("pending", action=action)

    async def get_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port."""
        asked = {"out_agreement_no": agreement.key}
        answer = await self._gateway.call(f"{_AGREEMENTS}.query", asked, wire.AGREEMENT)
        if isinstance(answer, Problem):
            return codes.of_query(codes.outcome(answer))
        if not isinstance(answer, wire.AgreementView):
            return codes.of_query(answer)
        if answer.out_agreement_no not in ("", agreement.key):
            return wire.ANOTHER_NUMBER
        return wire.agreement_status(answer)

    async def revoke_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """See the port. What can't be ended is looked at: it may have ended before."""
        number = await self._agreement_number(agreement)
        if not isinstance(number, str):
            return number
        answer = await self._gateway.call(f"{_AGREEMENTS}.unsign", {"credit_agreement_id": number}, wire.NOTHING)
        if isinstance(answer, wire.Nothing):
            return AgreementStatus("revoked", number)
        if not isinstance(answer, Problem):
            return answer
        seen = await self.get_agreement(agreement)
        ended = isinstance(seen, AgreementStatus) and seen.state == "revoked"
        return seen if ended else codes.outcome(answer)

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """See the port. `order_amount` of type ORDER_AMOUNT is the most that can be debited on the order.

        Source: ZhimaCreditPayafteruseCreditbizorderOrderModel.
        """
        cap = wire.yuan(request.cap_minor, request.currency)
        if isinstance(cap, Rejected):
            return cap
        number = await self._agreement_number(request.agreement)
        if isinstance(number, AgreementStatus | NotFound):
            return Declined(False, "AGREEMENT_NOT_SIGNED")
        if not isinstance(number, str):
            return number
        asked = {
            "credit_agreement_id": number,
            "out_order_no": request.key,
            "subject": wire.subject(request.subject),
            "order_amount": cap,
            "amount_type": "ORDER_AMOUNT",
            "product_code": PRODUCT,
            "category_id": self._settings.category_id,
        }
        answer = await self._gateway.call(f"{_ORDERS}.order", asked, wire.ORDER)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if not isinstance(answer, wire.OrderView):
            return answer
        if answer.out_order_no not in ("", request.key):
            return wire.ANOTHER_NUMBER
        if not answer.order_status and answer.credit_biz_order_id:  # Older answers name the order, and no state.
            return HoldStatus("open", answer.credit_biz_order_id, request.cap_minor)
        return wire.order_status(answer)

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        answer = await self._order(hold)
        return wire.order_status(answer) if isinstance(answer, wire.OrderView) else codes.of_query(answer)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port."""
        return await self._finish(hold, "false", HoldStatus("released", hold.provider_ref))

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """See the port. Alipay itself finishes an order whose debit was paid; then there is nothing left to say."""
        return await self._finish(hold, "true", HoldStatus("completed", hold.provider_ref))

    async def debit(self, request: DebitRequest) -> Outcome:
        """See the port. Alipay takes it on and collects by itself; without an order it is the rider's to approve."""
        if request.hold is None:
            return await self.request_payment(request)
        amount = wire.yuan(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        number = await self._number(request)
        if not isinstance(number, str):
            return Rejected("ORDER_NOT_EXIST") if isinstance(number, NotFound) else codes.not_sent(number)
        asked = {
            "out_trade_no": number,
            "auth_code": number,
            "total_amount": amount,
            "subject": wire.subject(request.subject),
            "scene": self._settings.scene,
            "product_code": self._settings.product_code,
            "is_async_pay": True,
            "extend_params": {"creditTradeScene": self._settings.credit_trade_scene},
            "query_options": ["async_pay_info"],  # Without it async_pay_apply_status is not told.
        }
        answer = await self._gateway.call("alipay.trade.pay", asked, wire.PAY)
        if isinstance(answer, wire.PayView):
            if answer.out_trade_no not in ("", number):
                return wire.ANOTHER_NUMBER
            return wire.accepted(answer, request.amount_minor, self._settings.credit_pay_modes)
        outcome = await self._refused(answer, number, request.attempt) if isinstance(answer, Problem) else answer
        return await self._capped(request.hold) if outcome == CapExceeded() else outcome

    async def _number(self, debit: DebitRef | DebitRequest) -> str | Outcome:
        """The order's number is the trade's: one order is one collection. Asked for where it is not known."""
        if debit.hold is None:
            return debit.key
        if debit.hold.provider_ref is not None:
            return debit.hold.provider_ref
        order = await self._order(debit.hold)
        return order.credit_biz_order_id if isinstance(order, wire.OrderView) else order

    def _unpaid(self, debit: DebitRef) -> Outcome:
        return super()._unpaid(debit) if debit.hold is None else Accepted()

    async def _capped(self, hold: HoldRef) -> Outcome:
        """Over the order's cap: Alipay does not say how much that is, so it is asked for."""
        order = await self._order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.not_sent(order)
        return CapExceeded(wire.minor(order.total_amount))

    async def _agreement_number(self, agreement: AgreementRef) -> str | AgreementAnswer:
        """credit_agreement_id; a status where the rider has not signed, or not any more."""
        if agreement.provider_ref is not None:
            return agreement.provider_ref
        seen = await self.get_agreement(agreement)
        if isinstance(seen, AgreementStatus) and seen.state == "active" and seen.provider_ref:
            return seen.provider_ref
        return seen

    async def _order(self, hold: HoldRef) -> wire.OrderView | Outcome:
        answer = await self._gateway.call(f"{_ORDERS}.query", {"out_order_no": hold.key}, wire.ORDER)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if not isinstance(answer, wire.OrderView):
            return answer
        another = answer.out_order_no not in ("", hold.key) or hold.provider_ref not in (
            None,
            answer.credit_biz_order_id,
        )
        return wire.ANOTHER_NUMBER if another or not answer.credit_biz_order_id else answer

    async def _finish(self, hold: HoldRef, fulfilled: str, done: HoldStatus) -> HoldAnswer:
        """Ends an order; one that can't be ended is looked at: it may have ended before."""
        number = hold.provider_ref
        if number is None:
            order = await self._order(hold)
            if not isinstance(order, wire.OrderView):
                return order
            number = order.credit_biz_order_id
        asked = {
            "credit_biz_order_id": number,
            "out_request_no": f"{hold.key}_{'finish' if fulfilled == 'true' else 'cancel'}",
            "is_fulfilled": fulfilled,
        }
        answer = await self._gateway.call(f"{_ORDERS}.finish", asked, wire.NOTHING)
        if isinstance(answer, wire.Nothing):
            return done
        if not isinstance(answer, Problem):
            return answer
        seen = await self.get_hold(hold)
        if isinstance(seen, HoldStatus):
            return done if seen.state == "released" else seen  # Closed: cancelled, or paid and given back whole.
        outcome = codes.outcome(answer)
        return outcome if isinstance(outcome, Rejected | Conflict | NotFound | Closed) else Unknown(answer.sub_code)
