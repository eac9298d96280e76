"""What the ranks would refuse is refused in the Prepare stage, where no GPU is held."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from rft_trainer.contract import LoraConfig, ModelSource
from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout
from rft_trainer.prepare.model import check_rows, check_trainable, fetch_model, load_tokenizer
from unit.trainer.factory import row


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


def in_eight_bits(path: Path) -> None:
    """One weight as a quantised model has it: the number beside its scale."""
    file, name = path / "model.safetensors", "model.layers.0.mlp.up_proj.weight"
    tensors = load_file(file)
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, file, metadata={"format": "pt"})


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
        (configured(quantization_config={"quant_method": "fp8"}), r"its weights are quantised \(fp8\), and only bf16"),
        (in_eight_bits, r"its weights are quantised \(model\.layers\.0\.mlp\.up_proj\.weight is F8_E4M3\)"),
        (configured(final_logit_softcapping=30.0), r"sets final_logit_softcapping, which this trainer does not"),
    ],
    ids=[
        "unknown",
        "no decoder",
        "own code",
        "layer of no type",
        "layer without weights",
        "other shape",
        "quantised",
        "quantised in silence",
        "other loss",
    ],
)
def test_model_is_refused_when_no_rank_could_train_it(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "model"))
    spoil(path)
    with pytest.raises(BadInputError, match=reason):
        check_trainable(path, None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("hidden=36&heads=4", "hidden=36 must be a multiple of twice heads=4"),
        ("hidden=40&heads=5", None),
        ("hidden=32&heads=4&kv_heads=3", "heads=4 must be a multiple of kv_heads=3"),
        ("hidden=32&heads=2&kv_heads=4", "heads=2 must be a multiple of kv_heads=4"),
    ],
)
def test_preset_is_refused_when_its_layers_could_not_compute(tmp_path: Path, options: str, reason: str | None) -> None:
    source = ModelSource(uri=f"init://tiny-qwen2?layers=1&{options}")
    model = tmp_path / "model"

    def fetch() -> None:
        fetch_model(source, Layout(tmp_path), model, texts=["1 + 1 = 2"], seed=1, max_sequence_length=32)

    if reason is not None:
        with pytest.raises(BadInputError, match=reason):
            fetch()
        return
    fetch()
    AutoModelForCausalLM.from_pretrained(model)(input_ids=torch.tensor([[1, 2, 3]]))


def test_rows_are_refused_when_they_are_longer_than_the_model_by_its_configuration(whole: Path, tmp_path: Path) -> None:
    long, too_long = ([row(*[5] * tokens, prompt=1)] for tokens in (512, 513))
    check_rows(whole, long)
    with pytest.raises(BadInputError, match=r"model: holds 512 tokens, .* 513; set training\.maxSequenceLength to 512"):
        check_rows(whole, too_long)
    scaled = Path(shutil.copytree(whole, tmp_path / "model"))
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 512}
    configured(rope_parameters=yarn)(scaled)
    check_rows(scaled, too_long)


def test_rows_are_refused_when_the_tokenizer_knows_more_than_the_model(whole: Path) -> None:
    size = json.loads((whole / "config.json").read_text())["vocab_size"]
    check_rows(whole, [row(1, size - 1, prompt=1)])
    with pytest.raises(BadInputError, match=rf"gives the rows token {size}, and the model knows those below {size};"):
        check_rows(whole, [row(1, 2, prompt=1), row(1, size, prompt=1)])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, r"has no token but 4 marks; copy the file of its vocabulary, too \(tokenizer\.json"),
        (lambda file: file.write_bytes(file.read_bytes()[:3_000]), "cannot be loaded"),
        (lambda file: file.write_text('{"version": "1.0", "model": {"type": "other"}}'), "cannot be loaded"),
    ],
    ids=["gone", "cut", "of another library"],
)
def test_model_is_refused_when_its_tokenizer_would_read_texts_as_nothing(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    """The library makes a tokenizer of the marks alone, and all rows would be trained to end at once."""
    path = Path(shutil.copytree(whole, tmp_path / "model"))
    load_tokenizer(path)
    spoil(path / "tokenizer.json")
    with pytest.raises(BadInputError, match=f"model: its tokenizer {reason}"):
        load_tokenizer(path)


@pytest.mark.parametrize("target", ["c_attn", "embed_tokens", "lm_head"])
def test_adapters_are_refused_when_a_name_is_of_no_linear_layer(whole: Path, target: str) -> None:
    with pytest.raises(BadInputError, match=rf"targetModules: '{target}' is no linear layer of this model"):
        check_trainable(whole, lora("q_proj", target))


def test_model_whose_weights_are_named_otherwise_is_refused_with_the_name_that_its_files_have(tmp_path: Path) -> None:
    """As the files of Pythia are; written by the remedy they are taken."""
    config = AutoConfig.for_model(
        "gpt_neox", vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "old")
    with pytest.raises(
        BadInputError,
        match=r"1 weights are not in its files, the first is lm_head\.weight; they have embed_out\.weight of its size: "
        r".*save_pretrained\(FOLDER, save_original_format=False\)",
    ):
        check_trainable(tmp_path / "old", None)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "old")
    again.save_pretrained(tmp_path / "new", save_original_format=False)
    check_trainable(tmp_path / "new", None)


@pytest.mark.parametrize("original", [True, False], ids=["each in a weight of its own", "all in one weight"])
def test_mixture_of_experts_is_refused_as_one(tmp_path: Path, original: bool) -> None:
    config = AutoConfig.for_model(
        "qwen3_moe", vocab_size=32, hidden_size=16, intermediate_size=16, moe_intermediate_size=8, num_experts=2,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path, save_original_format=original)
    with pytest.raises(
        BadInputError, match=r"model\.layers\.0\.mlp\.experts are experts, .* cannot be trained here; use a dense model"
    ):
        check_trainable(tmp_path, None)


def test_model_that_cannot_compute_activations_again_is_refused_where_it_is_to(tmp_path: Path) -> None:
    config = AutoConfig.for_model("ctrl", vocab_size=32, n_embd=16, dff=16, n_layer=1, n_head=2, n_positions=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    check_trainable(tmp_path, None)
    with pytest.raises(BadInputError, match=r"gradientCheckpointing: models of type ctrl .*; set it to false"):
        check_trainable(tmp_path, None, gradient_checkpointing=True)
