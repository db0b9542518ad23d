"""A history that fails is made short: what it does not need is left out, and what is left goes well where it can."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace
from sim_plot import Act, Plot
from sim_show import Failure, play

PLAIN: dict[str, Any] = {
    "cap_minor": None,
    "their_cap_minor": 100_000,
    "delay": timedelta(),
    "ending": "paid",
    "held": True,
    "owed_minor": 1000,
}
"""What a history is without anything about it."""


def shrunk(plot: Plot, failure: Failure) -> Plot:
    """The shortest history that still fails in the same way: acts are left out, then their draws, then the rest."""
    sign = _sign(failure)

    def fails(tried: Plot) -> bool:
        again, _ = play(tried)
        return again is not None and _sign(again) == sign

    size = max(len(plot.acts) // 2, 1)
    while size:
        at = 0
        while at < len(plot.acts):
            tried = replace(plot, acts=plot.acts[:at] + plot.acts[at + size :])
            if fails(tried):
                plot = tried
            else:
                at += size
        size //= 2
    for at in range(len(plot.acts)):
        for place in range(len(plot.acts[at].draws)):
            act = plot.acts[at]
            simpler = Act(act.what, (*act.draws[:place], 0, *act.draws[place + 1 :]))
            tried = replace(plot, acts=(*plot.acts[:at], simpler, *plot.acts[at + 1 :]))
            plot = tried if act.draws[place] and fails(tried) else plot
    for name, value in PLAIN.items():
        tried = replace(plot, **{name: value})
        plot = tried if tried != plot and fails(tried) else plot
    return plot


def _sign(failure: Failure) -> str:
    """What kind of wrong it is: its words without their figures."""
    first = failure.wrongs[0]
    return "".join(sign for sign in first if not (sign.isdigit() or sign.isupper()))[:40]
