"""Requests made from the OpenAPI document that is served, over a socket, to real servers: every answer is as it says.

schemathesis makes requests that fit the document and ones that don't, and holds each answer against it with every check
that it has. FAREBOX_FUZZ_TIMES=20 makes so many times more of them (`make fuzz`).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from ride_builders import whole
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from web_world import ALL, WebWorld, web_world

TIMES = int(os.environ.get("FAREBOX_FUZZ_TIMES", "1"))
KNOWN = {
    "session_id": "ride-1",
    "agreement_id": "agr-1",
    "rider_ref": "anna",
    "tariff_id": "bike",
    "provider": "sandbox",
    "account": "default.acc-default",
    "quarantine_id": 1,
}
"""What is there, by the name of the parameter that asks for it."""
LEFT_OUT = {
    "positive_data_acceptance": "what fits the document may still name no rider, ride or tariff that is there",
}
"""Checks that are off: why."""
FITTING, OTHERS = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
SCOPES = {"nobody": None, "status": "status:read", "billing": "billing:write", "ops": "ops", "rider": "anna"}


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as world:
        await world.clock(30)
        await world.take(*whole("ride-1", agreement_id="agr-1"))
        await world.collect()
        yield world


@pytest.fixture(scope="module")
async def document(it: WebWorld) -> dict[str, Any]:
    """As it is served."""
    told: dict[str, Any] = await it.get("/schema/openapi.json")
    return told


def checks() -> list[Any]:
    """Every check, but those that are off for a reason."""
    load_all_checks()
    found = {check.__name__: check for check in CHECKS.get_all() if hasattr(check, "__name__")}
    assert set(LEFT_OUT) <= set(found)
    return [found[name] for name in sorted(set(found) - set(LEFT_OUT))]


def knock(operation: Any, url: str, token: str | None, mode: GenerationMode, examples: int, known: Any) -> Counter[int]:
    """So many requests to one operation; returns how often each status was answered."""
    statuses: Counter[int] = Counter()
    session, every = requests.Session(), checks()
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    @settings(
        max_examples=examples * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=known or None))
    def asked(case: Any) -> None:
        response = case.call(base_url=url, session=session, headers=headers)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=every, headers=headers)

    with suppress(Unsatisfiable):  # An operation that asks for nothing can't be asked wrongly.
        asked()
    return statuses


async def asked(
    it: WebWorld, document: dict[str, Any], token: str | None, examples: int, *, whole: bool
) -> Counter[int]:
    """Every operation with ids of what is there; `whole`: also with other ids, and by requests that don't fit.

    Most of what an operation costs is to prepare its requests, whatever their number: who may do less is asked about
    what is there alone, in `make test`.
    """
    schema = schemathesis.openapi.from_dict(document)
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        held = {item.name: KNOWN[item.name] for item in operation.path_parameters if item.name in KNOWN}
        tries = [(FITTING, held), *([(OTHERS, held)] if whole else []), *([(FITTING, {})] if whole and held else [])]
        for mode, known in tries:
            ask = partial(knock, operation, it.url, token, mode, examples, known)
            try:
                statuses += await asyncio.to_thread(ask)
            except BaseExceptionGroup as error:
                said = "; ".join(" ".join(str(one).split()) for one in error.exceptions)
                wrong.append(
                    f"{operation.method} {operation.path} ({mode.value}): {said} {getattr(error, '__notes__', '')}"
                )
    assert not wrong, "\n".join(wrong)
    return statuses


async def test_whoever_may_do_everything_gets_what_the_document_says(it: WebWorld, document: dict[str, Any]) -> None:
    statuses = await asked(it, document, ALL, 6, whole=True)
    assert not [status for status in statuses if status >= 500], statuses
    assert {200, 404, 422} <= set(statuses), statuses


@pytest.mark.parametrize("who", SCOPES)
async def test_whoever_may_do_less_gets_what_the_document_says(it: WebWorld, document: Any, who: str) -> None:
    statuses = await asked(it, document, SCOPES[who], 1, whole=TIMES > 1)
    assert not [status for status in statuses if status >= 500], statuses
    assert (401 if who == "nobody" else 403) in statuses, statuses
