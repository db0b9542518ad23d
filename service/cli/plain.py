"""Lines on a terminal: what others named or said is shown, and never obeyed."""

from __future__ import annotations

import click

from service.billing.refusals import printable


def say(line: str, *, err: bool = False) -> None:
    """One line on standard output, or on standard error."""
    click.echo(printable(line), err=err)
