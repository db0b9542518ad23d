"""Pay Score's orders: opened before the ride with a cap, completed with the fare; then WeChat Pay collects by itself.

    serviceorder (OnAccept) -> ride -> complete -> USER_PAYING, for as long as it takes -> USER_PAID

Sources: TheNorthMemory/wechatpay-openapi (docs/v3/payscore/serviceorder*), wechatpay-skills (订单状态流转, 排障手册).
"""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl

from msgspec.structs import replace

from service.adapters.providers.port import DebitItem, DebitRef, DebitRequest, HoldRef, HoldRequest
from service.adapters.providers.wechatpay import codes, signing, wire
from service.adapters.providers.wechatpay.agreements import PAY_SCORE_APP, Permissions
from service.adapters.providers.wechatpay.client import Client, Failed
from service.adapters.providers.wechatpay.codes import Problem
from service.adapters.providers.wechatpay.settings import WechatPaySettings
from service.billing.agreements.standing import AgreementStatus, HoldAnswer, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    MiniProgram,
    NeedsRider,
    NotFound,
    Outcome,
    Rejected,
    Succeeded,
)

ORDERS = "/v3/payscore/serviceorder"
ON_ACCEPT = "OnAccept"
"""The service begins when the order is accepted; an earlier start would be refused (创建支付分订单, time_range)."""
USE_PATH, DETAIL_PATH = "pages/use/use", "pages/record/detail"
"""Pages of Pay Score's mini program: confirm an order; look at one and pay it (小程序调起支付分, path 固定配置)."""
RIDER_MUST_PAY = "RIDER_MUST_PAY"
OPEN_ORDER = (
    "the rider finds the open order in WeChat himself and pays it there; once the account has the setting"
    " api_v2_key_file (or api_v2_key_env), which signs the order's page, he is given it in the app"
)
CANCELLED, LOWERED = "未使用", "应付金额减少"
"""Reasons that WeChat Pay is told, and its rider: a repeated call must give the same one (取消支付分订单, reason)."""


class Orders:
    """The orders of one service: holds, and the one debit that each of them can be."""

    def __init__(self, client: Client, settings: WechatPaySettings, permissions: Permissions) -> None:
        self._client = client
        self._settings = settings
        self._permissions = permissions
        self._named = {"appid": settings.appid, "service_id": settings.service_id}

    async def open(self, request: HoldRequest) -> HoldAnswer:
        """Opens an order whose risk fund is the cap; the same content again gives the same one."""
        wrong = wire.amount_wrong(request.cap_minor, request.currency)
        if wrong is not None:
            return wrong
        named = HoldRef(request.key, None, request.vehicle_id, request.title)
        if self._settings.need_user_confirm:
            return await self._create(named, request.cap_minor, None)
        openid = await self._permissions.openid(request.agreement)
        if isinstance(openid, str):
            answer = await self._create(named, request.cap_minor, openid)
            if isinstance(answer, Barred) and answer.code.startswith(codes.NO_AUTH):
                return await self._unpermitted(request, answer)
            return answer
        return Declined(False, "AGREEMENT_NOT_SIGNED") if isinstance(openid, AgreementStatus | NotFound) else openid

    async def get(self, hold: HoldRef) -> HoldAnswer:
        """How an order stands. One that the rider must still confirm is asked for again: only that answer tells how."""
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        asks = self._settings.need_user_confirm and order.state == "CREATED"
        if asks and order.risk_fund is not None and order.risk_fund.amount > 0:
            again = await self._create(hold, order.risk_fund.amount, None)
            if isinstance(again, HoldStatus):
                return again
        return wire.hold_status(order)

    async def release(self, hold: HoldRef) -> HoldAnswer:
        """Cancels an order; one that can't be cancelled is looked at."""
        asked = self._named | {"reason": CANCELLED}
        answer = await self._client.post(f"{ORDERS}/{hold.key}/cancel", asked, wire.NOTHING)
        if isinstance(answer, wire.Nothing):
            return HoldStatus("released", hold.provider_ref)
        if not isinstance(answer, Problem):
            return answer
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return order
        seen = wire.hold_status(order)
        return codes.outcome(answer) if seen == wire.hold_status(replace(order, state="CREATED")) else seen

    async def finish(self, hold: HoldRef) -> HoldAnswer:
        """An order is done when it is paid. One that was never completed, since the rider paid otherwise, is cancelled:
        a rider may have but three under way (排障手册, 271300099)."""
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return order
        if order.state == "CREATED" or order.state_description == "USER_CONFIRM":
            over = await self.release(hold)
            return replace(over, state="completed") if over == HoldStatus("released", hold.provider_ref) else over
        return wire.hold_status(order)

    async def debit(self, hold: HoldRef, request: DebitRequest) -> Outcome:
        """Completes the order: WeChat Pay accepts to collect, no more. Where it does not take the ride's times (its
        order was opened after the ride, say) the order's own start is sent for both."""
        wrong = wire.amount_wrong(request.amount_minor, request.currency)
        if wrong is not None:
            return wrong
        times = _times(request.started_at, request.ended_at)
        answer = await self._complete(hold, request, times) if times else None
        if answer is None or (isinstance(answer, Problem) and codes.times_refused(answer)):
            order = await self.order(hold)
            if not isinstance(order, wire.OrderView):
                return Rejected("ORDER_NOT_EXIST") if isinstance(order, NotFound) else codes.not_sent(order)
            start = wire.instant(order.time_range.start_time) if order.time_range else None
            if start is not None:
                answer = await self._complete(hold, request, _times(start, start) or {})
        if answer is None:
            return Rejected("TIMES_UNKNOWN", "neither the ride nor its order says when it was")
        if isinstance(answer, wire.OrderView):
            return wire.ANOTHER_NUMBER if answer.out_order_no not in ("", hold.key) else Accepted()
        return await self._not_completed(hold, request, answer) if isinstance(answer, Problem) else answer

    async def get_debit(self, hold: HoldRef, debit: DebitRef) -> Outcome:
        """What the order says. One that waits for another amount than we have asked for was completed, or lowered, by
        something else: in the time that a restored database lost, at the merchant platform. (What we lower ourselves is
        asked to be lowered until it is answered, and not asked about meanwhile.)"""
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        outcome = wire.debit_outcome(order)
        another = order.total_amount not in (None, debit.amount_minor)
        return Conflict(f"total_amount {order.total_amount}") if outcome == Accepted() and another else outcome

    async def reduce(self, hold: HoldRef, amount_minor: int) -> Outcome:
        """Lowers what waits for payment (修改订单金额: 只能下调); whether it can be lowered to 0 no source says."""
        if amount_minor <= 0:
            return Rejected("NOT_POSSIBLE", "an order is not lowered to nothing; it is given back once it is paid")
        line = DebitItem(self._introduction(hold), amount_minor)
        asked = self._named | wire.content((line,), amount_minor, line.name) | {"reason": LOWERED}
        answer = await self._client.post(f"{ORDERS}/{hold.key}/modify", asked, wire.NOTHING)
        if not isinstance(answer, Problem):
            return Accepted() if isinstance(answer, wire.Nothing) else answer
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        state = wire.debit_outcome(order)
        if isinstance(state, Accepted):
            return state if order.total_amount == amount_minor else codes.outcome(answer)
        return state if isinstance(state, Succeeded | Closed) else codes.of_query(codes.outcome(answer))

    async def settle_elsewhere(self, hold: HoldRef, paid_at: datetime) -> Outcome:
        """Tells that the rider paid the merchant (同步订单状态, Order_Paid): WeChat Pay stops collecting. What it has
        collected until then it does not say here: the order is looked at."""
        asked = self._named | {"type": "Order_Paid", "detail": {"paid_time": wire.written(paid_at)}}
        answer = await self._client.post(f"{ORDERS}/{hold.key}/sync", asked, wire.NOTHING)
        if isinstance(answer, Problem):
            return await self._over(hold, codes.of_query(codes.outcome(answer)))
        if not isinstance(answer, wire.Nothing):
            return answer
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        return AlreadyDone() if wire.payments(order) else wire.PAID_ELSEWHERE

    async def close(self, hold: HoldRef) -> Outcome:
        """A completed order is never closed unpaid (排障手册 3.1 #4); one that has ended is told."""
        return await self._over(
            hold, Rejected("NOT_POSSIBLE", "WeChat Pay collects a completed order until it is paid")
        )

    async def nudge(self, hold: HoldRef) -> Outcome:
        """Asks to collect now (商户发起催收扣款)."""
        answer = await self._client.post(f"{ORDERS}/{hold.key}/pay", self._named, wire.NOTHING)
        if not isinstance(answer, Problem):
            return Accepted() if isinstance(answer, wire.Nothing) else answer
        if answer.number == codes.DEBIT_UNDER_WAY:
            return Accepted()
        return await self._over(hold, codes.outcome(answer))

    async def request_payment(self, hold: HoldRef, request: DebitRequest) -> Outcome:
        """The rider pays the order himself, on its page in WeChat; one that was not completed yet is completed first.

        The page wants a signature with the APIv2 key: without that key he must find the order by himself.
        """
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        state = wire.debit_outcome(order)
        if isinstance(state, NotFound):
            state = await self.debit(hold, request)
        if isinstance(state, Accepted):
            named = {"service_id": self._settings.service_id, "out_order_no": hold.key}
            page = self._page(DETAIL_PATH, named)
            return NeedsRider(RIDER_MUST_PAY, page, "" if page else OPEN_ORDER)
        return AlreadyDone() if isinstance(state, Succeeded) else state

    async def order(self, hold: HoldRef) -> wire.OrderView | Outcome:
        """An order by our number."""
        answer = await self._client.get(ORDERS, self._named | {"out_order_no": hold.key}, wire.ORDER)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if isinstance(answer, wire.OrderView) and answer.out_order_no != hold.key:
            return wire.ANOTHER_NUMBER
        return answer

    async def _create(self, hold: HoldRef, cap_minor: int, openid: str | None) -> HoldAnswer:
        asked: dict[str, Any] = {
            **self._named,
            "out_order_no": hold.key,
            "service_introduction": self._introduction(hold),
            "risk_fund": {"name": self._settings.risk_fund_name, "amount": cap_minor},
            "time_range": {"start_time": ON_ACCEPT},
            "notify_url": self._settings.notify_url,
            "need_user_confirm": self._settings.need_user_confirm,
        }
        if openid is not None:
            asked["openid"] = openid
        if hold.vehicle_id is not None:
            asked["device"] = {"start_device_id": wire.shortened(hold.vehicle_id, wire.DEVICE_MAX)}
        answer = await self._client.post(ORDERS, asked, wire.ORDER)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if not isinstance(answer, wire.OrderView):
            return answer
        if answer.out_order_no not in ("", hold.key):
            return wire.ANOTHER_NUMBER
        status = wire.hold_status(answer)
        if isinstance(status, HoldStatus) and status.state == "pending":
            return replace(status, action=self._confirmation(answer.package))
        return status

    def _introduction(self, hold: HoldRef) -> str:
        """The word that the order was opened with, whatever the setting is now; cut to what an order has room for."""
        return wire.shortened(hold.title, wire.NAME_MAX) or self._settings.service_introduction

    async def _unpermitted(self, request: HoldRequest, refused: Barred) -> HoldAnswer:
        """NO_AUTH is said of a rider who has ended his permission (排障手册 3.6 #2) and of a merchant who has none."""
        seen = await self._permissions.get(request.agreement)
        if isinstance(seen, AgreementStatus):
            return refused if seen.state == "active" else Declined(False, codes.NO_AUTH, refused.message)
        return Declined(False, codes.NO_AUTH, refused.message) if isinstance(seen, NotFound) else seen

    async def _complete(self, hold: HoldRef, request: DebitRequest, times: dict[str, str]) -> wire.OrderView | Failed:
        content = wire.content(request.items, request.amount_minor, self._introduction(hold))
        asked = self._named | content | {"time_range": times}
        return await self._client.post(f"{ORDERS}/{hold.key}/complete", asked, wire.ORDER)

    async def _not_completed(self, hold: HoldRef, request: DebitRequest, problem: Problem) -> Outcome:
        """What a refused completion means. In conflict: the order tells whether it was completed with the same amount
        before; over the cap: how much that is."""
        outcome = codes.outcome(problem)
        if isinstance(outcome, NotFound):
            return Rejected("ORDER_NOT_EXIST")
        if not isinstance(outcome, Conflict | CapExceeded):
            return outcome
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        if isinstance(outcome, CapExceeded):
            return CapExceeded(order.risk_fund.amount if order.risk_fund else None)
        state = wire.debit_outcome(order)
        same = order.total_amount == request.amount_minor
        if isinstance(state, Accepted | Succeeded) and same:
            return Accepted() if isinstance(state, Accepted) else AlreadyDone()
        return outcome

    async def _over(self, hold: HoldRef, otherwise: Outcome) -> Outcome:
        """What is said of an order that waits for no payment: it was never completed (NotFound), or has ended;
        `otherwise` of one that does."""
        order = await self.order(hold)
        if not isinstance(order, wire.OrderView):
            return codes.of_query(order)
        state = wire.debit_outcome(order)
        if isinstance(state, Succeeded) and state.last:
            return AlreadyDone()
        return state if isinstance(state, Closed | NotFound) else otherwise

    def _confirmation(self, package: str) -> MiniProgram | None:
        """How the rider confirms an order: its package is signed already, or is to be (both are documented)."""
        if "=" in package and "&" in package:
            return MiniProgram(PAY_SCORE_APP, USE_PATH, dict(parse_qsl(package)))
        return self._page(USE_PATH, {"package": package}) if package else None

    def _page(self, path: str, named: dict[str, str]) -> MiniProgram | None:
        key = self._client.keys.present.api_v2
        if key is None:
            return None
        params = {
            "mch_id": self._settings.mchid,
            **named,
            "timestamp": self._client.timestamp(),
            "nonce_str": token_hex(16),
            "sign_type": "HMAC-SHA256",
        }
        return MiniProgram(PAY_SCORE_APP, path, params | {"sign": signing.page_signature(key, params)})


def _times(started_at: datetime | None, ended_at: datetime | None) -> dict[str, str] | None:
    """When the vehicle was used; the end is never before the start (271316637)."""
    if started_at is None or ended_at is None:
        return None
    return {"start_time": wire.written(started_at), "end_time": wire.written(max(started_at, ended_at))}
