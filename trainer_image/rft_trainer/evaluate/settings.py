"""The settings of a sweep: how often a model is made to think again, and for how long it may think.

Invariant: each setting has a name of its own within its evaluation, which its score is posted under. All settings keep
as many tokens for the answer, so that along the curve the thinking alone differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_trainer.contract import Benchmark, EvaluationConfig
from rft_trainer.evaluate.forcing import ThinkingBudget


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to ask; without a budget a model thinks for as long as it likes."""

    name: str = ""
    """Empty where there is only one way."""
    waits: int = 0
    thinking_tokens: int | None = None
    stages: tuple[int, ...] = ()
    """Numbers of thinking tokens at which a leg is interrupted, so that what other settings share is generated once."""

    def budget(self, benchmark: Benchmark, evaluation: EvaluationConfig) -> ThinkingBudget | None:
        """The budget that a benchmark's tokens leave."""
        if self.thinking_tokens is None or evaluation.budget_forcing is None:
            return None
        return ThinkingBudget(
            waits=self.waits,
            thinking_tokens=self.thinking_tokens,
            answer_tokens=benchmark.max_tokens - evaluation.budget_forcing.max_thinking_tokens,
            stages=self.stages,
        )


def settings_of(evaluation: EvaluationConfig) -> tuple[Setting, ...]:
    """The settings to measure: from more thinking to less, for the score to show first is that of the whole budget."""
    forcing = evaluation.budget_forcing
    if forcing is None:
        return (Setting(),)
    budgets = sorted({*forcing.sweep_thinking_tokens, forcing.max_thinking_tokens}, reverse=True)
    found = []
    for tokens in budgets:
        for waits in forcing.waits:
            parts = [f"wait={waits}"] if len(forcing.waits) > 1 or len(budgets) == 1 else []
            parts += [f"think={tokens}"] if len(budgets) > 1 else []
            stages = tuple(sorted(each for each in budgets if each < tokens))
            found.append(Setting(name=",".join(parts), waits=waits, thinking_tokens=tokens, stages=stages))
    return tuple(found)
