"""Are a merchant account's credentials good? Asked by a call that moves nothing, each provider beside the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec

from service.adapters.postgres.agreements import OwnedAccount
from service.adapters.providers import Providers
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.outcomes import Barred, Outcome, Postponed, Unknown, Unreachable
from service.flows.accounts import merchant_account

CHECK_SECONDS = 10.0
"""How long a provider may take to say whether he knows us (machine's clock)."""
AT_ONCE = 32


class Finding(msgspec.Struct, frozen=True):
    """How an account stands at its provider: `good`, `refused` (credentials or settings; `says` names what), or
    `silent`: nobody answered as a provider does, which says nothing about the credentials."""

    name: str
    provider: str
    verdict: Literal["good", "refused", "silent"]
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


def silent(wrong: Outcome) -> bool:
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
    parts = (getattr(outcome, name, "") for name in ("code", "message", "reason"))
    return " ".join((type(outcome).__name__, *(str(part) for part in parts if part)))
