"""An operator that cannot start ends at once, with one line that says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.operator_process import OperatorProcess, free_port


def kubeconfig(folder: Path) -> Path:
    """Return a kubeconfig of an API server that nobody can reach."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "none", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "none", "user": {"token": "none"}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "current-context": "none",
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"RFT_WORKERS": "0"}, 2, "error: RFT_WORKERS='0': must be a whole number from 1 to 256"),
        ({"KUBECONFIG": "/nowhere"}, 2, "error: no usable kubeconfig: "),
        ({}, 1, "error: the API server cannot be used: list ReasoningFinetune "),
    ],
    ids=["setting", "kubeconfig", "server"],
)
async def test_operator_ends_with_one_line_when_it_cannot_start(
    tmp_path: Path, change: dict[str, str], code: int, words: str
) -> None:
    environment = {"KUBECONFIG": str(kubeconfig(tmp_path)), "RFT_TRAINER_IMAGE": "rft-trainer:test", **change}
    async with OperatorProcess(environment=environment, log=tmp_path / "operator.log") as operator:
        assert await operator.ended() == code
    assert operator.words().splitlines()[-1].startswith(words)
    assert "Traceback" not in operator.words()
