"""``rft audit``: a dump of API objects in, the bill of every pod out, beside what the status says.

Invariant: the JSON has exactly the fields of version 1 (docs/audit.md); findings go to stderr.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli.output import table
from rft_operator.client.manifests import Shown, shown
from rft_operator.domain.audit import Dump, PodBill, audit, total_of
from rft_operator.domain.audit_check import Verdict, check
from rft_operator.domain.bill import Share, hours_text
from rft_operator.domain.facts import Key, PodFacts
from rft_operator.domain.money import usd_text
from rft_operator.domain.observe import digest_node, digest_pod
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.errors import AuditError, PriceCatalogueError

VERSION = 1
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, ValidationError)
HINT = "dump it with: kubectl get pods,nodes,jobs,rft -A -o json --show-managed-fields"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """An audit and what it found."""

    now: int
    bills: tuple[PodBill, ...]
    verdicts: Mapping[Key, Verdict]
    notes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether every status in the dump says what its pods say."""
        return not any(verdict.findings for verdict in self.verdicts.values())

    def of(self, key: Key) -> list[PodBill]:
        """Return the bills of a run's pods."""
        return [each for each in self.bills if Key(each.pod.namespace, each.pod.finetune) == key]

    @property
    def keys(self) -> list[Key]:
        """Return all runs of the dump."""
        return sorted({*self.verdicts, *(Key(each.pod.namespace, each.pod.finetune) for each in self.bills)})


def run_audit(text: str, prices: Path | None, *, now: int) -> Audit:
    """Audit a dump; raises AuditError and PriceCatalogueError."""
    items = _items(text)
    dump, unread = _dump(items)
    catalogue, notes = _catalogue(prices)
    notes += [each.trouble for each in unread.values() if each.bill_known]
    strangers = [pod for pod in dump.pods if _is_older_than_run(pod, dump)]
    if strangers:
        names = ", ".join(f"{pod.namespace}/{pod.name}" for pod in strangers)
        notes.append(
            f"left out, for they are older than the run of their name, and on the bill of a deleted one: {names}"
        )
        dump = replace(dump, pods=tuple(pod for pod in dump.pods if pod not in strangers))
    try:
        bills = audit(dump, catalogue, now=now)
    except AuditError as error:
        raise AuditError("\n".join((str(error), *notes))) from error
    except UNREADABLE as error:
        msg = f"the dump cannot be audited: {type(error).__name__}: {error}; {HINT}"
        raise AuditError(msg) from error
    if any(each.pod.terminal and each.pod.phase_written_at is None for each in bills):
        notes.append(f"no managedFields in the dump: ends are taken from containers, one second late; {HINT}")
    if any(each.guessed for each in bills):
        notes.append(
            "some pods are shown at the price that their pool has now, for the dump does not say what they were bound "
            "at, so the money of their stage is not compared: give the catalogue with --prices, and dump the nodes"
        )
    with_ledger = {_key(raw) for raw in items if raw.get("kind") == KIND and "ledger" in (raw.get("status") or {})}
    verdicts = {}
    for key, run in dump.runs.items():
        own = [each for each in bills if Key(each.pod.namespace, each.pod.finetune) == key]
        if run.status.start_time is not None or own or run.status.cost.spent_micro_usd:
            verdicts[key] = check(run, own, has_ledger=key in with_ledger, now=now)
    for key, each in unread.items():
        if not each.bill_known:
            words = f"its bill cannot be read: {each.trouble}"
            verdicts[key] = Verdict(findings=(words,), unproved=(), recorded=Share())
    return Audit(now=now, bills=bills, verdicts=verdicts, notes=tuple(notes))


def _items(text: str) -> list[dict[str, Any]]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        msg = f"the dump is no JSON: {error}; {HINT}"
        raise AuditError(msg) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("items"), list):
        kind = raw.get("kind") if isinstance(raw, dict) else type(raw).__name__
        msg = f"the dump must be a List of objects (kind: List, items: [...]), but is {kind!r}; {HINT}"
        raise AuditError(msg)
    # The items of a PodList or NodeList say no kind.
    plain = str(raw.get("kind", "")).removesuffix("List")
    found = []
    for index, item in enumerate(raw["items"]):
        if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
            msg = f"items[{index}] of the dump is no API object; {HINT}"
            raise AuditError(msg)
        found.append(item if item.get("kind") or not plain else {**item, "kind": plain})
    return found


def _key(raw: Mapping[str, Any]) -> Key:
    return Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])


def _dump(items: Sequence[Mapping[str, Any]]) -> tuple[Dump, Mapping[Key, Shown]]:
    """Return the dump, and its runs that do not fit this version; one of them does not hide the bill of the others."""
    nodes = []
    unread: dict[Key, Shown] = {}
    pods: dict[str, PodFacts] = {}
    runs: dict[Key, ReasoningFinetune] = {}
    for index, item in enumerate(items):
        kind = item.get("kind")
        try:
            if kind == "Pod" and (pod := digest_pod(item)) is not None:
                pods[pod.uid] = _newer(pods.get(pod.uid), pod)
            elif kind == "Node":
                nodes.append(digest_node(item))
            elif kind == KIND:
                run = shown(item)
                runs[_key(item)] = run.run
                if run.trouble:
                    unread[_key(item)] = run
        except UNREADABLE as error:
            name = item["metadata"].get("name", f"items[{index}]")
            msg = f"{kind} {name} of the dump cannot be read: {type(error).__name__}: {error}; {HINT}"
            raise AuditError(msg) from error
    return Dump(pods=tuple(pods.values()), nodes=tuple(nodes), runs=runs), unread


def _is_older_than_run(pod: PodFacts, dump: Dump) -> bool:
    """Return whether a deleted namesake of a run left a pod, on a node that does not answer."""
    run = dump.runs.get(Key(pod.namespace, pod.finetune))
    created = run.metadata.creation_timestamp if run is not None else ""
    return bool(created) and pod.created_at < epoch(created)


def _newer(known: PodFacts | None, pod: PodFacts) -> PodFacts:
    """A pod that is in the dump twice is one pod: its newest state counts."""
    if known is None:
        return pod

    def version(each: PodFacts) -> int:
        return int(each.resource_version) if each.resource_version.isdecimal() else 0

    return pod if version(pod) >= version(known) else known


def _catalogue(path: Path | None) -> tuple[PriceCatalogue | None, list[str]]:
    if path is None:
        return None, []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--prices {path} cannot be read: {error}"
        raise PriceCatalogueError(msg) from error
    catalogue, problems = PriceCatalogue.parse(text)
    return catalogue, [f"left out of the catalogue: {each}" for each in problems]


def to_json(found: Audit) -> str:
    """Return the audit as JSON, version 1."""
    total = total_of(found.bills)
    out = {
        "version": VERSION,
        "now": rfc3339(found.now),
        **_sums(total),
        "finetunes": [
            {"namespace": key.namespace, "name": key.name, **_sums(total_of(found.of(key)))} for key in found.keys
        ],
        "pods": [_row(each) for each in found.bills],
    }
    return json.dumps(out, indent=1) + "\n"


def _sums(share: Share) -> dict[str, Any]:
    return {"gpuSeconds": share.gpu_seconds, "microUSD": share.micro_usd, "spentUSD": usd_text(share.micro_usd)}


def _row(each: PodBill) -> dict[str, Any]:
    pod, entry = each.pod, each.entry
    return {
        "uid": pod.uid,
        "namespace": pod.namespace,
        "name": pod.name,
        "finetune": pod.finetune,
        "stage": entry.stage,
        "attempt": entry.attempt,
        "node": entry.node,
        "gpus": entry.gpus,
        "start": entry.start_time,
        "startBasis": entry.start_basis,
        "end": entry.end_time,
        "endBasis": entry.end_basis,
        "gpuSeconds": each.share.gpu_seconds,
        "usdPerGpuHour": usd_text(entry.micro_usd_per_gpu_hour),
        "microUSD": each.share.micro_usd,
        "wasteGpuSeconds": {reason: share.gpu_seconds for reason, share in sorted(each.waste.items())},
        "disputedGpuSeconds": each.disputed_gpu_seconds,
        "estimatedGpuSeconds": each.estimated_gpu_seconds,
    }


def page(found: Audit) -> str:
    """Return the audit as text: a table of pods, then each run with the verdict on its status."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Audit) -> Iterator[str]:
    if not found.bills:
        yield "No pod of a ReasoningFinetune in the dump held a GPU."
    else:
        yield from table([HEAD, *(_cells(each) for each in found.bills)])
    for key in found.keys:
        total, verdict = total_of(found.of(key)), found.verdicts.get(key)
        yield ""
        yield f"{key}: {_words(total)} by the pods of the dump"
        if verdict is None:
            yield "  its resource is not in the dump, so there is no status to compare with"
            continue
        if verdict.unproved:
            gone = (
                f"{_words(verdict.recorded)} on record of {', '.join(verdict.unproved)}, whose pods or nodes are gone"
            )
            yield f"  {gone}"
        yield from (f"  DISAGREES: {each}" for each in verdict.findings)
        if not verdict.findings:
            yield "  status agrees"
    yield ""
    total = total_of(found.bills)
    yield f"Total: {_words(total)}, computed at {rfc3339(found.now)}"


def _words(share: Share) -> str:
    return f"{share.gpu_seconds} GPU-seconds ({hours_text(share.gpu_seconds)} h), ${usd_text(share.micro_usd)}"


HEAD = ("POD", "UID", "NODE", "GPUS", "START", "END", "GPU-S", "$/GPU-H", "MICRO-USD", "WASTE", "DISPUTED", "ESTIMATED")


def _cells(each: PodBill) -> tuple[str, ...]:
    entry = each.entry
    waste = ",".join(f"{reason}={share.gpu_seconds}" for reason, share in sorted(each.waste.items()))
    end = f"{entry.end_time} ({entry.end_basis})" if entry.end_time is not None else "running"
    return (
        f"{each.pod.namespace}/{each.pod.name}",
        each.pod.uid,
        entry.node,
        str(entry.gpus),
        f"{entry.start_time} ({entry.start_basis})",
        end,
        str(each.share.gpu_seconds),
        usd_text(entry.micro_usd_per_gpu_hour),
        str(each.share.micro_usd),
        waste or "-",
        str(each.disputed_gpu_seconds),
        str(each.estimated_gpu_seconds),
    )
