"""What ``rft evaluate`` was asked for, in the form that the evaluation of a cluster has.

Invariant: the words of the command line become a ``spec.evaluation``, so presets, defaults and refusals are those of a
run; nothing of the trainer is imported before the order is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rft_operator.api.evaluation import EvaluationEngine
from rft_operator.api.spec import Evaluation
from rft_operator.domain.evaluation import evaluation_config
from rft_operator.errors import EvaluateError
from rft_trainer.contract import EvaluationConfig
from rft_trainer.presets import PRESETS, Format

LONGEST_SECONDS = 604_800
_OF_BENCHMARK = ("limit", "samples", "temperature", "top_p", "max_tokens", "scorer")
_HOTTEST = 2.0
_OPTIONS = {
    "name": "benchmark",
    "uri": "benchmark",
    "benchmarks": "benchmark",
    "max_thinking_tokens": "thinking-tokens",
    "sweep_thinking_tokens": "thinking-tokens",
}
"""Of fields that have another name in a ``spec.evaluation``."""
_IN_A_CLUSTER = ("pvc://", "configmap://")
_SHOWN_CHARACTERS = 60


def evaluation_of(
    benchmarks: Sequence[str], options: Mapping[str, Any], *, model: str, compared: bool
) -> EvaluationConfig:
    """Return the effective values; raises :class:`EvaluateError` naming the option, the value and the remedy."""
    given = {name: value for name, value in options.items() if value is not None}
    of_each = {name: given.pop(name) for name in _OF_BENCHMARK if name in given}
    rows = [{**_benchmark(each), **of_each} for each in benchmarks]
    names = [row["name"] for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise EvaluateError(f"--benchmark {twice}: is asked for twice; give each a name of its own")
    document = {"benchmarks": rows, "baseline": "measure" if compared else "none", **_forcing(given), **given}
    try:
        spec = Evaluation.model_validate(document)
    except ValidationError as error:
        raise EvaluateError("\n".join(_words(each) for each in error.errors())) from error
    _check(spec)
    return evaluation_config(spec, model_uri=model)


def _check(spec: Evaluation) -> None:
    """Refuse what of a run the API server would (``api.evaluation_rules``): here it is not asked."""
    for each in spec.benchmarks:
        if each.temperature is not None and float(each.temperature) > _HOTTEST:
            raise EvaluateError(f"--temperature {each.temperature}: must be at least 0 and at most {_HOTTEST:g}")
        if each.top_p is not None and not 0 < float(each.top_p) <= 1:
            raise EvaluateError(f"--top-p {each.top_p}: must be above 0 and at most 1")
        if each.scorer is not None and each.uri is not None and each.uri.startswith("gym://"):
            raise EvaluateError(f"--scorer {each.scorer.value}: the generator of {each.name} judges its answers itself")
    if spec.gpus > 1 and spec.engine is not EvaluationEngine.VLLM:
        raise EvaluateError(f"--gpus {spec.gpus}: the engine transformers uses one GPU; add --engine vllm")


def format_of(preset: str | None) -> Format:
    """Return the format of the models that a preset was made for: their marks begin and end its budgets of thinking."""
    return PRESETS[preset].format if preset is not None else "messages"


def numbers(text: str, *, option: str) -> list[int]:
    """Return ``1,2,3`` as numbers."""
    try:
        return [int(each) for each in text.split(",")]
    except ValueError as error:
        raise EvaluateError(
            f"{option} {text!r}: must be whole numbers with commas between them, such as 0,1,2"
        ) from error


def _benchmark(text: str) -> dict[str, Any]:
    name, separator, place = text.partition("=")
    if not separator:
        return {"name": name}
    if not place or place.startswith(_IN_A_CLUSTER):
        raise EvaluateError(f"--benchmark {text}: give its rows as a JSONL file, hf://, file:// or gym://")
    return {"name": name, "uri": place if "://" in place else f"file://{Path(place).expanduser().absolute()}"}


def _forcing(given: dict[str, Any]) -> dict[str, Any]:
    """Take the budget of thinking out of the options: the largest is the budget, the others are swept."""
    waits, tokens = given.pop("waits", None), given.pop("thinking_tokens", None)
    if tokens is None:
        if waits is not None:
            raise EvaluateError("--waits: needs --thinking-tokens, the budget that all Waits share")
        return {}
    budgets = sorted(set(numbers(tokens, option="--thinking-tokens")))
    forcing: dict[str, Any] = {"max_thinking_tokens": budgets[-1], "sweep_thinking_tokens": budgets[:-1]}
    if waits is not None:
        forcing["waits"] = list(dict.fromkeys(numbers(waits, option="--waits")))
    return {"budget_forcing": forcing}


def _words(error: Any) -> str:
    field = [part for part in error["loc"] if isinstance(part, str)][-1]
    option = _OPTIONS.get(field, field.replace("_", "-"))
    reason, given = str(error["msg"]).removeprefix("Value error, "), repr(error["input"])
    shown = given if len(given) <= _SHOWN_CHARACTERS else f"{given[: _SHOWN_CHARACTERS - 3]}..."
    return f"--{option} {shown}: {reason[:1].lower()}{reason[1:]}"
