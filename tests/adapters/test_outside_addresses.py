"""No address that comes from outside is called: not from an event, a request or a notification, and from a provider's
answer only one of his own."""

from __future__ import annotations

import ast
from datetime import date
from pathlib import Path

import pytest
from alipay_double import double, provider_at, settings_of

from service.adapters.providers.exchange import ELSEWHERE, is_at

SERVICE = Path(__file__).resolve().parents[2] / "service"
BILL = "alipay.data.dataservice.bill.downloadurl.query"
ELSE = [
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/bill",
    "http://127.0.0.1.example/bill",
    "http://alipay.com.example/bill",
    "http://notalipay.com/bill",
    "http://127.0.0.1@evil.example/bill",
    "http://evil.example/?.alipay.com",
    "http://evil.example#.alipay.com",
    "file:///etc/passwd",
    "gopher://127.0.0.1/x",
    "http://[::1",
    "//evil.example/bill",
    "",
]


@pytest.mark.parametrize("url", ELSE)
async def test_a_bill_that_lies_elsewhere_is_not_fetched(url: str, tmp_path: Path) -> None:
    async with double() as gateway, provider_at(gateway.url, settings_of("zhima", tmp_path)) as provider:
        gateway.says(BILL, {"bill_download_url": url})
        assert await provider.statement(date(2026, 11, 22)) == ELSEWHERE


@pytest.mark.parametrize(
    ("url", "base", "domain"),
    [
        ("http://dwbillcenter.alipay.com/downloadBillFile.resource?x=1", "https://openapi.alipay.com", "alipay.com"),
        (
            "https://api.mch.weixin.qq.com/v3/billdownload/file?token=1",
            "https://api2.mch.weixin.qq.com",
            "mch.weixin.qq.com",
        ),
        ("http://127.0.0.1:9/bill", "http://127.0.0.1:8/gateway.do", "alipay.com"),
    ],
)
def test_a_providers_own_address_is_known(url: str, base: str, domain: str) -> None:
    assert is_at(url, base, domain)


def test_calls_go_out_by_one_function_to_an_address_of_the_accounts_settings() -> None:
    """Nobody else opens a connection, and what it is given begins with the account's base, or was looked at."""
    opened, called = set(), set()
    for file in SERVICE.rglob("*.py"):
        if "lab" in file.relative_to(SERVICE).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name.endswith(("ClientSession", "session.request", "urlopen", "session.get", "session.post")):
                opened.add(file.name)
            elif name == "exchange":
                called.add((file.parent.name, ast.unparse(node.args[2])))
    assert opened == {"exchange.py"}
    assert called == {
        ("alipay", "url"),  # `download`, behind `is_at`.
        ("alipay", "f'{self._url}?{urlencode(form)}'"),
        ("wechatpay", "url"),  # `_send`: of the base, or of `download`, behind `is_at`.
        ("stripe", "self._base + path"),
        ("providers", "self._base + path"),
    }


def test_a_real_providers_key_is_never_a_setting_itself() -> None:
    """Settings are arguments of a command and rows of a table: they name where a key is. The sandbox keeps none."""
    literal = {
        str(file.relative_to(SERVICE))
        for file in SERVICE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "read_secret"
        if any(keyword.arg == "literal" for keyword in node.keywords)
    }
    assert literal == {"adapters/providers/sandbox.py"}
