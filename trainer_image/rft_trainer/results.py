"""The stage's last words: ``result.json`` and the termination message.

Invariant: the message is always valid JSON within the kubelet's share; optional fields go first, and
no benchmark is ever left out of a list that others would take for complete. What a verdict was found against goes
after the verdict: a published score must not pass for a measured one.
"""

from __future__ import annotations

from pathlib import Path

from rft_trainer.contract import TERMINATION_MESSAGE_LIMIT_BYTES, Outcome, Stage
from rft_trainer.files import write_atomic
from rft_trainer.stage_results import EvaluateSummary, Score, StageResult

ERROR_LIMIT_CHARACTERS = 1_000
_DROPPED_FIRST_TO_LAST = (
    {"artifacts"}, {"baseline_stderr"}, {"thinking_tokens"}, {"interval"},
    {"wins", "losses", "p_value"}, {"scaling"}, {"verdict"}, {"comparison"}, {"capped"}, {"no_answer"},
)  # fmt: skip


def failed(stage: Stage, error: str) -> StageResult:
    """A failed result whose error fits the contract."""
    return StageResult(stage=stage, outcome=Outcome.FAILED, error=shorten(error))


def shorten(text: str) -> str:
    """Text within the contract's limit for errors; the middle is left out, for the ends say most."""
    if len(text) <= ERROR_LIMIT_CHARACTERS:
        return text
    half = (ERROR_LIMIT_CHARACTERS - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def write_result(path: Path, result: StageResult) -> None:
    """Write ``result.json`` in one step."""
    write_atomic(path, result.model_dump_json(exclude_none=True) + "\n")


def read_result(path: Path, *, stage: Stage) -> StageResult | None:
    """The stage's own result, or None when it is absent, broken or another stage's."""
    try:
        result = StageResult.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return result if result.stage is stage else None


def termination_message(result: StageResult) -> bytes:
    """The result as compact JSON of at most 2,900 bytes."""
    limit = TERMINATION_MESSAGE_LIMIT_BYTES
    data = _compact(result)
    if len(data) > limit and result.error is not None:
        over = len(data) - limit
        encoded = result.error.encode()
        keep = max(0, len(encoded) - over - 8)
        result = result.model_copy(update={"error": encoded[:keep].decode(errors="ignore") + "..."})
        data = _compact(result)
    while len(data) > limit and result.evaluate is not None and result.evaluate.base_answers:
        largest = max(result.evaluate.base_answers, key=lambda each: len(each.rights))
        kept = tuple(each for each in result.evaluate.base_answers if each is not largest)
        result = result.model_copy(update={"evaluate": result.evaluate.model_copy(update={"base_answers": kept})})
        data = _compact(result)
    for optional in _DROPPED_FIRST_TO_LAST:
        if len(data) > limit and result.evaluate is not None:
            result = result.model_copy(update={"evaluate": _without(result.evaluate, optional)})
            data = _compact(result)
    if len(data) > limit:
        data = _compact(StageResult(stage=result.stage, outcome=result.outcome))
    return data


def _without(summary: EvaluateSummary, optional: set[str]) -> EvaluateSummary:
    """The summary with optional fields back at their defaults."""
    scores = tuple(Score(**score.model_dump(exclude=optional)) for score in summary.scores)
    own = optional & set(EvaluateSummary.model_fields)
    return EvaluateSummary(**summary.model_dump(exclude={"scores", *own}), scores=scores)


def _compact(result: StageResult) -> bytes:
    return result.model_dump_json(exclude_none=True, by_alias=True).encode()


def write_termination_message(path: Path, result: StageResult) -> None:
    """Write the message; the file is a bind mount in a pod, so it is written in place."""
    path.write_bytes(termination_message(result))
