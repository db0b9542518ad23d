"""Lines on a terminal: what others named or said is shown, and never obeyed."""

from __future__ import annotations

import click


def plain(line: str) -> str:
    """The line with what a terminal would act on written out: control characters as `\\x1b`, and those that hide
    letters or turn their direction as `\\u202e`."""
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)


def say(line: str, *, err: bool = False) -> None:
    """One line on standard output, or on standard error."""
    click.echo(plain(line), err=err)
