"""What the ranks would refuse is refused in the Prepare stage, where no GPU is held."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.contract import LoraConfig, ModelSource
from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout
from rft_trainer.prepare.model import check_trainable, fetch_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2."""
    folder = tmp_path_factory.mktemp("whole")
    source = ModelSource(uri="init://tiny-qwen2?hidden=16&layers=1&vocab=300")
    fetch_model(source, Layout(folder), folder / "model", texts=["1 + 1 = 2"], seed=1, max_sequence_length=32)
    return folder / "model"


def lora(*targets: str) -> LoraConfig:
    return LoraConfig(rank=2, alpha=4, dropout=0.0, target_modules=targets)


def configured(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


@pytest.mark.parametrize("adapters", [None, lora(), lora("q_proj", "down_proj")])
def test_model_is_taken_when_its_files_are_those_of_its_configuration(whole: Path, adapters: LoraConfig | None) -> None:
    check_trainable(whole, adapters)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (configured(model_type="gpt9"), r"config.json cannot be used .*gpt9"),
        (configured(model_type="t5", architectures=["T5Model"]), r"cannot be built from its config.json .*T5Config"),
        (configured(model_type="gpt9", auto_map={"AutoConfig": "code.Config"}), r"contains custom code"),
        (configured(num_hidden_layers=2), r"config.json cannot be used (?s:.*)layer_types"),
        (
            configured(num_hidden_layers=2, layer_types=["full_attention"] * 2),
            r"12 weights are not in its files, the first is model\.layers\.1\.",
        ),
        (configured(intermediate_size=64), r"weight .*mlp\..* has shape \(\d+, \d+\), expected \("),
        (configured(final_logit_softcapping=30.0), r"sets final_logit_softcapping, which this trainer does not"),
    ],
    ids=["unknown", "no decoder", "own code", "layer of no type", "layer without weights", "other shape", "other loss"],
)
def test_model_is_refused_when_no_rank_could_train_it(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "model"))
    spoil(path)
    with pytest.raises(BadInputError, match=reason):
        check_trainable(path, None)


@pytest.mark.parametrize("target", ["c_attn", "embed_tokens", "lm_head"])
def test_adapters_are_refused_when_a_name_is_of_no_linear_layer(whole: Path, target: str) -> None:
    with pytest.raises(BadInputError, match=rf"targetModules: '{target}' is no linear layer of this model"):
        check_trainable(whole, lora("q_proj", target))
