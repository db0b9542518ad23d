"""What a merchant's app hands to WeChat's: opaque to the merchant, a page of one account to us."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account

MAC_BYTES = 16


def token(account: Account, kind: str, key: str) -> str:
    """Of a permission, an order, or a payment; letters, digits, `-` and `_`.

    The kind comes first, so that none begins with the `wx` that stands before a prepay_id.
    """
    text = f"{kind}\n{account.account_id}\n{key}".encode()
    return urlsafe_b64encode(text + _mac(account, text)).decode("ascii").rstrip("=")


def opened(books: Books, text: str) -> tuple[Account, str, str]:
    """The account, the kind and the key of a token; RefusedError when it was never given out."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        said, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        kind, account_id, key = said.decode().split("\n")
    except (ValueError, Base64Error):
        raise RefusedError(403, "FORBIDDEN", "this token was never given out") from None
    account = books.accounts.get(account_id)
    if account is None or not hmac.compare_digest(mac, _mac(account, said)):
        raise RefusedError(403, "FORBIDDEN", "this token was never given out")
    return account, kind, key


def _mac(account: Account, text: bytes) -> bytes:
    secret = account.wechatpay.apiv3_key.encode() if account.wechatpay else b""
    return hmac.digest(secret, text, "sha256")[:MAC_BYTES]
