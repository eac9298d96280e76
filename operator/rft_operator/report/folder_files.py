"""The JSON files of a run's folder, as far as a report reads them.

Invariant: what is read has the types that the trainer writes, or the error names file, field and value: a file may have
been edited by hand. What a report does not know may stand there too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rft_operator.errors import ReportError
from rft_trainer.stage_results import Score

Values = dict[str, Any] | None
"""Of which every value is told as it is."""
Rate = Annotated[float, Field(strict=True, ge=-1e12, le=1e12)]
"""No picture can be drawn of what is neither finite nor measured."""


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Config(_File):
    """``run.json``: what was asked for."""

    namespace: str | None = None
    name: str | None = None
    model: Values = None
    dataset: Values = None
    training: Values = None


class Card(_File):
    """``run-card.json``: what was in effect."""

    run: Config | None = None
    model: Values = None
    data: Values = None
    versions: Values = None


class PreparedSummary(_File):
    """What the Prepare stage found."""

    steps: Annotated[int, Field(strict=True, ge=0)] | None = None


class Prepared(_File):
    """``prepared.json``."""

    summary: PreparedSummary | None = None


class FoundScore(Score):
    """A score and what else is told of it."""

    model_config = ConfigDict(extra="ignore")


class FoundPoint(_File):
    """A setting of a sweep as it was measured."""

    setting: str
    thinking_tokens: Rate
    value: Rate
    stderr: Annotated[Rate, Field(ge=0)] | None = None


class FoundCurve(_File):
    """A sweep."""

    benchmark: str
    of: str = "trained"
    control: Rate
    slope_points_per_1000_tokens: Rate
    performance: Rate
    points: Annotated[list[FoundPoint], Field(min_length=1)]


class Results(_File):
    """``results.json`` of an evaluation."""

    scores: list[FoundScore] | None = None
    scaling: list[FoundCurve] | None = None
    models: Values = None


class Protocol(_File):
    """``protocol.json``, which is shown whole."""


def read_object(path: Path, model: type[BaseModel]) -> dict[str, Any] | None:
    """Return the JSON object of a file, of which ``model`` says what is read; None if there is no file.

    Raises ReportError for one that cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(found, ensure_ascii=False).encode()  # half a character can be written nowhere
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ReportError(f"{path} is no JSON object")
    try:
        model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReportError(f"{path}: {place}: {first['msg']}, found {first['input']!r:.100}") from error
    return found
