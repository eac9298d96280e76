"""The effective values of an evaluation: what the user wrote, then the preset, then the defaults.

Invariant: the values are resolved once, before the run starts, so a preset that changes with a new version of the
operator changes no running evaluation; and what contradicts itself is refused before anything is paid for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rft_operator.api.evaluation import Baseline, BenchmarkSpec, BudgetForcing
from rft_operator.api.spec import Evaluation
from rft_operator.domain.program_memory import check_program_memory, program_memory_mib
from rft_operator.errors import InvalidResource
from rft_trainer import contract
from rft_trainer.contract import Benchmark, EvaluationConfig
from rft_trainer.presets import BENCHMARKS, DEFAULT_MAX_TOKENS, PRESETS, PUBLISHED, Preset

MOST_SCORES = 16
"""All that the status and the termination message hold."""
_PLAIN = Preset(prompt="format", temperature=0.0, max_tokens=DEFAULT_MAX_TOKENS)


def evaluation_config(it: Evaluation, *, model_uri: str) -> EvaluationConfig:
    """Return the trainer's form; raises InvalidResource where the values do not fit together."""
    preset = _PLAIN if it.preset is None else PRESETS[it.preset.value]
    forcing = preset.forcing if it.budget_forcing is None else _forcing(it.budget_forcing)
    known = PUBLISHED.get(it.preset.value, {}) if it.preset is not None else {}
    benchmarks = tuple(
        _benchmark(each, preset, published=_published(each, known, it.baseline, model_uri=model_uri))
        for each in it.benchmarks
    )
    _check(benchmarks, forcing)
    check_program_memory(it)
    return EvaluationConfig(
        benchmarks=benchmarks,
        baseline=it.baseline.value,
        batch_size=it.batch_size,
        max_seconds=it.max_seconds,
        budget_forcing=forcing,
        preset=it.preset.value if it.preset is not None else None,
        prompt=preset.prompt,
        seed=it.seed,
        engine=it.engine.value,
        precision=preset.precision,
        gpus=it.gpus,
        program_memory_mib=program_memory_mib(it),
    )


def benchmark_uri(it: BenchmarkSpec) -> str:
    """Return where a benchmark's rows are."""
    known = BENCHMARKS.get(it.name)
    if it.uri is not None:
        return it.uri
    if known is None:
        names = ", ".join(sorted(BENCHMARKS))
        raise InvalidResource(
            "InvalidSpec",
            f"evaluation.benchmarks: {it.name} has no uri; say where its rows are (only of {names} it is known).",
        )
    return known.uri


def _published(
    it: BenchmarkSpec, known: Mapping[tuple[str, str], float], baseline: Baseline, *, model_uri: str
) -> float | None:
    """The score to compare with; the known ones are the preset's own, for another protocol's is no baseline."""
    if baseline is not Baseline.PUBLISHED:
        return None
    if it.published is not None:
        return float(it.published)
    score = known.get((model_uri, it.name))
    if score is None:
        having = ", ".join(sorted(name for name, scores in PUBLISHED.items() if (model_uri, it.name) in scores))
        raise InvalidResource(
            "InvalidSpec",
            f"evaluation.baseline is published, but no score of {model_uri} is known for {it.name} under this preset"
            f"{f' (it is under {having})' if having else ''}: set published of this benchmark, or baseline: measure.",
        )
    whole = BENCHMARKS[it.name].questions
    if it.limit is not None and it.limit < whole:
        raise InvalidResource(
            "InvalidSpec",
            f"evaluation.benchmarks: {it.name} has limit {it.limit}, and its published score is over all {whole} "
            "questions: remove the limit, set published to a score over the same questions, or baseline: measure.",
        )
    return score


def _benchmark(it: BenchmarkSpec, preset: Preset, *, published: float | None) -> Benchmark:
    known = BENCHMARKS.get(it.name)
    uri = it.uri or preset.uris.get(it.name) or benchmark_uri(it)
    scorer = it.scorer.value if it.scorer is not None else known.scorer if known is not None else None
    return Benchmark(
        name=it.name,
        uri=uri,
        limit=it.limit,
        samples=it.samples if it.samples is not None else _samples(it, preset),
        temperature=float(it.temperature) if it.temperature is not None else preset.temperature,
        top_p=float(it.top_p) if it.top_p is not None else preset.top_p,
        max_tokens=it.max_tokens if it.max_tokens is not None else preset.max_tokens,
        scorer=None if uri.startswith("gym://") else scorer,
        published=published,
    )


def _samples(it: BenchmarkSpec, preset: Preset) -> int:
    """Greedy answers are all the same, so a user who asks for them gets one."""
    greedy = it.temperature is not None and float(it.temperature) == 0
    return 1 if greedy else preset.samples.get(it.name, 1)


def _forcing(it: BudgetForcing) -> contract.BudgetForcing:
    return contract.BudgetForcing(
        waits=tuple(it.waits),
        max_thinking_tokens=it.max_thinking_tokens,
        sweep_thinking_tokens=tuple(it.sweep_thinking_tokens),
    )


def _check(benchmarks: Sequence[Benchmark], forcing: contract.BudgetForcing | None) -> None:
    for each in benchmarks:
        if each.samples > 1 and each.temperature == 0:
            raise InvalidResource(
                "InvalidSpec",
                f"evaluation.benchmarks: {each.name} asks for {each.samples} answers of temperature 0, which are all "
                "the same; set samples: 1 or a temperature above 0.",
            )
        if forcing is not None and each.max_tokens <= forcing.max_thinking_tokens:
            raise InvalidResource(
                "InvalidSpec",
                f"evaluation.budgetForcing.maxThinkingTokens is {forcing.max_thinking_tokens}, and {each.name} has "
                f"maxTokens {each.max_tokens}: lower the one or raise the other, for the rest is kept for the answer.",
            )
    settings = 1 if forcing is None else len(forcing.waits) * (1 + len(forcing.sweep_thinking_tokens))
    if len(benchmarks) * settings > MOST_SCORES:
        raise InvalidResource(
            "InvalidSpec",
            f"evaluation: {len(benchmarks)} benchmarks x {settings} settings are more than {MOST_SCORES} scores, which "
            "is all that the status holds; ask for fewer, or set budgetForcing yourself.",
        )
