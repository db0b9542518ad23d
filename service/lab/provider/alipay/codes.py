"""What the gateway says when it says no: code, msg, sub_code, sub_msg."""

from __future__ import annotations

from service.lab.provider.refusals import RefusedError

MESSAGES = {
    "10000": "Success",
    "10003": "order success pay inprocess",
    "20000": "Service Currently Unavailable",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
    "40006": "Insufficient Permissions",
}
"""The gateway's table of return codes (open.alitrip.com, doc 105806; 40005 from opendocs 02km9f)."""

TRADE = {
    "KEY_CONFLICT": "ACQ.CONTEXT_INCONSISTENT",
    "NOT_FOUND": "ACQ.TRADE_NOT_EXIST",
    "AGREEMENT_UNKNOWN": "ACQ.AGREEMENT_NOT_EXIST",
    "AGREEMENT_PENDING": "ACQ.AGREEMENT_STATUS_NOT_NORMAL",
    "AGREEMENT_REFUSED": "ACQ.AGREEMENT_STATUS_NOT_NORMAL",
    "AGREEMENT_REVOKED": "ACQ.AGREEMENT_INVALID",
    "AGREEMENT_EXPIRED": "ACQ.AGREEMENT_INVALID",
    "CAP_EXCEEDED": "ACQ.TOTAL_FEE_EXCEED",
    "ALREADY_PAID": "ACQ.TRADE_HAS_SUCCESS",
    "DEBIT_CLOSED": "ACQ.TRADE_HAS_CLOSE",
    "INVALID_REQUEST": "ACQ.INVALID_PARAMETER",
    "NOT_POSSIBLE": "ACQ.ACCESS_FORBIDDEN",
    "STATUS": "ACQ.TRADE_STATUS_ERROR",
    "CANCEL_TIME_OUT": "ACQ.TRADE_CANCEL_TIME_OUT",
    "REFUND_CONFLICT": "ACQ.DISCORDANT_REPEAT_REQUEST",
    "REFUND_TOO_MUCH": "ACQ.REASON_TRADE_REFUND_FEE_ERR",
    "REFUND_TOO_LATE": "ACQ.TRADE_HAS_FINISHED",
    "REFUND_DISPUTED": "ACQ.REASON_TRADE_BEEN_FREEZEN",
    "BALANCE_NOT_ENOUGH": "ACQ.BUYER_BALANCE_NOT_ENOUGH",
    "CARD_BALANCE_NOT_ENOUGH": "ACQ.BUYER_BANKCARD_BALANCE_NOT_ENOUGH",
    "DAY_LIMIT": "ACQ.BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR",
    "MONTH_LIMIT": "ACQ.BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR",
    "NO_PAYMENT_MEANS": "ACQ.NO_PAYMENT_INSTRUMENTS_AVAILABLE",
}
"""alipay.trade.* (opendocs 02ekfp, 02ekfr to 02ekft, 02o6e8; the same codes in English: jaq-doc.alibaba.com 104632)."""
AUTHORISATION = {
    "NOT_FOUND": "AUTH_ORDER_NOT_EXIST",
    "NO_OPERATION": "AUTH_OPERATION_NOT_EXIST",
    "INVALID_REQUEST": "ILLEGAL_ARGUMENT",
    "NOT_POSSIBLE": "ACCESS_FORBIDDEN",
}
"""alipay.fund.auth.* (apifox.cn docs-site 3618910, api-127338885)."""
BILL = {"NOT_FOUND": "BILL_NOT_EXIST", "INVALID_REQUEST": "INVAILID_ARGUMENTS"}
"""alipay.data.dataservice.bill.downloadurl.query (opendocs 02e7gr's enumeration, spelt like that)."""
UNVERIFIED = {
    "zhima": {
        # No public table of the zhima.credit.payafteruse.* codes was found: named after what they mean.
        "KEY_CONFLICT": "ORDER_INFO_INCONSISTENT",
        "NOT_FOUND": "ORDER_NOT_EXIST",
        "NO_AGREEMENT": "AGREEMENT_NOT_EXIST",
        "AGREEMENT_UNKNOWN": "AGREEMENT_NOT_EXIST",
        "AGREEMENT_PENDING": "AGREEMENT_STATUS_NOT_NORMAL",
        "AGREEMENT_REFUSED": "AGREEMENT_STATUS_NOT_NORMAL",
        "AGREEMENT_REVOKED": "AGREEMENT_INVALID",
        "AGREEMENT_EXPIRED": "AGREEMENT_INVALID",
        "CAP_EXCEEDED": "ORDER_AMOUNT_EXCEED",
        "INVALID_REQUEST": "INVALID_PARAMETER",
        "NOT_ELIGIBLE": "USER_NOT_ADMITTED",
        "TOO_MANY_HOLDS": "ORDER_COUNT_EXCEED",
        "TOO_MANY_UNPAID": "USER_HAS_UNPAID_ORDER",
        "WRONG_STATE": "ORDER_STATUS_ERROR",
        "DEBIT_NOT_FINAL": "ORDER_HAS_UNPAID_TRADE",
    },
    "trade": {
        # What alipay.trade.pay says about an order that is over: the nearest documented sibling.
        "HOLD_CLOSED": "ACQ.TRADE_HAS_CLOSE",
        "NO_ORDER": "ACQ.INVALID_PARAMETER",
    },
    "certificate": {"NO_CERTIFICATE": "CERT_NOT_EXIST"},  # Nor of alipaycert.download's.
    "complaint": {"NOT_FOUND": "COMPLAIN_EVENT_NOT_EXIST"},  # No table of tradecomplain.query's codes was found.
    "authorisation": {
        # No public text has the codes of an authorisation that is over, or of too much.
        "WRONG_STATE": "ORDER_ALREADY_FINISH",
        "DEBIT_NOT_FINAL": "ORDER_ALREADY_FINISH",
        "AMOUNT_EXCEEDED": "REQUEST_AMOUNT_EXCEED",
        "KEY_CONFLICT": "ORDER_ALREADY_EXIST",
    },
}
"""Codes that no public source confirms, by family; a merchant must be safe with codes he has never seen."""
FAMILIES = {
    "trade": TRADE | UNVERIFIED["trade"],
    "zhima": UNVERIFIED["zhima"],
    "authorisation": AUTHORISATION | UNVERIFIED["authorisation"],
    "bill": BILL,
    "complaint": UNVERIFIED["complaint"],
    "certificate": UNVERIFIED["certificate"],
}


class GatewayRefusedError(Exception):
    """The gateway itself refuses a call: nothing was executed."""

    def __init__(self, code: str, sub_code: str, sub_msg: str, *, signed: bool = True) -> None:
        super().__init__(sub_msg)
        self.body = {"code": code, "msg": MESSAGES[code], "sub_code": sub_code, "sub_msg": sub_msg}
        self.signed = signed


def refusal_body(refused: RefusedError, family: str) -> dict[str, str]:
    """The answer of a business refusal, in the words of the method's family; an Alipay code passes as it is."""
    code = FAMILIES[family].get(refused.code, refused.code)
    return {"code": "40004", "msg": MESSAGES["40004"], "sub_code": code, "sub_msg": refused.message}
