"""Reads what lm-evaluation-harness left (``lm_eval --output_path DIR --log_samples``) of tasks that are not ours.

Invariant: a score is what is right or wrong of each question, under the protocol that the harness recorded; what is
something else is named, and what cannot be read is an error. Nothing of the harness is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.measured import Measured
from rft_trainer.files import read_json

_RESULTS, _SAMPLES = "results_", "samples_"
_NOT_PARSED = "[invalid]"
"""What the harness's filters put where they found no answer."""
Place = tuple[str, str, str]
"""Task, filter and metric."""


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """A task's answers, as one filter read them and one metric judged them."""

    place: Place
    rights: tuple[int, ...]
    """1 or 0 for each question, in the order of their numbers."""
    asked: int
    """Questions that there are, within the limit that was set."""
    not_parsed: int
    protocol: Mapping[str, Any]
    """What two scores must have in common to be compared."""
    prompts_sha256: str
    """May differ between two models, whose chat templates may."""

    @property
    def measured(self) -> Measured:
        """The same, as our own evaluation counts it."""
        return Measured(rights=self.rights, samples=1, wanted_samples=1, asked=self.asked, no_answer=self.not_parsed)


@dataclass(frozen=True, kw_only=True)
class HarnessRun:
    """One model's run of the harness."""

    model: str
    scores: Mapping[Place, TaskScore]
    not_counted: Mapping[Place, str]
    """Metrics that say something else than right or wrong, and why they are left out."""


def read_run(folder: Path) -> HarnessRun:
    """The newest run below a folder; raises :class:`BadInputError` when there is none, or none that can be read."""
    path = _newest(folder)
    results = read_json(path)
    if not isinstance(results, dict) or not all(isinstance(results.get(key), dict) for key in ("configs", "versions")):
        raise BadInputError(f"{path}: is not what lm_eval writes as its results")
    stamp = path.stem.removeprefix(_RESULTS)
    files = sorted(path.parent.glob(f"{_SAMPLES}*_{stamp}.jsonl"))
    if not files:
        raise BadInputError(f"{path.parent}: has no {_SAMPLES}*_{stamp}.jsonl; run lm_eval with --log_samples")
    scores: dict[Place, TaskScore] = {}
    not_counted: dict[Place, str] = {}
    for file in files:
        task = file.stem.removeprefix(_SAMPLES).removesuffix(f"_{stamp}")
        for place, rows in _by_place(task, _rows(file), file=file).items():
            why = _no_right_or_wrong(place, rows, results)
            if why is None:
                scores[place] = _score(place, rows, results)
            else:
                not_counted[place] = why
    return HarnessRun(model=str(results.get("model_name") or folder.name), scores=scores, not_counted=not_counted)


def _newest(folder: Path) -> Path:
    found = sorted(folder.rglob(f"{_RESULTS}*.json"), key=lambda path: path.name)
    if not found:
        raise BadInputError(f"{folder}: has no {_RESULTS}*.json; run lm_eval with --output_path {folder} --log_samples")
    folders = sorted({str(path.parent) for path in found})
    if len(folders) > 1:
        raise BadInputError(f"{folder}: has the runs of several models; name one of {', '.join(folders)}")
    return found[-1]


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    # Bytes, for a text has more ends of lines: the harness leaves U+2028 and its like in what a model wrote.
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            row["doc_id"], row["doc_hash"], row["target_hash"], row["prompt_hash"], row["filter"], row["metrics"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"{file}:{number}: is no sample of lm_eval: {error}") from error
        yield row


def _by_place(task: str, rows: Iterable[Mapping[str, Any]], *, file: Path) -> dict[Place, dict[int, Mapping[str, Any]]]:
    """Each metric's samples by the numbers of their questions."""
    found: dict[Place, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        for metric in row["metrics"]:
            samples = found.setdefault((task, str(row["filter"]), str(metric)), {})
            if row["doc_id"] in samples:
                raise BadInputError(f"{file}: question {row['doc_id']} is there twice for the filter {row['filter']}")
            samples[row["doc_id"]] = row
    return {place: dict(sorted(samples.items())) for place, samples in found.items()}


def _no_right_or_wrong(place: Place, rows: Mapping[int, Mapping[str, Any]], results: Mapping[str, Any]) -> str | None:
    task, _, metric = place
    if _of(results, "higher_is_better", task, {}).get(metric) is False:
        return "less of it is better"
    if any(row.get(metric) not in (0, 1) for row in rows.values()):
        return "it is not right or wrong for each question"
    return None


def _score(place: Place, rows: Mapping[int, Mapping[str, Any]], results: Mapping[str, Any]) -> TaskScore:
    task, filter_, metric = place
    config = _of(results, "configs", task, {})
    protocol = {
        "harness": f"lm_eval {results.get('lm_eval_version')}",
        "task": task,
        "version": _of(results, "versions", task, None),
        "filter": filter_,
        "metric": metric,
        "num_fewshot": _of(results, "n-shot", task, None),
        "fewshot_seed": (results.get("config") or {}).get("fewshot_seed"),
        "output_type": config.get("output_type"),
        "generation_kwargs": config.get("generation_kwargs"),
        "questions": len(rows),
        "questions_sha256": _sha256([(number, row["doc_hash"], row["target_hash"]) for number, row in rows.items()]),
    }
    return TaskScore(
        place=place,
        rights=tuple(int(row[metric]) for row in rows.values()),
        asked=_of(results, "n-samples", task, {}).get("effective", len(rows)),
        not_parsed=sum(_NOT_PARSED in (row.get("filtered_resps") or ()) for row in rows.values()),
        protocol=protocol,
        prompts_sha256=_sha256([row["prompt_hash"] for row in rows.values()]),
    )


def _of(results: Mapping[str, Any], key: str, task: str, default: Any) -> Any:
    found = (results.get(key) or {}).get(task)
    return default if found is None else found


def _sha256(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
