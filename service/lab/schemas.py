"""`schemas/`: generated from the code and committed; here is the list of its files, written or checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from service.billing.events import EVENT_TYPES
from service.billing.facts.data import FACT_TYPES
from service.lab.asyncapi import asyncapi_document, yaml_text
from service.lab.json_schemas import event_schema, fact_schema, tariff_schema

Producer = Callable[[], str]
"""Makes the text of one generated file."""


def json_text(produce: Callable[[], Any]) -> str:
    """What `produce` gives, as the JSON text of a committed file."""
    return json.dumps(produce(), indent=2, ensure_ascii=False) + "\n"


PRODUCERS: dict[str, Producer] = {
    **{f"events/{kind}.json": partial(json_text, partial(event_schema, kind)) for kind in EVENT_TYPES},
    **{f"facts/{name}.json": partial(json_text, partial(fact_schema, name)) for name in FACT_TYPES},
    "tariff.json": partial(json_text, tariff_schema),
    "asyncapi.yaml": lambda: yaml_text(asyncapi_document()),
}
"""Every generated file by its path in `schemas/`. The command line adds those that other rooms make."""


def write_schemas(directory: Path, producers: Mapping[str, Producer]) -> list[str]:
    """Bring the directory in step and return the paths that changed; generated files that are no more are removed."""
    changed = differing(directory, producers)
    for path in changed:
        file = directory / path
        if path not in producers:
            file.unlink()
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(producers[path](), encoding="utf-8")
    return changed


def differing(directory: Path, producers: Mapping[str, Producer]) -> list[str]:
    """The paths in `directory` that are not what the code would write: changed, missing, or no longer made."""
    wrong = [path for path, produce in producers.items() if _text(directory / path) != produce()]
    stale = {
        f"{part}/{file.name}" for part in ("events", "facts") for file in (directory / part).glob("*.json")
    } - producers.keys()
    return sorted({*wrong, *stale})


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None
