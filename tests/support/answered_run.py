"""A run on a real cluster whose questions are all answered by programs, so that the stage Score is next.

No model can be made to write these programs, so the answers are put on the volume as the Evaluate stage would have left
them, by its own code; everything after that is the operator's and the cluster's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_local.images import USER
from rft_operator.domain.resolve import read_snapshot
from rft_trainer.evaluate.main import exam_of
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord
from rft_trainer.evaluate.runner import Model
from rft_trainer.evaluate.sampler import BatchWindow, Completion, CompletionRequest, Finish
from rft_trainer.evaluate.session import Candidate, Session
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.report import Work
from support.builders import merged
from support.finetune import Finetune, holds
from support.polling import eventually

ROWS, CLAIM = "programs", "answers"
"""The ConfigMap of the questions, and the claim of the volume."""
_DONE = {"Prepared": "True", "Trained": "True", "Evaluated": "False"}


class _Writer:
    """Writes the program that belongs to a question."""

    context_tokens = None
    identity = {"engine": "scripted"}

    def __init__(self, programs: Mapping[str, str]) -> None:
        self._programs = programs

    def count(self, text: str) -> int:
        return len(text.split())

    def window(self) -> BatchWindow:
        return BatchWindow(self._complete)

    def _complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        return [Completion(f"```python\n{self._programs[each.prompt]}\n```", 5, Finish.EOS) for each in requests]


@dataclass(frozen=True, slots=True)
class AnsweredRun:
    """The run, and where its answers are on this machine."""

    finetune: Finetune
    folder: Path
    """The evaluation's folder on the volume."""

    def records(self) -> dict[str, AnswerRecord]:
        """Return every answer with its verdict so far, by question."""
        [path] = self.folder.glob(f"{ROWS}-*.jsonl")
        return {question: record for (question, _), record in AnswerFile(path).records.items()}

    def score(self) -> None:
        """Let the run go on: the stage Score is all that is left of it."""
        self.finetune.edit(suspend=False)


@contextlib.asynccontextmanager
async def answered_run(
    finetune: Finetune, questions: Mapping[str, tuple[dict[str, Any], str]], *, folder: Path, **change: Any
) -> AsyncIterator[AnsweredRun]:
    """A run whose questions are these: by id the tests, and the program that a model answered with."""
    rows = "".join(
        json.dumps({"id": name, "problem": name, "tests": tests}) + "\n" for name, (tests, _) in questions.items()
    )
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    objects: dict[tuple[str, str], dict[str, Any]] = {
        ("ConfigMap", ROWS): {"data": {"rows.jsonl": rows}},
        ("PersistentVolumeClaim", CLAIM): {"spec": claim},
    }
    for (kind, name), body in objects.items():
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **body}
        finetune.kubectl("create", "-f", "-", manifest=manifest)
    try:
        programs = {name: code for name, (_, code) in questions.items()}
        yield await _answered(finetune, rows, programs, folder=folder, **change)
    finally:
        finetune.kubectl("delete", "rft", finetune.name, "--wait=false", "--ignore-not-found")
        for kind, name in objects:
            finetune.kubectl("delete", kind, name, "--wait=false")


async def _answered(
    finetune: Finetune, rows: str, programs: Mapping[str, str], *, folder: Path, **change: Any
) -> AnsweredRun:
    benchmark = {"name": ROWS, "uri": f"configmap://{ROWS}/rows.jsonl", "maxTokens": 4_096}
    evaluation = {"benchmarks": [benchmark], "baseline": "none", "budgetForcing": None}
    storage = {"claimName": CLAIM, "size": None, "retain": None}
    spec = merged({"suspend": True, "storage": storage, "evaluation": evaluation}, change)
    finetune.apply(**spec)
    await finetune.until(lambda status: holds(status, "Suspended"), what="the run to be accepted", seconds=60)
    evaluated = await _onto_the_volume(finetune, _answer(finetune, rows, programs, folder=folder))
    _to_scoring(finetune)
    return AnsweredRun(finetune, evaluated)


def _answer(finetune: Finetune, rows: str, programs: Mapping[str, str], *, folder: Path) -> Path:
    """Do what the Evaluate stage does; return the run's folder, as it is to be on the volume."""
    config = read_snapshot(
        finetune.kubectl_json("get", "configmap", f"{finetune.name}-run", "-o", "json")["data"]
    ).config
    layout = Layout(folder)
    paths = RunPaths.of(layout, config)
    questions = layout.real(f"/rft/configmaps/{ROWS}/rows.jsonl")
    questions.parent.mkdir(parents=True)
    questions.write_text(rows)
    session = Session(
        exam=exam_of(config, layout, paths),
        directory=paths.evaluation,
        artifacts=paths.pod_path(paths.evaluation),
        stop=Stop(),
        work=Work(None),
        baselines=layout.baselines,
    )
    model = Model("step-1", sampler=_Writer(programs), render=lambda turns: turns[-1].content)
    summary = session.run(Candidate(name="step-1", fingerprint="files:none", load=lambda: model), None)
    assert summary.pending == len(programs)
    return paths.data


async def _onto_the_volume(finetune: Finetune, folder: Path) -> Path:
    """Copy a run's folder onto its volume, which is a folder of this machine; return the evaluation's."""

    async def volume() -> Any:
        return finetune.kubectl_json("get", "pvc", CLAIM, "-o", "json")["spec"].get("volumeName")

    name = await eventually(volume, what="the volume to be there")
    path = Path(finetune.kubectl_json("get", "pv", name, "-o", "json")["spec"]["hostPath"]["path"])
    target = path / folder.name
    shutil.copytree(folder, target)
    for each in (target, *target.rglob("*")):
        os.chown(each, USER, USER)
    return target / "evaluation"


def _to_scoring(finetune: Finetune) -> None:
    """Put on record that everything before the stage Score is done."""
    status = finetune.kubectl_json("get", "rft", finetune.name, "-o", "json")["status"]
    conditions = {each["type"]: each for each in status["conditions"]}
    for type_, value in _DONE.items():
        reason = "Succeeded" if value == "True" else "ScoringPending"
        conditions[type_] = {**conditions[type_], "status": value, "reason": reason}
    patch = json.dumps({"status": {"conditions": list(conditions.values())}})
    finetune.kubectl("patch", "rft", finetune.name, "--subresource=status", "--type=merge", "-p", patch)
