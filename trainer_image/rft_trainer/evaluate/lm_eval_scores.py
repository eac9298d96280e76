"""What the scores of lm-evaluation-harness are worth: intervals, and a model against its base, question by question.

Invariant: the statistics are those of our own evaluation; two scores are compared only if their protocols are the same,
and where they are not it is said what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.lm_eval import HarnessRun, Place, TaskScore, read_run
from rft_trainer.evaluate.protocol import protocol_hash
from rft_trainer.evaluate.verdicts import Judged, judged

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class HarnessScore:
    """One score and what it is worth."""

    trained: TaskScore
    base: TaskScore | None
    not_compared: str | None
    """Why there is no comparison, where a base was given."""
    it: Judged


@dataclass(frozen=True, kw_only=True)
class HarnessScores:
    """All scores of a run, judged together."""

    trained: HarnessRun
    base: HarnessRun | None
    scores: Sequence[HarnessScore]

    def lines(self) -> list[str]:
        """For people."""
        left_out = [f"{_name(place)}: not counted, {why}" for place, why in self.trained.not_counted.items()]
        return [*map(_line, self.scores), *left_out]

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "version": VERSION,
            "model": self.trained.model,
            "base": None if self.base is None else self.base.model,
            "scores": [_row(each) for each in self.scores],
            "not_counted": [{**_place(place), "reason": why} for place, why in self.trained.not_counted.items()],
        }


def scores_of(trained: Path, base: Path | None) -> HarnessScores:
    """Read and judge; raises :class:`BadInputError` when a folder has nothing that can be judged."""
    run, other = read_run(trained), None if base is None else read_run(base)
    if not run.scores:
        raise BadInputError(f"{trained}: none of its metrics is right or wrong for each question")
    found = [(score, *_comparable(score, other)) for score in run.scores.values()]
    its = judged([(score.measured, None if against is None else against.measured) for score, against, _ in found])
    return HarnessScores(
        trained=run,
        base=other,
        scores=[
            HarnessScore(trained=score, base=against, not_compared=why, it=it)
            for (score, against, why), it in zip(found, its, strict=True)
        ],
    )


def _comparable(score: TaskScore, other: HarnessRun | None) -> tuple[TaskScore | None, str | None]:
    if other is None:
        return None, None
    base = other.scores.get(score.place)
    if base is None:
        why = other.not_counted.get(score.place)
        return None, "the base was not asked" if why is None else f"of the base {why}"
    parts = [(len(each.rights), each.asked) for each in (score, base) if len(each.rights) != each.asked]
    if parts:
        return None, f"only {parts[0][0]} of {parts[0][1]} questions were answered"
    differing = [name for name, value in score.protocol.items() if base.protocol[name] != value]
    if differing:
        told = ", ".join(f"{name} {score.protocol[name]!r} against {base.protocol[name]!r}" for name in differing)
        return None, f"not the same exam: {told}"
    return base, None


def _name(place: Place) -> str:
    task, filter_, metric = place
    return f"{task}: {metric}" + ("" if filter_ == "none" else f" ({filter_})")


def _place(place: Place) -> dict[str, str]:
    return dict(zip(("task", "filter", "metric"), place, strict=True))


def _line(score: HarnessScore) -> str:
    trained, it = score.trained.measured, score.it
    words = f"{_name(score.trained.place)} {trained.value:.3f} ± {trained.stderr:.3f}"
    words += f" [{it.interval.low:.3f}, {it.interval.high:.3f}]"
    if it.comparison is not None and score.base is not None:
        words += f", base {score.base.measured.value:.3f}: {it.verdict}"
        words += f" ({it.comparison.wins} better, {it.comparison.losses} worse, p {it.adjusted_p:.3g})"
        if score.base.prompts_sha256 != score.trained.prompts_sha256:
            words += "; prompts differ"
    elif score.not_compared is not None:
        words += f"; NOT COMPARED, {score.not_compared}"
    return f"{words}; {trained.no_answer} of {len(trained.rights)} not parsed"


def _row(score: HarnessScore) -> dict[str, Any]:
    trained, it = score.trained, score.it
    return {
        **_place(trained.place),
        **_worth(trained),
        "interval": [round(it.interval.low, 6), round(it.interval.high, 6)],
        "protocol": {**trained.protocol, "hash": protocol_hash(trained.protocol)},
        "base": None if score.base is None else _worth(score.base),
        "not_compared": score.not_compared,
        "comparison": _comparison(score),
    }


def _worth(score: TaskScore) -> dict[str, Any]:
    measured = score.measured
    return {
        "value": round(measured.value, 6),
        "stderr": round(measured.stderr, 6),
        "questions": len(score.rights),
        "of_questions": score.asked,
        "not_parsed": score.not_parsed,
    }


def _comparison(score: HarnessScore) -> Mapping[str, Any] | None:
    found, base = score.it.comparison, score.base
    if found is None or base is None:
        return None
    return {
        "delta": round(found.delta, 6),
        "stderr": round(found.stderr, 6),
        "interval": [round(found.interval.low, 6), round(found.interval.high, 6)],
        "wins": found.wins,
        "losses": found.losses,
        "p_value_unadjusted": float(f"{found.p_value:.6g}"),
        "p_value": None if score.it.adjusted_p is None else float(f"{score.it.adjusted_p:.6g}"),
        "verdict": score.it.verdict,
        "prompts": "same" if base.prompts_sha256 == score.trained.prompts_sha256 else "different",
    }
