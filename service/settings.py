"""Every knob, from the environment, read once. The table of the README is made from this one (`farebox settings`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from service.adapters.kafka_access import Brokers, SaslMechanism, SecurityProtocol
from service.billing.instants import InstantError, read_instant
from service.billing.zones import UnknownZoneError, zone_named

PREFIX = "FAREBOX_"
BROKER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]]+):0*([1-9][0-9]{0,4})")
"""`host:port` or `[::1]:port`. Kafka's library would fill in a port, and ask there."""
PORT_MAX = 65535
LIKENESS = 0.9
"""How like a setting's name another one must be, of 1, to be taken for a slip of the pen."""


class SettingsError(ValueError):
    """A setting is missing or wrong; the message has its name, its value and what is allowed."""


def _knob(text: str, **limits: Any) -> Meta:
    return Meta(description=text, **limits)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a process. Each is `FAREBOX_<NAME>` in the environment."""

    database_url: Annotated[str, _knob("PostgreSQL ≥ 17, `postgresql://user:password@host:port/name`")]
    kafka_bootstrap: Annotated[str, _knob("Kafka's first brokers, `host:port,host:port`")]
    environment: Annotated[
        Literal["sandbox", "production"],
        _knob("what is allowed: a virtual clock and the sandbox provider in `sandbox` alone"),
    ] = "sandbox"
    kafka_security_protocol: Annotated[
        SecurityProtocol, _knob("how Kafka is spoken to: `SSL` and `SASL_SSL` are encrypted, `SASL_…` name a user")
    ] = "PLAINTEXT"
    kafka_ca_file: Annotated[str, _knob("PEM of the CA that signed the brokers' certificates; none: the system's")] = ""
    kafka_cert_file: Annotated[str, _knob("PEM of our own certificate, where Kafka asks for one")] = ""
    kafka_key_file: Annotated[str, _knob("PEM of its key, without a passphrase")] = ""
    kafka_sasl_mechanism: Annotated[SaslMechanism, _knob("how the user is proven, with `SASL_…`")] = "SCRAM-SHA-512"
    kafka_user: Annotated[str, _knob("the user, with `SASL_…`")] = ""
    kafka_password: Annotated[str, _knob("the user's password; rather in a file")] = ""
    kafka_password_file: Annotated[str, _knob("a file with the user's password, read at each connection's making")] = ""
    topic_sessions: Annotated[str, _knob("the topic ride events come from, one for an installation")] = (
        "rental.sessions"
    )
    topic_billing: Annotated[str, _knob("the topic facts go to")] = "rental.billing"
    topic_quarantine: Annotated[str, _knob("the topic unusable records go to")] = "rental.sessions.quarantine"
    group: Annotated[str, _knob("the consumer group of the intake")] = "farebox"
    start_from: Annotated[
        str, _knob("where a partition that was never read begins: `earliest`, or an RFC 3339 instant")
    ] = "earliest"
    currency: Annotated[str, _knob("the default operator's currency, at the first `migrate`", pattern="^[A-Z]{3}$")] = (
        "CNY"
    )
    time_zone: Annotated[str, _knob("the default operator's time zone, at the first `migrate`")] = "Asia/Shanghai"
    http_host: Annotated[str, _knob("the address `serve` listens on")] = "127.0.0.1"
    http_port: Annotated[int, _knob("the port of `serve`", ge=1, le=65535)] = 8080
    http_workers: Annotated[int, _knob("processes of `serve`", ge=1, le=64)] = 1
    http_leave_seconds: Annotated[
        float,
        _knob(
            "how long `serve`, told to stop, goes on answering, not ready, so that clients leave",
            ge=0,
            le=15,
        ),
    ] = 0.0
    http_token_rate: Annotated[
        float, _knob("requests a second with one operator's token, in each process of `serve`; 0: any number", ge=0)
    ] = 1000.0
    http_rider_rate: Annotated[float, _knob("the same with one rider's token", ge=0)] = 10.0
    health_host: Annotated[str, _knob("the address of probes and metrics of every other role")] = "127.0.0.1"
    health_port: Annotated[
        int, _knob("the port of probes and metrics of every other role; 0: none", ge=0, le=65535)
    ] = 0
    records_max: Annotated[int, _knob("records in one batch of the intake", ge=1, le=100_000)] = 5_000
    rides_cached: Annotated[int, _knob("open rides an intake process remembers", ge=0, le=10_000_000)] = 100_000
    session_timeout_ms: Annotated[
        int, _knob("after this long without a heartbeat an intake process loses its partitions", ge=1000)
    ] = 45_000
    rebalance_timeout_ms: Annotated[int, _knob("how long a rebalance waits for a member", ge=1000)] = 60_000
    stall_seconds: Annotated[
        float, _knob("behind, nothing committed for so long, and both servers answer: the process exits", gt=0)
    ] = 120.0
    collect_concurrency: Annotated[int, _knob("calls under way per merchant account", ge=1, le=1000)] = 32
    tariff_lead_seconds: Annotated[
        float, _knob("a new tariff version must begin at least so far ahead of now", ge=0)
    ] = 60.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _knob("what is logged, as JSON lines")] = "info"

    def __repr__(self) -> str:
        """Without the passwords."""
        return f"Settings(environment={self.environment!r}, kafka={self.brokers!r})"

    @property
    def sandbox(self) -> bool:
        """Whether money that is none, and a virtual clock, are allowed."""
        return self.environment == "sandbox"

    @property
    def brokers(self) -> Brokers:
        """Kafka, and how to get in."""
        return Brokers(
            self.kafka_bootstrap,
            self.kafka_security_protocol,
            self.kafka_ca_file,
            self.kafka_cert_file,
            self.kafka_key_file,
            self.kafka_sasl_mechanism,
            self.kafka_user,
            self.kafka_password,
            self.kafka_password_file,
        )


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings of this environment; raises SettingsError for the first that is missing or wrong."""
    known = {PREFIX + name.upper(): name for name in Settings.__struct_fields__}
    hints = get_type_hints(Settings, include_extras=True)
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if variable in known and text != "":
            values[known[variable]] = _convert(variable, text, hints[known[variable]])
        elif variable.startswith(PREFIX) and variable not in known:
            meant = get_close_matches(variable, known, 1, LIKENESS)
            if meant:
                shown = variable if variable.isprintable() else ascii(variable)
                raise SettingsError(f"{shown} is no setting; did you mean {meant[0]}?")
    for required in ("database_url", "kafka_bootstrap"):
        if required not in values:
            raise SettingsError(
                f"{PREFIX}{required.upper()} is not set: {_describe(hints[required])}. `farebox lab` starts both"
                " servers and prints the two variables"
            )
    settings = Settings(**values)
    _check(settings)
    return settings


def settings_table() -> list[tuple[str, str, str]]:
    """(variable, what it means, its default) of every setting, in order."""
    hints = get_type_hints(Settings, include_extras=True)
    required = len(Settings.__struct_fields__) - len(Settings.__struct_defaults__)
    defaults = ["required"] * required + [str(default) or "none" for default in Settings.__struct_defaults__]
    return [
        (PREFIX + name.upper(), _describe(hints[name]), default)
        for name, default in zip(Settings.__struct_fields__, defaults, strict=True)
    ]


def _convert(variable: str, text: str, hint: Any) -> Any:
    try:
        return msgspec.convert(text, hint, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):  # Bytes that are no UTF-8 come as lone surrogates.
        raise SettingsError(f"{variable} is {text!r}: allowed is {_allowed(hint)}; it is {_describe(hint)}") from None


def _describe(hint: Any) -> str:
    return str(next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta)))


def _allowed(hint: Any) -> str:
    """What a knob may be, in words."""
    kind = hint.__origin__
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    limits = next(meta for meta in hint.__metadata__ if isinstance(meta, Meta))
    words = {int: "a whole number", float: "a number"}.get(kind, "text")
    if limits.pattern:
        words += f" like {limits.pattern}"
    if limits.ge is not None or limits.gt is not None:
        words += f" from {limits.ge}" if limits.ge is not None else f" above {limits.gt}"
    return words + (f" to {limits.le}" if limits.le is not None else "")


def _check(settings: Settings) -> None:
    if not settings.database_url.startswith(("postgresql://", "postgres://")) or not _is_address(settings.database_url):
        raise SettingsError("FAREBOX_DATABASE_URL must begin with postgresql://, as postgresql://user@host:5432/name")
    _check_kafka(settings.brokers)
    try:
        zone_named(settings.time_zone)
    except UnknownZoneError as error:
        raise SettingsError(f"FAREBOX_TIME_ZONE is {settings.time_zone!r}: {error}") from None
    if settings.start_from != "earliest":
        try:
            read_instant(settings.start_from)
        except InstantError as error:
            raise SettingsError(
                f"FAREBOX_START_FROM is {settings.start_from!r}: allowed are `earliest` and an instant; this is {error}"
            ) from None


def _is_address(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:  # Half of the brackets of an IPv6 address, and the like.
        return False
    return True


def _check_kafka(brokers: Brokers) -> None:
    """What is set and not used would be taken for a protection that is not there."""
    for address in brokers.bootstrap.split(","):
        named = BROKER.fullmatch(address.strip())
        if named is None or int(named[1]) > PORT_MAX:
            raise SettingsError(
                f"FAREBOX_KAFKA_BOOTSTRAP is {brokers.bootstrap!r}: {address.strip()!r} is no host:port; several are"
                " separated by commas"
            )
    protocol = f"FAREBOX_KAFKA_SECURITY_PROTOCOL is {brokers.protocol}"
    given = {name: bool(getattr(brokers, name)) for name in ("ca_file", "cert_file", "key_file")}
    if not brokers.tls and any(given.values()):
        name = next(name for name, there in given.items() if there)
        raise SettingsError(f"FAREBOX_KAFKA_{name.upper()} is set, and {protocol}: allowed are SSL and SASL_SSL")
    if given["key_file"] and not given["cert_file"]:
        raise SettingsError("FAREBOX_KAFKA_KEY_FILE is set without FAREBOX_KAFKA_CERT_FILE: both, or none")
    if brokers.password and brokers.password_file:
        raise SettingsError("FAREBOX_KAFKA_PASSWORD and FAREBOX_KAFKA_PASSWORD_FILE are both set: one of them")
    secret = bool(brokers.password or brokers.password_file)
    if brokers.sasl and not (brokers.user and secret):
        raise SettingsError(f"{protocol}: it needs FAREBOX_KAFKA_USER, and FAREBOX_KAFKA_PASSWORD_FILE or its PASSWORD")
    if not brokers.sasl and (brokers.user or secret):
        raise SettingsError(f"FAREBOX_KAFKA_USER or its password is set, and {protocol}: allowed is SASL_SSL")
