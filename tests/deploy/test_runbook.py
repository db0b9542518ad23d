"""The runbook speaks of things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import prometheus_client
import rich_click as click
import yaml

import service.telemetry
from service.cli.app import farebox
from service.settings import settings_table

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TEXT = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
METRIC_TYPES = (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)


def test_every_metric_of_the_runbook_is_measured() -> None:
    metrics = [item for item in vars(service.telemetry).values() if isinstance(item, METRIC_TYPES)]
    names = {
        sample for metric in metrics for family in metric.collect() for sample in (family.name, f"{family.name}_total")
    }
    spoken = set(re.findall(r"\bfarebox_[a-z_]+", TEXT))
    assert spoken
    assert spoken <= names


def test_every_setting_of_the_runbook_is_a_setting() -> None:
    spoken = set(re.findall(r"\bFAREBOX_[A-Z_]+", TEXT))
    assert spoken <= {name for name, _, _ in settings_table()}


def test_every_object_of_the_runbook_is_deployed() -> None:
    files = (DEPLOY / "base").glob("*.yaml")
    objects = [item for file in files for item in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    names = {item["metadata"]["name"] for item in objects if "metadata" in item}
    assert set(re.findall(r"\b(?:deployment|job)[ /](farebox-[a-z]+)", TEXT)) <= names


def test_every_link_inside_the_runbook_leads_somewhere() -> None:
    titles = re.findall(r"(?m)^#+ (.+)$", TEXT)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links
    assert links <= anchors


def test_every_metric_stands_in_the_runbook_with_its_labels_and_meaning() -> None:
    rows = set()
    for metric in (item for item in vars(service.telemetry).values() if isinstance(item, METRIC_TYPES)):
        (family,) = metric.collect()
        name = f"{family.name}_total" if isinstance(metric, prometheus_client.Counter) else family.name
        rows.add(f"| `{name}` | {', '.join(metric._labelnames)} | {family.documentation} |")
    assert rows == set(re.findall(r"(?m)^\| `farebox_.*$", TEXT))


def test_every_command_of_the_runbook_is_one_with_the_options_it_is_given() -> None:
    spoken = {line.split(" #")[0] for line in re.findall(r"(?:`|-- )(farebox [a-z-]+[^`\n]*)", TEXT)}
    assert len(spoken) > 20
    for line in spoken:
        group: click.Command = farebox
        words = line.split()[1:]
        while words and isinstance(group, click.Group):
            found = group.get_command(click.Context(group), words.pop(0))
            assert found is not None, line
            group = found
        options = {name for option in group.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
