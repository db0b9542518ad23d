"""The `farebox` command: one group, each subject registered by its own file, loaded when it is asked for."""

from __future__ import annotations

import importlib

import rich_click as click

from service.telemetry import configure_logs

SUBJECTS: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "demo-apps"),
    "roles": ("all", "collect", "intake", "keep", "migrate", "publish", "serve", "settings"),
    "operators": ("operator",),
    "agreements": ("account", "agreement"),
    "imports": ("import",),
    "sessions": ("session",),
    "debits": ("debit", "dispute"),
    "stops": ("pause", "resume", "stops"),
    "tokens": ("token",),
    "streams": ("stream", "topics"),
    "clock": ("clock",),
    "tariffs": ("fares", "quote", "replay", "tariff"),
    "events": ("schemas", "validate"),
    "money": ("audit",),
    "lab": ("lab",),
    "simulator": ("provider-simulator",),
    "bench": ("bench",),
}
"""The commands of each `service.cli.<subject>`."""


class Farebox(click.RichGroup):
    """Knows every command's name, and loads what one needs when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in order."""
        return sorted(name for names in SUBJECTS.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its subject loaded."""
        if cmd_name not in self.commands:
            for subject, names in SUBJECTS.items():
                if cmd_name in names:
                    importlib.import_module(f"service.cli.{subject}").register(self)
        return self.commands.get(cmd_name)


@click.group(cls=Farebox, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="farebox")
def farebox() -> None:
    """Usage-metered rental billing: ride events on Kafka become explained charges and debits."""


def main() -> None:
    """Runs the command line. What libraries have to say goes to standard error: output is a command's own."""
    configure_logs("warning", "command")
    farebox()
