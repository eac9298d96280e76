"""A GPU that is too small ends a run only where nothing of it is lost."""

from __future__ import annotations

import pytest
import torch

from rft_trainer.contract import ExitCode
from rft_trainer.errors import StageError
from rft_trainer.train.memory import memory_explained

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(("steps", "code"), [(0, ExitCode.BAD_INPUT), (7, 1)])
def test_run_ends_when_its_first_step_does_not_fit_and_is_tried_again_when_a_later_one_does_not(
    steps: int, code: int
) -> None:
    with (
        pytest.raises(
            StageError, match=rf"GPU of rank 3 has too little memory for step {steps + 1}: .*\({SAID}\)"
        ) as info,
        memory_explained(rank=3, steps_made=lambda: steps),
    ):
        raise torch.OutOfMemoryError(f"{SAID}\nSee the documentation.")
    assert info.value.exit_code == code
    assert "training.microBatchSize" in str(info.value)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match=r"^another$"), memory_explained(rank=0, steps_made=lambda: 0):
        raise RuntimeError("another")
