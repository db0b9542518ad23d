"""What Alipay's codes mean to us, with their sources; what only one source says is marked.

Sources: ERR = Alipay's error table of alipay.trade.pay (opendocs.alipay.com, alipay.trade.pay; in English at
jaq-doc.alibaba.com, doc 104632). GWERR = the gateway's public error codes (open.alitrip.com, doc 105806). ALI20000 =
developer.aliyun.com/ask/285430. AUTH = alipay.fund.auth.operation.detail.query's error table. REFUND = the error table
of alipay.trade.refund.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from service.billing.outcomes import (
    BARRED_FOR,
    AlreadyDone,
    Barred,
    CapExceeded,
    Conflict,
    Declined,
    NotFound,
    Outcome,
    Postponed,
    Rejected,
    Throttled,
    Unknown,
)

BAD_SIGNATURE = "the answer's signature is wrong"
THROTTLED_FOR = timedelta(seconds=1)
"""Alipay names no time."""
NOT_SENT_FOR = timedelta(seconds=5)
"""How soon a debit is tried again before which something could not be looked up."""


class Problem(msgspec.Struct, frozen=True):
    """An answer of Alipay's with another code than 10000. `message` may be shown to an operator."""

    code: str
    sub_code: str
    message: str = ""


REFUSED_UNREAD_CODES = frozenset({"20001", "40001", "40002", "40006"})
"""Token, missing parameter, invalid parameter (signature, app id), permission: the gateway went no further. GWERR."""
SIGNATURE_REFUSED = frozenset(
    {
        "isv.invalid-signature",
        "isv.missing-signature-key",
        "isv.app-cert-not-exist",
        "isv.app-cert-expired",
        "isv.invalid-alipay-root-cert-sn",
    }
)
"""The app's key, its certificate or the roots are not those that Alipay knows. GWERR, opendocs.alipay.com 02kdnf."""
NOT_LET_IN_CODES = frozenset({"20001", "40006"})
"""Whatever stands under them: a token or a permission that is not there. GWERR."""
NOT_LET_IN = SIGNATURE_REFUSED | {
    "isv.missing-signature",
    "isv.missing-signature-config",
    "isv.invalid-app-id",
    "isv.missing-app-id",
    "isv.missing-app-cert-sn",
    "isv.alipay-cert-not-exist",
    "isv.missing-alipay-root-cert-sn",
}
"""Under 40001 and 40002: who asks, not what he asks for. GWERR, opendocs.alipay.com 02kdnf."""
CONTRACT_OVER = frozenset(
    {
        "ACQ.ACCESS_FORBIDDEN",
        "ACQ.PARTNER_ERROR",
        "ACQ.SELLER_BEEN_BLOCKED",
        "ACCESS_FORBIDDEN",
        "HAS_NO_PRIVILEGE",
    }
)
"""The product is not signed for or its contract is over, the app is no partner's, the merchant is blocked: not
executed, and so is every other call until people have put it right. ERR, AUTH."""
UNCERTAIN = frozenset(
    {"ACQ.SYSTEM_ERROR", "aop.ACQ.SYSTEM_ERROR", "SYSTEM_ERROR", "isp.unknow-error", "aop.unknow-error"}
)
"""The call may have executed: ask, under the same key. ERR, ALI20000, AUTH."""
RETRYABLE = frozenset(
    {
        "ACQ.BUYER_BALANCE_NOT_ENOUGH",
        "ACQ.BUYER_BANKCARD_BALANCE_NOT_ENOUGH",
        "ACQ.BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR",
        "ACQ.BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR",
        "ACQ.NO_PAYMENT_INSTRUMENTS_AVAILABLE",
        "ACQ.ERROR_BALANCE_PAYMENT_DISABLE",
    }
)
"""The rider can't pay now. ERR."""
PAYMENT_FAIL = "ACQ.PAYMENT_FAIL"
"""The payment failed, for no reason that is told: worth one more attempt. ERR."""
FINAL = frozenset(
    {
        "ACQ.AGREEMENT_NOT_EXIST",
        "ACQ.AGREEMENT_INVALID",
        "ACQ.AGREEMENT_STATUS_NOT_NORMAL",
        "ACQ.BUYER_ENABLE_STATUS_FORBID",
        "ACQ.ERROR_BUYER_CERTIFY_LEVEL_LIMIT",
        "ACQ.PAYMENT_REQUEST_HAS_RISK",
        "ACQ.BUYER_SELLER_EQUAL",
    }
)
"""Waiting does not help: he must sign again, or pay in another way. ERR."""
OVER_CAP = "ACQ.TOTAL_FEE_EXCEED"
"""More than the order allows. ERR."""
MERCHANT_LIMITS = frozenset({"ACQ.BEYOND_PAY_RESTRICTION", "ACQ.BEYOND_PER_RECEIPT_RESTRICTION"})
"""More than the merchant's contract lets him receive, in all or at once: the order's cap is no help, and only people at
Alipay can raise it. ERR."""
MERCHANT_AGREEMENT = "ACQ.MERCHANT_AGREEMENT_"
"""How every code begins that says that the merchant's contract for the product is not there, or not in force. ERR."""
CONFLICTS = frozenset(
    {
        "ACQ.CONTEXT_INCONSISTENT",
        "ACQ.TRADE_BUYER_NOT_MATCH",
        "ACQ.DISCORDANT_REPEAT_REQUEST",
        "ACQ.OUT_REQUEST_NO_CONTEXT_INCONSISTENT",
    }
)
"""The number is known with other content. ERR, REFUND."""
REJECTIONS = frozenset(
    {
        "ACQ.INVALID_PARAMETER",
        "ACQ.EXIST_FORBIDDEN_WORD",
        "ACQ.AMOUNT_OR_CURRENCY_ERROR",
        "ACQ.REASON_TRADE_REFUND_FEE_ERR",
        "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL",
        "ILLEGAL_ARGUMENT",
    }
)
"""Our fault, not executed. ERR, REFUND, AUTH."""
TRADE_UNKNOWN = "ACQ.TRADE_NOT_EXIST"
TRADE_HAS_CLOSE = "ACQ.TRADE_HAS_CLOSE"
"""The number is closed: unpaid, or paid and given back, or its order is over. The trade is asked which (base.py), and
only what it can't tell is unknown; as a conflict each such ride would wait for a person instead of its rider. ERR."""
TRADE_STATE_WRONG = frozenset({"ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID"})
"""The trade can't be closed or refunded as it stands: ask how it stands. Error table of alipay.trade.close, REFUND."""
NOT_THERE = frozenset({TRADE_UNKNOWN, "AUTH_ORDER_NOT_EXIST", "AUTH_OPERATION_NOT_EXIST"})
"""Alipay knows nothing under the number; right after a lost answer that proves nothing. ERR, AUTH."""

UNVERIFIED_THROTTLED = frozenset({"isv.app-call-limited", "isv.app-call-limited-exceeded"})
"""unverified: too many calls, with code 40005."""
UNVERIFIED_NOT_THERE = frozenset(
    {"AGREEMENT_NOT_EXIST", "CREDIT_AGREEMENT_NOT_EXIST", "ORDER_NOT_EXIST", "CREDIT_BIZ_ORDER_NOT_EXIST"}
)
"""unverified: the zhima.credit.payafteruse methods' tables are not public."""
UNVERIFIED_AGREEMENT_OVER = frozenset({"AGREEMENT_INVALID", "CREDIT_AGREEMENT_INVALID"})
"""unverified: an order on an agreement that the rider has ended. As above."""
UNVERIFIED_REFUSED_NOW = frozenset({"RISK_REFUSED", "ZM_ORDER_RISK_REJECT", "OVER_LIMIT_ORDER_COUNT"})
"""unverified: Zhima admits no order for this rider today (as it assesses him; too many are under way). As above."""
UNVERIFIED_REFUSED = frozenset({"USER_NOT_ADMITTED"})
"""unverified: Zhima admits this rider to no order of the service. As above."""


def outcome(problem: Problem) -> Outcome:
    """What a refused call means to a debit, a refund, a hold or an agreement.

    A code nobody listed may have executed, unless it is one with which the gateway says that it went no further.
    """
    code, sub = problem.code, problem.sub_code
    if code == "40005" or sub in UNVERIFIED_THROTTLED:
        return Throttled(THROTTLED_FOR)
    if code in NOT_LET_IN_CODES or (code in REFUSED_UNREAD_CODES and sub in NOT_LET_IN):
        return Barred(BARRED_FOR, sub or code, problem.message)
    if code in REFUSED_UNREAD_CODES:
        return Rejected(sub or code, problem.message)
    if code != "40004" or sub in UNCERTAIN:  # 20000, 10003 (unverified: still paying), or nobody knows.
        return Unknown(f"code {code} {sub}".rstrip())
    return _business(sub)


def _business(sub: str) -> Outcome:
    """What the business codes under 40004 mean."""
    if sub == "ACQ.TRADE_HAS_SUCCESS":
        return AlreadyDone()
    if sub in RETRYABLE or sub in UNVERIFIED_REFUSED_NOW or sub == PAYMENT_FAIL:
        return Declined(True, sub)
    if sub in FINAL or sub in UNVERIFIED_AGREEMENT_OVER or sub in UNVERIFIED_REFUSED:
        return Declined(False, sub)
    if sub == OVER_CAP:
        return CapExceeded()
    if sub in CONFLICTS:
        return Conflict(sub)
    if sub in CONTRACT_OVER or sub.startswith(MERCHANT_AGREEMENT):
        return Barred(BARRED_FOR, sub)
    if sub in REJECTIONS or sub in MERCHANT_LIMITS:
        return Rejected(sub)
    if sub in NOT_THERE or sub in UNVERIFIED_NOT_THERE:
        return NotFound()
    return Unknown(f"code {sub or '40004'}")  # TRADE_HAS_CLOSE too: only a query tells more.


def of_debit(problem: Problem, attempt: int) -> Outcome:
    """What a refused debit means; `attempt` counts from 1. What fails for no reason that is told fails for good the
    second time."""
    if problem.sub_code == PAYMENT_FAIL and attempt > 1:
        return Declined(False, problem.sub_code)
    return outcome(problem)


def of_refund(problem: Problem) -> Outcome:
    """What a refused refund means: the merchant's own balance may be short today; a finished trade is never refunded,
    and one that is frozen for a complaint not until people have spoken.

    Source: REFUND.
    """
    match problem.sub_code:
        case "ACQ.SELLER_BALANCE_NOT_ENOUGH":
            return Declined(True, problem.sub_code)
        case "ACQ.TRADE_HAS_FINISHED" | "ACQ.REASON_TRADE_BEEN_FREEZEN":
            return Declined(False, problem.sub_code)
    if problem.sub_code in TRADE_STATE_WRONG:
        return Rejected(problem.sub_code)
    return outcome(problem)


def not_sent(answer: Outcome) -> Outcome:
    """A debit that was not sent, or was refused for certain, since what it needs could not be looked up: it is sent
    again under the same key."""
    return Postponed(NOT_SENT_FOR) if isinstance(answer, Unknown) else answer


def of_query(answer: Outcome) -> Outcome:
    """A query that failed says nothing about what was asked for, whatever its code."""
    if isinstance(answer, NotFound | Postponed | Unknown):
        return answer
    return Unknown(getattr(answer, "code", type(answer).__name__))
