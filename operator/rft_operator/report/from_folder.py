"""A story out of a run's folder on its volume (run card, steps, results of the evaluation), or of an evaluation's.

Invariant: a line that a kill has cut short is left out, never guessed; a folder that holds nothing of a run is an error
that says what is looked for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rft_operator.api.scores import EvaluationStatus, ScalingResult
from rft_operator.domain.scores import result_of
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import ReportError
from rft_operator.report.folder_files import Card, Config, Prepared, Protocol, Results, read_object
from rft_operator.report.story import Curve, CurvePoint, LossPoint, Story

CARD, STEPS, PREPARED, CONFIG = "run-card.json", "steps.jsonl", "prepared.json", "run.json"
RESULTS, PROTOCOL = "results.json", "protocol.json"
EVALUATION = "evaluation"
MARKS = (CARD, STEPS, PREPARED, CONFIG, f"{EVALUATION}/{RESULTS}")
_NO_LOSS = 1e39
"""No number of a GPU is so large."""
NO_MONEY = "What the run cost is in its resource, not in its folder: rft report NAME --directory DIR tells both."
NO_RUN = "This is the folder of an evaluation alone: how the model was trained, and for how much, is not in it."


def is_run_folder(path: Path) -> bool:
    """Return whether a folder holds something of a run."""
    return path.is_dir() and (any((path / mark).is_file() for mark in MARKS) or is_evaluation_folder(path))


def is_evaluation_folder(path: Path) -> bool:
    """Return whether a folder is what an evaluation leaves: ``rft evaluate -o``, or ``evaluation`` of a run."""
    return (path / RESULTS).is_file() and (path / PROTOCOL).is_file()


def story_of_folder(path: Path, *, now: int) -> Story:
    """Return what a run's folder tells; raises ReportError."""
    if not path.is_dir():
        raise ReportError(f"{path} is no folder; give a run's folder on its volume, or the name of a run")
    if not is_run_folder(path):
        raise ReportError(
            f"{path} is no folder of a run or an evaluation: none of {', '.join((*MARKS, RESULTS))} is in it"
        )
    alone = is_evaluation_folder(path)
    evaluated = path if alone else path / EVALUATION
    card = read_object(path / CARD, Card) or {}
    config = card.get("run") or read_object(path / CONFIG, Config) or {}
    losses, stamps = losses_and_times(_lines(path / STEPS))
    results = read_object(evaluated / RESULTS, Results)
    measured = Results.model_validate(results or {})
    evaluation = _evaluation(measured, results or {})
    prepared = (read_object(path / PREPARED, Prepared) or {}).get("summary") or {}
    shown = (("card", card), ("config", config), ("protocol", read_object(evaluated / PROTOCOL, Protocol)))
    return Story(
        title="/".join(config[each] for each in ("namespace", "name") if config.get(each)) or path.resolve().name,
        state="Evaluated" if evaluation is not None else "Trained" if (path / "export").is_dir() else "Folder",
        made_at=now,
        start=stamps[0] if stamps else None,
        end=stamps[-1] if stamps else None,
        total_steps=prepared.get("steps"),
        losses=losses,
        losses_note="" if losses else NO_RUN if alone else f"There is no {STEPS} in the folder.",
        money_note=NO_RUN if alone else NO_MONEY,
        evaluation=evaluation,
        scores_note="" if evaluation is not None else _no_scores(results),
        curves=tuple(_curves(measured)),
        facts=tuple(facts_of_card(card, config, prepared, results or {})),
        card={name: value for name, value in shown if value},
    )


def losses_and_times(lines: Iterable[str]) -> tuple[tuple[LossPoint, ...], tuple[int, ...]]:
    """Return each step's loss once (a resumed attempt makes steps anew), and the instants of the lines."""
    losses: dict[int, float] = {}
    stamps, last = [], 0
    for line in lines:
        row = _object(line)
        step, loss, stamp = row.get("step"), row.get("loss"), row.get("ts")
        if isinstance(step, int) and isinstance(loss, int | float) and 0 <= step < 2**31 and abs(loss) < _NO_LOSS:
            if step < last:
                losses = {each: value for each, value in losses.items() if each < step}
            losses[step], last = float(loss), step
        if isinstance(stamp, str):
            with contextlib.suppress(ValueError):
                stamps.append(epoch(stamp))
    points = tuple(LossPoint(step=step, loss=loss) for step, loss in sorted(losses.items()))
    return points, tuple(stamps)


def _object(text: str) -> Mapping[str, Any]:
    if not text.startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error}") from error


def _no_scores(results: Mapping[str, Any] | None) -> str:
    if results is None:
        return f"There is no {EVALUATION}/{RESULTS} in the folder."
    return f"{RESULTS} has no score: the evaluation was ended before any question was answered."


def _evaluation(measured: Results, results: Mapping[str, Any]) -> EvaluationStatus | None:
    """Return the scores as the operator would post them."""
    if not measured.scores:
        return None
    protocol = results.get("protocol")
    return EvaluationStatus(
        results=[result_of(score) for score in measured.scores],
        partial=results.get("stopped") is not None,
        protocol_hash=f"sha256:{protocol}" if isinstance(protocol, str) else None,
        scaling=[
            ScalingResult(
                benchmark=curve.benchmark,
                control=f"{curve.control:.4f}",
                slope=f"{curve.slope_points_per_1000_tokens:.2f}",
                performance=f"{curve.performance:.4f}",
            )
            for curve in measured.scaling or ()
            if curve.of == "trained"
        ],
    )


def _curves(measured: Results) -> Iterator[Curve]:
    for curve in measured.scaling or ():
        points = [
            CurvePoint(setting=each.setting, thinking_tokens=each.thinking_tokens, value=each.value, stderr=each.stderr)
            for each in curve.points
        ]
        yield Curve(benchmark=curve.benchmark, of=curve.of, points=tuple(points))


def facts_of_card(
    card: Mapping[str, Any], config: Mapping[str, Any], prepared: Mapping[str, Any], results: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield what makes the run what it is, as it was in effect."""
    model, data, training = card.get("model") or {}, card.get("data") or {}, config.get("training") or {}
    rows = (
        ("Model", model.get("uri") or (config.get("model") or {}).get("uri")),
        ("Model commit", model.get("commit")),
        ("Dataset", data.get("uri") or (config.get("dataset") or {}).get("uri")),
        ("Data sha256", data.get("sha256") or prepared.get("dataset_sha256")),
        ("Rows", data.get("rows")),
        ("Epochs", training.get("epochs")),
        ("Learning rate", training.get("learning_rate")),
        ("Global batch", training.get("global_batch_size")),
        ("Sequence length", training.get("max_sequence_length")),
        ("Seed", training.get("seed")),
        ("Ranks", card.get("ranks")),
        ("Device", card.get("device")),
        ("Trainer sha256", card.get("trainer_sha256")),
        ("Evaluation protocol", results.get("protocol")),
        *((f"Weights of {name}", value) for name, value in (results.get("models") or {}).items()),
    )
    yield from ((name, str(value)) for name, value in rows if value is not None)
    yield from ((name, str(value)) for name, value in (card.get("versions") or {}).items() if value is not None)
