"""What the condition Prepared tells: no row is lost without a word, and what the ranks will compute in vain."""

from __future__ import annotations

from typing import Any

import pytest

from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import PrepareSummary, StageResult
from support.stage import SUMMARIES, World

PLAIN: PrepareSummary = SUMMARIES[Stage.PREPARE]["prepare"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "100 rows (0 dropped), 5000 tokens, 50 steps."),
        (
            {"dropped_rows": 9, "too_long_rows": 6, "held_out_rows": 3},
            "100 rows (9 dropped: 6 too long, 3 held out for the evaluation), 5000 tokens, 50 steps.",
        ),
        (
            {"dropped_rows": 2, "unanswered_rows": 2, "sequences": 20, "fill": 0.979, "padding_share": 0.021},
            "100 rows (2 dropped: 2 without an answer), 5000 tokens, 50 steps; 20 sequences, 98 % filled, 2 % padding.",
        ),
    ],
)
async def test_condition_says_how_many_rows_were_dropped_and_why(change: dict[str, Any], words: str) -> None:
    world = World()
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(5)
    summary = PLAIN.model_copy(update=change)
    result = StageResult(stage=Stage.PREPARE, outcome=Outcome.COMPLETED, prepare=summary)
    world.finish_pods(Stage.PREPARE, result=result)
    await world.after(1)
    assert world.condition("Prepared").message == words
    assert ("Normal", "Prepared", words) in world.kube.events
