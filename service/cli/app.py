"""The `farebox` command: one group, each subject registered by its own file."""

from __future__ import annotations

import importlib
import importlib.util

import rich_click as click

SUBJECTS = ("roles", "operators", "agreements", "clock", "tariffs", "events", "money", "lab", "bench")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="farebox")
def farebox() -> None:
    """Usage-metered rental billing: ride events on Kafka become explained charges and debits."""


def main() -> None:
    """Runs the command line; each subject is loaded from `service.cli.<subject>`."""
    for subject in SUBJECTS:
        module = importlib.util.find_spec(f"service.cli.{subject}")
        if module is not None:
            importlib.import_module(f"service.cli.{subject}").register(farebox)
    farebox()
