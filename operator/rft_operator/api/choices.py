"""Words that a field of ``spec`` may hold, where only these few are allowed.

Invariant: a word never changes its meaning; what is stored in a cluster is read by later versions.
"""

from __future__ import annotations

from enum import StrEnum


class Recipe(StrEnum):
    """Published runs whose training values can be taken over as a preset."""

    SKY_T1 = "sky-t1"
    S1 = "s1"


class DatasetFormat(StrEnum):
    """How the rows of the dataset are written."""

    SKY_T1 = "sky-t1"
    S1 = "s1"
    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt-completion"


class EndOfTurn(StrEnum):
    """The mark after the last trained token of a row."""

    TEMPLATE = "template"
    IM_END = "im_end"
    ENDOFTEXT = "endoftext"


class Overlong(StrEnum):
    """What becomes of rows that are longer than the maximum sequence length."""

    DROP = "drop"
    FAIL = "fail"


class Method(StrEnum):
    """Which weights are trained."""

    FULL = "full"
    LORA = "lora"


class Schedule(StrEnum):
    """Shape of the learning rate after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Precision(StrEnum):
    """Number format of weights and activations."""

    BF16 = "bf16"
    FP32 = "fp32"


class Offload(StrEnum):
    """What DeepSpeed keeps in the host's memory instead of the GPU's."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    ALL = "all"


class OnExhausted(StrEnum):
    """What happens at the budget's stop line, after the checkpoint."""

    STOP = "stop"
    SUSPEND = "suspend"


class PricePolicy(StrEnum):
    """Which price a pod that already runs is charged at when the catalogue changes."""

    LOCKED = "locked"
    FLOATING = "floating"


class OnStall(StrEnum):
    """What happens when no step is made for ``stallSeconds``."""

    RESTART = "restart"
    FAIL = "fail"


class Resume(StrEnum):
    """Where a new attempt starts."""

    LATEST = "latest"
    NEVER = "never"


class TolerationOperator(StrEnum):
    """How a toleration compares with a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Gang(StrEnum):
    """Who keeps a part of the gang from holding GPUs while the rest waits for some."""

    NONE = "none"
    VOLCANO = "volcano"
