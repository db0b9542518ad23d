"""`Idempotency-Key`: the same write twice is done once and answered the same.

What is kept is the answer of a write that was done. A write that was refused did nothing, and its key is free again; so
is that of an answer that says "not yet".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, TypeVar, cast

import msgspec
from litestar import Response
from litestar.params import HeaderParameter

from service.adapters.postgres import UNAVAILABLE
from service.adapters.postgres.doors import AnswerStore, KeptAnswer
from service.web.access import access_of
from service.web.answers import Asked, answer
from service.web.doors import Doors, doors_of
from service.web.left_writes import DIED_AFTER, Write
from service.web.problems import FieldProblem, ProblemError

T = TypeVar("T")
HEADER = "header:Idempotency-Key"

_KEY = HeaderParameter(
    name="Idempotency-Key",
    min_length=1,
    max_length=128,
    pattern="^[!-~]+$",
    description="The caller's own key of this write: the same key and content again gets the same answer.",
)
Key = Annotated[str, _KEY]
OptionalKey = Annotated[str | None, _KEY]


def _always(_told: Any) -> bool:
    return True


async def once(
    request: Asked,
    route: str,
    key: str | None,
    content: Any,
    work: Callable[[], Awaitable[tuple[int, T]]],
    *,
    final: Callable[[T], bool] = _always,
) -> Response[T]:
    """Does the work unless it was done under this key, and answers the status and content that it came to.

    `content` is all that the write says, its path included: the same key with other content is refused (422); while
    another request works on it, 409. `work` must be safe to do again: a process may die before the answer is kept. An
    answer that is not `final` is not kept: the same key again asks how it stands then.
    """
    if key is None:
        status, told = await work()
        return answer(request, told, status=status)
    doors, operator_no = doors_of(request), access_of(request).operator_no
    digest = blake2b(msgspec.json.encode(content, order="deterministic"), digest_size=16).digest()
    write, begun_at = (operator_no, route, key), doors.machine()
    try:
        kept = await _claim(doors, write, digest, begun_at)
    except UNAVAILABLE:
        doors.left_writes.add(write, begun_at)  # The claim may stand all the same.
        raise
    if kept is not None:
        headers = {"Cache-Control": "no-store", "Idempotency-Replayed": "true"}
        again = Response(kept.body, status_code=kept.status, media_type="application/json", headers=headers)
        return cast(Response[T], again)
    done = False
    try:
        status, told = await work()
        response = answer(request, told, status=status)
        if not final(told):
            return response
        async with doors.working.reading(AnswerStore) as store:
            await store.keep(*write, status, cast(bytes, response.content))
        done = True
        return response
    finally:
        if not done:
            try:
                async with doors.working.reading(AnswerStore) as store:
                    await store.drop(*write)
            except UNAVAILABLE:
                doors.left_writes.add(write, begun_at)


async def _claim(doors: Doors, write: Write, digest: bytes, now: datetime) -> KeptAnswer | None:
    """The kept answer, or None once the write is the caller's to do."""
    async with doors.working.reading(AnswerStore) as store:
        if await store.claim(*write, digest, now):
            return None
        kept = await store.find(*write)
        if kept is None:  # It was dropped in between.
            raise _busy()
        if kept.request_digest != digest:
            detail = "the key was used with other content; give each write a key of its own"
            raise ProblemError(422, "key-reused", f"{HEADER}: {detail}", [FieldProblem(HEADER, detail)])
        if kept.status is not None:
            return kept
        left = kept.machine_at <= now - DIED_AFTER or doors.left_writes.has(write, kept.machine_at)
        if not left or not await store.take_over(*write, kept.machine_at, now):
            raise _busy()
        return None


def _busy() -> ProblemError:
    detail = "the same write is under way; ask again"
    return ProblemError(409, "in-progress", f"{HEADER}: {detail}", [FieldProblem(HEADER, detail)], {"Retry-After": "1"})
