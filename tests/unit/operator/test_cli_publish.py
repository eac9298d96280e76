"""``rft publish``: a run's folder in, where the model is now out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rft_operator.cli.main import main
from rft_trainer.files import write_json

RUN = {
    "status": {
        "cost": {"spentUSD": "12.340000"},
        "usage": {
            "gpuHours": "4.183",
            "byStage": [{"stage": "train", "gpuSeconds": 14_400, "spentUSD": "11.800000"}],
        },
    }
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder that holds a model and little else."""
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    (export / "model.safetensors").write_bytes(b"weights")
    write_json(export / "rft-export.json", {"version": 1, "step": 600})
    return tmp_path / "run"


def publish(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["publish", *arguments], input=stdin)


def test_model_is_in_the_folder_with_its_card_and_its_bill(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    result = publish(str(folder), "--to", f"file://{target}", "--run", "-", stdin=json.dumps(RUN))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"file://{target}: 2 files, 2 of them new\n"
    assert "$12.340000" in (target / "README.md").read_text()
    again = publish(str(folder), "--to", f"file://{target}", "--run", "-", stdin=json.dumps(RUN))
    assert again.stdout.endswith("0 of them new\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["--to", "s3://bucket"], None, "--to 's3://bucket': write hf://organisation/name or file:///folder"),
        (["--to", "hf://only-a-name"], None, "hf://organisation/name"),
        (["--to", "file:///nowhere", "--run", "-"], "{}", "--run: is not a run with a status"),
        (["--to", "file:///nowhere", "--run", "-"], "[", "--run: is not a run with a status"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    folder: Path, arguments: list[str], stdin: str | None, words: str
) -> None:
    result = publish(str(folder), *arguments, stdin=stdin)
    assert result.exit_code != 0
    assert words in result.stderr


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    result = publish(str(tmp_path), "--to", f"file://{tmp_path}/out")
    assert result.exit_code != 0
    assert "holds no exported model" in result.stderr
