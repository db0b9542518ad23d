"""What WeChat Pay says when it says no: an HTTP status, a code, a message, and a number at the end of Request-Id."""

from __future__ import annotations

from typing import Any

import msgspec

from service.lab.provider.refusals import RefusedError


class Saying(msgspec.Struct, frozen=True):
    """A refusal in WeChat Pay's words; `number` ends the header Request-Id."""

    status: int
    code: str
    number: str
    message: str


NUMBERS = {
    # 排障手册, section 1: what each number says. The HTTP statuses and the codes are those its text names beside them
    # (NO_AUTH, INVALID_REQUEST, PARAM_ERROR, SIGN_ERROR), else what the same kind has in /v3/pay.
    "271317510": Saying(404, "RESOURCE_NOT_EXISTS", "271317510", "查询单据不存在"),
    "271316574": Saying(400, "INVALID_REQUEST", "271316574", "支付分扣款失败"),
    "271302262": Saying(400, "INVALID_REQUEST", "271302262", "当前订单状态不合法"),
    "268435464": Saying(400, "PARAM_ERROR", "268435464", "参数超出取值范围"),
    "271316657": Saying(400, "INVALID_REQUEST", "271316657", "仅服务订单支付状态为待支付时，才可使用此能力"),
    "271316598": Saying(400, "INVALID_REQUEST", "271316598", "订单重入参数校验失败"),
    "271302144": Saying(400, "PARAM_ERROR", "271302144", "mch_id 不存在"),
    "271302149": Saying(400, "PARAM_ERROR", "271302149", "mch_id 和 appid 未绑定"),
    "268435472": Saying(429, "RATELIMIT_EXCEEDED", "268435472", "请求过于频繁"),
    "271300099": Saying(403, "RULE_LIMIT", "271300099", "综合评估未通过"),
    "271302333": Saying(400, "INVALID_REQUEST", "271302333", "当前订单状态不合法"),
    "271299627": Saying(403, "RULE_LIMIT", "271299627", "存在待处理的超时未支付订单"),
    "271302332": Saying(400, "INVALID_REQUEST", "271302332", "当前订单状态不合法"),
    "268503786": Saying(403, "NO_AUTH", "268503786", "商户暂无权限使用此服务"),
    "271316592": Saying(400, "INVALID_REQUEST", "271316592", "当前订单状态不满足撤销条件"),
    "270924332": Saying(401, "SIGN_ERROR", "270924332", "Authorization不合法"),
    "271316754": Saying(400, "INVALID_REQUEST", "271316754", "单据正在扣款中，请稍后重试"),
    "271316656": Saying(400, "INVALID_REQUEST", "271316656", "总金额超过此服务的服务风险金额"),
    "271316637": Saying(400, "PARAM_ERROR", "271316637", "真实结束时间小于预计开始时间"),
    "268560785": Saying(403, "RULE_LIMIT", "268560785", "已开启青少年模式支付限额，暂无法使用支付分先用后付服务"),
}
CORE = {
    # A refusal of the core: the number it has at this face.
    "KEY_CONFLICT": "271316598",
    "NOT_FOUND": "271317510",
    "AGREEMENT_UNKNOWN": "268503786",
    "AGREEMENT_PENDING": "268503786",
    "AGREEMENT_REFUSED": "268503786",
    "AGREEMENT_REVOKED": "268503786",
    "AGREEMENT_EXPIRED": "268503786",
    "NOT_POSSIBLE": "268503786",
    "CAP_EXCEEDED": "271316656",
    "INVALID_REQUEST": "268435464",
    "NOT_ELIGIBLE": "271300099",
    "TOO_MANY_HOLDS": "271300099",
    "TOO_MANY_UNPAID": "271299627",
    "HOLD_CLOSED": "271302262",
    "ALREADY_PAID": "271316657",
    "DEBIT_CLOSED": "271316657",
    "DEBIT_NOT_FINAL": "271316592",
    "WRONG_STATE": "271316592",
}
PAY = {
    # /v3/pay/transactions, /v3/refund/domestic, /v3/bill, /v3/certificates: the error tables of pay.weixin.qq.com,
    # doc/v3/merchant (4012791855, 4012791862, 4013071227); the certificates' from wechatpay-php's README.
    "NO_TRADE": Saying(404, "ORDER_NOT_EXIST", "268566528", "订单不存在"),
    "OUT_TRADE_NO_USED": Saying(403, "OUT_TRADE_NO_USED", "268566529", "商户订单号重复"),
    "ORDER_PAID": Saying(400, "ORDERPAID", "268566530", "该订单已支付"),
    "ORDER_CLOSED": Saying(400, "ORDER_CLOSED", "268566531", "该订单已关闭"),
    "NO_REFUND": Saying(404, "RESOURCE_NOT_EXISTS", "268566532", "退款单不存在"),
    "NO_TRANSACTION": Saying(404, "RESOURCE_NOT_EXISTS", "268566533", "订单不存在"),
    "REFUND_CONFLICT": Saying(400, "INVALID_REQUEST", "268566534", "重入参数不一致，请更换退款单号或参数重试"),
    "REFUND_TOO_MUCH": Saying(400, "INVALID_REQUEST", "268566535", "申请退款金额超过可退金额"),
    "REFUND_TOO_LATE": Saying(400, "INVALID_REQUEST", "268566536", "订单已经超过可退款的最大期限"),
    "REFUND_DISPUTED": Saying(403, "NOT_ENOUGH", "268566537", "基本账户余额不足，请充值后重新发起"),
    "TOO_MANY_REFUNDS": Saying(400, "INVALID_REQUEST", "268566538", "部分退款次数超过限制"),
    "TOO_SOON": Saying(429, "FREQUENCY_LIMITED", "268566539", "频率限制，请降低请求频率"),
    "NO_STATEMENT": Saying(400, "NO_STATEMENT_EXIST", "268566540", "账单文件不存在"),
    "STATEMENT_LATER": Saying(400, "STATEMENT_CREATING", "268566541", "账单生成中"),
    "NO_CERTIFICATE": Saying(
        404, "RESOURCE_NOT_EXISTS", "268566542", "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥。"
    ),
    "NO_ADDRESS": Saying(404, "NOT_FOUND", "268566543", "无此接口"),
}
"""Of these only codes and messages are documented; the numbers are this simulator's own."""
UNVERIFIED = {
    # No public text says how these are refused: named after what they mean.
    "UNFINISHED_ORDERS": Saying(400, "INVALID_REQUEST", "268566550", "存在未完成订单"),
    "NO_COMPLAINT": Saying(404, "RESOURCE_NOT_EXISTS", "268566551", "投诉单不存在"),
    "NO_COMPLAINT_URL": Saying(404, "RESOURCE_NOT_EXISTS", "268566552", "投诉通知回调地址不存在"),
    "COMPLAINT_URL_EXISTS": Saying(400, "INVALID_REQUEST", "268566553", "投诉通知回调地址已存在"),
}
"""The message of the first is in 排障手册 2.5, its code nowhere."""


def saying(refused: RefusedError) -> Saying:
    """The refusal in WeChat Pay's words; a number of its own, as a script may name one, passes as it is."""
    known = PAY.get(refused.code) or UNVERIFIED.get(refused.code) or NUMBERS.get(CORE.get(refused.code, refused.code))
    if known:
        return known
    number = refused.code if refused.code.isdecimal() else "268566000"
    return Saying(400, "INVALID_REQUEST" if refused.code.isdecimal() else refused.code, number, refused.message)


def body_of(said: Saying, issue: str) -> dict[str, Any]:
    """The JSON of a refusal; `issue` is what exactly is wrong with a parameter."""
    told: dict[str, Any] = {"code": said.code, "message": said.message}
    if said.code == "PARAM_ERROR" and issue:
        told["detail"] = {"location": "body", "issue": issue}
    return told
