"""The note that an evaluation leaves when programs among its answers wait to be run.

Invariant: it names models and engine exactly as they were when the answers were given, so that the scores are found in
the same files and are of the same protocol as if they had been judged at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.runner import Model
from rft_trainer.evaluate.sampler import Window
from rft_trainer.evaluate.stopping import Reason
from rft_trainer.files import read_json, write_json

FILE = "waiting.json"
VERSION = 1


@dataclass(frozen=True)
class Answered:
    """A model that has answered."""

    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What verdicts of programs are to be put together with."""

    trained: Answered
    base: Answered | None
    engine: Mapping[str, str]
    stopped: Reason | None = None
    """Why there are no more answers; None where all were given."""

    def write(self, directory: Path) -> None:
        """Leave the note beside the answers."""
        write_json(directory / FILE, {"version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, directory: Path) -> Waiting:
        """The note beside the answers; raises :class:`BadInputError` where there is none that can be read."""
        path = directory / FILE
        try:
            return cls._of(read_json(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"{path.name}: is not the note of an evaluation whose programs wait ({error}); evaluate first"
            ) from error

    @classmethod
    def _of(cls, found: Any) -> Waiting:
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']}")
        engine = {str(key): str(value) for key, value in found["engine"].items()}
        return cls(
            trained=_answered(found["trained"]),
            base=_maybe(found["base"]),
            engine=engine,
            stopped=_reason(found.get("stopped")),
        )


def _answered(value: Any) -> Answered:
    return Answered(str(value["name"]), str(value["fingerprint"]))


def _reason(value: Any) -> Reason | None:
    if value is not None and value not in get_args(Reason):
        raise ValueError(f"stopped {value!r}")
    return cast("Reason | None", value)


def _maybe(value: Any) -> Answered | None:
    return None if value is None else _answered(value)


def answered_model(name: str, *, engine: Mapping[str, str]) -> Model:
    """Stands for a model that has answered: its answers are found, and none is added."""
    return Model(name, sampler=NoSampler(engine), render=lambda turns: turns[-1].content)


class NoSampler:
    """Stands for the engine that gave the answers: no more are given here."""

    context_tokens: int | None = None

    def __init__(self, identity: Mapping[str, str]) -> None:
        self._identity = dict(identity)

    @property
    def identity(self) -> dict[str, str]:
        """As the engine had it."""
        return self._identity

    def count(self, text: str) -> int:
        """Nothing is asked here, so nothing is counted."""
        raise BadInputError(f"{FILE}: an answer is missing, and none can be given without a GPU; evaluate again")

    def window(self) -> Window:
        """Refuse."""
        raise BadInputError(f"{FILE}: answers are missing, and none can be given without a GPU; evaluate again")
