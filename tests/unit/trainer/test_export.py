"""The exported model as a user loads it: weights, tokenizer, chat template, and where it stops."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import PeftConfig
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from rft_trainer import files
from rft_trainer.contract import EndOfTurn, LoraConfig
from rft_trainer.errors import StageError
from rft_trainer.evaluate.transformers_sampler import TransformersSampler
from rft_trainer.hub import RECORD
from rft_trainer.prepare.chat import CHATML_TEMPLATE
from rft_trainer.prepare.tiny import END_OF_TEXT, TURN_END, build_model
from rft_trainer.train import export as exports
from rft_trainer.train.adapter import add_adapters
from rft_trainer.train.export import MARKER, Export, export_engine, exported_step
from rft_trainer.train.weights import load_weights
from rft_trainer.uris import parse_uri
from unit.trainer.factory import run_config

TEMPLATE_OF_ANOTHER = "{% for message in messages %}{{ message['content'] + '<|endoftext|>' }}{% endfor %}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    build_model(parse_uri("init://tiny-qwen2?hidden=16"), path, texts=["1 + 2 = 3"], seed=0, max_sequence_length=32)
    return path


def exported(base: Path, *, eos: EndOfTurn = "template", step: int = 6) -> Path:
    """The base model, trained by a nudge of every weight."""
    export = Export(
        base=base, destination=base.with_name("export"), training=run_config().training, base_uri="x", eos=eos
    )
    model = AutoModelForCausalLM.from_pretrained(base).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    export_engine(export, model, card={"version": 1}, step=step, zero3=False, rank=0)
    return export.destination


def rewrite(file: Path, **changes: Any) -> None:
    """Change a JSON file; None takes a key away."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def ids(path: Path, *marks: str) -> list[int]:
    vocabulary = AutoTokenizer.from_pretrained(path).get_vocab()
    return [vocabulary[mark] for mark in marks]


def test_export_has_the_trained_weights_and_everything_else_of_the_base_model_when_it_is_loaded(base: Path) -> None:
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    path = exported(base)
    before, after = (AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (base, path))
    assert all(torch.allclose(after[name], tensor + 0.5) for name, tensor in before.items())
    assert {file.name for file in base.iterdir()} - {"README.md"} <= {file.name for file in path.iterdir()}
    assert not (path / "README.md").exists(), "it is of another model"
    assert exported_step(path) == 6
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False).startswith("<|im_start|>")


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_export_is_loaded_as_exactly_as_it_was_trained_when_the_base_model_was_in_bf16(base: Path, name: str) -> None:
    rewrite(base / "config.json", **{"dtype": None} | {name: "bfloat16"})
    after = AutoModelForCausalLM.from_pretrained(exported(base))
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).float()
    wanted = {key: tensor + 0.5 for key, tensor in before.state_dict().items()}
    assert after.dtype == torch.float32
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in after.state_dict().items())


def test_export_has_an_index_of_its_files_when_it_does_not_fit_into_one(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "SHARD_BYTES", 4_000)
    path = exported(base)
    assert len(list(path.glob("model-*-of-*.safetensors"))) > 2
    before, after = (AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (base, path))
    assert all(torch.allclose(after[name], tensor + 0.5) for name, tensor in before.items())


def test_export_that_finds_no_room_says_so_and_leaves_the_volume_as_it_was(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    monkeypatch.setattr(safetensors.torch, "save_file", no_room)
    with pytest.raises(StageError, match=r"export: the volume is full; .* enlarge the claim, or lower"):
        exported(base, step=9)
    assert {path.name for path in base.parent.iterdir()} == {"base", "export"}
    assert exported_step(base.with_name("export")) == 6


def test_export_says_that_there_is_no_room_where_the_volume_says_so_when_it_is_flushed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(_: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    exported(base)
    monkeypatch.setattr(files, "flush_directory", flush)
    with pytest.raises(StageError, match=r"export: the volume is full; .* enlarge the claim, or lower"):
        exported(base, step=9)
    assert {path.name for path in base.parent.iterdir()} == {"base", "export"}


def no_room(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_constants_of_a_model_are_those_of_its_files_in_training_and_in_the_export(base: Path) -> None:
    """Apertus has those of its activation beside its weights; without them no evaluation took its export."""
    config = AutoConfig.for_model(
        "apertus", vocab_size=400, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    given = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    given.model.layers[0].mlp.act_fn.beta.fill_(0.25)
    given.save_pretrained(base)
    trained = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    load_weights(trained, base, zero3=False)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(trained(ids).logits, given(ids).logits)
    export = Export(
        base=base,
        destination=base.with_name("export"),
        training=run_config().training,
        base_uri="x",
        eos="template",
    )
    export_engine(export, trained, card={}, step=1, zero3=False, rank=0)
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(export.destination)(ids).logits, given(ids).logits)
    assert TransformersSampler(export.destination, device=torch.device("cpu")).context_tokens


def test_export_replaces_an_older_one_whole_when_there_is_one(base: Path) -> None:
    path = exported(base, step=4)
    (path / "stale").touch()
    assert exported_step(exported(base, step=6)) == 6
    assert not (path / "stale").exists()
    assert (path / MARKER).is_file()


class Says(LogitsProcessor):  # type: ignore[misc] # the library is not annotated
    """Has the model say these tokens, then endlessly the first one."""

    def __init__(self, tokens: list[int], *, after: int) -> None:
        self._tokens, self._after = tokens, after

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids.shape[1] - self._after
        wanted = self._tokens[said] if said < len(self._tokens) else self._tokens[0]
        return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([wanted]), 0.0)


@pytest.mark.parametrize(("eos", "mark"), [("template", TURN_END), ("im_end", TURN_END), ("endoftext", END_OF_TEXT)])
def test_generation_stops_where_training_ended_its_rows_when_only_the_export_says_so(
    base: Path, eos: EndOfTurn, mark: str
) -> None:
    path = exported(base, eos=eos)
    model, [end] = AutoModelForCausalLM.from_pretrained(path), ids(path, mark)
    processor = Says([9, 9, end], after=2)
    said = model.generate(
        torch.tensor([[7, 8]]), max_new_tokens=8, do_sample=False, logits_processor=LogitsProcessorList([processor])
    )
    assert said.tolist() == [[7, 8, 9, 9, end]]


def test_stops_of_the_base_model_stay_when_rows_end_otherwise(base: Path) -> None:
    generation = base / "generation_config.json"
    [end_of_text, turn_end] = ids(base, END_OF_TEXT, TURN_END)
    rewrite(generation, eos_token_id=[turn_end, 5], temperature=0.7, do_sample=True)
    written = json.loads((exported(base, eos="endoftext") / generation.name).read_text())
    assert written["eos_token_id"] == [end_of_text, turn_end, 5]
    assert written["temperature"] == 0.7, "what else the model's authors set is kept"


def test_base_model_gets_the_turns_that_it_was_taught_when_it_knew_none(base: Path) -> None:
    """As Qwen's base models: a text ends with <|endoftext|>, and nothing says how to write a chat."""
    [end_of_text, turn_end] = ids(base, END_OF_TEXT, TURN_END)
    (base / "generation_config.json").unlink()
    rewrite(base / "config.json", eos_token_id=end_of_text)
    (base / "chat_template.jinja").unlink()
    path = exported(base)
    assert AutoTokenizer.from_pretrained(path).chat_template == CHATML_TEMPLATE
    assert AutoModelForCausalLM.from_pretrained(path).generation_config.eos_token_id == [turn_end, end_of_text]


def test_turn_that_ends_with_no_single_token_adds_no_stop(base: Path) -> None:
    (base / "chat_template.jinja").write_text(TEMPLATE_OF_ANOTHER.replace("<|endoftext|>", " That is all."))
    path = exported(base)
    [turn_end] = ids(base, TURN_END)
    assert AutoModelForCausalLM.from_pretrained(path).generation_config.eos_token_id == [turn_end]


@pytest.mark.parametrize(
    ("uri", "record", "wanted"),
    [
        ("hf://Qwen/Qwen2.5-7B-Instruct", {"commit": "a09a354"}, ("Qwen/Qwen2.5-7B-Instruct", "a09a354")),
        ("file:///models/base", None, ("/models/base", None)),
    ],
)
def test_adapter_names_its_base_model_as_the_library_loads_it(
    base: Path, uri: str, record: dict[str, str] | None, wanted: tuple[str, str | None]
) -> None:
    if record is not None:
        (base / RECORD).write_text(json.dumps(record))
    lora = LoraConfig(rank=2, alpha=4, dropout=0.0, target_modules=("q_proj",))
    training = run_config().training.model_copy(update={"lora": lora})
    export = Export(base=base, destination=base.with_name("export"), training=training, base_uri=uri, eos="template")
    model = AutoModelForCausalLM.from_pretrained(base)
    add_adapters(model, lora)
    export_engine(export, model, card={}, step=1, zero3=False, rank=0)
    config = PeftConfig.from_pretrained(export.destination / "adapter")
    assert (config.base_model_name_or_path, config.revision) == wanted
