"""What was last seen of the team budgets, parsed; the counterpart of :mod:`rft_operator.runtime.cache`.

Invariants: as there, no budget goes back to an older resourceVersion, and a deleted one never comes back. One that
cannot be read is known by name: no run is let in beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from rft_operator.api.team import FinetuneBudget, TeamStatus
from rft_operator.runtime.cache import TOMBSTONES_KEPT, newer
from rft_operator.runtime.kube import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One budget as it was last seen."""

    uid: str
    version: str
    raw: JsonObject
    budget: FinetuneBudget | None
    """None: it does not fit this operator's schema."""
    holds: frozenset[str] = frozenset()
    """Of one that does not: the uids of the runs that it has a record of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of a budget."""

    namespace: str
    before: FinetuneBudget | None
    after: FinetuneBudget | None


class BudgetCache:
    """Budgets by namespace and name."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Seen]] = {}
        self._tombstones: dict[str, None] = {}
        self._coming: dict[tuple[str, str], TeamStatus] = {}
        """By namespace and name: the status that is being written."""

    def namespaces(self) -> tuple[str, ...]:
        """Return the namespaces that have a budget."""
        return tuple(self._seen)

    def of(self, namespace: str) -> tuple[FinetuneBudget, ...]:
        """Return the budgets of a namespace by name."""
        found = self._seen.get(namespace, {})
        return tuple(each.budget for _, each in sorted(found.items()) if each.budget is not None)

    def for_runs(self, namespace: str) -> tuple[FinetuneBudget, ...]:
        """Return them as runs may count on them: without what a write that is under way takes from a run.

        It may be given to another one in the same write. What is granted counts only once it is on record.
        """
        return tuple(_less(each, self._coming.get((namespace, each.metadata.name))) for each in self.of(namespace))

    def expect(self, namespace: str, name: str, status: TeamStatus | None) -> bool:
        """Say what is being written of a budget, None if nothing is; return whether a write failed before.

        So it counts until a newer version is seen: a write without an answer may have been carried out.
        """
        failed = self._coming.pop((namespace, name), None) is not None
        if status is not None:
            self._coming[namespace, name] = status
        return failed

    def unreadable(self, namespace: str, *, holding: str | None = None) -> tuple[str, ...]:
        """Return the names of the budgets of a namespace that cannot be read, or of those that hold a run's record."""
        found = [(name, each) for name, each in self._seen.get(namespace, {}).items() if each.budget is None]
        return tuple(sorted(name for name, each in found if holding is None or holding in each.holds))

    def raw(self, namespace: str, name: str) -> JsonObject | None:
        """Return a budget's identity, for an Event about it."""
        seen = self._seen.get(namespace, {}).get(name)
        return seen.raw if seen is not None else None

    def put(self, raw: JsonObject) -> Change | None:
        """Take a budget in; return what changed, or None if it is known already."""
        meta = raw["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        old = self._seen.get(namespace, {}).get(name)
        if meta["uid"] in self._tombstones:
            return None
        if old is not None and not newer(meta["resourceVersion"], old.version):
            return None
        slim = {key: meta[key] for key in ("namespace", "name", "uid")}
        budget = _parsed(raw)
        new = Seen(
            uid=meta["uid"],
            version=meta["resourceVersion"],
            raw={"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": slim},
            budget=budget,
            holds=frozenset() if budget is not None else _holds(raw),
        )
        self._seen.setdefault(namespace, {})[name] = new
        self._coming.pop((namespace, name), None)
        same = old is not None and old.uid == new.uid
        return Change(namespace=namespace, before=old.budget if same and old is not None else None, after=new.budget)

    def drop(self, raw: JsonObject) -> Change | None:
        """Forget a deleted budget; return what changed."""
        meta = raw["metadata"]
        self._tombstones[meta["uid"]] = None
        if len(self._tombstones) > TOMBSTONES_KEPT:
            del self._tombstones[next(iter(self._tombstones))]
        found = self._seen.get(meta["namespace"], {})
        old = found.get(meta["name"])
        if old is None or old.uid != meta["uid"]:
            return None
        del found[meta["name"]]
        self._coming.pop((meta["namespace"], meta["name"]), None)
        if not found:
            del self._seen[meta["namespace"]]
        return Change(namespace=meta["namespace"], before=old.budget, after=None)

    def identities(self) -> dict[tuple[str, str], str]:
        """Return the uid of every known budget by (namespace, name), for the sweep."""
        return {(namespace, name): each.uid for namespace, found in self._seen.items() for name, each in found.items()}

    def missing(self, before: dict[tuple[str, str], str], listed: Iterable[JsonObject]) -> list[JsonObject]:
        """Return what was known before a LIST began and is not in it, in the form that :meth:`drop` takes."""
        present = {raw["metadata"]["uid"] for raw in listed}
        return [
            {"metadata": {"namespace": namespace, "name": name, "uid": uid}}
            for (namespace, name), uid in before.items()
            if uid not in present
        ]


def _less(budget: FinetuneBudget, coming: TeamStatus | None) -> FinetuneBudget:
    if coming is None:
        return budget
    left = {each.uid: each.spent_before_micro_usd + each.reserved_micro_usd for each in coming.reservations}
    kept = [
        each.model_copy(
            update={
                "reserved_micro_usd": max(0, min(each.reserved_micro_usd, left[each.uid] - each.spent_before_micro_usd))
            }
        )
        for each in budget.status.reservations
        if each.uid in left
    ]
    status = budget.status.model_copy(update={"reservations": kept})
    return budget.model_copy(update={"status": status})


def _parsed(raw: JsonObject) -> FinetuneBudget | None:
    try:
        return FinetuneBudget.parse(dict(raw))
    except ValidationError:
        return None


def _holds(raw: JsonObject) -> frozenset[str]:
    status = raw.get("status")
    records = status.get("reservations") if isinstance(status, dict) else None
    found = [each.get("uid") for each in records if isinstance(each, dict)] if isinstance(records, list) else []
    return frozenset(each for each in found if isinstance(each, str))
