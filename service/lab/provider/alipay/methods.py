"""Every method of the gateway: what it is in the core's words, what it takes, what runs it, whose codes it speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from service.lab.provider.alipay import authorisations, bills, certificates, complaints, trades, zhima
from service.lab.provider.alipay.visits import Answer, Visit


class Method(msgspec.Struct, frozen=True):
    """`operation`: the core's name, for faults; `key`: the merchant's or provider's number of what it is about."""

    operation: Callable[[Any], str]
    shape: type
    run: Callable[[Visit, Any], Answer]
    family: str
    key: Callable[[Visit, Any], str]


def _is(operation: str) -> Callable[[Any], str]:
    return lambda _: operation


def _agreement(visit: Visit, asked: zhima.NameAgreement) -> str:
    return visit.agreement(asked.credit_agreement_id, asked.out_agreement_no).asked.key


def _order(visit: Visit, asked: zhima.NameOrder) -> str:
    return zhima.ordered(visit, asked.credit_biz_order_id, asked.out_order_no).asked.key


def _finished(visit: Visit, asked: zhima.FinishOrder) -> str:
    return zhima.ordered(visit, asked.credit_biz_order_id, None).asked.key


def _trade(visit: Visit, asked: trades.NameTrade | trades.Sync) -> str:
    return visit.trade(asked.trade_no, getattr(asked, "out_trade_no", None)).asked.key


def _refund(visit: Visit, asked: trades.MakeRefund | trades.NameRefund) -> str:
    return asked.out_request_no or asked.out_trade_no or ""


def _authorised(
    visit: Visit, asked: authorisations.NameOperation | authorisations.Cancel | authorisations.Unfreeze
) -> str:
    return visit.hold(asked.auth_no, getattr(asked, "out_order_no", None)).asked.key


def _ends(asked: zhima.FinishOrder) -> str:
    return "hold.finish" if asked.is_fulfilled == "true" else "hold.release"


_FUND = "alipay.fund.auth."
_ZHIMA = "zhima.credit.payafteruse."
METHODS: dict[str, Method] = {
    f"{_ZHIMA}creditagreement.query": Method(
        _is("agreement.get"), zhima.NameAgreement, zhima.query_agreement, "zhima", _agreement
    ),
    f"{_ZHIMA}creditagreement.unsign": Method(
        _is("agreement.revoke"), zhima.NameAgreement, zhima.unsign, "zhima", _agreement
    ),
    f"{_ZHIMA}creditbizorder.order": Method(
        _is("hold.open"), zhima.Order, zhima.order, "zhima", lambda _, asked: str(asked.out_order_no)
    ),
    f"{_ZHIMA}creditbizorder.query": Method(_is("hold.get"), zhima.NameOrder, zhima.query_order, "zhima", _order),
    f"{_ZHIMA}creditbizorder.finish": Method(_ends, zhima.FinishOrder, zhima.finish, "zhima", _finished),
    "alipay.trade.pay": Method(
        _is("debit.take"), trades.Pay, trades.pay, "trade", lambda _, asked: str(asked.out_trade_no)
    ),
    "alipay.trade.query": Method(_is("debit.get"), trades.NameTrade, trades.query, "trade", _trade),
    "alipay.trade.close": Method(_is("debit.close"), trades.NameTrade, trades.close, "trade", _trade),
    "alipay.trade.cancel": Method(_is("debit.cancel"), trades.NameTrade, trades.cancel, "trade", _trade),
    "alipay.trade.refund": Method(_is("refund.make"), trades.MakeRefund, trades.refund, "trade", _refund),
    "alipay.trade.fastpay.refund.query": Method(
        _is("refund.get"), trades.NameRefund, trades.query_refund, "trade", _refund
    ),
    "alipay.trade.orderinfo.sync": Method(_is("performance.report"), trades.Sync, trades.sync, "trade", _trade),
    f"{_FUND}operation.detail.query": Method(
        _is("hold.get"), authorisations.NameOperation, authorisations.detail, "authorisation", _authorised
    ),
    f"{_FUND}operation.cancel": Method(
        _is("hold.release"), authorisations.Cancel, authorisations.cancel, "authorisation", _authorised
    ),
    f"{_FUND}order.unfreeze": Method(
        _is("hold.release"), authorisations.Unfreeze, authorisations.unfreeze, "authorisation", _authorised
    ),
    "alipay.merchant.tradecomplain.query": Method(
        _is("dispute.get"),
        complaints.NameComplaint,
        complaints.query,
        "complaint",
        lambda _, asked: str(asked.complain_event_id),
    ),
    certificates.DOWNLOAD: Method(
        _is("certificate.get"),
        certificates.Ask,
        certificates.download,
        "certificate",
        lambda _, asked: str(asked.alipay_cert_sn),
    ),
    "alipay.data.dataservice.bill.downloadurl.query": Method(
        _is("statement.get"), bills.AskBill, bills.download_url, "bill", lambda _, asked: str(asked.bill_date)
    ),
}
