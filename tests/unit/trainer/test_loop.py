"""When a training saves and stops; the steps themselves are stand-ins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rft_trainer.contract import Outcome
from rft_trainer.paths import Layout
from rft_trainer.train.agreement import Decision, Vote
from rft_trainer.train.checkpoint import Checkpoint
from rft_trainer.train.heartbeat import Heartbeat
from rft_trainer.train.loop import Loop
from rft_trainer.train.plan import StepPlan
from rft_trainer.train.progress import Meter
from rft_trainer.train.run import Run
from unit.trainer.factory import run_config


class OneRank(Loop):
    """A rank alone, whose steps take no time; a save may take so long that a stop is asked for meanwhile."""

    def __init__(self, root: Path, *, stop_in_save: bool) -> None:
        layout, config = Layout(root), run_config(checkpoint__every_steps=2)
        self._run = Run(layout, config, SimpleNamespace(), Heartbeat(layout, rank=0))  # type: ignore[arg-type]
        self._config, self._meter, self._last_save = config, Meter(total_steps=5), 0.0
        self._trainer: Any = SimpleNamespace(rank=0)
        self._plan: Any = SimpleNamespace(step=lambda step, rank: None)
        self._progress: Any = SimpleNamespace(tell=lambda *_, **__: None)
        self._stop_in_save = stop_in_save
        self.saved: list[tuple[str, int]] = []

    def _agree(self, vote: Vote) -> Decision:
        return Decision(vote.stop, vote.save, nll=1.0, sound=True, loss_max=1.0, seconds_per_token=(1.0,))

    def _step(self, plan: StepPlan) -> Vote:
        return Vote(stop=self._stop_asked(), save=(self._meter.step + 1) % 2 == 0)

    def _record(self, plan: StepPlan, decision: Decision, *, seconds: float) -> None:
        self._meter.step += 1

    def save(self, *, phase: str) -> None:
        step = self._meter.step
        self.saved.append((phase, step))
        self._meter.checkpoint = Checkpoint(Path(f"step-{step}"), step, 0, 1, "", "2026-01-01T00:00:00Z", 1.0)
        if self._stop_in_save:
            self._run.layout.stop_file.parent.mkdir(parents=True, exist_ok=True)
            self._run.layout.stop_file.touch()


@pytest.mark.parametrize(
    ("stop_in_save", "outcome", "saved"),
    [
        (False, Outcome.COMPLETED, [("save", 2), ("save", 4), ("save", 5)]),
        (True, Outcome.DRAINED, [("save", 2)]),
    ],
    ids=["nobody stops it", "stopped while it saves"],
)
def test_training_makes_no_step_that_had_to_be_saved_again_when_it_is_stopped_while_it_saves(
    tmp_path: Path, stop_in_save: bool, outcome: Outcome, saved: list[tuple[str, int]]
) -> None:
    loop = OneRank(tmp_path, stop_in_save=stop_in_save)
    assert (loop.run(), loop.saved) == (outcome, saved)
