"""Numbers on the command line."""

from __future__ import annotations

import math
from typing import Any

import rich_click as click


class Times(click.FloatRange):
    """A number in a range; nan is in none, whatever click's comparisons say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or a refusal."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number.", param, ctx)
        return float(number)
