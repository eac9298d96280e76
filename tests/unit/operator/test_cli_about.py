"""Version, help, completion, and the plugin of kubectl."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from rft_operator.cli.common import complete_names
from rft_operator.cli.main import COMMANDS, kubectl_completion, kubectl_plugin, main
from support.command_line import CommandLine, run_in

DEPLOYMENT = {
    "metadata": {
        "namespace": "rft-system",
        "name": "rft-operator",
        "labels": {"app.kubernetes.io/version": "0.1.0"},
    },
    "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": "r/rft-operator:0.1.0"}]}}},
    "status": {"readyReplicas": 1},
}


def test_version_says_client_cluster_and_operator(cli: CommandLine) -> None:
    cli.api.extra |= {
        "/version": {"gitVersion": "v1.36.3"},
        "/apis/rft.dev": {"versions": [{"groupVersion": "rft.dev/v1alpha1"}]},
        "/apis/apps/v1/deployments": {"items": [DEPLOYMENT]},
    }
    code, out, _ = cli.rft("version")
    assert code == 0
    assert out.splitlines()[1:] == [
        "cluster: Kubernetes v1.36.3, ReasoningFinetune rft.dev/v1alpha1",
        "operator: 0.1.0, r/rft-operator:0.1.0, rft-system/rft-operator, 1/2 ready",
    ]
    found = json.loads(cli.rft("version", "-o", "json")[1])
    assert found["cluster"]["operators"][0]["ready"] == "1/2"
    (asked,) = {query["labelSelector"] for _, path, query, _ in cli.api.requests if path.endswith("/deployments")}
    assert asked == "app.kubernetes.io/part-of=rft-operator"  # the chart's nameOverride changes app.kubernetes.io/name
    cli.api.fail(403, "no", path="deployments")
    assert "operator: not known: may not list deployments" in cli.rft("version")[1]


def test_version_without_a_cluster_is_the_programs_own(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["version", "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 0
    assert "cluster: not reached: no usable kubeconfig" in done.output
    assert CliRunner().invoke(main, ["version", "--client"]).output.startswith("rft ")
    assert CliRunner().invoke(main, ["--version"]).output.startswith("rft, version ")


ROW = '{"id": 1, "scorer": "letter", "answer": "A", "text": "B"}'


@pytest.mark.parametrize("words", [["completion", "bash"], ["score", "-"]])
def test_a_closed_pipe_ends_a_command_without_a_word_and_is_no_no(words: list[str]) -> None:
    """As ``rft get | head -1`` closes it."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "rft_operator.cli.main", *words],
            input=ROW.encode(), stdout=closed, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("words", [["completion", "bash"], ["score", "-"], ["score", "-", "-o", "/dev/full"]])
def test_a_full_disk_ends_a_command_in_words(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rft_operator.cli.main", *words],
            input=ROW.encode(), stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert said.startswith("Error: /dev/full: No space" if "-o" in words else f"Error: rft {words[0]}: [Errno 28] No")
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["audit", "plan"])
def test_file_that_a_shell_of_windows_wrote_is_read_or_named(command: str, tmp_path: Path) -> None:
    """With a mark in front of UTF-8, or in UTF-16."""
    file, text = tmp_path / "in.json", json.dumps({"kind": "List", "items": []})
    file.write_bytes(text.encode("utf-8-sig"))
    read = CliRunner().invoke(main, [command, "-f", str(file)])
    assert ("Total: 0 GPU-seconds" if command == "audit" else "holds 0 (kinds: List)") in read.output
    file.write_bytes(text.encode("utf-16"))
    named = CliRunner().invoke(main, [command, "-f", str(file)])
    assert named.exit_code == 2
    assert f"Error: {file}: is no text in UTF-8, which it must be saved as" in named.output


def test_help_names_all_commands_and_local_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = CliRunner().invoke(main, ["--help"]).output
    for command in ("apply", "watch", "report", "top-up", "local"):
        assert f"\n  {command} " in words
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "rft_local" else found(name))
    assert "\n  local " not in CliRunner().invoke(main, ["--help"]).output
    assert CliRunner().invoke(main, ["local"]).exit_code == 2


def test_every_command_has_help_that_begins_with_a_sentence() -> None:
    for name in [*COMMANDS]:
        done = CliRunner().invoke(main, [name, "--help"])
        assert done.exit_code == 0, name
        assert done.output.splitlines()[2].strip(), name


def test_help_imports_no_heavy_library() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from rft_operator.cli.main import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "print([each for each in ('kubernetes', 'aiohttp', 'rich', 'matplotlib', 'pydantic') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("library", "command"),
    [("kubernetes", ["get"]), ("matplotlib", ["report", ".", "-o", "x.html"])],
)
def test_library_that_is_not_installed_is_named_with_its_extra(
    library: str, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "steps.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    program = (
        f"import sys; sys.modules[{library!r}] = None; from rft_operator.cli.main import main; "
        f"main({command!r}, prog_name='rft')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"{library} is not installed" in done.stderr
    assert "pip install 'reasoning-finetune-operator[cli]'" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"_RFT_COMPLETE={shell}_complete" in done.output


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft_operator.cli.common.NAME_SECONDS", 60)


def completions(cli: CommandLine, *words: str) -> list[str]:
    *typed, incomplete = words
    options = ["--kubeconfig", str(cli.api.kubeconfig)] if typed else []
    found = ShellComplete(main, {}, "rft", "_RFT_COMPLETE").get_completions([*typed, *options], incomplete)
    return [each.value for each in found]


@pytest.mark.usefixtures("patient")
def test_shell_completes_commands_and_the_names_of_runs(cli: CommandLine) -> None:
    cli.put(run_in("alpha"), run_in("alps"), run_in("beta"))
    assert completions(cli, "top") == ["top-up"]
    assert completions(cli, "report", "al") == ["alpha", "alps"]
    assert completions(cli, "suspend", "alpha", "al") == ["alps"]


@pytest.mark.usefixtures("patient")
def test_kubectl_completes_the_plugin(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.put(run_in("alpha"))
    options = ["--kubeconfig", str(cli.api.kubeconfig)]
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-rft", "report", *options, "al"])
    kubectl_completion()
    assert capsys.readouterr().out == "alpha\n:4\n"
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-rft", "wat"])
    kubectl_completion()
    assert capsys.readouterr().out.splitlines() == ["watch\tFollow runs until they end.", ":4"]
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-rft", "apply", "-f", ""])
    kubectl_completion()
    assert capsys.readouterr().out.splitlines()[-1] == ":0"


def test_completion_is_silent_when_the_cluster_is_away(tmp_path: Path) -> None:
    context = click.Context(main, info_name="rft")
    context.params = {"kubeconfig": tmp_path / "none"}
    assert complete_names(context, click.Argument(["name"]), "") == []


def test_plugin_calls_itself_as_the_user_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl-rft", "--help"])
    with pytest.raises(SystemExit):
        kubectl_plugin()
    assert capsys.readouterr().out.startswith("Usage: kubectl rft ")


def test_interrupt_ends_with_its_own_code(monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    def interrupted(work: Any) -> None:
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.run", interrupted)
    assert cli.rft("get")[0] == 130
