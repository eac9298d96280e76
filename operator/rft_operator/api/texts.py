"""Bounded strings of the resource: what each may look like, and the words for a user when it does not.

Invariant: a pattern never comes without words; the API server shows those words, not the regular expression
(``schema.py``).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.config import JsonDict

REMEDY = "x-rft-remedy"
"""Schema mark: the words for a value that does not match the pattern."""
INT_OR_TEXT = "x-rft-int-or-text"
"""Schema mark: which of ``cel.INT_OR_TEXT`` an int-or-string must obey."""

QUANTITY_PATTERN = r"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.0*[1-9][0-9]*)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
AMOUNT_PATTERN = r"[0-9]{1,9}(\.[0-9]{1,6})?"
DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
LAST_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""What stands behind the slash of a label key or an extended resource."""


def text(maximum: int, *, pattern: str | None = None, remedy: str = "", minimum: int | None = None) -> Any:
    """Return the constraints of a bounded string; ``remedy`` tells a user what to write when the pattern fails."""
    extra: JsonDict | None = {REMEDY: remedy} if remedy else None
    return Field(max_length=maximum, min_length=minimum, pattern=pattern, json_schema_extra=extra)


def _int_or_text(rule: str) -> WithJsonSchema:
    # Without an anyOf: the API server would report each of its branches beside the one error that helps.
    return WithJsonSchema({"x-kubernetes-int-or-string": True, INT_OR_TEXT: rule})


def _as_text(value: object) -> object:
    """Read ``cpu: 8`` as Kubernetes does."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _amount(value: int | str) -> int | str:
    """Refuse what no rule lets in today but an older CRD may have stored: nothing must be computed from it."""
    if re.fullmatch(AMOUNT_PATTERN, str(value)) is None:
        msg = 'must be dollars: a whole number such as 450, or a quoted decimal such as "450.50"'
        raise ValueError(msg)
    return value


def _above_zero(value: int | str) -> int | str:
    if re.fullmatch(r"0+(\.0+)?", str(value)) is not None:
        msg = 'must be above 0: a whole number such as 450, or a quoted decimal such as "450.50"'
        raise ValueError(msg)
    return value


Money = Annotated[int | str, AfterValidator(_amount), _int_or_text("amount")]
"""Dollars: ``450`` or ``"450.50"``, at most six decimals; zero is an amount."""
PositiveMoney = Annotated[int | str, AfterValidator(_amount), AfterValidator(_above_zero), _int_or_text("price")]
"""Dollars above zero."""
Quantity = Annotated[str, BeforeValidator(_as_text), text(32, pattern=QUANTITY_PATTERN), _int_or_text("quantity")]
"""A Kubernetes quantity above zero; a whole number may stand without quotes."""
Decimal = Annotated[
    str,
    text(
        32,
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?(e-?[0-9]{1,2})?$",
        remedy='must be a decimal number in quotes, for example "1e-5" or "0.95"',
    ),
]
"""A non-negative decimal number as text."""
DnsSubdomain = Annotated[
    str,
    text(
        253,
        pattern=f"^{DNS_NAME}$",
        remedy='must be the name of an object: lower-case letters, digits, "-" and "."',
    ),
]
DnsLabel = Annotated[
    str,
    text(
        63,
        pattern=f"^{DNS_LABEL}$",
        remedy='must be the name of an object of at most 63 characters: lower-case letters, digits and "-"',
    ),
]
LABEL_REMEDY = 'must be lower-case letters, digits and "-", with a letter or digit at both ends'
BenchmarkName = Annotated[str, text(40, pattern=f"^{DNS_LABEL}$", remedy=LABEL_REMEDY)]
VolumeName = Annotated[str, text(50, pattern=f"^{DNS_LABEL}$", remedy=LABEL_REMEDY)]
SecretKey = Annotated[
    str,
    text(
        253,
        pattern=r"^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$",
        remedy='must be a key of a Secret: letters, digits, "-", "_" and ".", but not "." alone or ".." in front',
    ),
]
LabelKey = Annotated[
    str,
    text(
        253,
        pattern=rf"^({DNS_NAME}/)?{LAST_PART}$",
        remedy="must look like pool or example.com/pool, with at most 63 characters after the slash",
    ),
]
LabelValue = Annotated[
    str,
    text(
        63,
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        remedy='must be empty or letters, digits, "-", "_" and ".", with a letter or digit at both ends',
    ),
]
ModelUri = Annotated[
    str,
    text(
        512,
        pattern=r"^(hf|pvc|file|init)://.+$",
        remedy="must start with hf://, pvc://, file:// or init://, for example hf://Qwen/Qwen2.5-32B-Instruct",
    ),
]
PublishUri = Annotated[
    str,
    text(
        512,
        pattern=r"^(hf|pvc)://.+$",
        remedy="must start with hf:// or pvc://, for example hf://organisation/name or pvc://models/name",
    ),
]
SourceUri = Annotated[
    str,
    text(
        512,
        pattern=r"^(hf|pvc|file|gym)://.+$",
        remedy="must start with hf://, pvc://, file:// or gym://, for example hf://simplescaling/s1K",
    ),
]
BenchmarkUri = Annotated[
    str,
    text(
        512,
        pattern=r"^(hf|pvc|file|configmap|gym)://.+$",
        remedy="must start with hf://, pvc://, file://, configmap:// or gym://, for example pvc://data/math500.jsonl",
    ),
]
SplitName = Annotated[
    str, text(64, pattern=r"^[A-Za-z0-9_.-]+$", remedy='must be letters, digits, "_", "." and "-", such as train')
]
GpuResource = Annotated[
    str,
    text(
        244,  # a quota puts "requests." in front
        pattern=rf"^{DNS_NAME}/{LAST_PART}$",
        remedy="must be the name of an extended resource, domain/name, for example nvidia.com/gpu",
    ),
]
ExtraResource = Annotated[
    str,
    text(
        244,
        pattern=rf"^(hugepages-[1-9][0-9]*(Ki|Mi|Gi)|{DNS_NAME}/{LAST_PART})$",
        remedy="must be an extended resource, domain/name, or huge pages, for example rdma/hca_shared_devices_a",
    ),
]
EnvName = Annotated[
    str,
    text(
        128,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        remedy='must be letters, digits and "_", and start with no digit, for example HF_HOME',
    ),
]
MountPath = Annotated[
    str, text(512, pattern=r"^(/[^/:]+)+/?$", remedy='must be an absolute path without ":", for example /scratch')
]
Image = Annotated[
    str,
    text(512, pattern=r"^[^\s]+$", remedy="must be an image without spaces, for example ghcr.io/team/trainer:1.0"),
]
ControllerName = Annotated[
    str,
    text(
        253,
        pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$",
        remedy="must be domain/controller, for example kueue.x-k8s.io/multikueue",
    ),
]
Currency = Annotated[
    str,
    text(
        16,
        pattern=r"^USD$",
        remedy="must be USD, the currency of the price catalogue: bills and limits are in US dollars, and nothing is "
        "converted; write limitUSD in dollars, and leave currency out",
    ),
]
