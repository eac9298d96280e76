"""Commands and programs in the documentation: every one is valid, and those of the guides are carried out."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from rft_operator.cli.main import main
from rft_operator.client import AsyncClient, Client
from support.builders import NAMESPACE, resource
from support.command_line import CommandLine, condition, run_in

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:\S*/)?(?:kubectl )?rft\s")
MODEL = "my-model"
GOOD: dict[str, Any] = {
    "stage": "Complete",
    "conditions": [condition("Complete"), condition("Suspended"), condition("Running")],
}
GOOD |= {"evaluation": {"results": [{"benchmark": "sums", "metric": "accuracy", "value": "0.9", "questions": 10}]}}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every ``rft`` in a page's blocks, up to a pipe."""
    for _, block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if COMMAND.match(line):
                words = shlex.split(line.removeprefix("$ ").replace("[", "").replace("]", ""), comments=True)
                words = words[words.index(next(each for each in words if each.endswith("rft"))) + 1 :]
                ends = [index for index, word in enumerate(words) if word in ("|", ">", "&&", ";", "2>&1")]
                yield words[: min(ends, default=len(words))]


FOUND = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page)]


def parse(group: click.Group, words: Sequence[str], parent: click.Context | None = None) -> None:
    """Check arguments as click does before it carries a command out."""
    context = click.Context(group, info_name="rft", parent=parent)
    name, command, rest = group.resolve_command(context, list(words))
    assert command is not None
    if isinstance(command, click.Group):
        parse(command, rest, context)
    elif not {"--help", "-h"} & set(rest):
        with command.make_context(name, rest, parent=context):
            pass  # closes the files that it opened


@pytest.mark.parametrize(
    ("page", "words"), FOUND, ids=[f"{page}: {' '.join(words)}".replace("::", ":") for page, words in FOUND]
)
def test_every_command_in_the_documentation_is_valid(
    page: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in words:
        if re.fullmatch(r"[\w./-]+\.(ya?ml|jsonl?)", word) and not word.startswith("/"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    parse(main, words)


def test_documentation_has_commands() -> None:
    assert len(FOUND) > 20


@pytest.fixture
def home(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A folder with the files that the guides speak of, and a cluster with their run."""
    manifest = resource(MODEL, model={"uri": "hf://Qwen/Qwen2.5-7B-Instruct"})
    manifest["spec"] |= {"dataset": {"uri": "hf://NovaSky-AI/Sky-T1_data_17k", "format": "sky-t1"}}
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "prices.yaml").write_text("version: 1\nprices: []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cli.api.kubeconfig))
    run = run_in(MODEL)
    cli.put({**run, "spec": manifest["spec"], "status": {**GOOD, "observedGeneration": 1}})
    return cli


def test_every_command_of_the_guide_is_carried_out_in_its_order(home: CommandLine) -> None:
    wanted = [words for page, words in FOUND if page == Path("docs/cli.md") and words[0] != "local"]
    assert len(wanted) > 15
    for words in wanted:
        if words[:2] == ["resume", MODEL] or words[:2] == ["suspend", MODEL]:
            home.api.do(home.becomes({**GOOD, "observedGeneration": 99}, name=MODEL))
        if words[0] == "top-up":
            running = {"stage": "Training", "observedGeneration": 99, "conditions": []}
            home.api.do(home.becomes(running, name=MODEL))
        if words[0] == "logs":
            home.api.do(home.becomes({**GOOD, "observedGeneration": 99}, name=MODEL))
        done = CliRunner().invoke(main, words)
        accepted = (0, 1) if words[0] == "plan" else (0,)
        assert done.exit_code in accepted, f"rft {' '.join(words)}: {done.output}"


def test_every_program_of_the_clients_guide_runs(home: CommandLine) -> None:
    blocks = [
        code for language, code in FENCE.findall((ROOT / "docs" / "client.md").read_text()) if language == "python"
    ]
    assert len(blocks) == 2
    values: dict[str, Any] = {}
    exec(blocks[0], values)  # the documentation's own text
    assert values["run"].metadata.name == MODEL
    sent = blocks[1].replace('name="my-model"', 'name="another"')
    exec(f"from rft_operator.client import Client\nwith Client() as client:\n    pass\n{_inside(sent)}", values)
    assert ("ReasoningFinetune", NAMESPACE, "another") in home.api.kube.objects


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_methods_that_take_a_namespace_are_those_of_the_clients_guide(client: type) -> None:
    (sentence,) = re.findall(
        r"^(`get`, .*) take `namespace=`\.", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE
    )
    said = set(re.findall(r"`(\w+)`", sentence))
    methods = {name: each for name, each in vars(client).items() if callable(each) and not name.startswith("_")}
    takes = {
        name for name, each in methods.items() if {"namespace", "options"} & set(inspect.signature(each).parameters)
    }
    assert takes - {"connect", "read", "read_all"} == said


def _inside(code: str) -> str:
    """Put code into a block in which there is a client."""
    return "with Client() as client:\n" + "".join(f"    {line}\n" for line in code.splitlines())
