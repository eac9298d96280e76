"""From measurements to scores: the rows that are posted, ``results.json`` and ``protocol.json``.

Invariant: a row is over the questions that were answered in full and says if others were to be asked; what was not
measured at all is listed as missing, never as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rft_trainer.contract import Benchmark
from rft_trainer.evaluate.measured import Measured
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.scaling import Curve, Point, curve
from rft_trainer.evaluate.settings import Setting, settings_of
from rft_trainer.evaluate.statistics import Comparison
from rft_trainer.evaluate.stopping import Reason
from rft_trainer.evaluate.verdicts import Base, Judged, Published, judged, pass_curve
from rft_trainer.stage_results import BaseAnswers, EvaluateSummary, Scaling, Score

RESULTS_VERSION = 1
Place = tuple[str, str]
"""Benchmark and setting."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that an evaluation measured."""

    exam: Exam
    protocol: Mapping[str, Any]
    """As in ``protocol.json``."""
    model: str
    trained: Mapping[Place, Measured]
    base: Mapping[Place, Measured]
    stopped: Reason | None = None
    base_answers: tuple[BaseAnswers, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints by name."""

    @property
    def wanted(self) -> list[tuple[Benchmark, Setting]]:
        """What is to be measured, in order."""
        evaluation = self.exam.evaluation
        return [(benchmark, setting) for benchmark in evaluation.benchmarks for setting in settings_of(evaluation)]


def summarise(findings: Findings, *, artifacts: str) -> tuple[EvaluateSummary, dict[str, Any]]:
    """The summary for the operator and the document ``results.json``."""
    measured = [each for each in findings.wanted if _has_answers(findings, each)]
    pairs = [(findings.trained[_place(each)], _base(findings, each)) for each in measured]
    verdicts = judged(pairs)
    rows = [_score(*each, *pair, it) for each, pair, it in zip(measured, pairs, verdicts, strict=True)]
    curves = {
        (name, of): found
        for of, results in (("trained", findings.trained), ("base", findings.base))
        for name in dict.fromkeys(benchmark.name for benchmark, _ in findings.wanted)
        if (found := _curve(findings, name, results)) is not None
    }
    summary = EvaluateSummary(
        scores=tuple(rows),
        artifacts=artifacts,
        protocol=findings.protocol["hash"],
        stopped=findings.stopped,
        scaling=tuple(
            Scaling(
                benchmark=name,
                control=round(it.control, 4),
                slope=round(it.slope, 3),
                performance=round(it.performance, 6),
            )
            for (name, of), it in curves.items()
            if of == "trained"
        ),
        base_answers=findings.base_answers,
    )
    hashes = {(row["protocol"]["benchmark"], row["setting"]): row["hash"] for row in findings.protocol["scores"]}
    document = {
        "version": RESULTS_VERSION,
        **summary.model_dump(mode="json", exclude={"scores", "scaling", "base_answers"}),
        "model": findings.model,
        "models": dict(findings.models),
        "scores": [
            {**row.model_dump(mode="json"), **_details(*each, *pair, it), "protocol": hashes[_place(each)]}
            for row, each, pair, it in zip(rows, measured, pairs, verdicts, strict=True)
        ],
        "scaling": [{"benchmark": name, "of": of, **_curve_document(it)} for (name, of), it in curves.items()],
        "missing": [
            {"benchmark": each[0].name, "metric": _metric(*each)} for each in findings.wanted if each not in measured
        ],
    }
    return summary, document


def line(score: Score) -> str:
    """A score in a line of the log."""
    words = f"{score.benchmark}: {score.metric} {score.value:.3f} ± {score.stderr:.3f}"
    if score.interval is not None:
        words += f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]"
    if score.baseline is not None:
        words += f", base {score.baseline:.3f}"
    if score.verdict is not None and score.p_value is not None:
        counts = "" if score.wins is None else f"{score.wins} better, {score.losses} worse, "
        words += f": {score.verdict} ({counts}p {score.p_value:.3g})"
    answers = score.questions * score.samples
    if score.of_answers is not None:
        words += f"; PARTIAL, {answers} of {score.of_answers} answers"
    return f"{words}; {score.no_answer} of {answers} without an answer, {score.capped} capped"


def _place(each: tuple[Benchmark, Setting]) -> Place:
    return each[0].name, each[1].name


def _has_answers(findings: Findings, each: tuple[Benchmark, Setting]) -> bool:
    found = findings.trained.get(_place(each))
    return found is not None and bool(found.rights)


def _base(findings: Findings, each: tuple[Benchmark, Setting]) -> Base:
    benchmark = each[0]
    if findings.exam.evaluation.baseline == "published":
        if benchmark.published is None:
            return None
        # Of a part of the questions only the user knows a score, and it is over that part.
        return Published(value=benchmark.published, questions=len(findings.exam.questions[benchmark.name]))
    found = findings.base.get(_place(each))
    return found if found is not None and found.complete else None


def _metric(benchmark: Benchmark, setting: Setting) -> str:
    metric = "accuracy" if benchmark.samples == 1 else f"mean@{benchmark.samples}"
    return f"{metric}@{setting.name}" if setting.name else metric


def _score(benchmark: Benchmark, setting: Setting, trained: Measured, base: Base, it: Judged) -> Score:
    compared = it.comparison
    return Score(
        benchmark=benchmark.name,
        metric=_metric(benchmark, setting),
        value=round(trained.value, 6),
        stderr=round(trained.stderr, 6),
        questions=len(trained.rights),
        samples=trained.samples,
        of_answers=None if trained.complete else trained.wanted,
        no_answer=trained.no_answer,
        capped=trained.capped,
        thinking_tokens=trained.thinking_tokens,
        interval=(round(it.interval.low, 6), round(it.interval.high, 6)),
        baseline=None if base is None else round(base.value, 6),
        baseline_stderr=round(base.stderr, 6) if isinstance(base, Measured) else None,
        comparison=None if base is None else "published" if isinstance(base, Published) else "paired",
        wins=None if compared is None else compared.wins,
        losses=None if compared is None else compared.losses,
        p_value=None if it.adjusted_p is None else float(f"{it.adjusted_p:.6g}"),
        verdict=it.verdict,
    )


def _details(benchmark: Benchmark, setting: Setting, trained: Measured, base: Base, it: Judged) -> dict[str, Any]:
    """What a row of ``results.json`` has beyond the score that is posted."""
    return {
        "setting": {"name": setting.name, "waits": setting.waits, "max_thinking_tokens": setting.thinking_tokens},
        "delta": None if it.comparison is None else _delta(it.comparison),
        "of_trained": _counts(trained),
        "of_base": _counts(base) if isinstance(base, Measured) else None,
    }


def _delta(it: Comparison) -> dict[str, Any]:
    low, high = (max(-1.0, min(1.0, end)) for end in (it.interval.low, it.interval.high))
    return {
        "value": round(it.delta, 6),
        "stderr": round(it.stderr, 6),
        "interval": [round(low, 6), round(high, 6)],
        "p_value_unadjusted": float(f"{it.p_value:.6g}"),
    }


def _counts(it: Measured) -> dict[str, Any]:
    fields = asdict(it)
    del fields["rights"]
    passed = pass_curve(it.rights, samples=it.samples)
    return {**fields, "value": round(it.value, 6), "stderr": round(it.stderr, 6), "pass_at": dict(passed)}


def _curve(findings: Findings, benchmark: str, results: Mapping[Place, Measured]) -> Curve | None:
    points: list[Point] = []
    for each, setting in findings.wanted:
        found = results.get((benchmark, setting.name)) if each.name == benchmark else None
        if found is None or not found.complete or found.thinking_tokens is None or setting.thinking_tokens is None:
            continue
        points.append(
            Point(
                setting=setting.name,
                thinking_tokens=found.thinking_tokens,
                allowed_tokens=setting.thinking_tokens,
                value=round(found.value, 6),
                stderr=round(found.stderr, 6),
            )
        )
    return curve(points)


def _curve_document(it: Curve) -> dict[str, Any]:
    return {
        "control": round(it.control, 4),
        "slope_points_per_1000_tokens": round(it.slope, 3),
        "performance": round(it.performance, 6),
        "points": [asdict(point) for point in it.points],
    }
