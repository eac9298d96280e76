"""A story out of a run's folder on its volume (run card, steps, results of the evaluation), or of an evaluation's.

Invariant: a line that a kill has cut short is left out, never guessed; a folder that holds nothing of a run is an error
that says what is looked for.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_operator.api.scores import EvaluationStatus, ScalingResult
from rft_operator.domain.scores import result_of
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import ReportError
from rft_operator.report.story import Curve, CurvePoint, LossPoint, Story
from rft_trainer.stage_results import Score

CARD, STEPS, PREPARED, CONFIG = "run-card.json", "steps.jsonl", "prepared.json", "run.json"
RESULTS, PROTOCOL = "results.json", "protocol.json"
EVALUATION = "evaluation"
MARKS = (CARD, STEPS, PREPARED, CONFIG, f"{EVALUATION}/{RESULTS}")
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
    card = _read(path / CARD) or {}
    config = card.get("run") or _read(path / CONFIG) or {}
    losses, stamps = losses_and_times(_lines(path / STEPS))
    results = _read(evaluated / RESULTS)
    evaluation = _evaluation(results or {})
    prepared = (_read(path / PREPARED) or {}).get("summary") or {}
    return Story(
        title=f"{config['namespace']}/{config['name']}" if "name" in config else path.resolve().name,
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
        curves=tuple(_curves(results or {})),
        facts=tuple(facts_of_card(card, config, prepared, results or {})),
        card={
            name: value
            for name, value in (("card", card), ("config", config), ("protocol", _read(evaluated / PROTOCOL)))
            if value
        },
    )


def losses_and_times(lines: Iterable[str]) -> tuple[tuple[LossPoint, ...], tuple[int, ...]]:
    """Return each step's loss once (a resumed attempt makes steps anew), and the instants of the lines."""
    losses: dict[int, float] = {}
    stamps, last = [], 0
    for line in lines:
        row = _object(line)
        step, loss, stamp = row.get("step"), row.get("loss"), row.get("ts")
        if isinstance(step, int) and isinstance(loss, int | float) and math.isfinite(loss):
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


def _read(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file; None if there is none; raises ReportError for one that cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ReportError(f"{path} is no JSON object")
    return found


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


def _evaluation(results: Mapping[str, Any]) -> EvaluationStatus | None:
    """Return the scores as the operator would post them."""
    rows = results.get("scores") or ()
    try:
        scores = [Score.model_validate({key: row[key] for key in Score.model_fields if key in row}) for row in rows]
        return _posted(scores, results) if scores else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{RESULTS} has a score that cannot be read: {error}") from error


def _posted(scores: Sequence[Score], results: Mapping[str, Any]) -> EvaluationStatus:
    protocol = results.get("protocol")
    return EvaluationStatus(
        results=[result_of(score) for score in scores],
        partial=results.get("stopped") is not None,
        protocol_hash=f"sha256:{protocol}" if isinstance(protocol, str) else None,
        scaling=[
            ScalingResult(
                benchmark=str(row["benchmark"]),
                control=f"{row['control']:.4f}",
                slope=f"{row['slope_points_per_1000_tokens']:.2f}",
                performance=f"{row['performance']:.4f}",
            )
            for row in results.get("scaling") or ()
            if row.get("of") == "trained"
        ],
    )


def _curves(results: Mapping[str, Any]) -> Iterator[Curve]:
    for row in results.get("scaling") or ():
        try:
            points = [
                CurvePoint(
                    setting=str(point["setting"]),
                    thinking_tokens=float(point["thinking_tokens"]),
                    value=float(point["value"]),
                    stderr=point.get("stderr"),
                )
                for point in row["points"]
            ]
            yield Curve(benchmark=str(row["benchmark"]), of=str(row.get("of", "trained")), points=tuple(points))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ReportError(f"{RESULTS} has a curve that cannot be read: {error!r}") from error


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
