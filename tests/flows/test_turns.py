"""Many want to know the same: who is asked hears few questions, and everybody an answer that is new enough."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from builders import MIGRATED_AT

from service.flows.turns import APART, Turns


class Clock:
    """Machine time that stands until it is put on."""

    def __init__(self) -> None:
        self.at = MIGRATED_AT

    def __call__(self) -> datetime:
        return self.at


class Asked:
    """Who is asked: counts the questions, and answers when he is let."""

    def __init__(self) -> None:
        self.questions = 0
        self.heard = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self) -> None:
        self.questions += 1
        self.heard.set()
        await self.may_answer.wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_those_who_come_while_one_asks_share_the_next_question(clock: Clock) -> None:
    turns, asked = Turns(clock), Asked()
    first = asyncio.create_task(turns.take("it", asked))
    await asked.heard.wait()
    clock.at += APART
    others = [asyncio.create_task(turns.take("it", asked)) for _ in range(50)]
    await asyncio.sleep(0)
    asked.may_answer.set()
    await asyncio.gather(first, *others)
    assert asked.questions == 2, "what was under way began before they came, one more is enough for all of them"


async def test_questions_about_other_things_do_not_wait(clock: Clock) -> None:
    turns, one, other = Turns(clock), Asked(), Asked()
    other.may_answer.set()
    first = asyncio.create_task(turns.take("one", one))
    await one.heard.wait()
    await turns.take("other", other)
    assert (one.questions, other.questions) == (1, 1)
    one.may_answer.set()
    await first


async def test_a_question_that_was_given_up_or_failed_is_the_next_ones(clock: Clock) -> None:
    turns, asked = Turns(clock), Asked()
    first = asyncio.create_task(turns.take("it", asked))
    await asked.heard.wait()
    second = asyncio.create_task(turns.take("it", asked))
    await asyncio.sleep(0)
    clock.at += APART
    first.cancel()
    asked.may_answer.set()
    await second
    assert asked.questions == 2

    async def fails() -> None:
        raise ValueError

    clock.at += timedelta(hours=1)
    with pytest.raises(ValueError):
        await turns.take("it", fails)
    clock.at += APART
    await turns.take("it", asked)
    assert asked.questions == 3
