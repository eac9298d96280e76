"""Building blocks of the resource's models: camelCase on the wire, bounded strings, exact money.

Invariant: no field is a float. Money is an int-or-string in dollars, rates and scores are decimal strings,
durations are whole seconds or minutes with the unit in the name (cost.md section 11, design section 3).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

MONEY_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"
DECIMAL_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,12})?(e-?[0-9]{1,2})?$"


class ApiModel(BaseModel):
    """Frozen, camelCase, refuses unknown fields (the API server prunes them before we read)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form: camelCase, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """As :class:`ApiModel`, but reads what an older or newer operator wrote without failing."""

    model_config = ConfigDict(extra="ignore")


def text(maximum: int, *, pattern: str | None = None, minimum: int = 0) -> Any:
    """Return the constraints of a bounded string."""
    return StringConstraints(max_length=maximum, min_length=minimum, pattern=pattern)


Money = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-rft-money": True,
        }
    ),
]
"""Dollars: ``450`` or ``"450.50"``, at most six decimals; a YAML float is refused by a CEL rule."""
Decimal = Annotated[str, text(32, pattern=DECIMAL_PATTERN, minimum=1)]
"""A non-negative decimal number as text, for example ``"1e-5"`` or ``"0.95"``."""
DnsLabel = Annotated[str, text(63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", minimum=1)]
DnsSubdomain = Annotated[str, text(253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", minimum=1)]
Quantity = Annotated[str, text(32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", minimum=1)]
Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
LabelKey = Annotated[str, text(317, minimum=1)]
LabelValue = Annotated[str, text(63)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Counter = Annotated[int, Field(ge=0, le=2_147_483_647)]
BigCounter = Annotated[
    int,
    Field(ge=0, le=9_007_199_254_740_991),
    WithJsonSchema({"type": "integer", "format": "int64", "minimum": 0, "maximum": 9_007_199_254_740_991}),
]
"""Up to 2^53 - 1, the largest integer every JSON reader keeps exact."""
