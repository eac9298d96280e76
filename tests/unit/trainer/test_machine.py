"""So many programs run at once as there are processors, and room for all that each may take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rft_trainer.errors import BadInputError
from rft_trainer.evaluate import machine
from rft_trainer.sandbox.limits import BESIDE_MIB, JUDGE_MIB, memory_mib_for

GIBIBYTE = 1 << 30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of a pod on a machine of 8 processors and 64 GiB."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 16 << 20, "SC_PAGE_SIZE": 4_096}.__getitem__)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("1600000 100000", 8)]
)
def test_processors_are_those_of_the_pods_limit(groups: Path, text: str, expected: int) -> None:
    assert machine.processors() == 8
    (groups / "cpu.max").write_text(text)
    assert machine.processors() == expected


@pytest.mark.parametrize(("quota", "expected"), [("250000", 2), ("-1", 8)])
def test_processors_are_those_of_the_limit_in_control_groups_of_version_1(
    groups: Path, quota: str, expected: int
) -> None:
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.processors() == expected


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
@pytest.mark.parametrize(
    ("limit", "expected"), [(4 * GIBIBYTE, 4_096), (9_223_372_036_854_771_712, 65_536), ("max", 65_536)]
)
def test_memory_is_that_of_the_pods_limit(groups: Path, name: str, limit: object, expected: int) -> None:
    assert machine.memory_mib() == 65_536
    (groups / name).parent.mkdir(exist_ok=True)
    (groups / name).write_text(f"{limit}\n")
    assert machine.memory_mib() == expected


@pytest.mark.parametrize(
    ("mebibytes", "program_mib", "expected"),
    [
        (memory_mib_for(2, program_mib=4_096), 4_096, 2),
        (memory_mib_for(2, program_mib=4_096) - 1, 4_096, 1),
        (memory_mib_for(2, program_mib=4_096), 1_024, 6),
        (32_768, 1_024, 8),
    ],
)
def test_programs_share_processors_and_memory(groups: Path, mebibytes: int, program_mib: int, expected: int) -> None:
    (groups / "memory.max").write_text(str(mebibytes << 20))
    assert machine.programs_at_once(program_mib=program_mib) == expected


def test_a_place_without_room_for_one_program_is_refused_with_what_it_needs(groups: Path) -> None:
    (groups / "memory.max").write_text(str(4 * GIBIBYTE))
    needed = JUDGE_MIB + 4_096 + BESIDE_MIB
    with pytest.raises(BadInputError, match=f"4096 MiB, and a program may take 4096 MiB; .*at least {needed} MiB"):
        machine.programs_at_once(program_mib=4_096)
