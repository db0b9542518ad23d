"""The manifests: rendered, valid to the last field, and safe to run.

`RENDERED=file` checks what a real kustomize rendered instead of our own loader's result (`make kubernetes-check`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import read_settings, settings_table

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE = DEPLOY / "base"
EXAMPLE = DEPLOY / "overlays" / "example"
VERSIONS = ("1.30", "1.37")
"""The oldest Kubernetes that knows every field, and the newest whose schemas we hold."""
ROLES = ("collect", "intake", "keep", "publish", "serve")
DRAIN_SECONDS_MAX = 30
"""The longest drain of a role (intake.md)."""
GROUP = "app.kubernetes.io"

Manifest = dict[str, Any]


def documents(file: Path) -> list[Manifest]:
    return [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item]


def render(folder: Path) -> list[Manifest]:
    """What kustomize makes of the folder; a field of a kustomization that this does not know is an error."""
    (plan,) = documents(folder / "kustomization.yaml")
    unknown = set(plan) - {"apiVersion", "kind", "namespace", "resources", "images", "replicas", "patches"}
    assert not unknown, f"{folder}: the loader does not render {sorted(unknown)}"
    found: list[Manifest] = []
    for name in plan["resources"]:
        found += render(folder / name) if (folder / name).is_dir() else documents(folder / name)
    for patch in plan.get("patches", ()):
        for change in documents(folder / patch["path"]):
            merge(one(found, change["kind"], change["metadata"]["name"]), change)
    for size in plan.get("replicas", ()):
        one(found, "Deployment", size["name"])["spec"]["replicas"] = size["count"]
    for image in plan.get("images", ()):
        for container in containers(found):
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
    if "namespace" in plan:
        for item in found:
            if item["kind"] != "Namespace":
                item["metadata"]["namespace"] = plan["namespace"]
    return found


def merge(target: Manifest, change: Manifest) -> None:
    """A strategic merge of maps; a list in a patch is refused, its merge would need the schema."""
    for key, value in change.items():
        assert not isinstance(value, list), f"the loader does not merge lists ({key})"
        if isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def one(found: list[Manifest], kind: str, name: str) -> Manifest:
    (match,) = (item for item in found if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return match


def of_kind(found: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {item["metadata"]["name"]: item for item in found if item["kind"] == kind}


def pod(workload: Manifest) -> Manifest:
    specification: Manifest = workload["spec"]["template"]["spec"]
    return specification


def workloads(found: list[Manifest]) -> list[Manifest]:
    return [item for item in found if "template" in item.get("spec", {})]


def containers(found: list[Manifest]) -> Iterator[Manifest]:
    for workload in workloads(found):
        yield from pod(workload)["containers"]


def rendered(source: str) -> list[Manifest]:
    return documents(Path(os.environ["RENDERED"])) if source == "kustomize" else render(DEPLOY / source)


SOURCES = ["base", "overlays/example"] if "RENDERED" not in os.environ else ["base", "kustomize"]


@pytest.fixture(scope="module", params=SOURCES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


@pytest.fixture
def deployments(manifests: list[Manifest]) -> dict[str, Manifest]:
    found = {name.removeprefix("farebox-"): item for name, item in of_kind(manifests, "Deployment").items()}
    assert sorted(found) == sorted(ROLES)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_is_valid_to_the_last_field(manifests: list[Manifest], version: str) -> None:
    for item in manifests:
        kubernetes_validate.validate(item, version, strict=True)


def test_an_unknown_kind_and_an_unknown_field_are_refused() -> None:
    service = copy.deepcopy(of_kind(render(BASE), "Service")["farebox-serve"])
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(service | {"kind": "Servise"}, VERSIONS[0], strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service | {"sepc": {}}, VERSIONS[0], strict=True)


def test_every_file_of_a_folder_is_in_its_kustomization() -> None:
    for folder in (BASE, EXAMPLE):
        (plan,) = documents(folder / "kustomization.yaml")
        listed = {*plan["resources"], *(patch["path"] for patch in plan.get("patches", ()))}
        assert {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"} <= listed


def test_no_resource_is_there_twice_and_each_says_whose_it_is(manifests: list[Manifest]) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in manifests]
    assert len(names) == len(set(names))
    assert all(
        item["metadata"]["labels"][f"{GROUP}/name"] == "farebox" for item in manifests if item["kind"] != "Namespace"
    )


def test_each_role_runs_its_own_command_and_migrate_is_a_job(
    deployments: dict[str, Manifest], manifests: list[Manifest]
) -> None:
    for role, deployment in deployments.items():
        assert [container["args"] for container in pod(deployment)["containers"]] == [[role]]
    (migrate,) = pod(of_kind(manifests, "Job")["farebox-migrate"])["containers"]
    assert migrate["args"] == ["migrate"]


def test_selectors_match_their_own_pods_and_no_others(deployments: dict[str, Manifest]) -> None:
    for role, deployment in deployments.items():
        labels = {f"{GROUP}/name": "farebox", f"{GROUP}/component": role}
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        for spread in pod(deployment).get("topologySpreadConstraints", ()):
            assert spread["labelSelector"]["matchLabels"] == labels


def test_every_deployment_has_a_disruption_budget_that_lets_a_node_be_drained(
    deployments: dict[str, Manifest], manifests: list[Manifest]
) -> None:
    budgets = of_kind(manifests, "PodDisruptionBudget")
    for deployment in deployments.values():
        budget = budgets[deployment["metadata"]["name"]]["spec"]
        assert budget["selector"] == deployment["spec"]["selector"]
        assert budget["maxUnavailable"] == 1


def test_probes_ask_the_port_the_role_listens_on(deployments: dict[str, Manifest], manifests: list[Manifest]) -> None:
    data = of_kind(manifests, "ConfigMap")["farebox-settings"]["data"]
    for role, deployment in deployments.items():
        name, setting = ("http", "FAREBOX_HTTP_PORT") if role == "serve" else ("health", "FAREBOX_HEALTH_PORT")
        (container,) = pod(deployment)["containers"]
        assert [port["containerPort"] for port in container["ports"] if port["name"] == name] == [int(data[setting])]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": name}


def test_every_variable_is_a_setting_with_an_allowed_value(manifests: list[Manifest]) -> None:
    data = of_kind(manifests, "ConfigMap")["farebox-settings"]["data"]
    known = {name for name, _, _ in settings_table()}
    assert set(data) <= known
    for container in containers(manifests):
        secret = {item["name"] for item in container["env"]}
        assert secret <= known
        assert container["envFrom"] == [{"configMapRef": {"name": "farebox-settings"}}]
    settings = read_settings({**data, "FAREBOX_DATABASE_URL": "postgresql://database/farebox"})
    assert settings.environment == "production"
    assert settings.http_host == settings.health_host == "0.0.0.0"  # noqa: S104  A pod's own address.


def test_metrics_are_scraped_where_they_are_served(deployments: dict[str, Manifest]) -> None:
    for deployment in deployments.values():
        (container,) = pod(deployment)["containers"]
        notes = deployment["spec"]["template"]["metadata"]["annotations"]
        assert notes["prometheus.io/scrape"] == "true"
        assert notes["prometheus.io/port"] == str(container["ports"][0]["containerPort"])


def test_every_pod_has_longer_to_stop_than_it_takes_to_drain(deployments: dict[str, Manifest]) -> None:
    for deployment in deployments.values():
        (container,) = pod(deployment)["containers"]
        assert "lifecycle" not in container
        assert pod(deployment)["terminationGracePeriodSeconds"] >= DRAIN_SECONDS_MAX + 10


def test_the_doors_answer_for_a_while_after_they_were_told_to_stop(manifests: list[Manifest]) -> None:
    """Kubernetes takes a pod out of its service's endpoints while it tells it to stop, not before."""
    data = of_kind(manifests, "ConfigMap")["farebox-settings"]["data"]
    assert 5 <= float(data["FAREBOX_HTTP_LEAVE_SECONDS"]) < DRAIN_SECONDS_MAX


def test_one_of_a_kind_is_replaced_and_the_others_never_become_fewer(deployments: dict[str, Manifest]) -> None:
    for role, deployment in deployments.items():
        strategy = deployment["spec"]["strategy"]
        if role in ("publish", "keep"):
            assert (deployment["spec"]["replicas"], strategy["type"]) == (1, "Recreate")
        else:
            assert deployment["spec"]["replicas"] >= 2
            assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_every_container_asks_for_what_it_needs_and_is_held_to_its_memory(manifests: list[Manifest]) -> None:
    for container in containers(manifests):
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}  # A throttled CPU looks like a stall.


def test_no_container_is_root_writes_its_image_or_gains_rights(manifests: list[Manifest]) -> None:
    for workload in workloads(manifests):
        security = pod(workload)["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod(workload)["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_no_pod_can_speak_to_the_kubernetes_api(manifests: list[Manifest]) -> None:
    accounts = of_kind(manifests, "ServiceAccount")
    for workload in workloads(manifests):
        assert pod(workload)["automountServiceAccountToken"] is False
        assert accounts[pod(workload)["serviceAccountName"]]["automountServiceAccountToken"] is False


def test_secrets_are_named_and_never_there(manifests: list[Manifest]) -> None:
    assert not of_kind(manifests, "Secret")
    for container in containers(manifests):
        by_name = {item["name"]: item for item in container["env"]}
        assert by_name["FAREBOX_DATABASE_URL"]["valueFrom"]["secretKeyRef"] == {
            "name": "farebox-database",
            "key": "url",
        }
    settings = of_kind(manifests, "ConfigMap")["farebox-settings"]["data"]
    assert not any("URL" in name or "SECRET" in name or "KEY" in name for name in settings)


def test_kubernetes_adds_no_variables_of_its_own(manifests: list[Manifest]) -> None:
    assert all(pod(workload)["enableServiceLinks"] is False for workload in workloads(manifests))


def test_the_service_finds_the_doors(manifests: list[Manifest], deployments: dict[str, Manifest]) -> None:
    service = of_kind(manifests, "Service")["farebox-serve"]["spec"]
    assert service["selector"] == deployments["serve"]["spec"]["selector"]["matchLabels"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


def test_only_the_doors_are_open_to_everybody(manifests: list[Manifest]) -> None:
    for policy in of_kind(manifests, "NetworkPolicy").values():
        for rule in policy["spec"].get("ingress", ()):
            chosen = policy["spec"]["podSelector"]["matchLabels"].get(f"{GROUP}/component")
            assert "from" in rule or chosen == "serve"


def test_every_image_is_tagged_and_none_is_latest(manifests: list[Manifest]) -> None:
    for container in containers(manifests):
        assert container["image"].partition(":")[2] not in ("", "latest")


if "RENDERED" in os.environ:

    def test_our_loader_renders_what_kustomize_renders() -> None:
        def ordered(found: list[Manifest]) -> list[Manifest]:
            return sorted(found, key=lambda item: (item["kind"], item["metadata"]["name"]))

        assert ordered(rendered("kustomize")) == ordered(render(EXAMPLE))
