"""The stage's last words: ``result.json`` and the termination message.

Invariant: the message is always valid JSON within the kubelet's share; optional fields go first, and
no benchmark is ever left out of a list that others would take for complete. What a verdict was found against goes
after the verdict: a published score must not pass for a measured one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from rft_trainer.contract import TERMINATION_MESSAGE_LIMIT_BYTES, Outcome, Stage
from rft_trainer.files import write_atomic
from rft_trainer.packed_answers import packed
from rft_trainer.stage_results import BaseAnswers, EvaluateSummary, Score, StageResult

ERROR_LIMIT_CHARACTERS = 1_000
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""Each would take six bytes of the message."""
_DROPPED_FIRST_TO_LAST = (
    {"artifacts"}, {"baseline_stderr"}, {"thinking_tokens"}, {"interval"},
    {"wins", "losses", "p_value"}, {"scaling"}, {"verdict"}, {"comparison"}, {"capped"}, {"no_answer"},
)  # fmt: skip


_ZERO_UNLESS_SAID = ("na", "ca")


def failed(stage: Stage, error: str) -> StageResult:
    """A failed result whose error fits the contract."""
    return StageResult(stage=stage, outcome=Outcome.FAILED, error=shorten(error))


def shorten(text: str) -> str:
    """Text within the contract's limit for errors; the middle is left out, for the ends say most.

    What drives a terminal goes, and what is half a character, as of a file's name that is not UTF-8, is marked.
    """
    text = _CONTROL.sub("", text).encode(errors="backslashreplace").decode()
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
    over = len(_compact(result)) - limit
    if over > 0 and result.error is not None:
        encoded = result.error.encode()
        keep = max(0, len(encoded) - over - 8)
        result = result.model_copy(update={"error": encoded[:keep].decode(errors="ignore") + "..."})
    for each in _shorter(result):
        data = _compact(each)
        if len(data) <= limit:
            return data
    return _compact(StageResult(stage=result.stage, outcome=result.outcome))


def _shorter(result: StageResult) -> Iterator[StageResult]:
    """The result, and then with less and less of it."""
    yield result
    if result.evaluate is not None:
        for summary in _shorter_summaries(result.evaluate):
            yield result.model_copy(update={"evaluate": summary})


def _shorter_summaries(summary: EvaluateSummary) -> Iterator[EvaluateSummary]:
    """What the base model answered is worth the price of asking it again, and a digit that nobody is shown nothing."""
    answers = summary.base_answers
    if answers:
        yield _with_packed(summary, answers)
        summary = _without(summary, {"artifacts"})  # where they are follows from the run
        yield _with_packed(summary, answers)
        summary = summary.model_copy(update={"scores": tuple(map(_rounded, summary.scores))})
        yield _with_packed(summary, answers)
        summary = _without(summary, {"baseline_stderr"})
        while answers:
            yield _with_packed(summary, answers)
            largest = max(answers, key=lambda each: len(each.rights))
            answers = tuple(each for each in answers if each is not largest)
        summary = _with_packed(summary, ())
        yield summary
    for optional in _DROPPED_FIRST_TO_LAST:
        summary = _without(summary, optional)
        yield summary


def _with_packed(summary: EvaluateSummary, answers: tuple[BaseAnswers, ...]) -> EvaluateSummary:
    update = {"base_answers": (), "packed_base_answers": packed(answers) if answers else None}
    return summary.model_copy(update=update)


def _rounded(score: Score) -> Score:
    """With as many digits as the status shows of what the score is worth."""
    update: dict[str, object] = {"stderr": round(score.stderr, 4)}
    if score.interval is not None:
        update["interval"] = tuple(round(end, 4) for end in score.interval)
    if score.p_value is not None:
        update["p_value"] = float(f"{score.p_value:.3g}")
    return score.model_copy(update=update)


def _without(summary: EvaluateSummary, optional: set[str]) -> EvaluateSummary:
    """The summary with optional fields back at their defaults."""
    scores = tuple(Score(**score.model_dump(exclude=optional)) for score in summary.scores)
    own = optional & set(EvaluateSummary.model_fields)
    return EvaluateSummary(**summary.model_dump(exclude={"scores", *own}), scores=scores)


def _compact(result: StageResult) -> bytes:
    document = result.model_dump(mode="json", exclude_none=True, by_alias=True)
    for score in (document.get("evaluate") or {}).get("scores", ()):
        for name in _ZERO_UNLESS_SAID:
            if score[name] == 0:
                del score[name]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def write_termination_message(path: Path, result: StageResult) -> None:
    """Write the message; the file is a bind mount in a pod, so it is written in place."""
    path.write_bytes(termination_message(result))
