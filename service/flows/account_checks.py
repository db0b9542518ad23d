"""Are a merchant account's credentials good? Asked by a call that moves nothing, each provider beside the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from service.adapters.postgres.agreements import OwnedAccount
from service.adapters.providers import Providers
from service.adapters.providers.port import Listening
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.outcomes import BARRED_FOR, Barred, Outcome, Postponed, Rejected, Unknown, Unreachable
from service.flows.accounts import merchant_account

A = TypeVar("A")
CHECK_SECONDS = 10.0
"""How long a provider may take to say whether he knows us (machine's clock)."""
AT_ONCE = 32


class Accounts(Protocol):
    """Who knows which accounts may be called now, and wants to hear what their providers say of us."""

    def usable(self, account_no: int) -> bool:
        """Whether the account may be called: its provider does not refuse it, as far as is known."""

    def refused(self, account_no: int) -> bool:
        """Whether its provider was asked, and said that he does not accept us: nothing can be begun there now."""

    def heard(self, account_no: int, answer: object) -> None:
        """A call of the account was answered so."""


class Unwatched:
    """Every account may be called, whatever was answered: of who makes few calls, and ends."""

    def usable(self, account_no: int) -> bool:
        """See `Accounts`."""
        return True

    def refused(self, account_no: int) -> bool:
        """See `Accounts`."""
        return False

    def heard(self, account_no: int, answer: object) -> None:
        """See `Accounts`."""


UNWATCHED = Unwatched()
REFUSED = Barred(BARRED_FOR, "ACCOUNT_REFUSED", "the account is refused by its provider")
"""The answer to a call that is not made."""
NOT_THERE = ("HTTP_404", "HTTP_405")
"""What a server says that is no provider's, or has him at another path: a provider's own refusal has his own code."""


async def let_in(accounts: Accounts, account_no: int, call: Callable[[], Awaitable[A]]) -> A | Barred:
    """Makes a call of an account and hears its answer; where the account may not be called it is REFUSED."""
    if not accounts.usable(account_no):
        return REFUSED
    answer = await call()
    accounts.heard(account_no, answer)
    return answer


class Finding(msgspec.Struct, frozen=True):
    """How an account stands at its provider: `good`, `refused` (credentials or settings; `says` names what), `limited`
    (the credentials are good, and some calls are refused because of who asks; `says` names which), or `silent`: nobody
    answered as a provider does, which says nothing about the credentials."""

    name: str
    provider: str
    verdict: Literal["good", "refused", "limited", "silent"]
    says: str = ""


def account_name(owned: OwnedAccount) -> str:
    """`<operator>.<account id>`: an account of the installation; an operator's id has no dot."""
    return f"{owned.operator_id}.{owned.account.account_id}"


async def check_accounts(providers: Providers, accounts: Sequence[OwnedAccount]) -> list[Finding]:
    """Asks every account's provider, in the order given; one that hangs keeps no other waiting."""
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(owned: OwnedAccount) -> Finding:
        async with room:
            return await check(providers, owned)

    return await asyncio.gather(*(ask(owned) for owned in accounts))


async def check(providers: Providers, owned: OwnedAccount) -> Finding:
    """Asks one account's provider."""
    name, provider = account_name(owned), owned.account.provider
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            wrong = await providers.of(merchant_account(owned.account)).check()
    except AccountSettingsError as error:
        return Finding(name, provider, "refused", str(error))
    except TimeoutError:
        return Finding(name, provider, "silent", f"no answer within {CHECK_SECONDS:g} s")
    if wrong is None:
        return Finding(name, provider, "good")
    return Finding(name, provider, "silent" if silent(wrong) else "refused", in_words(wrong))


async def listen(providers: Providers, owned: OwnedAccount, *, replace: bool) -> Listening | Outcome:
    """Registers an account's address at its provider for what no call names one for. Raises AccountSettingsError."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await providers.of(merchant_account(owned.account)).listen(replace=replace)
    except TimeoutError:
        return Unknown(f"no answer within {CHECK_SECONDS:g} s")


def silent(wrong: object) -> bool:
    """Whether nobody answered as a provider does, which says nothing about the credentials."""
    return isinstance(wrong, Postponed | Unknown) and not isinstance(wrong, Barred)


def in_words(outcome: Outcome) -> str:
    """What a provider said instead of yes."""
    if isinstance(outcome, Unreachable):
        return f"can't be reached (is its address right?): {outcome.reason}"
    if isinstance(outcome, Barred):
        return f"{outcome.code} {outcome.message}".rstrip()
    if isinstance(outcome, Postponed):
        return "wants no calls now"
    if isinstance(outcome, Rejected) and outcome.code in NOT_THERE:
        return f"nothing is at this address (is its path right?): {outcome.code}"
    parts = (getattr(outcome, name, "") for name in ("code", "message", "reason"))
    return " ".join((type(outcome).__name__, *(str(part) for part in parts if part)))
