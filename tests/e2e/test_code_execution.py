"""Programs that mean harm, in the pod that the operator makes for them, on real nodes: each fails its own test alone.

A program that gets through prints what is right, so its verdict would say so. What it would do then is bounded.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rft_local.cluster import Cluster
from rft_trainer.scoring.verdict import PENDING
from support.answered_run import ROWS, answered_run
from support.finetune import Finetune, attempts, condition, holds
from support.local_machine import container_processes
from support.polling import eventually

BYSTANDER, PORT, CALLED = "bystander", 8_080, "called"
LIMITS = {"cpu_seconds": 10, "memory_mib": 256}
SUMS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"], **LIMITS}
SUMS_IN_A_SECOND = {**SUMS, "cpu_seconds": 1}
CALLS = {"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "function": "add", **LIMITS}
CHECKED = {"test": "def check(candidate):\n    assert candidate(1, 2) == 3", "function": "add", **LIMITS}
SUM = "a, b = map(int, input().split())\nprint(a + b)"
ADD = "def add(a, b):\n    return a + b"
GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "a good program": (SUMS, SUM),
    "a good function": (CALLS, ADD),
    "a good function for a test of the benchmark's own": (CHECKED, ADD),
}
HARMFUL: dict[str, tuple[str, str]] = {
    "forks": ("import os\nfor _ in range(64):\n    if os.fork() == 0:\n        os._exit(0)", "runtime error"),
    "starts programs": ("import subprocess\nsubprocess.run(['/bin/true'], check=True)", "runtime error"),
    "takes 4 GB at once": ("block = bytearray(4 << 30)\nblock[::4_096] = bytes(1 << 20)", "memory limit"),
    "takes memory without end": ("kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))", "memory limit"),
    "prints without end": ("while True:\n    print('x' * 1_000)", "output limit"),
    "computes without end": ("while True:\n    pass", "time limit"),
    "sleeps": ("import time\ntime.sleep(600)", "time limit"),
    "fills the disk": ("open('/tmp/full', 'w').write('x')", "runtime error"),
    "kills the judge": ("import os\nos.kill(os.getppid(), 9)", "runtime error"),
    "kills everybody": ("import os\nos.kill(-1, 9)", "runtime error"),
    "ends before it is judged": ("import os\nos._exit(0)", "different"),
    "says that it is right": (
        'import os\nfor fd in (1, 3):\n    os.write(fd, b\'{"verdict": "passed"}\')',
        "runtime error",
    ),
}
"""By what it does: the first lines of a program that is right in all others, and what becomes of it."""
FORGED = "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef add(a, b): return Any(0)"
SERVER = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", {PORT}), Handler).serve_forever()
"""


def bystanders() -> dict[str, Any]:
    """A pod on every node that has nothing to do with the run, and writes down who calls."""
    labels = {"app": BYSTANDER}
    container = {
        "name": BYSTANDER,
        "image": "rft.local/trainer:dev",
        "command": ["python", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": BYSTANDER},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def network(addresses: list[str]) -> str:
    """The first lines of a program that calls whomever it knows."""
    return (
        f"import socket\nfor address in {addresses!r}:\n"
        f"    socket.create_connection((address, {PORT}), 1).sendall(b'GET /{CALLED} HTTP/1.0\\r\\n\\r\\n')"
    )


STOLEN = f"""
import json
given = input() + chr(10)
for line in open("/rft/configmaps/{ROWS}/rows.jsonl"):
    tests = json.loads(line)["tests"]
    if given in tests.get("inputs", ()):
        print(tests["outputs"][tests["inputs"].index(given)])
        break
"""
"""Looks what is right up, where it is kept."""
CHANGED = """
import os
for run in os.listdir("/rft/data"):
    for name in os.listdir(f"/rft/data/{run}/evaluation"):
        open(f"/rft/data/{run}/evaluation/{name}", "a").write("changed")
"""


@pytest.fixture
async def strangers(finetune: Finetune, machines: Cluster) -> AsyncIterator[list[dict[str, Any]]]:
    """Pods of somebody else, one a node."""
    finetune.kubectl("create", "-f", "-", manifest=bystanders())
    finetune.kubectl("rollout", "status", f"daemonset/{BYSTANDER}", "--timeout=60s")
    yield finetune.kubectl_json("get", "pods", "-l", f"app={BYSTANDER}", "-o", "json")["items"]
    finetune.kubectl("delete", "daemonset", BYSTANDER, "--cascade=foreground")


def life_of(pod: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return what changes when a pod is harmed."""
    [container] = pod["status"]["containerStatuses"]
    return pod["metadata"]["uid"], pod["status"]["phase"], container["restartCount"]


def true_of(node: Mapping[str, Any]) -> set[str]:
    """Return the conditions of a node that are true."""
    return {each["type"] for each in node["status"]["conditions"] if each["status"] == "True"}


async def test_harmful_programs_fail_their_own_tests_alone_and_nothing_else_on_the_node_notices(
    finetune: Finetune, machines: Cluster, strangers: list[dict[str, Any]], tmp_path: Path
) -> None:
    addresses = [pod["status"]["podIP"] for pod in strangers]
    kubelets = [node.kubelet_pid() for node in machines.nodes]
    harmful = {
        **{
            name: (SUMS_IN_A_SECOND if reason == "time limit" else SUMS, f"{code}\n{SUM}")
            for name, (code, reason) in HARMFUL.items()
        },
        "calls other pods": (SUMS, f"{network(addresses)}\n{SUM}"),
        "calls the API server": (SUMS, f"{network(['kubernetes.default.svc'])}\n{SUM}"),
        "reads the answers": (SUMS, STOLEN),
        "changes the answers": (SUMS, f"{CHANGED}\n{SUM}"),
        "returns what equals everything": (CALLS, FORGED),
        "returns it to a test of the benchmark's own": (CHECKED, FORGED),
    }
    last = {f"{name}, after them": it for name, it in GOOD.items()}
    room_for_one = {"codeExecution": {"memory": "1600Mi"}}
    async with answered_run(
        finetune, {**GOOD, **harmful, **last}, folder=tmp_path / "rft", evaluation=room_for_one
    ) as run:
        before = run.records()
        run.score()
        status = await finetune.until_complete(seconds=120)
        verdicts = run.records()
        pod = finetune.pod(stage="score")
        log = finetune.kubectl("logs", pod["metadata"]["name"])
        [policy] = finetune.kubectl_json("get", "networkpolicy", "-o", "json")["items"]

    expected = {
        **dict.fromkeys((*GOOD, *last), "equal"),
        **dict.fromkeys(harmful, "runtime error"),
        **{name: reason for name, (_, reason) in HARMFUL.items()},
        **dict.fromkeys([name for name in harmful if name.startswith("returns")], "different"),
    }
    assert {name: each.reason for name, each in verdicts.items()} == expected
    assert {name for name, each in verdicts.items() if each.correct} == {*GOOD, *last}
    assert {name: each.text for name, each in verdicts.items()} == {name: each.text for name, each in before.items()}
    [scored] = attempts(status, "score")
    assert (scored.outcome, status.restarts.toward_limit) == ("Succeeded", 0)
    assert status.evaluation is not None
    assert (status.evaluation.results[0].questions, status.evaluation.partial) == (len(expected), False)
    assert status.usage.gpu_seconds == 0

    assert f"{len(expected)} programs to run, 1 at once" in log
    assert (life_of(pod)[1:], "serviceaccount" in json.dumps(pod["spec"]["volumes"])) == (("Succeeded", 0), False)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert container_processes(machines.layout, pod_uid=pod["metadata"]["uid"], word="") == []
    assert [node.kubelet_pid() for node in machines.nodes] == kubelets
    nodes = finetune.kubectl_json("get", "nodes", "-o", "json")["items"]
    assert [true_of(node) for node in nodes] == [{"Ready"}] * len(machines.nodes)
    now = finetune.kubectl_json("get", "pods", "-l", f"app={BYSTANDER}", "-o", "json")["items"]
    assert sorted(map(life_of, now)) == sorted(map(life_of, strangers))
    assert CALLED not in finetune.kubectl("logs", "-l", f"app={BYSTANDER}")
    called = strangers[0]["metadata"]["name"]
    finetune.kubectl("exec", called, "--", "python", "-c", network(["127.0.0.1"]))
    assert CALLED in finetune.kubectl("logs", called), "what calls is written down"


POLICY = "admissionregistration.k8s.io/v1"
OTHER_MACHINE = ["setarch", "i686", "rft-launch", "score"]
"""What the pod runs, on a machine whose system calls nobody has listed: no filter can be set there."""


@pytest.fixture
async def unknown_machine(finetune: Finetune, machines: Cluster) -> AsyncIterator[None]:
    """Have the pods of the stage Score in the run's namespace find themselves on another kind of machine."""
    name = finetune.namespace
    patch = f'[JSONPatch{{op: "replace", path: "/spec/containers/0/command", value: {json.dumps(OTHER_MACHINE)}}}]'
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    selectors = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        "objectSelector": {"matchLabels": {"rft.dev/stage": "score"}},
    }
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule], **selectors},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    for kind, spec in (("", policy), ("Binding", {"policyName": name})):
        manifest = {"apiVersion": POLICY, "kind": f"MutatingAdmissionPolicy{kind}", "metadata": {"name": name}}
        finetune.kubectl("create", "-f", "-", manifest={**manifest, "spec": spec})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": {"rft.dev/stage": "score"}},
        "spec": {"containers": [{"name": "probe", "image": "none", "command": ["none"]}]},
    }

    async def holds_() -> bool:
        made = json.loads(finetune.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", manifest=pod))
        return bool(made["spec"]["containers"][0]["command"] == OTHER_MACHINE)

    await eventually(holds_, what="the policy to be in force", every_seconds=0.5)
    yield
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        finetune.kubectl("delete", kind, name)


@pytest.mark.usefixtures("unknown_machine")
async def test_run_fails_with_the_reason_and_without_a_score_where_programs_cannot_be_sealed(
    finetune: Finetune, tmp_path: Path
) -> None:
    async with answered_run(finetune, GOOD, folder=tmp_path / "rft", retries={"maxRestarts": 0}) as run:
        run.score()
        status = await finetune.until(lambda status: holds(status, "Failed"), what="the run's end", seconds=120)
        reasons = {each.reason for each in run.records().values()}
    failed, evaluated = condition(status, "Failed"), condition(status, "Evaluated")
    assert failed is not None
    assert evaluated is not None
    assert "a process cannot be sealed" in failed.message
    assert "i686" in failed.message
    assert (evaluated.status, status.evaluation) == ("False", None)
    assert reasons == {PENDING}, "no answer is judged wrong"
