"""A debit by any of its names: its key, its hold's, or the provider's number, whichever somebody has at hand."""

from __future__ import annotations

from service.lab.provider.alipay.wire import row_number
from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Debit
from service.lab.provider.wechatpay.wire import order_of, payment_of


def debit_named(books: Books, account: Account, name: str) -> Debit:
    """The merchant's debit of a key, of its hold's key (the newest), or of the provider's number of it, of its order or
    of its payment, as his face writes it. Raises RefusedError, which says what is known here."""
    own = books.debits.get((account.account_id, name))
    found = own or _of_hold(books, account, name) or _by_number(books, account, name)
    if found is None:
        raise RefusedError(
            404,
            "NOT_FOUND",
            f"no debit of account {account.account_id} is called {name!r}: give the key it was sent under, its hold's"
            " key, or this provider's number of the debit, its order or its payment. On an order (Zhima, Pay Score) a"
            " merchant's own key of the debit is never sent: there the hold's key is what both sides know."
            f" GET /books/debits?account={account.account_id} lists `key`, `hold` and `ref`",
        )
    return found


def _of_hold(books: Books, account: Account, key: str) -> Debit | None:
    numbers = books.debits_of_hold.get((account.account_id, key), ())
    return books.debits_by_number[max(numbers)] if numbers else None


def _by_number(books: Books, account: Account, name: str) -> Debit | None:
    payment = payment_of(name) if account.face == "wechatpay" else None
    numbers = [payment[0]] if payment else []
    match account.face:
        case "alipay":
            numbers.append(row_number(name))
        case "wechatpay":
            numbers.append(order_of(name))
    if name.startswith("DE") and name[2:].isdecimal():
        numbers.append(int(name[2:]))
    for number in numbers:
        hold = books.holds_by_number.get(number)
        ordered = hold and hold.account_id == account.account_id and _of_hold(books, account, hold.asked.key)
        found = ordered or books.debits_by_number.get(number)
        if found and found.account_id == account.account_id:
            return found
    return None
