"""Settings: read once, and a wrong one says its name, its value and what is allowed."""

from __future__ import annotations

import pytest

from service.settings import Settings, SettingsError, read_settings, settings_table

GIVEN = {"FAREBOX_DATABASE_URL": "postgresql://u@127.0.0.1/f", "FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:9092"}


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("FAREBOX_HTTP_PORT", "abc", "a whole number from 1 to 65535"),
        ("FAREBOX_HTTP_PORT", "70000", "a whole number from 1 to 65535"),
        ("FAREBOX_STALL_SECONDS", "0", "a number above 0"),
        ("FAREBOX_ENVIRONMENT", "staging", "one of sandbox, production"),
        ("FAREBOX_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("FAREBOX_CURRENCY", "yuan", "text like ^[A-Z]{3}$"),
        ("FAREBOX_TIME_ZONE", "Asia/Shangai", "no name of the tz database; did you mean Asia/Shanghai?"),
        ("FAREBOX_TIME_ZONE", "CST", "no name of the tz database; give one such as Asia/Shanghai"),
        ("FAREBOX_TIME_ZONE", "Mars/Olympus", "no name of the tz database; give one such as Asia/Shanghai"),
        ("FAREBOX_TIME_ZONE", "../etc/passwd", "no name of the tz database"),
        ("FAREBOX_START_FROM", "2026-11-01T00:00:00", "without its offset"),
        ("FAREBOX_START_FROM", "yesterday", "give RFC 3339"),
        ("FAREBOX_DATABASE_URL", "mysql://u@h/f", "must begin with postgresql://"),
        ("FAREBOX_DATABASE_URL", "postgresql://u@[::1/f", "must begin with postgresql://"),
        ("FAREBOX_KAFKA_SECURITY_PROTOCOL", "TLS", "one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("FAREBOX_KAFKA_SASL_MECHANISM", "GSSAPI", "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ("FAREBOX_KAFKA_BOOTSTRAP", "kafka-1:9092,kafka-2", "'kafka-2' is no host:port"),
        ("FAREBOX_KAFKA_BOOTSTRAP", "kafka-1:9092,", "'' is no host:port"),
        ("FAREBOX_KAFKA_BOOTSTRAP", "kafka-1:65536", "'kafka-1:65536' is no host:port"),
        ("FAREBOX_KAFKA_BOOTSTRAP", "::1", "'::1' is no host:port"),
        ("FAREBOX_KAFKA_BOOTSTRAP", "PLAINTEXT://kafka-1:9092", "'PLAINTEXT://kafka-1:9092' is no host:port"),
        ("FAREBOX_KAFKA_CA_FILE", "/kafka/ca.crt", "allowed are SSL and SASL_SSL"),
        ("FAREBOX_KAFKA_KEY_FILE", "/kafka/tls.key", "allowed are SSL and SASL_SSL"),
        ("FAREBOX_KAFKA_USER", "farebox", "allowed is SASL_SSL"),
    ],
)
def test_a_wrong_setting_says_its_name_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(GIVEN | {variable: value})
    said = str(refused.value)
    assert variable in said
    assert allowed in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "it needs FAREBOX_KAFKA_USER, and FAREBOX_KAFKA_PASSWORD_FILE"),
        (
            {"SECURITY_PROTOCOL": "SASL_SSL", "USER": "u"},
            "it needs FAREBOX_KAFKA_USER, and FAREBOX_KAFKA_PASSWORD_FILE",
        ),
        (
            {"SECURITY_PROTOCOL": "SSL", "KEY_FILE": "k"},
            "FAREBOX_KAFKA_KEY_FILE is set without FAREBOX_KAFKA_CERT_FILE",
        ),
        ({"PASSWORD": "p", "PASSWORD_FILE": "f"}, "are both set: one of them"),
        ({"PASSWORD_FILE": "f"}, "FAREBOX_KAFKA_SECURITY_PROTOCOL is PLAINTEXT"),
    ],
)
def test_settings_of_kafka_that_contradict_each_other_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_settings(GIVEN | {f"FAREBOX_KAFKA_{name}": text for name, text in given.items()})


def test_no_password_is_shown_by_what_holds_it() -> None:
    secret = {
        "FAREBOX_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "FAREBOX_KAFKA_USER": "u",
        "FAREBOX_KAFKA_PASSWORD": "pssst",
    }
    settings = read_settings(
        {"FAREBOX_DATABASE_URL": "postgresql://u:pssst@h/f", "FAREBOX_KAFKA_BOOTSTRAP": "k:1"} | secret
    )
    assert "pssst" not in f"{settings!r} {settings} {settings.brokers!r} {settings.brokers}"


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_a_missing_address_says_how_to_get_one(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"{missing} is not set.*farebox lab"):
        read_settings({name: value for name, value in GIVEN.items() if name != missing})


@pytest.mark.parametrize("slip", ["FAREBOX_HTTP_PROT", "FAREBOX_DATABSE_URL", "FAREBOX_TIMEZONE"])
def test_a_misspelt_setting_is_not_passed_over(slip: str) -> None:
    with pytest.raises(SettingsError, match=f"{slip} is no setting; did you mean FAREBOX_"):
        read_settings(GIVEN | {slip: "x"})


def test_what_is_empty_or_not_ours_is_left_out() -> None:
    settings = read_settings(GIVEN | {"FAREBOX_HTTP_PORT": "", "FAREBOX_DEMO_TOKEN": "x", "PATH": "/bin"})
    assert settings == Settings(
        database_url=GIVEN["FAREBOX_DATABASE_URL"], kafka_bootstrap=GIVEN["FAREBOX_KAFKA_BOOTSTRAP"]
    )


def test_every_setting_has_a_meaning_and_a_default() -> None:
    table = settings_table()
    assert [variable for variable, _, _ in table][:2] == ["FAREBOX_DATABASE_URL", "FAREBOX_KAFKA_BOOTSTRAP"]
    assert [default for _, _, default in table][:3] == ["required", "required", "sandbox"]
    assert all(meaning for _, meaning, _ in table)
    assert len(table) == len(Settings.__struct_fields__)


@pytest.mark.parametrize("bootstrap", ["kafka-1:9092", "kafka_1.kafka.svc:9092, 10.0.0.7:19092", "[::1]:9092"])
def test_a_broker_is_a_host_and_a_port(bootstrap: str) -> None:
    assert read_settings(GIVEN | {"FAREBOX_KAFKA_BOOTSTRAP": bootstrap}).brokers.bootstrap == bootstrap
