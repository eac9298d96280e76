"""What every part of the training needs to know of its run."""

from __future__ import annotations

from dataclasses import dataclass

from rft_trainer.contract import RunConfig
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.dataset import PreparedDataset
from rft_trainer.train.heartbeat import Heartbeat


@dataclass(frozen=True)
class Run:
    """One rank's view of the run."""

    layout: Layout
    config: RunConfig
    dataset: PreparedDataset
    heartbeat: Heartbeat

    @property
    def paths(self) -> RunPaths:
        """The run's files on the volume."""
        return RunPaths.of(self.layout, self.config)
