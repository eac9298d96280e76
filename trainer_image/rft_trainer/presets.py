"""Benchmarks and evaluation protocols by name: where their questions are, and the values that published runs used.

Invariant: a preset only fills what the user left open. A benchmark's questions are never shipped here, for some are
gated and all may be corrected where they are kept. Sources of the values: docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rft_trainer.contract import BudgetForcing, EvaluationPrecision, PromptStyle
from rft_trainer.sandbox.limits import PROGRAM_MIB

Format = Literal["messages", "s1", "sky-t1"]
DEFAULT_MAX_TOKENS = 8_192
LIVE_CODE_BENCH_MIB = 4_096
"""What a program of LiveCodeBench may take (its lcb_runner/evaluation/testing_util.py: 4 GB)."""
MULTIPLE_CHOICE = "letter"


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A benchmark that has a name of its own."""

    uri: str
    scorer: str
    split: str = "test"
    """Of the files at ``uri``."""
    questions: int
    """So many there are, for published scores."""
    program_mib: int = PROGRAM_MIB
    """What a program may take that answers one of them."""


BENCHMARKS: Mapping[str, BuiltIn] = {
    "math500": BuiltIn(uri="hf://HuggingFaceH4/MATH-500", scorer="math", questions=500),
    "aime24": BuiltIn(uri="hf://HuggingFaceH4/aime_2024", scorer="integer", split="train", questions=30),
    "aime25": BuiltIn(uri="hf://math-ai/aime25", scorer="integer", questions=30),
    "gpqa-diamond": BuiltIn(uri="hf://Idavidrein/gpqa/gpqa_diamond.csv", scorer=MULTIPLE_CHOICE, questions=198),
    "humaneval": BuiltIn(uri="hf://openai/openai_humaneval", scorer="code", questions=164),
    "livecodebench": BuiltIn(
        uri="hf://livecodebench/code_generation_lite/test.jsonl",  # release_v1
        scorer="code",
        questions=400,
        program_mib=LIVE_CODE_BENCH_MIB,
    ),
    "gsm8k": BuiltIn(uri="hf://openai/gsm8k/main", scorer="gsm8k", questions=1_319),
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The values of an evaluation as a published run, or good practice, has them."""

    prompt: PromptStyle
    temperature: float
    top_p: float = 1.0
    max_tokens: int
    samples: Mapping[str, int] = field(default_factory=dict)
    """Answers of each question, by benchmark; one where it is not named."""
    precision: EvaluationPrecision = "auto"
    forcing: BudgetForcing | None = None
    uris: Mapping[str, str] = field(default_factory=dict)
    """Rows of a benchmark, where they are not those of its name."""
    format: Format = "messages"
    """Of the rows that its source's models were trained on; taken where nothing says how a model was trained."""


PRESETS: Mapping[str, Preset] = {
    # Sampled answers of few questions vary by several points: small benchmarks are asked often.
    "reasoning-v1": Preset(
        prompt="boxed-last",
        temperature=0.6,
        top_p=0.95,
        max_tokens=32_768,
        samples={"aime24": 16, "aime25": 16, "gpqa-diamond": 4, "livecodebench": 4},
    ),
    # s1's thinking budget was what 32,768 tokens leave beside question and answer; 2,048 are for each of these here.
    "s1": Preset(
        prompt="bare",
        temperature=0.0,
        max_tokens=30_720,
        precision="fp32",
        format="s1",
        forcing=BudgetForcing(waits=(0, 1, 2, 4), max_thinking_tokens=28_672),
    ),
    "skythought": Preset(
        prompt="skythought",
        format="sky-t1",
        temperature=0.0,
        max_tokens=32_768,
        uris={"livecodebench": "hf://livecodebench/code_generation_lite/test.jsonl,test2.jsonl"},  # release_v2
    ),
}

QWEN_32B = "hf://Qwen/Qwen2.5-32B-Instruct"
PUBLISHED: Mapping[str, Mapping[tuple[str, str], float]] = {
    "s1": {  # Table 1 of arXiv 2501.19393
        (QWEN_32B, "math500"): 0.84,
        (QWEN_32B, "aime24"): 0.267,
        (QWEN_32B, "gpqa-diamond"): 0.49,
    },
    "skythought": {  # README.md of NovaSky-AI/SkyThought; of LiveCodeBench it has each difficulty, and no whole
        (QWEN_32B, "math500"): 0.814,
        (QWEN_32B, "aime24"): 0.167,
        (QWEN_32B, "gpqa-diamond"): 0.455,
    },
}
"""Scores of base models under a preset's protocol, by model and benchmark: those of another one are no baseline."""
