"""DeepSpeed's own optimizer on the CPU, which a compiler makes when training starts."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from rft_local.tools import cache_directory
from rft_trainer.contract import ExitCode
from support import warm_ranks
from support.training import check_equals_plain_torch, write_deepspeed_json
from unit.trainer.factory import Pod

pytestmark = pytest.mark.distributed

STEPS = 6
COMPILER = Path(__file__).parents[2] / "support" / "remembering-c++"


@pytest.fixture
def compiled(tmp_path: Path) -> dict[str, str]:
    """An environment with a compiler that remembers across runs of the tests: two files take a minute."""
    versions = [f"{name}={version(name)}" for name in ("torch", "deepspeed")]
    return {
        "CXX": str(COMPILER),
        "RFT_TEST_OBJECTS": str(cache_directory() / "test-objects"),
        "RFT_TEST_LIBRARIES": " ".join([sysconfig.get_path("purelib"), *versions]),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="DeepSpeed compiles its CPU optimizer: needs c++")
def test_training_equals_plain_torch_also_after_a_resume_when_deepspeeds_own_optimizer_is_offloaded(
    make_pod: Callable[..., Pod], compiled: dict[str, str]
) -> None:
    settings = {"training__offload": "all", "training__schedule": "constant", "training__warmup_ratio": 0.0}
    settings |= {"gpus_per_node": 1, "startup_seconds": 600}  # a busy core compiles for minutes
    hosts = "localhost slots=1\n"
    first = make_pod(**settings, hosts=hosts, training__max_steps=3)
    second = make_pod(**settings, hosts=hosts, share=first)
    for pod in (first, second):
        write_deepspeed_json(pod, zero_force_ds_cpu_optimizer=True)
        assert warm_ranks.train(pod, environment=compiled, timeout_seconds=500) == ExitCode.DONE, pod.log("train")
    assert next(line["step"] for line in second.progress_lines() if line["phase"] == "train") == 4
    check_equals_plain_torch(second, steps=STEPS)


def test_training_ends_with_78_and_the_remedy_when_offload_finds_no_compiler(
    make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    pod = make_pod(training__offload="all", gpus_per_node=1, hosts="localhost slots=1\n")
    write_deepspeed_json(pod, zero_force_ds_cpu_optimizer=True)
    environment = {"CXX": str(tmp_path / "no-compiler"), "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    assert warm_ranks.train(pod, environment=environment) == ExitCode.BAD_INPUT, pod.log("train")
    assert "training.deepspeed.offload: DeepSpeed could not compile" in str(pod.result().error)
