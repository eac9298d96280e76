"""Behind a proxy: downloads go through it, and nothing that talks to a local cluster does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import pytest
from click.testing import CliRunner

from rft_local import control_plane, proxy
from rft_local.cli import local
from rft_local.control_plane import ControlPlane
from rft_local.errors import StartError
from rft_local.layout import MOST_CLUSTERS, Layout
from rft_local.processes import Processes, wait_until
from rft_local.proxy import DIRECT, direct, has_proxy, no_proxy

ROOT = Path(__file__).resolve().parents[3]


def layout(state: Path, *, number: int = 0, nodes: int = 1) -> Layout:
    return Layout(
        name="x", state=state, nodes=nodes, gpus=0, number=number, api_port=6443, etcd_port=1, etcd_peer_port=2
    )


@pytest.fixture(autouse=True)
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.parametrize("number", range(MOST_CLUSTERS))
@pytest.mark.parametrize("nodes", [0, 1])
def test_python_asks_no_proxy_for_the_api_server_of_any_cluster(tmp_path: Path, number: int, nodes: int) -> None:
    server = layout(tmp_path, number=number, nodes=nodes).api_url.removeprefix("https://")
    assert proxy_bypass_environment(server, {"no": no_proxy({})})
    assert not proxy_bypass_environment("pypi.example:443", {"no": no_proxy({})})


def test_go_is_given_the_networks_and_names_of_a_cluster() -> None:
    assert {"127.0.0.1", "localhost", "198.18.0.0/15", ".svc", ".cluster.local"} <= set(no_proxy({}).split(","))


def test_what_the_user_has_is_kept_once_and_both_names_say_the_same() -> None:
    given = {"NO_PROXY": "a.example, b.example,", "no_proxy": "b.example,c.example", "PATH": "/bin"}
    found = direct(given)
    assert found["NO_PROXY"] == found["no_proxy"] == ",".join(["a.example", "b.example", "c.example", *DIRECT])
    assert found["PATH"] == "/bin"
    assert direct(found) == found


def test_proxy_for_nothing_stays_one_for_nothing() -> None:
    assert no_proxy({"NO_PROXY": "*"}) == "*"


def test_every_process_of_a_cluster_has_the_list(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    seen = tmp_path / "seen"
    processes.start("part", ["sh", "-c", f'echo "$NO_PROXY $no_proxy $HTTPS_PROXY" >{seen}; exec sleep 1000'])
    try:
        wait_until(lambda: seen.exists() and seen.read_text() != "", what="its words", seconds=10, every_seconds=0.01)
        wanted = no_proxy(os.environ)
        assert wanted.startswith("intranet.example,127.0.0.1")
        assert seen.read_text().split() == [wanted, wanted, "http://proxy.example:3128"]
    finally:
        processes.kill("part")


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_kubectl_has_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = program(tmp_path / "kubectl", 'echo "$NO_PROXY $no_proxy"')
    monkeypatch.setattr(control_plane, "binary", lambda _: kubectl)
    plane = ControlPlane(layout(tmp_path), Processes(tmp_path), lambda _: None)
    assert plane.kubectl("version").stdout.split() == [no_proxy(os.environ)] * 2


def test_words_of_kubectl_are_told_when_the_api_server_does_not_get_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = program(tmp_path / "kubectl", 'case "$*" in *readyz) echo "proxyconnect: Forbidden" >&2;; esac; exit 1')
    monkeypatch.setattr(control_plane, "START_SECONDS", 0.01)
    monkeypatch.setattr(control_plane, "binary", lambda name: kubectl if name == "kubectl" else Path("/bin/sleep"))
    processes = Processes(tmp_path)
    monkeypatch.setattr(processes, "start", lambda *_, **__: 1)
    monkeypatch.setattr(processes, "alive", lambda _: True)
    plane = ControlPlane(layout(tmp_path), processes, lambda _: None)
    with pytest.raises(StartError, match=r"for the API server\. kubectl said last: proxyconnect: Forbidden\nlog "):
        plane.start_api_server()


@pytest.mark.parametrize(
    ("variable", "shown"), [("HTTPS_PROXY", True), ("https_proxy", True), ("all_proxy", True), ("NO_PROXY", False)]
)
def test_start_prints_what_the_users_own_programs_need_when_there_is_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, shown: bool
) -> None:
    class Started:
        kubeconfig = tmp_path / "kubeconfig"

    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv(variable, "it's.example")
    monkeypatch.setattr("rft_local.cluster.start", lambda _: Started())
    done = CliRunner().invoke(local, ["up"])
    assert done.exit_code == 0, done.output
    assert has_proxy(os.environ) is shown
    told = subprocess.run(
        ["sh", "-c", f'{done.stdout}\necho "$KUBECONFIG|$NO_PROXY|$no_proxy"'],
        capture_output=True,
        text=True,
        check=True,
        env={},
    ).stdout.strip()
    wanted = no_proxy(os.environ) if shown else ""
    assert told == f"{Started.kubeconfig}|{wanted}|{wanted}"


def test_list_is_printed_for_a_shell() -> None:
    done = subprocess.run([sys.executable, "-m", "rft_local.proxy"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{proxy.no_proxy(os.environ)}\n"


class Demo:
    """The demo among programs that only write down what they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.script, self.log = folder / "hack" / "demo.sh", folder / "log"
        self.script.parent.mkdir()
        self.script.write_text((ROOT / "hack" / "demo.sh").read_text())
        programs = folder / ".venv" / "bin"
        program(programs / "python", f'exec "{sys.executable}" "$@"')
        note = f'echo "$NO_PROXY $no_proxy $(basename $0) $*" >>{self.log}'
        program(programs / "kubectl", note)
        program(programs / "rft", f'{note}\ncase "$2" in tools) echo {programs};; kubeconfig) echo kc;; esac')

    def run(self, file: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": "/usr/bin:/bin", "DEMO_FILE": str(file)}
        return subprocess.run(["bash", str(self.script)], capture_output=True, text=True, env=environment)


def test_demo_asks_no_proxy_for_its_cluster(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    done = demo.run(ROOT / "examples" / "tiny-local.yaml")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in demo.log.read_text().splitlines()]
    assert {tuple(line[2:4]) for line in lines} >= {("kubectl", "apply"), ("rft", "watch"), ("rft", "local")}
    wanted = no_proxy(os.environ)
    assert [line for line in lines if line[:2] != [wanted, wanted]] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: [Errno 2] No such file or directory"),
        ("a: [", "cannot be read: while parsing"),
        ("- 1\n--- 2\n", "holds no ReasoningFinetune"),
    ],
    ids=["no file", "no YAML", "no run"],
)
def test_demo_says_what_is_wrong_with_its_file(tmp_path: Path, text: str | None, words: str) -> None:
    demo, file = Demo(tmp_path), tmp_path / "own.yaml"
    if text is not None:
        file.write_text(text)
    done = demo.run(file)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: DEMO_FILE={file} {words}")


def test_demo_looks_at_its_run_where_the_file_puts_it(tmp_path: Path) -> None:
    demo, file = Demo(tmp_path), tmp_path / "own.yaml"
    file.write_text("kind: ReasoningFinetune\nmetadata: {name: mine, namespace: team}\n")
    done = demo.run(file)
    assert done.returncode == 0, done.stderr
    lines = demo.log.read_text().splitlines()
    named = [line for line in lines if "mine" in line]
    assert len(named) >= 3
    assert [line for line in named if "--namespace team" not in line] == []
