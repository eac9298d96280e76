"""Scores as the hub reads them: ``.eval_results/*.yaml``, one file a benchmark.

Invariant: only whole scores of questions that the hub knows are given, and of a sweep only its first setting: the best
of several, picked after the fact, is no score. https://huggingface.co/docs/hub/eval-results
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from rft_trainer.presets import BENCHMARKS
from rft_trainer.publish.card import RESULTS_FILE
from rft_trainer.publish.story import Story

FOLDER = ".eval_results"
_HUB = "hf://"
_TASKS = {"gpqa-diamond": "gpqa_diamond"}
"""Names of tasks within their dataset, where it has several."""


def eval_results(story: Story, *, repository: str | None) -> dict[str, bytes]:
    """The files, by their path; ``repository`` is where the results will be found."""
    files: dict[str, bytes] = {}
    if story.results is None or story.results.get("stopped") is not None:
        return files
    sources = {each["name"]: each for each in _benchmarks(story)}
    for row in story.results.get("scores", ()):
        source = sources.get(row["benchmark"], {})
        path = f"{FOLDER}/{row['benchmark']}.yaml"
        on_the_hub = str(source.get("uri", "")).startswith(_HUB)
        if path in files or row.get("of_answers") is not None or not on_the_hub or _is_of_a_part(row, source):
            continue
        entry = _entry(row, source, story=story, repository=repository)
        files[path] = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True).encode()
    return files


def _is_of_a_part(row: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Whether a limit may have left questions out: of a benchmark of no name only a limit above all of them did not."""
    limit, known = source.get("limit"), BENCHMARKS.get(str(row["benchmark"]))
    if limit is None or row["questions"] < limit:
        return False
    return known is None or known.uri != source.get("uri") or row["questions"] < known.questions


def _benchmarks(story: Story) -> list[dict[str, Any]]:
    evaluation = story.run.get("evaluation")
    found = evaluation.get("benchmarks") if isinstance(evaluation, dict) else None
    return [each for each in found or () if isinstance(each, dict)]


def _entry(
    row: Mapping[str, Any], source: Mapping[str, Any], *, story: Story, repository: str | None
) -> dict[str, Any]:
    from huggingface_hub import EvalResultEntry
    from huggingface_hub import eval_result_entries_to_yaml as to_yaml

    name = str(row["benchmark"])
    low, high = row.get("interval") or (0.0, 1.0)
    notes = [
        f"{row['metric']} in percent over {row['questions']} questions",
        f"95 % interval {100 * low:.1f} to {100 * high:.1f}",
        f"protocol sha256:{row.get('protocol')}",
    ]
    entry = EvalResultEntry(
        dataset_id="/".join(str(source["uri"]).removeprefix(_HUB).split("/")[:2]),
        task_id=_TASKS.get(name, "default"),
        value=round(100 * float(row["value"]), 2),
        dataset_revision=story.benchmark_commits.get(name),
        date=story.evaluated_on,
        source_url=f"https://huggingface.co/{repository}/blob/main/{RESULTS_FILE}" if repository is not None else None,
        source_name="Reasoning Finetune Operator" if repository is not None else None,
        notes="; ".join(notes),
    )
    [found] = to_yaml([entry])
    return found
