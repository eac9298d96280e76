"""What is asked in an evaluation: benchmarks, presets, budgets of thinking.

Invariant: a field that a preset may set has no schema default, else the preset could not know what the user wrote; the
defaults are applied with the preset when the run starts (``domain.evaluation``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rft_operator.api.base import ApiModel
from rft_operator.api.texts import BenchmarkName, BenchmarkUri, Decimal


class EvaluationPreset(StrEnum):
    """Values of an evaluation as a published run, or good practice, has them."""

    REASONING_V1 = "reasoning-v1"
    S1 = "s1"
    SKYTHOUGHT = "skythought"


class EvaluationEngine(StrEnum):
    """What generates the answers."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class Baseline(StrEnum):
    """What the trained model is compared with."""

    MEASURE = "measure"
    PUBLISHED = "published"
    NONE = "none"


class Scorer(StrEnum):
    """How an answer is judged."""

    MATH = "math"
    INTEGER = "integer"
    LETTER = "letter"
    GSM8K = "gsm8k"
    CODE = "code"


class BenchmarkSpec(ApiModel):
    """One benchmark."""

    name: BenchmarkName
    """Name shown in status and metrics. math500, aime24, aime25, gpqa-diamond, gsm8k, humaneval and livecodebench are
    built in: their questions come from the hub unless uri says otherwise."""
    uri: BenchmarkUri | None = None
    """JSONL rows {id, problem, answer, scorer, choices}: hf://, pvc://, file:// or configmap://name/key; or
    gym://task?option=value."""
    scorer: Scorer | None = None
    """How answers are judged where a row does not say so itself. Default that of a built-in benchmark, else letter for
    rows with choices and math for others."""
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Use the first so many questions."""
    samples: Annotated[int, Field(ge=1, le=256)] | None = None
    """Answers per question. Default that of the preset, else 1."""
    temperature: Decimal | None = None
    """Sampling temperature as text; "0" is greedy and needs samples: 1. Default that of the preset, else "0"."""
    top_p: Decimal | None = None
    """Answers are drawn from the likeliest tokens that hold so much probability together. Default that of the preset,
    else "1"."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens an answer may have, thinking included. Default that of the preset, else 8192."""
    published: Decimal | None = None
    """The base model's published score, 0 to 1, for baseline: published alone; known for Qwen2.5-32B-Instruct."""


class BudgetForcing(ApiModel):
    """How long a model may think and how often it is made to think again, as s1 did it."""

    waits: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=1, max_length=8)] = Field(
        default_factory=lambda: [0]
    )
    """So often an end of thinking is replaced by "Wait"; each number is measured and has a score of its own."""
    max_thinking_tokens: Annotated[int, Field(ge=1, le=999_999)]
    """Thinking is ended after so many tokens, all Waits together; the rest of maxTokens is kept for the answer."""
    sweep_thinking_tokens: Annotated[list[Annotated[int, Field(ge=1, le=999_999)]], Field(max_length=8)] = Field(
        default_factory=list
    )
    """Smaller budgets to measure too, with as many tokens for the answer: the curve of accuracy against thinking."""
