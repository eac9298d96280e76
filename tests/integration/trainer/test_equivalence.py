"""One training, many ways: every ZeRO stage, plain torch and the library's own trainer give one loss curve."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rft_trainer.contract import ExitCode, RunConfig
from rft_trainer.train.export import MARKER
from support.oracle import transformers_trainer
from support.training import LATER_STEPS, SAME_STEP, check_equals_plain_torch, write_deepspeed_json
from unit.trainer.factory import Pod

pytestmark = pytest.mark.distributed

STEPS = 6
CURVES: dict[tuple[int, str], list[float]] = {}
"""By ZeRO stage and offload; every run is compared with those before it."""


@pytest.mark.parametrize(("stage", "offload"), [(1, "none"), (2, "none"), (3, "none"), (3, "all")])
def test_training_equals_plain_torch_and_other_stages_when_rows_are_uneven_and_micro_batches_accumulate(
    make_pod: Callable[..., Pod], stage: int, offload: str
) -> None:
    pod = make_pod(training__zero_stage=stage, training__offload=offload)
    write_deepspeed_json(pod)
    assert pod.run("train") == ExitCode.DONE, pod.log("train")
    check_equals_plain_torch(pod, steps=STEPS)
    losses = [line["loss"] for line in pod.steps()]
    for other in CURVES.values():
        assert losses == pytest.approx(other, rel=SAME_STEP)
    CURVES[stage, offload] = losses
    if stage == 1:
        check_run_card(pod)


def check_run_card(pod: Pod) -> None:
    """The card stands beside the checkpoint and the model, and a run can be made from it."""
    card = json.loads(pod.paths.run_card.read_bytes())
    copies = [pod.paths.export / "run-card.json", *pod.paths.checkpoints.glob("step-*/run-card.json")]
    assert len(copies) == 2
    assert [json.loads(path.read_bytes()) for path in copies] == [card, card]
    assert RunConfig.model_validate(card["run"]) == pod.config
    assert card["deepspeed"]["train_batch_size"] == pod.config.training.global_batch_size
    assert card["data"]["files"].keys() == {path.name for path in pod.paths.dataset.iterdir()}
    assert all(len(digest) == 64 for digest in [*card["data"]["files"].values(), *card["model"]["files"].values()])
    assert card["versions"].keys() >= {"torch", "deepspeed", "transformers", "peft", "python"}
    assert card["kernels"] == {"attention": "sdpa", "liger": False}
    assert (pod.paths.export / MARKER).is_file()


@pytest.mark.filterwarnings("ignore")
def test_loss_curve_is_that_of_the_librarys_own_trainer_when_the_data_are_equal(
    make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    pod = make_pod(training__zero_stage=2)
    assert pod.run("train") == ExitCode.DONE, pod.log("train")
    wanted = transformers_trainer(
        pod.paths.model, pod.paths.dataset, pod.config.training, steps=STEPS, directory=tmp_path / "library"
    )
    assert [line["loss"] for line in pod.steps()] == pytest.approx(wanted, abs=LATER_STEPS)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed compiles its CPU optimizer: needs g++")
def test_training_equals_plain_torch_also_after_a_resume_when_deepspeeds_own_optimizer_is_offloaded(
    make_pod: Callable[..., Pod],
) -> None:
    settings = {"training__offload": "all", "training__schedule": "constant", "training__warmup_ratio": 0.0}
    settings["startup_seconds"] = 600  # a busy core compiles for minutes
    first = make_pod(**settings, training__max_steps=3)
    second = make_pod(**settings, share=first)
    for pod in (first, second):
        write_deepspeed_json(pod, zero_force_ds_cpu_optimizer=True)
        assert pod.run("train", timeout_seconds=500) == ExitCode.DONE, pod.log("train")
    assert next(line["step"] for line in second.progress_lines() if line["phase"] == "train") == 4
    check_equals_plain_torch(second, steps=STEPS)


def test_training_ends_with_78_and_the_remedy_when_offload_finds_no_compiler(
    make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    pod = make_pod(training__offload="all")
    write_deepspeed_json(pod, zero_force_ds_cpu_optimizer=True)
    environment = {"CXX": str(tmp_path / "no-compiler"), "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    assert pod.start("train", **environment).wait(240) == ExitCode.BAD_INPUT, pod.log("train")
    assert "training.deepspeed.offload: DeepSpeed could not compile" in str(pod.result().error)


@pytest.mark.parametrize(("stage", "ranks_before", "ranks_after"), [(1, 2, 1), (2, 2, 1), (3, 1, 2)])
def test_training_goes_on_as_if_nothing_happened_when_the_number_of_ranks_changes(
    make_pod: Callable[..., Pod], stage: int, ranks_before: int, ranks_after: int
) -> None:
    settings = {"training__zero_stage": stage, "training__schedule": "constant", "training__warmup_ratio": 0.0}
    first = make_pod(**settings, hosts=f"localhost slots={ranks_before}\n")
    assert first.run("train") == ExitCode.DONE, first.log("train")
    second = make_pod(**settings, training__max_steps=9, share=first, hosts=f"localhost slots={ranks_after}\n")
    assert second.run("train") == ExitCode.DONE, second.log("train")
    train_lines = [line["step"] for line in second.progress_lines() if line["phase"] == "train"]
    assert train_lines[0] == STEPS + 1
    check_equals_plain_torch(second, steps=9)
