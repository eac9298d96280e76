"""Every command in the documentation is valid; what cannot be run anywhere says what it needs, all else is run here.

The arguments of ``rft`` itself are held to the command line in tests/unit/operator/test_docs_commands.py.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_local.tools import binary
from rft_operator.cli.main import main
from support.builders import resource
from support.markdown import ROOT, Block, blocks

SHELL = ("", "console", "bash", "sh", "shell")
OFFLINE = ("plan", "score", "audit", "completion")
"""Commands of rft that need no cluster."""
PROGRAMS = frozenset({"rft", "make", "kubectl", "helm", "docker", "pip", "python", "export", "source", "pre-commit"})
NEEDING = {"kubectl": ("cluster", "gpu-cluster"), "helm": ("cluster", "gpu-cluster"), "docker": ("docker",)}
"""What a block of a program must say that it needs; of the others see :func:`wanted`."""
ABOUT_A_CLUSTER = "docs/runbooks/"
"""Pages that are all about a cluster that has the operator, and say so at their head."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a block."""

    block: Block
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """Its program, without variables in front and the folder it is in."""
        return Path(self.words[0]).name

    def __str__(self) -> str:
        return f"{self.block}: {' '.join(self.words)}"


def lines(block: Block) -> list[str]:
    """Return the commands of a block as text: all lines, or those behind a $ where there is output, too."""
    text = block.body.replace("\\\n", " ")
    prompted = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    plain = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return prompted or plain


def words(line: str) -> list[str]:
    """Split a line as a shell does, without its variables and what comes behind a pipe."""
    line = line.replace("[", "").replace("]", "") if line.startswith("rft plan") else line
    found = shlex.split(line, comments=True)
    ends = [index for index, word in enumerate(found) if word in ("|", ">", "&&") or word.endswith(";")]
    found = [word.rstrip(";") for word in found[: min(ends, default=len(found)) + 1] if word not in ("|", ">", "&&")]
    while found and re.match(r"[A-Z_]+=", found[0]):
        found.pop(0)
    return found


def is_shell(block: Block) -> bool:
    """Return whether a block has commands; one without a language may be output alone."""
    if block.language not in SHELL:
        return False
    first = [word for word in next(iter(lines(block)), "").split() if not re.match(r"[A-Z_]+=", word)]
    return block.language != "" or Path(first[0] if first else "").name in PROGRAMS


def commands() -> Iterator[Command]:
    """Yield every command of every page."""
    for block in blocks():
        if is_shell(block):
            for line in lines(block):
                yield Command(block, tuple(words(line)))


FOUND = list(commands())


def wanted(command: Command) -> tuple[str, ...]:
    """Return which marks a block with this command may have; none: it needs none."""
    program, rest = command.program, command.words[1:]
    if program == "rft" and rest[0] == "evaluate":
        return ("network",)
    if program == "rft":
        return () if rest[0] in OFFLINE else ("root",) if rest[0] == "local" else ("cluster", "gpu-cluster")
    if program == "make":
        return () if rest[0] in ("help", "check", "generate", "docs") else ("root", "minutes")
    if program in ("pip", "pre-commit"):
        return ("network",)
    if program == "python":
        return ("root", "cluster", "minutes")
    return NEEDING.get(program, ())


def test_documentation_has_commands() -> None:
    assert len(FOUND) > 60
    assert {command.program for command in FOUND} <= PROGRAMS


@pytest.mark.parametrize("command", FOUND, ids=str)
def test_block_says_what_it_needs_when_a_command_needs_something(command: Command) -> None:
    needed = wanted(command)
    in_block = [each for each in FOUND if each.block == command.block]
    of_block = {mark for each in in_block for mark in wanted(each)}
    if command.block.page.startswith(ABOUT_A_CLUSTER):
        assert {"cluster"} & of_block or not of_block
    elif needed:
        assert command.block.needs in of_block, f"put <!-- needs: {' or '.join(needed)} --> in front of the block"
    elif not of_block:
        assert command.block.needs is None, "nothing in this block needs anything"


def test_marks_have_words_for_a_reader() -> None:
    words_of = runpy.run_path(str(ROOT / "hack" / "docs_site.py"))["NEEDED"]
    marks = {block.needs for block in blocks() if block.needs is not None}
    assert marks <= set(words_of)


# -- what can be checked without a cluster -----------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "reasoning-finetune-operator"
    return set(project["optional-dependencies"])


def _make(rest: tuple[str, ...]) -> None:
    (target,) = [word for word in rest if "=" not in word]
    assert target in targets()


def _docker(rest: tuple[str, ...]) -> None:
    built = {
        command.words[command.words.index("-t") + 1] for command in FOUND if command.words[:2] == ("docker", "build")
    }
    if rest[0] == "push":
        assert rest[1:]
        assert set(rest[1:]) <= built
        return
    assert rest[0] == "build"
    pushed = {command.words[2] for command in FOUND if command.words[:2] == ("docker", "push")}
    assert built <= pushed, "a cluster pulls what was pushed"
    assert (ROOT / rest[rest.index("-f") + 1]).is_file()
    assert (ROOT / rest[-1]).is_dir()


def _pip(rest: tuple[str, ...]) -> None:
    assert rest[0] == "install"
    (extra,) = re.findall(r"^\.\[([a-z]+)\]$", rest[1])
    assert extra in extras()


def _python(rest: tuple[str, ...]) -> None:
    assert rest[:2] == ("-m", "pytest"), rest
    assert all((ROOT / word).exists() for word in rest[2:] if "/" in word)


CHECKS: dict[str, Callable[[tuple[str, ...]], None]] = {
    "make": _make,
    "docker": _docker,
    "pip": _pip,
    "python": _python,
}
CHECKED = [command for command in FOUND if command.program in CHECKS]


@pytest.mark.parametrize("command", CHECKED, ids=str)
def test_command_names_what_there_is(command: Command) -> None:
    CHECKS[command.program](command.words[1:])


@pytest.mark.parametrize(
    "program",
    [pytest.param("kubectl", marks=pytest.mark.controlplane), pytest.param("helm", marks=pytest.mark.charts)],
)
def test_program_knows_its_command_and_every_flag(program: str) -> None:
    mine = {command.words[1:]: command for command in FOUND if command.program == program}
    assert mine
    for rest, command in mine.items():
        if rest[0] == "rft" or "--" in rest:  # a plugin's arguments are its own
            continue
        done = subprocess.run([binary(program), *rest, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_kubectl_of_the_documentation_speaks_of_kinds_that_exist() -> None:
    ours = {"rft", "rftb", "reasoningfinetunes", "finetunebudgets"}
    builtin = {
        "pods",
        "pod",
        "nodes",
        "node",
        "jobs",
        "job",
        "namespace",
        "lease",
        "configmap",
        "secret",
        "events",
        "crd",
    }
    others = {"workloads"}
    for command in FOUND:
        if command.program == "kubectl" and command.words[1] in ("get", "describe", "patch", "delete", "label"):
            rest = [word for word in command.words[2:] if not word.startswith("-")]
            kinds = set(rest[0].split("/")[0].split(",")) if "--raw" not in command.words else set()
            assert kinds <= ours | builtin | others, str(command)


# -- what is run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "examples" / "s1-32b.yaml", tmp_path / "finetune.yaml")
    shutil.copy(ROOT / "examples" / "prices.yaml", tmp_path / "prices.yaml")
    run = resource()
    run["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 1}
    (tmp_path / "dump.json").write_text(json.dumps({"kind": "List", "items": [run]}))
    row = {"id": "1", "scorer": "integer", "answer": "4", "text": "The answer is \\boxed{4}."}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = {command.words[1:]: command for command in FOUND if command.program == "rft" and command.words[1] in OFFLINE}


@pytest.mark.parametrize("command", RUN.values(), ids=str)
def test_command_that_needs_no_cluster_runs(command: Command, home: Path) -> None:
    done = CliRunner().invoke(main, command.words[1:])
    assert done.exit_code == 0, done.output
    assert done.output or list(home.glob("*.jsonl"))
