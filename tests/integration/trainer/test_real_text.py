"""Real words and Qwen2.5's real tokenizer: the tokens of the formats, grade-school problems prepared and learned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rft_trainer.contract import EndOfTurn, ExitCode
from rft_trainer.prepare.chat import ChatRenderer
from rft_trainer.prepare.dataset import load
from rft_trainer.prepare.formats import to_conversation
from rft_trainer.stage_results import PrepareSummary
from support.qwen import build_tokenizer
from unit.trainer.factory import Pod, free_port, run_config

GOLDEN = sorted((Path(__file__).parents[2] / "unit" / "trainer" / "golden").glob("*.json"))
GSM8K = Path(__file__).parents[4] / "shared" / "data" / "gsm8k_train.jsonl"
ROWS = 7_473
LIMIT = 640
needs_gsm8k = pytest.mark.skipif(not GSM8K.is_file(), reason=f"needs {GSM8K.name} in ../shared/data")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_row_becomes_the_tokens_and_marks_of_qwen_when_it_is_encoded(tokenizer: Any, file: Path) -> None:
    golden = json.loads(file.read_text())
    eos: EndOfTurn = golden["eos"]
    found = to_conversation(golden["row"], format_=golden["format"], where=file.stem)
    assert found is not None
    [row] = ChatRenderer(tokenizer, eos=eos).encode([found])
    assert row.tokens.tolist() == golden["tokens"]
    trained = "".join(segment["text"] for segment in golden["segments"] if segment["trained"])
    assert tokenizer.decode(row.tokens[row.target == 1]) == trained


def test_tokens_are_the_published_ones_when_text_is_encoded(tokenizer: Any) -> None:
    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    assert ids("<|im_start|>assistant\n") == [151644, 77091, 198]
    assert ids("<|im_start|>think\n") == [151644, 26865, 198]
    assert ids("<|im_start|>answer\n") == [151644, 9217, 198]
    assert ids("<|begin_of_thought|>") == [27, 91, 7265, 3575, 5854, 2450, 91, 29], "no special token of its own"
    assert ids("<|endoftext|>") == [151643]
    assert ids("\nFinal Answer:") == [198, 19357, 21806, 25]
    assert ids("Wait") == [14190]


def gsm8k_rows() -> Iterator[dict[str, str]]:
    """As prompt and completion: the worked solution ends in ``#### answer``."""
    with GSM8K.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield {"prompt": row["question"], "completion": row["answer"]}


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with the real vocabulary, and little else."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2_048, tie_word_embeddings=True, initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def make_run(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pod]]:
    """Makes runs on the problems; what still runs at the end is killed."""
    monkeypatch.setenv("RFT_RENDEZVOUS_PORT", str(free_port()))
    pods: list[Pod] = []

    def make(*, rows: int | None = None, answer_characters: int = 10_000, **overrides: Any) -> Pod:
        data = tmp_path / f"gsm8k-{len(pods)}.jsonl"
        short = (row for row in gsm8k_rows() if len(row["completion"]) <= answer_characters)
        data.write_text("".join(f"{json.dumps(row)}\n" for row in islice(short, rows)))
        source = {"uri": f"file://{data}", "format": "prompt-completion", "overlong": "fail"}
        fields = {
            "model": {"uri": f"file://{model}"},
            "dataset": source,
            "evaluation": None,
            "training__max_sequence_length": LIMIT,
            "training__epochs": 1,
            "training__max_steps": None,
            **overrides,
        }
        pods.append(Pod(tmp_path / f"pod-{len(pods)}", run_config(**fields)))
        return pods[-1]

    yield make
    for pod in pods:
        pod.power_off()


def prepared(pod: Pod) -> PrepareSummary:
    assert pod.run_here("prepare") == ExitCode.DONE
    summary = pod.result().prepare
    assert summary is not None
    return summary


@needs_gsm8k
def test_nothing_is_cut_and_padding_is_reported_when_real_text_is_prepared(
    make_run: Callable[..., Pod], tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, packed = make_run(), make_run(training__packing=True, training__max_sequence_length=2_048)
    one, other = prepared(plain), prepared(packed)
    assert (one.rows, one.dropped_rows, one.too_long_rows, one.sequences) == (ROWS, 0, 0, ROWS)
    assert one.longest_row_tokens <= LIMIT
    dataset = load(plain.paths.dataset)
    for index, row in islice(enumerate(gsm8k_rows()), 0, None, 500):
        kept = dataset.row(index)
        assert tokenizer.decode(kept.tokens[kept.target == 1]) == row["completion"] + "<|im_end|>\n"
        assert row["prompt"] in tokenizer.decode(kept.tokens[kept.target == 0])
    assert one.padding_share is not None
    assert other.padding_share is not None
    assert other.fill is not None
    assert 0 < one.padding_share < 0.2, "micro-batches are ordered by length"
    assert (other.rows, other.tokens, other.target_tokens) == (one.rows, one.tokens, one.target_tokens)
    assert other.fill > 0.98
    assert other.sequences < ROWS / 8
    assert np.sort(load(packed.paths.dataset).sequence_rows).tolist() == list(range(ROWS))
    said = capsys.readouterr().out
    for summary in (one, other):
        assert f"{100 * (summary.padding_share or 0):.1f} % of what is computed is padding" in said


@needs_gsm8k
@pytest.mark.slow
@pytest.mark.distributed
def test_loss_falls_when_a_small_model_reads_real_text(make_run: Callable[..., Pod]) -> None:
    training = {"training__global_batch_size": 8, "training__learning_rate": 2e-2, "training__zero_stage": 2}
    pod = make_run(rows=48, answer_characters=160, **training)  # logits of 151,665 tokens take the time
    assert prepared(pod).steps == 6
    assert pod.run("train", timeout_seconds=500) == ExitCode.DONE, pod.log("train")
    losses = [line["loss"] for line in pod.steps()]
    assert losses[0] > 11.5, "near the logarithm of 151,665 tokens before anything is learned"
    assert losses[-1] < 9.5
    assert all(0 < line["padding"] < 0.3 for line in pod.steps())
