"""How Alipay signs: which characters of a request, an answer and a notification the signature covers."""

from __future__ import annotations

from collections.abc import Mapping


def request_content(params: Mapping[str, str]) -> str:
    """What a merchant signed: every parameter that is not empty but `sign`, sorted, as `k=v` joined by `&`, not
    url-encoded; `sign_type` stays in (alipay-sdk-java-all, AlipaySignature.getSignContent)."""
    return _joined(params, without=("sign",))


def exact_content(params: Mapping[str, str]) -> str:
    """The same with empty parameters left in, as alipay-sdk-python signs: the wire is what was signed."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "sign")


def notice_content(params: Mapping[str, str], *, with_type: bool = False) -> str:
    """What a notification's signature covers: without `sign` and `sign_type` (rsaCheckV1); some message types keep
    `sign_type` (rsaCheckV2)."""
    return _joined(params, without=("sign",) if with_type else ("sign", "sign_type"))


def _joined(params: Mapping[str, str], without: tuple[str, ...]) -> str:
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name not in without and params[name])
