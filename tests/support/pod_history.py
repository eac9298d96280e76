"""An independent witness of GPU time: what a watch saw of every pod, and the bill that follows from it.

Shares no code with the operator's ledger, so that both can be wrong only separately.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

AGAIN_SECONDS = 0.5


def _epoch(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTime:
    """One pod's GPU time in whole seconds of the API server's clock."""

    pod: str
    attempt: str
    stage: str
    gpus: int
    start: int
    end: int | None
    """None: the end was never written."""

    @property
    def gpu_seconds(self) -> int:
        """GPUs x seconds of a pod whose end is known."""
        assert self.end is not None, f"{self.pod} has no end"
        return self.gpus * (self.end - self.start)


class PodHistory:
    """Follows all pods of a cluster from start to stop, and looks again when the API server was away."""

    def __init__(self, kubectl: Path, kubeconfig: Path | None) -> None:
        where = () if kubeconfig is None else ("--kubeconfig", str(kubeconfig))
        self._command = [str(kubectl), *where, "get", "pods", "-A", "-w", "-o", "json", "--show-managed-fields"]
        self._first_terminal: dict[str, dict[str, Any]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._closed = threading.Event()
        self._process = self._watch()
        self._reader = threading.Thread(target=self._follow, name="pod-history", daemon=True)
        self._reader.start()

    def _watch(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def _follow(self) -> None:
        while True:
            assert self._process.stdout is not None
            with self._process.stdout as lines:
                self._read(lines)
            self._process.wait()
            if self._closed.wait(AGAIN_SECONDS):
                return
            self._process = self._watch()

    def _read(self, lines: Iterable[str]) -> None:
        decoder, buffer = json.JSONDecoder(), ""
        for line in lines:
            buffer += line
            if line.rstrip() != "}":
                continue
            pod, end = decoder.raw_decode(buffer.lstrip())
            buffer = buffer.lstrip()[end:]
            self._take(pod)

    def _take(self, pod: dict[str, Any]) -> None:
        for each in pod.get("items", [pod]):
            uid = each["metadata"]["uid"]
            self._last[uid] = each
            if each.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                self._first_terminal.setdefault(uid, each)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        while self._reader.is_alive():
            self._process.kill()
            self._reader.join(AGAIN_SECONDS)

    def gpu_time(self, namespace: str) -> list[GpuTime]:
        """Return the GPU time of every pod of a namespace that was bound and requested GPUs."""
        found = []
        for uid, pod in list(self._last.items()):
            meta, spec = pod["metadata"], pod["spec"]
            limits = [each.get("resources", {}).get("limits", {}) for each in spec["containers"]]
            gpus = sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)
            bound = [
                each["lastTransitionTime"]
                for each in pod["status"].get("conditions", ())
                if each["type"] == "PodScheduled" and each["status"] == "True"
            ]
            if meta["namespace"] != namespace or not gpus or not bound:
                continue
            labels = meta["labels"]
            found.append(
                GpuTime(
                    pod=meta["name"],
                    attempt=labels["rft.dev/attempt"],
                    stage=labels["rft.dev/stage"],
                    gpus=gpus,
                    start=_epoch(bound[0]),
                    end=self._end(uid),
                )
            )
        return found

    def _end(self, uid: str) -> int | None:
        pod = self._first_terminal.get(uid)
        if pod is None:
            return None
        times = [
            _epoch(entry["time"])
            for entry in pod["metadata"].get("managedFields", ())
            if "f:phase" in entry.get("fieldsV1", {}).get("f:status", {})
        ]
        return max(times)
