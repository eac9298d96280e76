"""One training, many ways: every ZeRO stage, plain torch and the library's own trainer give one loss curve, and a
change of the number of ranks does not bend it.

The stages are trained once, with a checkpoint every two steps; what goes on from such a checkpoint has a volume of its
own. Ranks start warm: what is new here is what they compute.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.contract import ExitCode, RunConfig
from rft_trainer.train.checkpoint import complete_checkpoints
from rft_trainer.train.export import MARKER
from support import warm_ranks
from support.oracle import transformers_trainer
from support.training import LATER_STEPS, SAME_STEP, check_equals_plain_torch, write_deepspeed_json
from unit.trainer.factory import Pod, run_config

pytestmark = pytest.mark.distributed

STEPS = 6
SAVED = [2, 4, 6]
HEAVY_DECAY = 2.0
"""1 % a step, so that a parameter which decays and should not, or the other way round, bends the curve."""


class Trainings:
    """The trainings of this file, each done when it is first asked for."""

    def __init__(self, folder: Path, prepared: Path) -> None:
        self._folder, self._prepared = folder, prepared
        self._stages: dict[tuple[int, str], Pod] = {}

    def of_stage(self, stage: int, offload: str = "none") -> Pod:
        """Two ranks, from the prepared weights to the last step."""
        if (stage, offload) not in self._stages:
            pod = self._pod(f"stage-{stage}-{offload}", self._prepared, stage=stage, offload=offload)
            self._stages[stage, offload] = self._train(pod)
        return self._stages[stage, offload]

    def going_on(self, before: Pod, *, step: int, ranks: int) -> Pod:
        """Another number of ranks goes on from the checkpoint of a step."""
        stage = before.config.training.zero_stage
        name = f"{before.layout.root.name}-from-{step}"
        pod = self._pod(name, before.layout.root / "data", stage=stage, ranks=ranks)
        for later in complete_checkpoints(pod.paths.checkpoints):
            if later.step > step:
                shutil.rmtree(later.path)
        shutil.rmtree(pod.paths.export)
        return self._train(pod)

    def _pod(self, name: str, data: Path, *, stage: int, offload: str = "none", ranks: int = 2) -> Pod:
        overrides: dict[str, Any] = {"checkpoint__every_steps": 2, "checkpoint__keep_last": len(SAVED)}
        overrides["training__weight_decay"] = HEAVY_DECAY
        overrides |= {"training__zero_stage": stage, "training__offload": offload, "gpus_per_node": ranks}
        pod = Pod(self._folder / name, run_config(**overrides), hosts=f"localhost slots={ranks}\n")
        write_deepspeed_json(pod)
        shutil.copytree(data, pod.layout.root / "data")
        return pod

    def _train(self, pod: Pod) -> Pod:
        # the stage that holds the weights in parts has its loss in parts, too
        chunked = pod.layout.root / "chunked" if pod.config.training.zero_stage == 3 else None
        assert warm_ranks.train(pod, chunked=chunked) == ExitCode.DONE, pod.log("train")
        assert chunked is None or chunked.exists()
        return pod


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("trainings"), prepared)


def curve(pod: Pod) -> list[float]:
    return [line["loss"] for line in pod.steps()]


@pytest.mark.parametrize(("stage", "offload"), [(1, "none"), (2, "none"), (3, "none"), (3, "all")])
def test_training_equals_plain_torch_and_other_stages_when_rows_are_uneven_and_micro_batches_accumulate(
    trainings: Trainings, stage: int, offload: str
) -> None:
    pod = trainings.of_stage(stage, offload)
    check_equals_plain_torch(pod, steps=STEPS)
    assert curve(pod) == pytest.approx(curve(trainings.of_stage(1)), rel=SAME_STEP)


def test_run_card_stands_beside_checkpoints_and_model_when_a_training_is_done(trainings: Trainings) -> None:
    pod = trainings.of_stage(1)
    card = json.loads(pod.paths.run_card.read_bytes())
    copies = [pod.paths.export / "run-card.json", *pod.paths.checkpoints.glob("step-*/run-card.json")]
    assert len(copies) == 1 + len(SAVED)
    assert all(json.loads(path.read_bytes()) == card for path in copies)
    assert RunConfig.model_validate(card["run"]) == pod.config
    assert card["deepspeed"]["train_batch_size"] == pod.config.training.global_batch_size
    assert card["data"]["files"].keys() == {path.name for path in pod.paths.dataset.iterdir()}
    assert all(len(digest) == 64 for digest in [*card["data"]["files"].values(), *card["model"]["files"].values()])
    assert card["versions"].keys() >= {"torch", "deepspeed", "transformers", "peft", "python"}
    assert card["kernels"] == {"attention": "sdpa", "liger": False}
    assert (pod.paths.export / MARKER).is_file()


@pytest.mark.filterwarnings("ignore")
def test_loss_curve_is_that_of_the_librarys_own_trainer_when_the_data_are_equal(
    trainings: Trainings, tmp_path: Path
) -> None:
    pod = trainings.of_stage(2)
    wanted = transformers_trainer(
        pod.paths.model, pod.paths.dataset, pod.config.training, steps=STEPS, directory=tmp_path / "library"
    )
    assert curve(pod) == pytest.approx(wanted, abs=LATER_STEPS)


@pytest.mark.parametrize(("stage", "ways"), [(1, [(4, 1)]), (2, [(4, 1)]), (3, [(2, 1), (4, 2)])])
def test_training_goes_on_as_if_nothing_happened_when_the_number_of_ranks_changes(
    trainings: Trainings, stage: int, ways: list[tuple[int, int]]
) -> None:
    pod, ranks_before = trainings.of_stage(stage), 2
    for step, ranks in ways:
        saved = {each.step: each.world_size for each in complete_checkpoints(pod.paths.checkpoints)}
        assert saved[step] == ranks_before
        pod, ranks_before = trainings.going_on(pod, step=step, ranks=ranks), ranks
        train_lines = [line["step"] for line in pod.progress_lines() if line["phase"] == "train"]
        assert train_lines[0] == step + 1
        assert "convert" in {line["phase"] for line in pod.progress_lines()}
        check_equals_plain_torch(pod, steps=STEPS)
        assert [each.step for each in complete_checkpoints(pod.paths.checkpoints)] == SAVED
