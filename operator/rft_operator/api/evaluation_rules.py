"""Rules of ``spec.evaluation``, enforced by the API server.

Invariant: a rule speaks only of what the user wrote; what a preset or a default adds is checked when the run is
accepted (``domain.evaluation``), with the same words.
"""

from __future__ import annotations

from rft_operator.api.cel import FORBIDDEN, REQUIRED, Path, Rule, between, uris
from rft_trainer.presets import BENCHMARKS, PRESETS

_BUILT_IN = ", ".join(f"'{name}'" for name in sorted(BENCHMARKS))
_SAMPLING = ", ".join(f"'{name}'" for name, preset in sorted(PRESETS.items()) if preset.temperature > 0)
_ZERO = "each.temperature.matches('^[0.]+(e.*)?$')"
_FORCING = "self.budgetForcing"
_SWEEP = f"(has({_FORCING}.sweepThinkingTokens) ? size({_FORCING}.sweepThinkingTokens) : 0)"

EVALUATION_RULES: dict[Path, list[Rule]] = {
    ("spec", "evaluation"): [
        Rule(
            expression="!has(self.budgetForcing) || self.budgetForcing.maxThinkingTokens > 999999 || "
            "self.benchmarks.all(each, !has(each.maxTokens) || "
            "each.maxTokens > self.budgetForcing.maxThinkingTokens)",
            message="must be below the maxTokens of every benchmark, for the rest is kept for the answer",
            field=".budgetForcing.maxThinkingTokens",
        ),
        Rule(
            expression=f"!has({_FORCING}) || size({_FORCING}.waits) > 8 || {_SWEEP} > 8 || "
            f"size(self.benchmarks) * size({_FORCING}.waits) * (1 + {_SWEEP}) <= 16",
            message="benchmarks x waits x budgets are more than 16 scores, which is all that the status holds; "
            "ask for fewer",
            field=".budgetForcing",
        ),
        Rule(
            expression="self.benchmarks.all(each, !has(each.samples) || each.samples <= 1 || "
            f"(has(each.temperature) ? !{_ZERO} : has(self.preset) && self.preset in [{_SAMPLING}]))",
            message="several answers of temperature 0 are all the same; set samples: 1 or a temperature above 0",
            field=".benchmarks",
        ),
        Rule(
            expression="self.baseline == 'published' || self.benchmarks.all(each, !has(each.published))",
            message="a published score is compared with under baseline: published alone; set it, or remove published",
            field=".benchmarks",
            reason=FORBIDDEN,
        ),
        Rule(
            expression="self.gpus <= 1 || self.engine == 'vllm'",
            message="the engine transformers uses one GPU; set engine: vllm, or gpus: 1",
            field=".gpus",
        ),
    ],
    ("spec", "evaluation", "budgetForcing"): [
        Rule(
            expression="!has(self.sweepThinkingTokens) || size(self.sweepThinkingTokens) > 8 || "
            "self.sweepThinkingTokens.all(each, each < self.maxThinkingTokens)",
            message="must be below maxThinkingTokens, which is the largest budget and is measured anyway",
            field=".sweepThinkingTokens",
        ),
    ],
    ("spec", "evaluation", "benchmarks", "[]"): [
        Rule(
            expression=f"has(self.uri) || self.name in [{_BUILT_IN}]",
            message=f"say where the rows are; only of {', '.join(sorted(BENCHMARKS))} it is known",
            field=".uri",
            reason=REQUIRED,
        ),
        Rule(
            expression="!has(self.uri) || !self.uri.startsWith('gym://') || has(self.limit)",
            message="a generator (gym://) is endless; say how many questions to ask",
            field=".limit",
            reason=REQUIRED,
        ),
        Rule(
            expression="!has(self.uri) || !self.uri.startsWith('gym://') || !has(self.scorer)",
            message="a generator (gym://) judges its answers itself; remove it",
            field=".scorer",
            reason=FORBIDDEN,
        ),
    ],
    ("spec", "evaluation", "benchmarks", "[]", "temperature"): between("0.0", "2.0"),
    ("spec", "evaluation", "benchmarks", "[]", "topP"): between("0.0", "1.0", open_low=True),
    ("spec", "evaluation", "benchmarks", "[]", "published"): between("0.0", "1.0"),
    ("spec", "evaluation", "benchmarks", "[]", "uri"): uris("hf", "pvc", "configmap", "file", "gym"),
}
