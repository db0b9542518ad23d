"""What lets the roles in to PostgreSQL and Kafka: files of Secrets, where the settings and the runbook say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import read_settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RUNBOOK = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
EVERYBODY = ("collect", "intake", "keep", "migrate", "publish", "serve")
AT_KAFKA = ("intake", "publish")
"""The roles that speak to Kafka."""


def pod(role: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "base" / f"{role}.yaml").read_text(encoding="utf-8"))
    (workload,) = (item for item in documents if item["kind"] in ("Deployment", "Job"))
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found


def mounted(role: str, volume: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Secret behind a volume, and where its files are."""
    (secret,) = (item["secret"] for item in pod(role)["volumes"] if item["name"] == volume)
    (container,) = pod(role)["containers"]
    (mount,) = (item for item in container["volumeMounts"] if item["name"] == volume)
    return secret, mount


def files_of(secret: str) -> set[str]:
    """The files of a Secret that the runbook makes."""
    found = re.search(rf"(?m)^kubectl .* secret generic {secret} (.*)$", RUNBOOK)
    assert found is not None
    return set(re.findall(r"--from-file=([\w.-]+)", found[1]))


@pytest.mark.parametrize("role", EVERYBODY)
def test_every_role_has_the_ca_of_postgresql_and_nothing_else_of_its_secret(role: str) -> None:
    secret, mount = mounted(role, "database-ca")
    assert (secret["secretName"], secret["optional"]) == ("farebox-database", True)
    assert secret["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert mount == {"name": "database-ca", "mountPath": "/database", "readOnly": True}
    assert "?sslmode=verify-full&sslrootcert=/database/ca.crt\n" in RUNBOOK
    assert files_of("farebox-database") == {"url", "ca.crt"}


@pytest.mark.parametrize("role", AT_KAFKA)
def test_the_keys_for_kafka_are_read_only_for_their_group_alone(role: str) -> None:
    secret, mount = mounted(role, "kafka")
    assert secret == {"secretName": "farebox-kafka", "optional": True, "defaultMode": 0o440}
    assert mount == {"name": "kafka", "mountPath": "/kafka", "readOnly": True}
    assert pod(role)["securityContext"]["fsGroup"] == pod(role)["securityContext"]["runAsGroup"]


@pytest.mark.parametrize("role", sorted(set(EVERYBODY) - set(AT_KAFKA)))
def test_who_does_not_speak_to_kafka_has_no_key_for_it(role: str) -> None:
    assert "farebox-kafka" not in (DEPLOY / "base" / f"{role}.yaml").read_text(encoding="utf-8")


def test_the_example_goes_to_kafka_by_tls_with_the_files_of_its_secret() -> None:
    settings = yaml.safe_load((DEPLOY / "overlays" / "example" / "settings.yaml").read_text(encoding="utf-8"))["data"]
    brokers = read_settings(settings | {"FAREBOX_DATABASE_URL": "postgresql://database/farebox"}).brokers
    assert (brokers.protocol, brokers.mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert {brokers.ca_file, brokers.password_file} == {f"/kafka/{name}" for name in files_of("farebox-kafka")}


def test_a_command_that_speaks_to_kafka_is_run_where_its_keys_are() -> None:
    where = re.findall(r"exec deployment/farebox-(\w+) -- farebox (?:stream|topics)", RUNBOOK)
    assert where
    assert set(where) <= set(AT_KAFKA)
