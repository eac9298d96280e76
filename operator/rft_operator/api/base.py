"""Building blocks of the resource's models: camelCase on the wire, bounded numbers.

Invariant: no field is a float. Money is an int-or-string in dollars, rates and scores are decimal strings,
durations are whole seconds or minutes with the unit in the name (docs/reference/api.md).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel


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


Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Counter = Annotated[int, Field(ge=0, le=2_147_483_647)]
BigCounter = Annotated[
    int,
    Field(ge=0, le=9_007_199_254_740_991),
    WithJsonSchema({"type": "integer", "format": "int64", "minimum": 0, "maximum": 9_007_199_254_740_991}),
]
"""Up to 2^53 - 1, the largest integer every JSON reader keeps exact."""
