"""Provider keys are files of one Secret, where the accounts' settings look for them; notifications have a door."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.adapters.providers.secrets import AccountSettingsError, read_secret
from service.web.app import ROUTES
from service.web.doors import DoorSettings
from service.web.notifications import BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "base"
RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "service" / "adapters" / "providers").glob("*/README.md"))
CALLERS = ("collect", "serve")
"""The roles that call providers."""


def pod(role: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((BASE / f"{role}.yaml").read_text(encoding="utf-8"))
    (deployment,) = (item for item in documents if item["kind"] == "Deployment")
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def ingress() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "overlays" / "example" / "ingress.yaml").read_text())
    return found


@pytest.mark.parametrize("role", CALLERS)
def test_the_keys_are_mounted_whole_and_read_only_for_their_group_alone(role: str) -> None:
    specification = pod(role)
    (volume,) = (item["secret"] for item in specification["volumes"] if item["name"] == "provider-keys")
    assert volume == {"secretName": "farebox-providers", "optional": True, "defaultMode": 0o440}
    assert specification["securityContext"]["fsGroup"] == specification["securityContext"]["runAsGroup"]
    (container,) = specification["containers"]
    (mount,) = (item for item in container["volumeMounts"] if item["name"] == "provider-keys")
    assert mount == {"name": "provider-keys", "mountPath": "/secrets", "readOnly": True}  # subPath is never updated.


@pytest.mark.parametrize("role", ["intake", "publish", "keep", "migrate"])
def test_who_calls_no_provider_sees_no_key(role: str) -> None:
    assert "farebox-providers" not in (BASE / f"{role}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_pages_name_files_of_the_secret_that_the_runbook_makes(page: Path) -> None:
    named = set(re.findall(r"_file=/secrets/([\w.-]+)", page.read_text(encoding="utf-8")))
    assert named
    assert named <= set(re.findall(r"--from-file=([\w.-]+)", RUNBOOK))


def test_a_replaced_secret_is_read_where_it_stood(tmp_path: Path) -> None:
    """The kubelet writes a new folder and swaps the link to it; the path in the settings stays."""
    for name, text in (("first", "old"), ("second", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(f"{text}\n")
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "key").symlink_to("..data/key")
    settings = {"api_key_file": str(tmp_path / "key")}
    assert read_secret("acc", settings, "api_key") == "old"
    (tmp_path / "..data_tmp").symlink_to("second")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert read_secret("acc", settings, "api_key") == "new"
    (tmp_path / "second" / "key").unlink()
    with pytest.raises(AccountSettingsError) as gone:
        read_secret("acc", settings, "api_key")
    assert str(gone.value) == (
        f"merchant account acc: settings.api_key_file {tmp_path / 'key'} can't be read: No such file or directory;"
        " put the secret there, readable by farebox, or name another path"
    )


def test_only_notifications_are_public_within_the_limits_of_the_door() -> None:
    door = ingress()
    (rule,) = door["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    below = {route for handler in ROUTES for route in handler.paths if route.startswith(path["path"])}
    assert below == {"/v1/providers/{provider:str}/{account:str}/notifications"}
    assert [tls["hosts"] for tls in door["spec"]["tls"]] == [[rule["host"]]]
    limits = door["metadata"]["annotations"]
    assert limits["nginx.ingress.kubernetes.io/proxy-body-size"] == f"{BYTES_MAX // 1024}k"
    assert DoorSettings(database_url="").notification_seconds < float(
        limits["nginx.ingress.kubernetes.io/proxy-read-timeout"]
    )
