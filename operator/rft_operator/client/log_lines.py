"""Lines of pods' logs: where they come from, when they were written, and the order among them.

Invariant: after a break a log goes on behind the last line that was read: none is told twice and none is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rft_operator.domain.facts import LABEL_ATTEMPT, LABEL_FINETUNE, LABEL_STAGE, TRAINER_CONTAINER
from rft_operator.domain.observe import LABEL_RANK
from rft_trainer.contract import Stage

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")
_RANK = re.compile(r"\[rank (\d{1,6})\] ")
"""What the trainer puts before every line of a rank (rft_trainer.launch.output)."""
STAGE_ORDER = {stage.value: index for index, stage in enumerate(Stage)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines are wanted; None means all."""

    stage: str | None = None
    attempt: int | None = None
    rank: int | None = None
    """Index of the pod in its gang."""
    tail: int | None = None
    """The newest so many lines of each pod."""
    since_seconds: int | None = None
    container: str = TRAINER_CONTAINER

    def selector(self, name: str) -> str:
        """Return the label selector of the pods of a run."""
        wanted = {
            LABEL_FINETUNE: name,
            LABEL_STAGE: self.stage,
            LABEL_ATTEMPT: self.attempt,
        }
        return ",".join(f"{key}={value}" for key, value in wanted.items() if value is not None)

    def takes(self, origin: Origin) -> bool:
        """Return whether a pod is wanted: pods of stages without a gang carry no rank, so no selector can tell."""
        return self.rank is None or origin.rank == self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A pod of a run."""

    stage: str
    attempt: int
    rank: int
    pod: str
    uid: str

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Origin:
        """Read a pod's labels; what is absent counts as the first."""
        meta = raw["metadata"]
        labels = meta.get("labels") or {}
        return cls(
            stage=str(labels.get(LABEL_STAGE, "")),
            attempt=_number(labels.get(LABEL_ATTEMPT), 1),
            rank=_number(labels.get(LABEL_RANK), 0),
            pod=str(meta["name"]),
            uid=str(meta["uid"]),
        )

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Return what sorts pods as they come in a run's life."""
        return STAGE_ORDER.get(self.stage, len(STAGE_ORDER)), self.attempt, self.rank, self.pod


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a rank wrote."""

    origin: Origin
    nanos: int
    """Nanoseconds since the epoch, by the clock of the rank's node."""
    text: str
    """Without the prefix by which the pods of a training say whose line it is."""
    rank: int | None = None
    """Which of the training's processes wrote it, counted over all pods; None: not one of them."""

    @property
    def time(self) -> str:
        """Return the instant as RFC 3339 with milliseconds."""
        seconds, rest = divmod(self.nanos, 10**9)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 10**6:03d}Z"


@dataclass(slots=True)
class Cursor:
    """How far a pod's log was read."""

    origin: Origin
    nanos: int = 0
    repeats: int = 0
    """Lines that were read of this very instant."""
    _skip: int = 0

    def query(self, wanted: LogQuery, *, follow: bool) -> dict[str, str]:
        """Return the query of the API server that goes on behind what was read."""
        query = {"container": wanted.container, "timestamps": "true", "follow": str(follow).lower()}
        self._skip = self.repeats
        if self.nanos:
            query["sinceTime"] = f"{datetime.fromtimestamp(self.nanos // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"
        else:
            if wanted.tail is not None:
                query["tailLines"] = str(wanted.tail)
            if wanted.since_seconds is not None:
                query["sinceSeconds"] = str(wanted.since_seconds)
        return query

    def take(self, raw: bytes) -> LogLine | None:
        """Return a line that was not read before."""
        nanos, text = _split(raw.decode(errors="replace"))
        if nanos is None:  # words of the kubelet's own, not of the container
            return LogLine(origin=self.origin, nanos=self.nanos, text=text)
        rank, text = _rank(text) if self.origin.stage == Stage.TRAIN else (None, text)
        if self._skip and nanos <= self.nanos:
            self._skip -= nanos == self.nanos
            return None
        self._skip = 0
        self.repeats = self.repeats + 1 if nanos == self.nanos else 1
        self.nanos = max(self.nanos, nanos)
        return LogLine(origin=self.origin, nanos=nanos, text=text, rank=rank)


def _split(line: str) -> tuple[int | None, str]:
    match = _STAMP.match(line)
    if match is None:
        return None, line.rstrip("\r")
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    nanos = int(whole.timestamp()) * 10**9 + int((match[2] or "").ljust(9, "0"))
    return nanos, line[match.end() :].rstrip("\r")


def _rank(text: str) -> tuple[int | None, str]:
    match = _RANK.match(text)
    return (int(match[1]), text[match.end() :]) if match is not None else (None, text)


def _number(text: object, default: int) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else default
