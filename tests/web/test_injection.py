"""Whatever stands in an identifier is data: to PostgreSQL, to a page, to what is said about an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from html import escape
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
PLACES = ("/v1/sessions/{}", "/v1/sessions/{}/receipt", "/v1/debits/{}", "/v1/riders/{}", "/v1/tariffs/{}")
FILTERS = ("/v1/sessions?rider_ref={}", "/v1/sessions?cursor={}", "/v1/debits?state={}", "/v1/agreements?rider_ref={}")


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as world:
        await world.clock(30)
        yield world


async def tables(it: WebWorld) -> object:
    return await it.sql("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p')")


@pytest.mark.parametrize("text", EVIL)
async def test_no_text_in_an_address_is_anything_but_a_text(it: WebWorld, text: str) -> None:
    before = await tables(it)
    for place in (*PLACES, *FILTERS):
        answer = await it.ask("GET", place.format(quote(text, safe="")))
        found_none = answer.status == 200 and answer.body["items"] == []
        assert answer.status in (400, 404, 422) or found_none, (place, answer)
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
