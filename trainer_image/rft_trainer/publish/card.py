"""The model card: what the model is, from what, for how much, and what it is worth as far as anybody can tell.

Invariant: every number is one that the run measured; a score never stands without its interval, its number of questions
and its verdict, and what is partial says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from rft_trainer.publish.story import Story

PLOT_FILE = "scaling.svg"
RESULTS_FILE = "evaluation/results.json"
PROTOCOL_FILE = "evaluation/protocol.json"
_HUB = "hf://"
_RECIPE = {
    "epochs": "epochs",
    "max_steps": "steps at most",
    "learning_rate": "learning rate",
    "schedule": "schedule",
    "warmup_ratio": "warm-up",
    "weight_decay": "weight decay",
    "global_batch_size": "batch",
    "max_sequence_length": "sequence length",
    "packing": "packing",
    "precision": "precision",
    "zero_stage": "ZeRO stage",
    "offload": "offload",
    "seed": "seed",
}


def model_card(story: Story, *, has_plot: bool) -> str:
    """``README.md`` of the published model."""
    parts = [_front_matter(story), _head(story)]
    parts += [*_scores(story), *_scaling(story, has_plot=has_plot), *_training(story), *_cost(story), *_repeat(story)]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def _front_matter(story: Story) -> str:
    fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if story.license is not None:
        fields["license"] = story.license
    base, data = _source(story, "model"), _source(story, "dataset")
    if base.startswith(_HUB):
        fields["base_model"] = base.removeprefix(_HUB)
    if data.startswith(_HUB):
        fields["datasets"] = ["/".join(data.removeprefix(_HUB).split("/")[:2])]
    fields["tags"] = ["reasoning", "reasoning-finetune-operator"]
    return f"---\n{yaml.safe_dump(fields, sort_keys=True)}---\n"


def _source(story: Story, of: str) -> str:
    found = story.run.get(of)
    return str(found.get("uri", "")) if isinstance(found, dict) else ""


def _head(story: Story) -> str:
    base, data = _source(story, "model") or "unknown", _source(story, "dataset") or "unknown"
    rows = (story.results or {}).get("scores", ())
    others = _has_published(rows)
    return (
        f"# {story.name}\n\nA reasoning model: `{base}`, fine-tuned on `{data}` ({story.step} steps).\n"
        f"Everything below{' but the published scores' if others else ''} was measured by the run itself; nothing was "
        "chosen by hand."
    )


def _scores(story: Story) -> Iterator[str]:
    if story.results is None:
        why = f": {story.silent_because}" if story.silent_because is not None else ""
        yield f"## Scores\n\nNone are given{why or ': the model was not evaluated'}."
        return
    rows = [each for each in story.results.get("scores", ()) if isinstance(each, dict)]
    yield "## Scores\n\n" + _table(
        ("benchmark", "metric", "score", "95 % interval", "questions", "base model", "better, worse", "p", "verdict"),
        [_score_row(each) for each in rows],
    )
    yield _how_compared(rows)
    notes = [*_notes(rows)]
    if story.results.get("stopped") is not None:
        notes.append("The evaluation was ended before all questions were asked: **the scores are partial**.")
    notes += [f"{each['benchmark']} {each['metric']} was not measured." for each in story.results.get("missing", ())]
    if notes:
        yield "\n".join(f"- {each}" for each in notes)


def _has_published(rows: Sequence[Any]) -> bool:
    return any(isinstance(each, dict) and each.get("comparison") == "published" for each in rows)


def _how_compared(rows: Sequence[Mapping[str, Any]]) -> str:
    against = "the base model on the same questions (exact McNemar or paired bootstrap"
    if _has_published(rows):
        against = "a published score of the base model, as if of other questions (Fisher's exact test"
    elif all(each.get("comparison") is None for each in rows):
        return "The interval is over questions. Nothing was compared."
    return (
        f"The interval is over questions. A verdict is given against {against}, adjusted for the number of "
        "benchmarks). Inconclusive: it may be chance."
    )


def _score_row(row: Mapping[str, Any]) -> Sequence[str]:
    interval = row.get("interval")
    counts = "" if row.get("wins") is None else f"{row['wins']}, {row['losses']}"
    base = "" if row.get("baseline") is None else _percent(row["baseline"])
    if base and row.get("comparison") == "published":
        base += " (published)"
    return (
        str(row["benchmark"]),
        str(row["metric"]),
        f"{_percent(row['value'])} ± {100 * row['stderr']:.1f}",
        "" if interval is None else f"{100 * interval[0]:.1f} to {_percent(interval[1])}",
        str(row["questions"]),
        base,
        counts,
        "" if row.get("p_value") is None else f"{row['p_value']:.3g}",
        str(row.get("verdict") or ""),
    )


def _notes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        what, answers = f"{row['benchmark']} {row['metric']}", row["questions"] * row["samples"]
        if row.get("of_answers") is not None:
            yield f"{what} is **partial**: {answers} of {row['of_answers']} answers."
        if row.get("no_answer"):
            yield f"{what}: in {row['no_answer']} of {answers} answers none could be read; they count as wrong."
        if row.get("capped"):
            yield f"{what}: {row['capped']} of {answers} answers were cut at their limit of tokens."


def _scaling(story: Story, *, has_plot: bool) -> Iterator[str]:
    curves = [each for each in (story.results or {}).get("scaling", ()) if each.get("of") == "trained"]
    if not curves:
        return
    yield "## More thinking\n\n" + (f"![accuracy against thinking tokens]({PLOT_FILE})\n" if has_plot else "")
    yield _table(
        ("benchmark", "percentage points per 1,000 tokens", "within the budget", "best setting"),
        [
            (
                str(each["benchmark"]),
                f"{each['slope_points_per_1000_tokens']:.2f}",
                _percent(each["control"]),
                _percent(each["performance"]),
            )
            for each in curves
        ],
    )


def _training(story: Story) -> Iterator[str]:
    training = story.run.get("training")
    if isinstance(training, dict):
        rows = [(words, str(training[name])) for name, words in _RECIPE.items() if training.get(name) is not None]
        if isinstance(training.get("lora"), dict):
            rows.append(("LoRA", f"rank {training['lora'].get('rank')}, alpha {training['lora'].get('alpha')}"))
        rows.append(("GPUs", str(story.card.get("ranks", "unknown"))))
        rows.append(("device", str(story.card.get("device", "unknown"))))
        yield "## Training\n\n" + _table(("", ""), rows)
    data, model = story.card.get("data"), story.card.get("model")
    rows = []
    if isinstance(model, dict):
        rows.append(("base model", _pinned(model)))
    if isinstance(data, dict):
        rows += [
            ("data", _pinned(data)),
            ("rows", str(data.get("rows"))),
            ("SHA-256 of the tokenised rows", f"`{data.get('sha256')}`"),
        ]
        sources = data.get("source_files")
        if isinstance(sources, dict):
            rows += [(f"SHA-256 of {name}", f"`{value}`") for name, value in sources.items() if isinstance(value, str)]
    if rows:
        yield "## Sources\n\n" + _table(("", ""), rows)


def _pinned(source: Mapping[str, Any]) -> str:
    commit = source.get("commit") or source.get("revision")
    return f"`{source.get('uri')}`" + (f" at `{commit}`" if commit else "")


def _cost(story: Story) -> Iterator[str]:
    if not story.cost:
        return
    rows = [("total", str(story.cost.get("gpuHours")), f"${story.cost.get('spentUSD')}")]
    rows += [
        (str(each["stage"]), f"{each['gpuSeconds'] / 3600:.3f}", f"${each['spentUSD']}")
        for each in story.cost.get("byStage", ())
    ]
    yield "## Cost\n\n" + _table(("stage", "GPU-hours", "paid"), rows)
    yield "From the second a pod is bound to the second its end is written, retries, waiting and evaluation included."


def _repeat(story: Story) -> Iterator[str]:
    versions = story.card.get("versions")
    lines = ["`run-card.json` holds every value in effect; the run can be replayed from it."]
    if story.protocol is not None:
        lines.append(
            f"Scores are of protocol `sha256:{story.protocol.get('hash')}` ({PROTOCOL_FILE}); only scores of the same "
            f"protocol compare. All counts are in {RESULTS_FILE}."
        )
    if isinstance(versions, dict):
        lines.append(
            "Versions: " + ", ".join(f"{name} {value}" for name, value in sorted(versions.items()) if value) + "."
        )
    yield "## To repeat it\n\n" + "\n\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
