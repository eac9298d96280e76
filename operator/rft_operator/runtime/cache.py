"""What was last seen of the cluster: resources, facts of their children, nodes, progress reports.

Fed by watch events, by the answers to our own writes (so a reconcile always sees what the former one wrote), and
repaired by the sweep. Invariants: an object never goes back to an older resourceVersion of itself or of a namesake
before it, and one that was seen to be deleted never comes back (the answer to a write may arrive after the watch
reported the deletion). One that is seen at a later version than its deletion had was never deleted: somebody took the
label off by which we watch, and put it on again.
A resource is kept as compressed JSON text: a tenth of the memory of the dicts and less, and nothing for the garbage
collector to visit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rft_operator.domain.facts import ChildKind, Children, JobFacts, Key, NodeFacts, ObjectFacts, PodFacts, Report
from rft_operator.domain.observe import KIND, digest_job, digest_node, digest_object, digest_pod
from rft_operator.runtime.kube import JsonObject

Fact = PodFacts | JobFacts | ObjectFacts
ChildId = tuple[str, str]
"""(kind, name)"""
TOMBSTONES_KEPT = 20_000
COMPRESSION = 1
"""zlib's quickest: a resource of 4.4 kB becomes one of 1.5 kB in a ninth of a millisecond."""


@dataclass(frozen=True, slots=True)
class _Resource:
    uid: str
    version: str
    text: bytes

    def decoded(self) -> JsonObject:
        found: dict[str, object] = json.loads(zlib.decompress(self.text))
        return found


@dataclass(slots=True)
class _Run:
    resource: _Resource | None = None
    children: dict[ChildId, Fact] = field(default_factory=dict)
    report: Report | None = None


def newer(candidate: str, known: str) -> bool:
    """Return whether a resourceVersion is later than another of its kind; they are comparable numbers (KEP-5504)."""
    return not known or not candidate or int(candidate) > int(known)


class Cache:
    """The operator's memory; everything in it can be read again from the API server."""

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}
        self._nodes: dict[str, NodeFacts] = {}
        self._node_versions: dict[str, str] = {}
        self._tombstones: dict[str, str] = {}
        """By uid: the resourceVersion of its deletion; where a LIST showed it, that of the LIST (none of a run)."""

    def resource(self, key: Key) -> JsonObject | None:
        """Return the raw resource, or None if it does not exist."""
        run = self._runs.get(key)
        return run.resource.decoded() if run is not None and run.resource is not None else None

    def known_keys(self) -> tuple[Key, ...]:
        """Return all keys that are known through a resource or a child."""
        return tuple(self._runs)

    def resources(self) -> Iterator[JsonObject]:
        """Yield all resources."""
        for run in list(self._runs.values()):
            if run.resource is not None:
                yield run.resource.decoded()

    def runs_in(self, namespace: str) -> dict[Key, tuple[str, str]]:
        """Return uid and resourceVersion of the runs of a namespace."""
        return {
            key: (run.resource.uid, run.resource.version)
            for key, run in self._runs.items()
            if key.namespace == namespace and run.resource is not None
        }

    def children(self, key: Key) -> Children:
        """Return the facts of everything that belongs to a run."""
        run = self._runs.get(key)
        facts = list(run.children.values()) if run is not None else []
        return Children(
            pods=tuple(each for each in facts if isinstance(each, PodFacts)),
            jobs=tuple(each for each in facts if isinstance(each, JobFacts)),
            objects=tuple(each for each in facts if isinstance(each, ObjectFacts)),
        )

    def pod(self, key: Key, name: str) -> PodFacts | None:
        """Return one pod of a run by name."""
        run = self._runs.get(key)
        found = run.children.get((ChildKind.POD.value, name)) if run is not None else None
        return found if isinstance(found, PodFacts) else None

    def nodes(self) -> tuple[NodeFacts, ...]:
        """Return all nodes."""
        return tuple(self._nodes.values())

    def report(self, key: Key) -> Report | None:
        """Return the newest progress report of a run."""
        run = self._runs.get(key)
        return run.report if run is not None else None

    def put_report(self, key: Key, report: Report) -> None:
        """Keep a progress report; one of a former attempt, from a node that came back, hides none of the present."""
        run = self._runs.get(key)
        if run is None:
            return
        old = run.report
        if old is None or old.stage is not report.stage or report.attempt >= old.attempt:
            run.report = report

    def put(self, raw: JsonObject) -> tuple[Key, ...]:
        """Take an object in; return the keys whose view changed."""
        kind = raw["kind"]
        if self._is_buried(raw["metadata"]):
            return ()
        if kind == KIND:
            return self._put_resource(raw)
        if kind == "Node":
            return self._put_node(raw)
        fact = digest(raw)
        return () if fact is None else self._put_fact(fact)

    def _put_resource(self, raw: JsonObject) -> tuple[Key, ...]:
        meta = raw["metadata"]
        key = Key(meta["namespace"], meta["name"])
        run = self._runs.setdefault(key, _Run())
        if run.resource is not None:
            if not newer(meta["resourceVersion"], run.resource.version):
                return ()
            if run.resource.uid != meta["uid"]:
                run.report = None
        slim = {name: value for name, value in meta.items() if name != "managedFields"}
        text = json.dumps({**raw, "metadata": slim}, separators=(",", ":"))
        run.resource = _Resource(meta["uid"], meta["resourceVersion"], zlib.compress(text.encode(), COMPRESSION))
        return (key,)

    def _put_fact(self, fact: Fact) -> tuple[Key, ...]:
        key = Key(fact.namespace, fact.finetune)
        run = self._runs.setdefault(key, _Run())
        child = (_kind(fact), fact.name)
        old = run.children.get(child)
        if old is not None and not newer(fact.resource_version, old.resource_version):
            return ()
        run.children[child] = fact
        return () if old is not None and _is_same(old, fact) else (key,)

    def _put_node(self, raw: JsonObject) -> tuple[Key, ...]:
        meta = raw["metadata"]
        if not newer(meta["resourceVersion"], self._node_versions.get(meta["name"], "")):
            return ()
        self._node_versions[meta["name"]] = meta["resourceVersion"]
        node = digest_node(raw)
        if self._nodes.get(node.name) == node:
            return ()
        self._nodes[node.name] = node
        return self._touched_by(node.name)

    def _touched_by(self, node: str) -> tuple[Key, ...]:
        """Return the runs with a pod on a node, and those that wait for one."""
        return tuple(
            key
            for key, run in self._runs.items()
            if not run.children
            or any(isinstance(each, PodFacts) and each.node in (node, None) for each in run.children.values())
        )

    def drop(self, raw: JsonObject) -> tuple[Key, ...]:
        """Forget a deleted object; return the keys whose view changed."""
        kind, meta = raw["kind"], raw["metadata"]
        self._bury(meta["uid"], meta.get("resourceVersion", ""))
        if kind == "Node":
            self._node_versions.pop(meta["name"], None)
            self._nodes.pop(meta["name"], None)
            return self._touched_by(meta["name"])
        if kind == KIND:
            key = Key(meta["namespace"], meta["name"])
            run = self._runs.get(key)
            if run is None or run.resource is None or run.resource.uid != meta["uid"]:
                return ()
            # A retained claim keeps the entry alive: a namesake must not find its forerunner's progress.
            run.resource = run.report = None
            self._forget_if_empty(key)
            return (key,)
        fact = digest(raw)
        return () if fact is None else self._drop_fact(fact)

    def _bury(self, uid: str, version: str) -> None:
        self._tombstones[uid] = version
        if len(self._tombstones) > TOMBSTONES_KEPT:
            del self._tombstones[next(iter(self._tombstones))]

    def _is_buried(self, meta: JsonObject) -> bool:
        version = self._tombstones.get(meta["uid"])
        if version and newer(meta.get("resourceVersion", ""), version):
            del self._tombstones[meta["uid"]]
            return False
        return version is not None

    def _drop_fact(self, fact: Fact) -> tuple[Key, ...]:
        key, child = Key(fact.namespace, fact.finetune), (_kind(fact), fact.name)
        run = self._runs.get(key)
        known = run.children.get(child) if run is not None else None
        if run is None or known is None or known.uid != fact.uid:
            return ()
        del run.children[child]
        self._forget_if_empty(key)
        return (key,)

    def _forget_if_empty(self, key: Key) -> None:
        run = self._runs[key]
        if run.resource is None and not run.children:
            del self._runs[key]

    def identities(self, kind: str, *, namespace: str | None = None) -> dict[tuple[str, str], str]:
        """Return the uid of every known object of a kind (in a namespace) by (namespace, name), for the sweep."""
        runs = [(key, run) for key, run in self._runs.items() if namespace in (None, key.namespace)]
        if kind == KIND:
            return {(*key,): run.resource.uid for key, run in runs if run.resource is not None}
        return {
            (fact.namespace, fact.name): fact.uid
            for _, run in runs
            for (each, _), fact in run.children.items()
            if each == kind
        }

    def drop_missing(
        self, kind: str, *, before: Mapping[tuple[str, str], str], present: Collection[str], version: str
    ) -> tuple[Key, ...]:
        """Forget what was known before a LIST began and is not in it; return the keys whose view changed.

        ``present`` are the uids in the LIST, ``version`` is its resourceVersion: what the watch has still to tell of
        the others is older, and must not bring them back. A bill that was folded would be opened anew.
        """
        gone = {place: uid for place, uid in before.items() if uid not in present}
        changed: list[Key] = []
        for (namespace, name), uid in gone.items():
            if kind == KIND:
                raw = {"kind": kind, "metadata": {"namespace": namespace, "name": name, "uid": uid}}
                changed += self.drop(raw)
                continue
            for run in list(self._runs.values()):
                fact = run.children.get((kind, name))
                if fact is not None and fact.namespace == namespace and fact.uid == uid:
                    self._bury(uid, version)
                    changed += self._drop_fact(fact)
        return tuple(changed)

    def drop_missing_nodes(self, *, before: set[str], listed: Iterable[JsonObject]) -> tuple[Key, ...]:
        """The same for nodes."""
        gone = before - {raw["metadata"]["name"] for raw in listed}
        changed: list[Key] = []
        for name in gone:
            self._node_versions.pop(name, None)
            self._nodes.pop(name, None)
            changed += self._touched_by(name)
        return tuple(changed)


def digest(raw: JsonObject) -> Fact | None:
    """Return the facts of a child, or None if it belongs to no run."""
    if raw["kind"] == ChildKind.POD:
        return digest_pod(raw)
    if raw["kind"] == ChildKind.JOB:
        return digest_job(raw)
    return digest_object(raw)


def _is_same(old: Fact, new: Fact) -> bool:
    """Return whether nothing that we look at changed; most writes of controllers touch other fields."""
    return replace(old, resource_version=new.resource_version) == new


def _kind(fact: Fact) -> str:
    if isinstance(fact, PodFacts):
        return ChildKind.POD.value
    return ChildKind.JOB.value if isinstance(fact, JobFacts) else fact.kind.value
