"""The plan of a chaos run: as many kills as were asked for, by seed, each kind before one comes again."""

from __future__ import annotations

import pytest
from chaos_faults import KILL_DECK, OTHER_DECK, Fault, of_one_kind, plan


def faults(seed: int, kills: int) -> list[Fault]:
    return [fault for step in plan(seed, kills) for fault in step]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kills", [1, 8, 100])
def test_there_are_as_many_kills_as_were_asked_for(seed: int, kills: int) -> None:
    assert sum(fault.kills for fault in faults(seed, kills)) == kills


def test_a_seed_is_a_plan() -> None:
    assert plan(3, 60) == plan(3, 60) != plan(4, 60)


def test_every_kind_of_fault_is_in_a_long_plan() -> None:
    assert {(fault.kind, fault.on) for fault in faults(1, 300)} == {*KILL_DECK, *OTHER_DECK}


@pytest.mark.parametrize("seed", range(20))
def test_two_faults_at_once_never_meet_the_same_process(seed: int) -> None:
    for step in plan(seed, 100):
        met = [name for fault in step for name in fault.on]
        assert len(met) == len(set(met)), step


def test_a_fault_can_be_asked_for_by_its_name_in_the_report() -> None:
    assert [[fault.on for fault in step] for step in of_one_kind(1, "half-open for long PostgreSQL", 2)] == [
        [("PostgreSQL",)]
    ] * 2
    assert {fault.on for (fault,) in of_one_kind(1, "kill -9 intake", 20)} == {("intake-1",), ("intake-2",)}
    assert of_one_kind(1, "kill -9 nobody", 2) == []
