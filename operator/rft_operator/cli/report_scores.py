"""What a model is worth, as lines of the report.

Invariant: a score never stands without what it is worth: its uncertainty, the answers that are missing, and whether it
is only a part.
"""

from __future__ import annotations

from collections.abc import Iterator

from rft_operator.api.scores import Comparison, EvaluationStatus, ScoreResult
from rft_operator.cli.output import short_number

SHOWN_HASH = len("sha256:") + 12


def score_lines(evaluation: EvaluationStatus | None) -> Iterator[str]:
    """Yield the lines; none where nothing was evaluated."""
    if evaluation is None:
        return
    for result in evaluation.results:
        yield from _score(result)
    for curve in evaluation.scaling:
        yield (
            f"Curve  {curve.benchmark}: {short_number(curve.slope)} points per 1,000 thinking tokens, best "
            f"{short_number(curve.performance)}, {short_number(curve.control)} of the settings within their budget"
        )
    if evaluation.protocol_hash is not None:
        part = "; ended by its bound before all was measured" if evaluation.partial else ""
        yield f"       Protocol {evaluation.protocol_hash[:SHOWN_HASH]}{part}"


_SOURCES = {Comparison.PAIRED: "before", Comparison.PUBLISHED: "published", None: "baseline"}
"""Where a baseline is from; a shortened result may not say it."""


def _score(result: ScoreResult) -> Iterator[str]:
    source = _SOURCES[result.comparison]
    before = f"{short_number(result.baseline)} {source}, " if result.baseline is not None else ""
    error = f" ± {short_number(result.stderr)}" if result.stderr is not None else ""
    yield (
        f"Score  {result.benchmark} {result.metric}: {before}{short_number(result.value)}{error} after training "
        f"({result.questions} questions)"
    )
    certainty = "; ".join(_certainty(result))
    if certainty:
        yield f"       {certainty}"
    answers = "; ".join(_answers(result))
    if answers:
        yield f"       {answers}"


def _certainty(result: ScoreResult) -> Iterator[str]:
    if result.verdict is not None:
        yield result.verdict.value
    if result.wins is not None and result.losses is not None:
        yield f"{result.wins} better, {result.losses} worse"
    if result.p_value is not None:
        yield "p < 0.0001" if result.p_value == "0.0000" else f"p {short_number(result.p_value)}"
    if result.interval_low is not None:
        yield f"95 % interval {short_number(result.interval_low)} to {short_number(result.interval_high)}"


def _answers(result: ScoreResult) -> Iterator[str]:
    given = result.questions * result.samples
    if result.partial_of is not None:
        yield f"PARTIAL: {given} of {result.partial_of} answers"
    if result.no_answer:
        yield f"{result.no_answer} of {given} without an answer"
    if result.capped:
        yield f"{result.capped} capped"
    if result.thinking_tokens is not None:
        yield f"{result.thinking_tokens} thinking tokens"
