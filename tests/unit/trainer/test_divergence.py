"""What is a number that a training may go on with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from rft_trainer.contract import ExitCode
from rft_trainer.errors import DivergedError
from rft_trainer.paths import Layout
from rft_trainer.train import checkpoint as checkpoints
from rft_trainer.train.checkpoint import Checkpoint
from rft_trainer.train.divergence import diverged, gradient_is_sound, own_part, weights_are_finite
from rft_trainer.train.heartbeat import Heartbeat
from rft_trainer.train.loop import Loop
from rft_trainer.train.progress import Meter
from rft_trainer.train.run import Run
from unit.trainer.factory import free_port, run_config

CPU = torch.device("cpu")


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def engine(norm: float | None, **optimizer: Any) -> Any:
    return SimpleNamespace(optimizer=SimpleNamespace(**optimizer), get_global_grad_norm=lambda: norm)


@pytest.mark.parametrize("norm", [None, 0.0, 1.5, torch.tensor(2.0)])
def test_gradient_is_sound_when_its_norm_is_finite_or_not_known(norm: Any) -> None:
    assert gradient_is_sound(engine(norm))
    assert gradient_is_sound(engine(norm, overflow=False))


@pytest.mark.parametrize("norm", [-1.0, math.inf, math.nan, torch.tensor(-1.0), torch.tensor(math.nan)])
def test_gradient_is_unsound_when_its_norm_is_none_of_a_vector(norm: Any) -> None:
    assert not gradient_is_sound(engine(norm))


def test_gradient_is_unsound_when_the_update_was_skipped_and_the_norm_is_an_old_one() -> None:
    assert not gradient_is_sound(engine(1.5, overflow=True))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_weights_are_not_finite_when_one_of_them_is_not(number: float) -> None:
    last = torch.nn.Linear(3, 2)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), last)
    assert weights_are_finite(model, device=CPU)
    with torch.no_grad():
        last.bias[1] = number
    assert not weights_are_finite(model, device=CPU)


@pytest.mark.usefixtures("group")
def test_frozen_weights_are_not_looked_at_when_an_adapter_is_trained() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad = False
    torch.nn.init.constant_(model.weight, math.nan)
    assert weights_are_finite(model, device=CPU)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("values", "finite"), [([1.0, 2.0, 3.0, math.nan], True), ([1.0, math.nan, 3.0, 4.0], False)])
def test_only_the_parameter_counts_when_its_last_part_is_filled_up(values: list[float], finite: bool) -> None:
    parameter: Any = torch.nn.Parameter(torch.empty(0))
    parameter.ds_tensor, parameter.ds_numel, parameter.ds_process_group = torch.tensor(values), 3, None
    assert own_part(parameter).numel() == 3
    model = torch.nn.Module()
    model.register_parameter("weight", parameter)
    assert weights_are_finite(model, device=CPU) is finite


def test_error_names_step_rate_remedy_and_the_checkpoint_that_stays() -> None:
    kept = Checkpoint(Path("/data/step-00000004"), 4, 100, 2, "sha", "2026-01-01T00:00:00Z", 1.0)
    error = diverged("the loss is not a finite number", step=7, learning_rate=1e30, kept=kept)
    assert error.exit_code == ExitCode.DIVERGED
    for words in ("step 7: the loss", "1e+30", "step-00000004", "training.learningRate", "training.warmupRatio"):
        assert words in str(error)
    assert "the model's own weights" not in str(error)
    assert "the model's own weights" in str(diverged("the loss", step=1, learning_rate=1e-5, kept=None))


@pytest.mark.usefixtures("group")
def test_older_checkpoints_stay_when_an_update_left_weights_that_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, config = Layout(tmp_path), run_config(checkpoint__keep_last=1)
    model = torch.nn.Linear(2, 2)
    saved: list[Any] = []
    loop = Loop.__new__(Loop)
    loop._trainer = SimpleNamespace(model=model, device=CPU, engine=None)  # type: ignore[assignment] # a stand-in
    loop._run = Run(layout, config, SimpleNamespace(sha256="sha"), Heartbeat(layout, rank=0))  # type: ignore[arg-type]
    loop._config, loop._dataset, loop._card = config, loop._run.dataset, {}
    loop._meter = Meter(total_steps=9, step=3, learning_rate=0.5)
    loop._progress = SimpleNamespace(tell=lambda *_, **__: None)  # type: ignore[assignment]

    def save(*_: Any, **__: Any) -> Checkpoint:
        saved.append(None)
        return Checkpoint(loop._run.paths.checkpoints / "step-00000003", 3, 100, 1, "sha", "2026-01-01T00:00:00Z", 1.0)

    monkeypatch.setattr(checkpoints, "save", save)
    loop.save(phase="save")
    assert len(saved) == 1
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    with pytest.raises(DivergedError, match=r"step 3: its update left weights .* newest checkpoint is step-00000003"):
        loop.save(phase="save")
    assert len(saved) == 1, "nothing is saved, so nothing is pruned"
