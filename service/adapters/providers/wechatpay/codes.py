"""What WeChat Pay's codes mean to us, with their sources; what only one source says is marked.

A refusal has a word (`code` of its JSON) and, behind the last dash of its Request-ID, a number. Sources:

- SKILL: wechatpay-apiv3/wechatpay-skills, wechatpay-payscore/references/1-商户/问题排查/排障手册.md
- PAY: the error tables of pay.weixin.qq.com/doc/v3/merchant (JSAPI下单, 商户订单号查询订单, 申请退款)
- GO: wechatpay-go, core/consts
- ASKED: developers.weixin.qq.com/community/pay/doc: 000c86698204e078e252aef9561000 (the words), and
  000c4a44204528f2785beda8f52800, where WeChat Pay's staff say of INVALID_REQUEST that the refund was not taken
"""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

from service.billing.outcomes import (
    BARRED_FOR,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NotFound,
    Outcome,
    Postponed,
    Rejected,
    Throttled,
    Unknown,
)

THROTTLED_FOR = timedelta(seconds=1)
"""SKILL says to begin with 200 ms and to double (268435472). Ours is one second each time: refusals come for many calls
at once, and by way of HTTP 429 too (`exchange`), and nobody counts them. The account is silent meanwhile, nothing was
executed and nothing is given up; who is refused often sets `calls_per_second` to what his contract allows."""
REFUND_APART = timedelta(minutes=1)
"""Between two refunds of one payment (pay.weixin.qq.com, 申请退款)."""
PAYING_APART = timedelta(minutes=10)
"""How soon the payments of an order are looked at again that is shown as being paid: it may be shown as it was."""
NOT_SENT_FOR = timedelta(seconds=5)
"""How soon a call is made again before which something could not be looked up."""
_NUMBER = re.compile(r"-(\d{9})$", re.ASCII)


class Problem(msgspec.Struct, frozen=True):
    """A refusal of WeChat Pay's. `number` is 0 where the Request-ID tells none; `message` may be shown to operators."""

    status: int
    code: str
    number: int = 0
    message: str = ""

    @property
    def name(self) -> str:
        """Word and number, as people look them up."""
        return f"{self.code}_{self.number}" if self.number else self.code


def number_of(request_id: str) -> int:
    """The number at the end of a Request-ID (SKILL, 1), 0 where there is none."""
    found = _NUMBER.search(request_id)
    return int(found[1]) if found else 0


CONFLICT = 271316598
"""The order's number is known with other content. SKILL."""
DEBIT_FAILED = 271316574
"""支付分扣款失败: only the order tells; complete is never called again before. SKILL."""
DEBIT_UNDER_WAY = 271316754
"""Ask in some seconds. SKILL."""
NOT_PAYABLE = 271316657
"""Only an order that waits for payment can be changed so. SKILL."""
NOT_CANCELLABLE = 271316592
"""The order was completed, paid or cancelled before. SKILL."""
STATES_WRONG = frozenset({271302262, 271302333, 271302332, NOT_PAYABLE, NOT_CANCELLABLE})
"""The order is in another state than the call needs: only the order tells. SKILL."""
OVER_CAP = 271316656
"""More than the service's, or the order's, risk fund. SKILL."""
END_BEFORE_START = 271316637
"""The real end is before the expected start. SKILL."""
NOT_THERE = 271317510
TOO_OFTEN = 268435472
NO_PERMISSION = 268503786
"""The merchant, or this service for him, has no permission. SKILL."""
AUTHORIZATION_BAD = 270924332
MERCHANT_UNKNOWN = 271302144
APP_UNBOUND = 271302149
OUT_OF_RANGE = 268435464
NOT_LET_IN = frozenset({NO_PERMISSION, AUTHORIZATION_BAD, MERCHANT_UNKNOWN, APP_UNBOUND})
"""Who asks, not what he asks for: not executed. SKILL."""
REFUSED_RIDER = {271300099: "ASSESSMENT_FAILED", 271299627: "UNPAID_ORDERS", 268560785: "TEEN_MODE"}
"""No order for this rider now: too many under way or other grounds that WeChat tells nobody; an order of his that is
overdue; his account is limited. SKILL."""
REFUSED_FOR_NOW = frozenset({271300099, 271299627})
"""Of these, what passes: orders end, debts are paid, and he is assessed anew for each order. SKILL."""

THROTTLED_WORDS = frozenset({"RATELIMIT_EXCEEDED", "RATELIMIT_EXCEED", "FREQUENCY_LIMITED", "FREQUENCY_LIMIT_EXCEED"})
"""PAY, GO."""
NOT_THERE_WORDS = frozenset({"RESOURCE_NOT_EXISTS", "ORDER_NOT_EXIST", "ORDER_NOT_EXISTS", "NOT_FOUND"})
"""PAY."""
REJECTED_WORDS = frozenset(
    {
        "PARAM_ERROR",
        "OPENID_MISMATCH",
        "CONTRACT_NOT_EXIST",
        "RULE_LIMIT",
    }
)
"""Our fault, not executed. PAY."""
UNSIGNED_WORDS = frozenset({"SIGN_ERROR", "MCH_NOT_EXISTS"})
"""Said before the request's own signature was verified, and so without one: nothing was executed. PAY, 签名验证."""
NO_AUTH = "NO_AUTH"
NOT_LET_IN_WORDS = frozenset({"SIGN_ERROR", NO_AUTH, "MCH_NOT_EXISTS", "APPID_MCHID_NOT_MATCH"})
"""Who asks, as above; NO_AUTH of a new order also of a rider who has ended his permission (`orders`). PAY, SKILL."""
UNVERIFIED_TIMES = "结束时间"
"""unverified: no number is public for an end in the future; its text has this word (SKILL, 三 3.1 #3)."""


def outcome(problem: Problem) -> Outcome:
    """What a refused call means. A code nobody listed may have executed, as may SYSTEM_ERROR, BANK_ERROR, TRADE_ERROR;
    INVALID_REQUEST is said of any wrong state, which only the order tells. PAY."""
    number, code = problem.number, problem.code
    if number == TOO_OFTEN or code in THROTTLED_WORDS:
        return Throttled(THROTTLED_FOR)
    if number == CONFLICT or code == "OUT_TRADE_NO_USED":
        return Conflict(problem.name)
    if number == OVER_CAP:
        return CapExceeded()
    if number in REFUSED_RIDER:
        return Declined(number in REFUSED_FOR_NOW, REFUSED_RIDER[number], problem.message)
    if number == NOT_THERE or code in NOT_THERE_WORDS:
        return NotFound()
    if number in STATES_WRONG or number in (DEBIT_FAILED, DEBIT_UNDER_WAY):
        return Unknown(f"code {problem.name}")
    if problem.status == 401 or number in NOT_LET_IN or code in NOT_LET_IN_WORDS:
        return Barred(BARRED_FOR, problem.name, problem.message)
    if number == OUT_OF_RANGE or code in REJECTED_WORDS:
        return Rejected(problem.name, problem.message)
    return _payment_words(problem)


def _payment_words(problem: Problem) -> Outcome:
    """The words of ordinary payments and refunds. PAY."""
    match problem.code:
        case "ORDERPAID" | "ORDER_PAID":
            return AlreadyDone()
        case "ORDER_CLOSED" | "ORDERCLOSED" | "ORDER_REVERSED":
            return Closed(problem.code)
        case "ACCOUNT_ERROR" | "USER_ACCOUNT_ABNORMAL":
            return Declined(False, problem.code, problem.message)
        case "NOT_ENOUGH" | "NOTENOUGH":
            return Declined(True, problem.code, problem.message)
    return Unknown(f"code {problem.name}")


REFUND_REFUSED = ("可退金额", "最大期限", "次数超过限制")
"""In a refused refund's text: more than is left of its payment (no number is public: ASKED), its time is over, too many
of one payment (PAY, 申请退款)."""
REFUND_OTHERWISE = "不一致"
"""In a refused refund's text: its number is known with another payment or amount (PAY, 申请退款; ASKED)."""


def of_refund(problem: Problem) -> Outcome:
    """What a refused refund means: the merchant's balance may be short today, and two of one payment keep apart.

    The same INVALID_REQUEST is said of all that can never be given back, and only the text says which it is.
    """
    if problem.code in THROTTLED_WORDS or problem.number == TOO_OFTEN:
        return Postponed(REFUND_APART)
    if problem.code == "INVALID_REQUEST" and any(words in problem.message for words in REFUND_REFUSED):
        return Rejected(problem.name, problem.message)
    if problem.code == "INVALID_REQUEST" and REFUND_OTHERWISE in problem.message:
        return Conflict(problem.name)
    return outcome(problem)


def times_refused(problem: Problem) -> bool:
    """Whether it is the ride's times that the order does not take."""
    return problem.number in (END_BEFORE_START, OUT_OF_RANGE) or UNVERIFIED_TIMES in problem.message


def not_sent(answer: Outcome) -> Outcome:
    """A call that was not made, since what it needs could not be looked up: it is made again under the same key."""
    return Postponed(NOT_SENT_FOR) if isinstance(answer, Unknown) else answer


def of_query(answer: Outcome) -> Outcome:
    """A query that failed says nothing about what was asked for, whatever its code."""
    if isinstance(answer, NotFound | Postponed | Unknown):
        return answer
    return Unknown(getattr(answer, "code", type(answer).__name__))
