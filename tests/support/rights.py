"""The rights that a chart grants to the operator's account, and which of them a set of uses needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from support.api_recorder import Use
from support.helm import Manifest

EVERYWHERE = "*"
UNSEEN = {("rft.dev", "reasoningfinetunes/finalizers", "update")}
"""Needed only where the cluster enforces the rights of blockOwnerDeletion; the API server here does not."""


class Grant(NamedTuple):
    """One right of a role; ``scope`` is a namespace or everywhere."""

    scope: str
    group: str
    resource: str
    verb: str
    name: str | None

    def covers(self, use: Use) -> bool:
        place = self.scope in (EVERYWHERE, use.namespace)
        named = self.name is None or self.name == use.name
        return place and named and (self.group, self.resource, self.verb) == (use.group, use.resource, use.verb)


def grants(objects: list[Manifest]) -> Iterator[Grant]:
    """Expand every rule of the roles that the operator's account is bound to."""
    bound = {each["roleRef"]["name"] for each in objects if each["kind"].endswith("RoleBinding")}
    for each in objects:
        if each["kind"] not in ("Role", "ClusterRole") or each["metadata"]["name"] not in bound:
            continue
        scope = each["metadata"].get("namespace", EVERYWHERE)
        for rule in each["rules"]:
            rows = itertools.product(
                rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [None])
            )
            yield from (Grant(scope, *row) for row in rows)


def unused(granted: Iterable[Grant], uses: Iterable[Use]) -> set[Grant]:
    """Return the grants that no use needs; a use needs the narrowest grant that covers it."""
    granted = list(granted)
    needed = set()
    for use in uses:
        covering = [grant for grant in granted if grant.covers(use)]
        covering.sort(key=lambda grant: (grant.name is None, grant.scope == EVERYWHERE))
        needed.update(covering[:1])
    return {grant for grant in granted if grant not in needed and grant[1:4] not in UNSEEN}
