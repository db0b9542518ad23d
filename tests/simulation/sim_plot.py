"""What a history is drawn from: the kinds of providers, what a ride begins with, its acts, its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Literal

import msgspec
from msgspec.structs import replace
from sim_cards import CardTeller
from sim_held import HoldsTeller
from sim_profiles import PROFILES
from sim_score import ScoreTeller
from sim_stripe import StripeTeller
from sim_trades import PreauthTeller, ZhimaTeller

from service.billing.capabilities import Capabilities

Ending = Literal["paid", "left", "years"]
"""Riders pay what needs them; or are left to pay it; or nobody pays any more, and time writes it off."""
Make = Callable[[Capabilities, Callable[[], datetime]], HoldsTeller]


class Kind(msgspec.Struct, frozen=True):
    """A sort of provider."""

    capabilities: Capabilities
    make: Make


class Act(msgspec.Struct, frozen=True):
    """Something happens, with its draws."""

    what: str
    draws: tuple[int, ...] = ()


class Plot(msgspec.Struct, frozen=True):
    """A history before it is played. `held`: the ride has a hold from its beginning; `cap_minor`: the agreement's;
    `their_cap_minor`: what it is at the provider."""

    seed: int
    kind: str
    owed_minor: int
    held: bool
    cap_minor: int | None
    their_cap_minor: int
    delay: timedelta
    write_off_days: int
    ending: Ending
    acts: tuple[Act, ...]


KINDS: dict[str, Kind] = {
    profile.name: Kind(profile.capabilities, CardTeller) for profile in PROFILES if profile.face == "sandbox"
}
STRIPE = Capabilities(
    debits_without_hold=True,
    reduces_declined=True,
    same_key_window=timedelta(days=365),
    new_key_after_decline=False,
    debit_min_minor=100,
    dispute="chargeback",
    revoking_ends_collection=True,
)
KINDS |= {
    "Stripe": Kind(STRIPE, StripeTeller),
    "Stripe, captured": Kind(replace(STRIPE, hold_needed=True), StripeTeller),
}
SCORE = Capabilities(
    provider_retries=True,
    nudges=True,
    hold_needed=True,
    partial_debit=True,
    further_debit=False,
    reduces_pending=True,
    closes_unpaid=False,
    same_key_window=timedelta(days=30),
    new_key_after_decline=False,
    refund_window=timedelta(days=365),
)
ZHIMA = Capabilities(
    provider_retries=True,
    hold_needed=True,
    further_debit=False,
    opened_by_rider=True,
    same_key_window=timedelta(days=15),
    new_key_after_decline=False,
    refund_window=timedelta(days=90),
)
KINDS |= {
    "WeChat Pay": Kind(SCORE, ScoreTeller),
    "WeChat Pay, confirmed": Kind(replace(SCORE, hold_confirmed_by_rider=True, payable_apart=False), ScoreTeller),
    "Zhima": Kind(ZHIMA, ZhimaTeller),
    "pre-authorised": Kind(
        replace(ZHIMA, provider_retries=False, hold_confirmed_by_rider=True, reports_performance="merchant"),
        PreauthTeller,
    ),
}
WEIGHTS = {
    "go": 14,
    "on": 26,
    "land": 4,
    "keep": 4,
    "die": 1,
    "policy": 4,
    "hold": 4,
    "wait": 6,
    "next": 6,
    "age": 0.5,
    "tell": 8,
    "lose": 3,
    "decide": 8,
    "pay": 6,
    "confirm": 3,
    "come_back": 2,
    "bank": 4,
    "revoke": 0.3,
    "fault": 0.7,
    "mute": 0.5,
    "owe": 9,
    "want": 5,
    "suspend": 1.5,
    "resume": 1.5,
    "retry": 2,
    "elsewhere": 1.5,
    "judge": 3,
    "again": 1.5,
    "letter": 1.5,
    "hand": 1.5,
    "platform": 0.7,
}
THEMES: tuple[dict[str, float], ...] = (
    {},
    {},
    {"owe": 3, "on": 1.5, "again": 2, "hand": 3},
    {"bank": 4, "owe": 2, "tell": 2, "come_back": 3, "again": 2},
    {"want": 3, "pay": 3, "owe": 1.5},
    {"elsewhere": 4, "policy": 3, "owe": 2, "wait": 2, "hand": 4},
    {"age": 8, "want": 2, "pay": 2, "owe": 1.5},
    {"platform": 8, "want": 2, "owe": 1.5, "judge": 2},
    {"fault": 6, "mute": 4, "judge": 3, "policy": 2},
    {"land": 3, "keep": 3, "go": 2, "owe": 2},
)
"""What a history has more of."""
DRAWS = 10


def draw(seed: int, kinds: Sequence[str] = ()) -> Plot:
    """The history of a seed."""
    random = Random(f"history {seed}")
    kind = random.choice(sorted(kinds or KINDS))
    calm = random.choice((0.55, 0.75, 0.9))
    theme = random.choice(THEMES)
    bored = {name for name in WEIGHTS if name not in ("go", "on", *theme) and random.random() < 0.35}
    names = [name for name in WEIGHTS if name not in bored]
    weights = [WEIGHTS[name] * theme.get(name, 1) for name in names]
    chosen = random.choices(names, weights, k=random.choice((8, 15, 25, 40)))
    acts = [Act(name, _draws(random, calm)) for name in chosen]
    ending: Ending = random.choice(("paid",) * 5 + ("left",) * 3 + ("years",))
    return Plot(
        seed=seed,
        kind=kind,
        owed_minor=random.choice((1000, 1000, 1000, 400, 1)),
        held=random.random() < 0.75,
        cap_minor=random.choice((None, None, None, 600, 1500)),
        their_cap_minor=random.choice((100_000, 100_000, 100_000, 700)),
        delay=random.choice((timedelta(), timedelta(), timedelta(hours=2))),
        write_off_days=30 if ending == "years" else random.choice((180, 30)),
        ending=ending,
        acts=tuple(acts),
    )


def _draws(random: Random, calm: float) -> tuple[int, ...]:
    draws = [0 if random.random() < calm else random.randrange(120) for _ in range(DRAWS)]
    while draws and not draws[-1]:
        draws.pop()
    return tuple(draws)
