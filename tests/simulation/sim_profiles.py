"""What providers differ in, as profiles from which a world's merchant accounts are drawn."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any, Literal

import msgspec

from service.billing.capabilities import Capabilities
from service.lab.provider.faults import CALL_FAULTS, NOTICE_FAULTS, Rates


class Profile(msgspec.Struct, frozen=True):
    """An account's abilities, and what else the simulator is to do (fields of its Terms).

    At another face than the sandbox's they are those of the real adapter, and say here what the script must know.
    """

    name: str
    capabilities: Capabilities
    terms: dict[str, Any] = {}
    face: Literal["sandbox", "zhima", "preauth", "wechatpay", "wechatpay, confirmed"] = "sandbox"


MONTH = timedelta(days=30)
PROFILES = (
    Profile("card", Capabilities()),
    Profile("slow card", Capabilities(same_key_window=MONTH), {"decide_s": 5400.0}),
    Profile("able card", Capabilities(reduces_pending=True, reduces_declined=True, new_key_after_decline=False)),
    Profile("chargeback card", Capabilities(dispute="chargeback", same_key_window=MONTH), {"refund_s": 7200.0}),
    Profile("least of 1.50", Capabilities(debit_min_minor=150, same_key_window=MONTH)),
    Profile("short refunds", Capabilities(refund_window=timedelta(days=4), same_key_window=MONTH)),
    Profile(  # As WeChat Pay, which collects in parts and closes nothing.
        "parts",
        Capabilities(partial_debit=True, provider_retries=True, closes_unpaid=False, same_key_window=MONTH),
    ),
    Profile(
        "order",
        Capabilities(
            provider_retries=True,
            nudges=True,
            hold_needed=True,
            further_debit=False,
            closes_unpaid=False,
            new_key_after_decline=False,
            reduces_pending=True,
            same_key_window=MONTH,
        ),
        {"holds_max": 3, "unpaid_max": 2, "decide_s": 30.0},
    ),
    Profile(
        "credit order",
        Capabilities(
            provider_retries=True,
            hold_needed=True,
            further_debit=False,
            new_key_after_decline=False,
            same_key_window=MONTH,
        ),
    ),
    Profile(
        "pre-authorisation",
        Capabilities(
            hold_needed=True,
            hold_confirmed_by_rider=True,
            further_debit=False,
            new_key_after_decline=False,
            same_key_window=MONTH,
        ),
    ),
    Profile(
        "Stripe's rules",
        Capabilities(
            reduces_declined=True,
            new_key_after_decline=False,
            same_key_window=timedelta(days=365),
            debit_min_minor=100,
            reports_performance="provider",
            dispute="chargeback",
            revoking_ends_collection=True,
        ),
    ),
    Profile("Zhima", Capabilities(hold_needed=True), face="zhima"),
    Profile("Alipay pre-authorisation", Capabilities(hold_needed=True, hold_confirmed_by_rider=True), face="preauth"),
    Profile("WeChat Pay", Capabilities(hold_needed=True), face="wechatpay"),
    Profile(  # Its default, need_user_confirm.
        "WeChat Pay, each order confirmed",
        Capabilities(hold_needed=True, hold_confirmed_by_rider=True),
        face="wechatpay, confirmed",
    ),
)  # fmt: skip


FORGETFUL = Profile("forgetful card", Capabilities(same_key_window=MONTH), {"forgets_keys": True})
"""It takes what it is sent each time it is sent: where nothing is lost, nothing is sent twice."""


class Focus(msgspec.Struct, frozen=True):
    """What worlds are made to be about, for a bug that shows only there; nothing given: about anything.

    `quiet`: nothing goes wrong but the `faults`, and both collectors are always at work. `cap_minor`: the most that a
    provider takes on an agreement; `freeze`: how often an intake is stopped. `capped`: a cap over all rides of a rider;
    `slips`: how often an app asks for a hold for another rider.
    """

    aftermath: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    faults: Rates | None = None
    quiet: bool = False
    cap_minor: int = 100_000
    freeze: float = 0.0
    capped: bool = False
    slips: float = 0.1


class Chaos(msgspec.Struct, frozen=True):
    """How often things go wrong of themselves, 0 to 1, at each turn (kills, cuts, lost commits, time that passes).

    `race`: PostgreSQL ends a transaction at a write of it, as it does with one of two that wait for each other.
    `freeze`: an intake is stopped and goes on later, and may have lost its partitions meanwhile; `both`: how often two
    collectors begin the same round at once, which is nothing wrong.
    """

    kill: float
    cut: float
    lost: float
    drift: float
    faults: Rates
    both: float = 0.2
    freeze: float = 0.0
    race: float = 0.0


def calm() -> Chaos:
    """Nothing goes wrong."""
    return Chaos(0.0, 0.0, 0.0, 0.0, Rates())


ALWAYS_POSSIBLE = tuple(
    kind for kind in Rates.__struct_fields__ if kind != "partial" and not kind.startswith("statement_")
)
"""Statements are not read yet; a provider that collects in parts says so (its profile)."""


def draw_chaos(random: Random) -> Chaos:
    """A world's weather: some worlds are quiet, some have a few kinds of faults often, some have all of them."""
    kinds = random.sample(ALWAYS_POSSIBLE, random.choice((0, 2, 4, len(ALWAYS_POSSIBLE))))
    shares = {kind: round(random.choice((0.02, 0.05, 0.1, 0.2)), 3) for kind in sorted(kinds)}
    shares = _within_one(shares)
    kill = random.choice((0.0, 0.004, 0.015, 0.04))
    cut = random.choice((0.0, 0.002, 0.01))
    lost = random.choice((0.0, 0.01, 0.05))
    drift, freeze = random.choice((0.0, 0.01, 0.05)), random.choice((0.0, 0.003, 0.01))
    race = random.choice((0.0, 0.0, 0.005, 0.03))
    return Chaos(kill, cut, lost, drift, msgspec.convert(shares, Rates), freeze=freeze, race=race)


def _within_one(shares: dict[str, float]) -> dict[str, float]:
    """A call has at most one fault: the shares of each family stay well below 1."""
    for family in (CALL_FAULTS, NOTICE_FAULTS):
        total = sum(shares.get(kind, 0.0) for kind in family)
        if total > 0.5:
            for kind in family:
                if kind in shares:
                    shares[kind] = round(shares[kind] * 0.5 / total, 4)
    return shares
