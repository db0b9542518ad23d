"""Whatever stands in an identifier is data: to PostgreSQL, to a page, to what is said about an error."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from html import escape
from typing import Any
from urllib.parse import quote

import pytest
from ride_builders import whole
from web_world import WebWorld, web_world

EVIL = [
    "'--",
    "';DROP/**/TABLE/**/ride;--",
    "1'/**/OR/**/'1'='1",
    "$1",
    "%s%n%x",
    "{0}{session_id!r}",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/x}",
    "<script>alert(1)</script>",
    "<script>alert(1)",
    '"onmouseover="alert(1)',
    "&lt;b&gt;",
    "\\x00\\",
    "../../etc/passwd",
    "\u202egpj.exe",
]
HEADERS = ("Accept", "Accept-Language", "If-None-Match", "Idempotency-Key", "traceparent", "X-Forwarded-For")
DEPTH = 6


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as world:
        await world.clock(30)
        yield world


async def tables(it: WebWorld) -> object:
    return await it.sql("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p')")


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every operation that the document has: method, path, and what it says of it."""
    for path, held in document["paths"].items():
        for method, told in held.items():
            if method in ("get", "post", "put", "patch", "delete"):
                yield method.upper(), path, told


def filled(document: Any, schema: Any, text: str, depth: int = 0) -> Any:
    """A value as the schema wants it, each free text of it `text`."""
    if "$ref" in schema:
        found = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return filled(document, found, text, depth + 1)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return filled(document, schema[several][0], text, depth + 1)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object" if depth < DEPTH:
            return {name: filled(document, one, text, depth + 1) for name, one in schema.get("properties", {}).items()}
        case "array" if depth < DEPTH:
            return [filled(document, schema.get("items", {}), text, depth + 1)]
        case "string":
            return "2026-11-22T10:00:00+08:00" if schema.get("format") == "date-time" else text
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return text


def asked(document: Any, path: str, told: Any, text: str) -> tuple[str, Any]:
    """The address and the body of a request to an operation, with the text wherever there is room for one."""
    query = [one["name"] for one in told.get("parameters", ()) if one["in"] == "query" and one["name"] != "limit"]
    address = re.sub(r"\{[^}]+\}", lambda _: quote(text, safe=""), path)
    address += "".join(f"{'?&'[place > 0]}{name}={quote(text, safe='')}" for place, name in enumerate(query))
    body = next(iter(told.get("requestBody", {}).get("content", {}).values()), None)
    return address, None if body is None else filled(document, body.get("schema", {}), text)


@pytest.mark.parametrize("text", EVIL)
async def test_no_text_in_a_request_is_anything_but_a_text(it: WebWorld, text: str) -> None:
    """Every operation of the document that is served: in its path, its query, its headers and its body."""
    before, document, count = await tables(it), await it.get("/schema/openapi.json"), 0
    headers = dict.fromkeys(HEADERS, text) if text.isascii() else {}
    for method, path, told in operations(document):
        address, body = asked(document, path, told, text)
        for named in ({}, headers):
            answer = await it.ask(method, address, body, key=named.get("Idempotency-Key"), headers=named)
            assert answer.status < 500, (method, address, answer)
            kind = answer.headers.get("content-type", "")
            assert "html" not in kind or "<script" not in str(answer.body), (method, address)
            assert not {"x-evil", "set-cookie"} & answer.headers.keys()
            count += 1
    assert count >= 2 * 39
    assert await tables(it) == before


@pytest.mark.parametrize("text", [text for text in EVIL if "/" not in text])  # An address has no place for a slash.
async def test_a_ride_of_any_name_is_found_by_it_and_shown_as_it_is(it: WebWorld, text: str) -> None:
    await it.take(*whole(text, agreement_id="agr-1"))
    found = await it.get(f"/v1/sessions/{quote(text, safe='')}")
    assert found["session_id"] == text
    page = await it.ask("GET", f"/v1/sessions/{quote(text, safe='')}/receipt", headers={"Accept": "text/html"})
    assert page.status == 200
    shown = page.body.decode()
    assert "<script" not in shown
    assert ' onmouseover="' not in shown and '"onmouseover="' not in shown
    assert escape(text) in shown
