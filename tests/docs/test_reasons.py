"""Every reason that the code can set is explained in docs/troubleshooting.md, and nothing that it cannot."""

from __future__ import annotations

import ast
import re

from support.markdown import ROOT

WORD = re.compile(r"[A-Z][A-Za-z0-9]*[a-z0-9][A-Za-z0-9]*")
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = sorted((ROOT / "operator" / "rft_operator" / "domain").glob("*.py"))
_KUBERNETES = """
Always ConfigMap ContainerCreating ContainerStatusUnknown CreateContainerConfigError CreateContainerError
DeletionByPodGC DeletionByTaintManager DisruptionTarget Egress ErrImageNeverPull ErrImagePull Error
EvictionByEvictionAPI Exists Failed FallbackToLogsOnError IfNotPresent Indexed Ingress InvalidImageName Job Memory
NetworkPolicy Never NodeAffinity NoSchedule NodeShutdown NonIndexed None Normal NotIn OnRootMismatch OutOf Pending
PersistentVolumeClaim Pod PodInitializing PodScheduled PreemptionByScheduler ReadOnlyMany ReadWriteMany ReadWriteOnce
Ready ReasoningFinetune RunContainerError Running RuntimeDefault SchedulingGated Secret Service Terminated
TerminationByKubelet TopologyAffinityError True UnexpectedAdmissionError Unknown Warning
"""
KUBERNETES = frozenset(_KUBERNETES.split())
"""Words that Kubernetes says, and kinds."""
OTHERS = frozenset(["AdamW", "Forecast", "Gi", "Ki", "Mi", "New", "Percent", "Spent"])
"""Units, an optimizer, the stage of a run not looked at yet, the parts of Spent80Percent and Forecast80Percent."""
ELSEWHERE = frozenset(["Refused"])
"""Reasons of Events of the machinery around the core."""


def words() -> set[str]:
    """Return every text in the core that is written like a reason."""
    return {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value)
    }


def explained() -> set[str]:
    """Return the reasons that the page names: those in the first cells of its tables, and in its list of good news."""
    found: set[str] = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cell = line.split("|")[1] if line.startswith("| `") else line if "are Events of progress" in line else ""
        found |= set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", cell))
    return {reason for reason in found if not re.fullmatch(r"(Spent|Forecast)[0-9]+Percent", reason)}


def test_every_reason_that_the_code_can_set_is_explained() -> None:
    missing = words() - KUBERNETES - OTHERS - explained()
    assert not missing, "add a row to docs/troubleshooting.md, or the word to the sets of this test if it is no reason"


def test_nothing_is_explained_that_the_code_cannot_set() -> None:
    assert explained() - words() - ELSEWHERE == set()


def test_events_of_the_machinery_are_explained() -> None:
    runtime = "".join(path.read_text() for path in sorted((ROOT / "operator/rft_operator/runtime").glob("*.py")))
    said = set(re.findall(r'reason="([A-Z][A-Za-z]+)"', runtime))
    assert said <= explained(), said - explained()
    assert said >= ELSEWHERE
