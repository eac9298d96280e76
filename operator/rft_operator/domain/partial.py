"""A run that does not fit this operator's models: what can be read of it, and what cannot.

It was written under another version's CRD, or with validation off. Invariant: nothing is guessed that anybody would act
on but to stop the run: a part that cannot be read is left out of the stand-in, or replaced by one that starts nothing;
the ledger is whole or not there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Budget
from rft_operator.api.status import Status
from rft_operator.domain.money import micro_of_text, usd_text

Location = tuple[int | str, ...]

MENDS = 256
"""So many parts are left out one by one; of a resource with more, nothing but the metadata is believed."""
SHOWN_PROBLEMS = 3
SHOWN_CHARACTERS = 60
SPEC: Location = ("spec",)
LIMIT: Location = ("spec", "budget", "limitUSD")
STAND_INS: Mapping[Location, Any] = {
    SPEC: {},
    ("spec", "model"): {"uri": "init://tiny-qwen2"},
    ("spec", "dataset"): {"uri": "pvc://unread/rows.jsonl", "format": "messages"},
    ("spec", "budget"): {},
    LIMIT: "0.000001",
    ("status",): {},
}
"""What takes the place of a required part; the limit is the least there is, so that it lets nothing start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One part that cannot be read."""

    field: str
    value: str
    """As text, shortened."""
    words: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.field} is {self.value}: {self.words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRun:
    """What can be read of a run."""

    resource: ReasoningFinetune
    """A stand-in that fits the models."""
    problems: tuple[Problem, ...]
    ledger_known: bool
    """The bill on record can be read, whatever else cannot."""

    @property
    def words(self) -> str:
        """Return field, value and what is wrong, for messages."""
        more = len(self.problems) - SHOWN_PROBLEMS
        shown = "; ".join(str(each) for each in self.problems[:SHOWN_PROBLEMS])
        return f"{shown}; and {more} more" if more > 0 else shown


def read_partly(raw: Mapping[str, Any]) -> PartialRun:
    """Return what can be read of a run that ``ReasoningFinetune.parse`` refuses."""
    value: dict[str, Any] = {
        "metadata": raw["metadata"],
        "spec": copy.deepcopy(raw.get("spec", {})),
        "status": copy.deepcopy(raw.get("status") or {}),
    }
    left_out: list[Location] = []
    problems: tuple[Problem, ...] = ()
    for _ in range(MENDS):
        try:
            return _partial(ReasoningFinetune.model_validate(value), problems, left_out)
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems = problems or tuple(_problem(each, value) for each in found)
            left_out.append(_mend(value, found[-1]))
    bare = ReasoningFinetune.model_validate({"metadata": raw["metadata"], "spec": _stand_in_of(SPEC), "status": {}})
    return _partial(bare, problems, [SPEC, ("status",)])


def _partial(found: ReasoningFinetune, problems: tuple[Problem, ...], left_out: Sequence[Location]) -> PartialRun:
    def touched(place: Location) -> bool:
        return any(each[: len(place)] == place[: len(each)] for each in left_out)

    change: dict[str, Any] = {"ttl_seconds_after_finished": None}  # nobody knows what it would throw away
    if touched(LIMIT):
        change["budget"] = _with_limit_on_record(found.spec.budget, found.status)
    return PartialRun(
        resource=found.model_copy(update={"spec": found.spec.model_copy(update=change)}),
        problems=problems,
        ledger_known=not touched(("status", "ledger")),
    )


def _with_limit_on_record(budget: Budget, status: Status) -> Budget:
    """Return the budget with the limit that the money on record speaks of, or what was spent and is under way."""
    cost = status.cost
    limit = cost.spent_micro_usd + (micro_of_text(cost.remaining_usd) if cost.remaining_usd is not None else 0)
    if cost.remaining_usd is None:
        under_way = [each.worst_case_usd for each in status.attempts if each.end_time is None]
        limit += sum(micro_of_text(each) for each in under_way if each is not None)
    return budget.model_copy(update={"limit_usd": usd_text(max(1, limit))})


def _problem(error: ErrorDetails, value: Mapping[str, Any]) -> Problem:
    place = _existing(error["loc"], value)
    wanted = error["type"] == "missing"
    field = "".join(
        f"[{each}]" if isinstance(each, int) else f".{each}" for each in (error["loc"] if wanted else place)
    )
    words = "this operator does not know the field" if error["type"] == "extra_forbidden" else error["msg"]
    return Problem(field=field.removeprefix("."), value="absent" if wanted else _shown(place, value), words=words)


def _shown(place: Location, value: Any) -> str:
    if "env" in place or "annotations" in place:
        return "not shown"  # somebody may keep a token there
    for each in place:
        value = value[each]
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _existing(place: Location, value: Any) -> Location:
    """Return the part of a location that is there: pydantic adds the names of a union's branches."""
    found: list[int | str] = []
    for each in place:
        inside = isinstance(value, dict) and each in value
        if not inside and not (isinstance(value, list) and isinstance(each, int) and each < len(value)):
            break
        value = value[each]
        found.append(each)
    return tuple(found)


def _mend(value: dict[str, Any], error: ErrorDetails) -> Location:
    """Leave out what an error speaks of, or put a stand-in there; return where."""
    place = error["loc"]
    if error["type"] == "missing" and place in STAND_INS:
        _put(value, place, _stand_in_of(place))
        return place
    place = _existing(place, value)
    if place in ((), SPEC, ("status",)):
        place = place or SPEC
        value[str(place[0])] = _stand_in_of(place)
        return place
    *parents, last = place
    parent: Any = value
    for each in parents:
        parent = parent[each]
    del parent[last]
    return place


def _put(value: Any, place: Location, new: Any) -> None:
    for each in place[:-1]:
        value = value[each]
    value[place[-1]] = new


def _stand_in_of(place: Location) -> Any:
    if place == SPEC:
        return {
            "model": STAND_INS["spec", "model"],
            "dataset": STAND_INS["spec", "dataset"],
            "budget": {"limitUSD": STAND_INS[LIMIT]},
        }
    if place == ("spec", "budget"):
        return {"limitUSD": STAND_INS[LIMIT]}
    return copy.deepcopy(STAND_INS[place])
