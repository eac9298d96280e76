"""Sees that ranks hang, and secures the evidence before they are killed.

Invariant: a rank that beats is never a hang. When one is silent for too long, every rank of this pod leaves its stacks
and its flight record on the volume, even one that was stopped: it is woken for that, and killed after.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.contract import ENV_ATTEMPT, ENV_NODE_RANK, RunConfig
from rft_trainer.files import read_json, write_json
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.progress_report import LONG_PHASE_FACTOR, LONG_PHASES
from rft_trainer.train.heartbeat import STACK_SIGNAL, flight_record

STEP_PERCENT = 80
"""Of ``stall_seconds``: the rest is left for the evidence, before the operator ends the attempt."""
EVIDENCE_SECONDS = 30.0
"""Only a process that answers no signal uses it up; one that hangs early has to load torch for its record."""
_STATES = {"T": "stopped", "D": "waiting for a disk", "Z": "dead", "t": "stopped by a debugger", "": "gone"}
_SILENCED = frozenset({"T", "t", "Z", ""})
"""Such a process cannot beat; one that waits for a disk, or for another rank, may be the victim."""


@dataclass(frozen=True)
class Beat:
    """What a rank said last, and since when it says nothing else."""

    rank: int
    pid: int
    phase: str
    place: str
    since: float
    written_ns: int
    """When the file says it was written: two beats that one look finds new stand in their order."""


@dataclass(frozen=True)
class Hang:
    """The rank that the others wait for, as far as can be seen: a process that cannot run, else the longest silent."""

    rank: int
    silent_seconds: int
    place: str
    state: str
    """The kernel's letter for what its process did when the hang was seen."""
    beats: tuple[Beat, ...]


class HangWatch:
    """Follows the heartbeats of this pod's ranks by this process's own clock."""

    def __init__(self, layout: Layout, config: RunConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout, self._clock = layout, clock
        self._bounds = {"load": float(config.startup_seconds), "train": config.stall_seconds * STEP_PERCENT / 100}
        self._bounds |= {phase: float(config.stall_seconds * LONG_PHASE_FACTOR) for phase in LONG_PHASES}
        self._bounds["convert"] = float(config.startup_seconds * LONG_PHASE_FACTOR)
        self._stall_seconds = float(config.stall_seconds)
        self._seen: dict[int, tuple[int, float]] = {}

    def look(self) -> Hang | None:
        """Read the heartbeats; the hang, if there is one."""
        now = self._clock()
        beats = tuple(beat for path in self._layout.heartbeats.glob("rank-*") if (beat := self._read(path, now=now)))
        if not any(self._is_overdue(beat, now=now) for beat in beats):
            return None
        states = {beat.rank: process_state(beat.pid) for beat in beats}
        cause = min(beats, key=lambda beat: (states[beat.rank] not in _SILENCED, beat.since, beat.written_ns))
        return Hang(
            rank=cause.rank,
            silent_seconds=int(now - cause.since),
            place=f"{cause.phase} {cause.place}".strip(),
            state=states[cause.rank],
            beats=beats,
        )

    def _is_overdue(self, beat: Beat, *, now: float) -> bool:
        """A long phase has a bound of its own, but one of a process that cannot run is not waited for."""
        silent = now - beat.since
        if silent > self._bounds.get(beat.phase, self._stall_seconds):
            return True
        return beat.phase in LONG_PHASES and silent > self._stall_seconds and process_state(beat.pid) in _SILENCED

    def _read(self, path: Path, *, now: float) -> Beat | None:
        rank = int(path.name.removeprefix("rank-"))
        try:
            words, changed = path.read_text().split(maxsplit=2), path.stat().st_mtime_ns
        except OSError:
            return None
        if len(words) < 2:
            return None
        before, since = self._seen.get(rank, (None, now))
        if changed != before:
            since = now
            self._seen[rank] = (changed, now)
        place = words[2].strip() if len(words) > 2 else ""
        return Beat(rank, pid=int(words[0]), phase=words[1], place=place, since=since, written_ns=changed)


def explain(hang: Hang, *, directory: str | None) -> str:
    """The hang in words, and where the evidence is."""
    note = f", its process is {_STATES[hang.state]}" if hang.state in _STATES else ""
    words = f"hang: rank {hang.rank} gave no sign of life for {hang.silent_seconds} s in {hang.place}{note}"
    return words if directory is None else f"{words}; the stacks of all ranks are in {directory}"


def process_state(pid: int) -> str:
    """The kernel's letter for what a process does; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def secure_evidence(hang: Hang, layout: Layout, config: RunConfig) -> str:
    """Have every rank write where it stands, copy that to the volume; returns the directory's name in a pod."""
    paths = RunPaths.of(layout, config)
    attempt, node = os.environ.get(ENV_ATTEMPT) or "0", os.environ.get(ENV_NODE_RANK) or "0"
    directory = paths.hangs / f"attempt-{attempt}" / f"node-{node}"
    write_json(layout.dump_request, {"rank": hang.rank})
    for beat in hang.beats:
        for number in (STACK_SIGNAL, signal.SIGCONT):
            _signal(beat.pid, number)
    _await(layout, hang)
    text = explain(hang, directory=paths.pod_path(directory))
    without = sorted(beat.rank for beat in hang.beats if not has_collectives(layout, rank=beat.rank))
    if without:
        text += f"; without a flight record: rank {', '.join(map(str, without))}"
    try:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(layout.stacks, directory)
        write_json(
            directory / "hang.json",
            {"error": text, "ranks": {beat.rank: f"{beat.phase} {beat.place}".strip() for beat in hang.beats}},
        )
    except OSError as error:  # a volume that is gone or full may well be what the ranks wait for
        return f"{explain(hang, directory=None)}; nothing can be written to the volume ({error})"
    return text


def _await(layout: Layout, hang: Hang) -> None:
    deadline = time.monotonic() + EVIDENCE_SECONDS
    while time.monotonic() < deadline and any(_is_awaited(layout, beat) for beat in hang.beats):
        time.sleep(0.05)


def _is_awaited(layout: Layout, beat: Beat) -> bool:
    """Whether a rank that still runs has not written all of its evidence."""
    stacks = layout.stacks / f"rank-{beat.rank}.txt"
    written = stacks.is_file() and stacks.stat().st_size > 0 and has_collectives(layout, rank=beat.rank)
    return not written and process_state(beat.pid) not in {"", "Z"}


def has_collectives(layout: Layout, *, rank: int) -> bool:
    """Whether a rank's flight record names a collective: a header alone is no evidence."""
    record = read_json(flight_record(layout, rank=rank))
    return isinstance(record, dict) and bool(record.get("entries"))


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
