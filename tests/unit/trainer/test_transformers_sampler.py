"""A model on this machine: each row of a batch has its own limit, stop texts, temperature and chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Strip
from tokenizers.decoders import Sequence as Decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.evaluate.fitting_window import MostRows
from rft_trainer.evaluate.room import _context_tokens
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Finish
from rft_trainer.evaluate.transformers_sampler import TransformersSampler, _Draw, _nucleus, positions_of
from rft_trainer.prepare.tiny import build_model
from rft_trainer.uris import parse_uri
from support.scripted_engine import complete

WORDS = ["What is 12 + 30? The answer is 42. Wait, so let me think of it again."] * 5
DRAWN = CompletionRequest(prompt="What is 1 + 2?", max_tokens=24, temperature=1.0, seed=5)
GREEDY = CompletionRequest(prompt="What is 30 + 12? Let me think.", max_tokens=9)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> TransformersSampler:
    path = tmp_path_factory.mktemp("model")
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=64")
    build_model(uri, path, texts=WORDS, seed=1, max_sequence_length=64)
    return TransformersSampler(path, device=torch.device("cpu"))


def test_completion_does_not_depend_on_its_neighbours_when_it_is_drawn_or_greedy(sampler: TransformersSampler) -> None:
    alone = [complete(sampler, [request])[0] for request in (DRAWN, GREEDY)]
    assert complete(sampler, [GREEDY, replace(DRAWN, seed=6), DRAWN])[::2] == alone[::-1]
    assert [each.tokens for each in alone if each.finish is Finish.LENGTH] == [24, 9]
    assert complete(sampler, [replace(DRAWN, seed=6)]) != alone[:1]


def test_completion_ends_before_its_stop_text_when_that_is_several_tokens_long(sampler: TransformersSampler) -> None:
    [whole] = complete(sampler, [DRAWN])
    ids = sampler.tokenizer(whole.text, add_special_tokens=False)["input_ids"]
    readable = [at for at in range(6, len(whole.text) - 4) if "\ufffd" not in whole.text[at : at + 4]]
    stop = whole.text[readable[0] : readable[0] + 4]
    assert sampler.count(stop) > 1
    cut, other = complete(sampler, [replace(DRAWN, stops=("never", stop)), replace(DRAWN, stops=("never",))])
    assert (cut.text, cut.finish) == (whole.text[: whole.text.index(stop)], Finish.STOP)
    assert cut.tokens < len(ids)
    assert other == whole


def test_settings_of_a_models_own_have_no_say(sampler: TransformersSampler, tmp_path: Path) -> None:
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=64")
    build_model(uri, tmp_path, texts=WORDS, seed=1, max_sequence_length=64)
    file = tmp_path / "generation_config.json"
    own = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "num_beams": 3, "max_time": 0.001, "min_new_tokens": 9}
    file.write_text(
        json.dumps(json.loads(file.read_text()) | own | {"do_sample": True, "top_k": 2, "temperature": 0.7})
    )
    willful = TransformersSampler(tmp_path, device=torch.device("cpu"))
    long = [replace(GREEDY, max_tokens=24, stops=("never",)), DRAWN]
    assert complete(willful, long) == complete(sampler, long)


def test_completion_keeps_the_space_it_begins_with_when_the_decoder_drops_that_of_a_text(tmp_path: Path) -> None:
    """As with Llama 2, Mistral and Phi 3: pieces of thinking were glued together, and what follows a Wait to it."""
    words = Tokenizer(BPE(unk_token="<unk>"))
    words.pre_tokenizer = Metaspace(prepend_scheme="first")
    trainer = BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "<|im_end|>"], show_progress=False)
    words.train_from_iterator(WORDS, trainer)
    words.decoder = Decoders([Replace("\u2581", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", unk_token="<unk>").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    size = words.get_vocab_size()
    LlamaForCausalLM(
        LlamaConfig(vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    llama = TransformersSampler(tmp_path, device=torch.device("cpu"))
    wait, whole = llama.tokenizer(["Wait", "Wait so let me"], add_special_tokens=False)["input_ids"]
    ids = whole[len(wait) :]
    assert llama.tokenizer.decode(ids) == "so let me", "else this shows nothing"
    request = CompletionRequest(prompt="Wait", max_tokens=len(ids), stops=(" me",))
    assert llama._read(ids, request, after=wait[-1]).text == " so let"
    assert llama._read(ids[:-1], request, after=wait[-1]).tokens == len(ids) - 1


def test_completion_ended_with_the_turn_when_the_model_says_so(sampler: TransformersSampler) -> None:
    found = complete(sampler, [replace(DRAWN, seed=seed, max_tokens=40) for seed in range(40)])
    ended = [each for each in found if each.finish is Finish.EOS]
    assert ended, "a model of random weights ends its turn now and then"
    assert all(each.tokens < 40 and "<|im_end|>" not in each.text for each in ended)


def test_batch_is_padded_with_a_token_that_the_model_has(sampler: TransformersSampler, tmp_path: Path) -> None:
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=64")
    build_model(uri, tmp_path, texts=WORDS, seed=1, max_sequence_length=64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    while len(tokenizer) <= json.loads((tmp_path / "config.json").read_text())["vocab_size"]:
        tokenizer.add_special_tokens({"pad_token": f"[PAD{len(tokenizer)}]"})
    tokenizer.save_pretrained(tmp_path)
    padded = TransformersSampler(tmp_path, device=torch.device("cpu"))
    assert complete(padded, [DRAWN, GREEDY]) == complete(sampler, [DRAWN, GREEDY])


def test_prompt_is_refused_when_it_fills_the_context(sampler: TransformersSampler) -> None:
    assert sampler.context_tokens == 64
    with pytest.raises(BadInputError, match="leaves no room for an answer in the model's 64"):
        complete(sampler, [CompletionRequest(prompt="1" * 64, max_tokens=1)])
    [short] = complete(sampler, [CompletionRequest(prompt="1" * 60, max_tokens=9, stops=("never",))])
    assert short.tokens <= 4


def test_batch_is_halved_when_the_memory_does_not_hold_it(
    sampler: TransformersSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [replace(DRAWN, seed=seed, max_tokens=4) for seed in range(9)]
    whole, tried, computed = complete(sampler, requests), list[int](), sampler._complete

    def held_for_three(rows: Sequence[CompletionRequest]) -> list[Completion]:
        tried.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return computed(rows)

    monkeypatch.setattr(sampler, "_most_rows", MostRows())
    monkeypatch.setattr(sampler, "_complete", held_for_three)
    assert complete(sampler, requests) == whole
    assert tried == [9, 4, 2, 2, 2, 2, 1]
    tried.clear()
    assert complete(sampler, requests[:5]) == whole[:5], "what was found to be too much is not tried again"
    assert tried == [2, 2, 1]


def test_error_says_what_to_do_when_the_memory_does_not_hold_a_single_answer(
    sampler: TransformersSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_for_none(_: Sequence[CompletionRequest]) -> list[Completion]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(sampler, "_most_rows", MostRows())
    monkeypatch.setattr(sampler, "_complete", held_for_none)
    with pytest.raises(StageError, match=r"a single answer of up to 24 tokens .* with engine: vllm over more gpus"):
        complete(sampler, [DRAWN, DRAWN])


def test_model_that_the_memory_does_not_hold_is_bad_input_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = parse_uri("init://tiny-qwen2?hidden=16&layers=1&vocab=320&positions=64")
    build_model(uri, tmp_path, texts=WORDS, seed=1, max_sequence_length=64)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Qwen2ForCausalLM, "to", full)
    with pytest.raises(
        BadInputError, match=r"its weights in fp32 do not fit the GPU's memory; evaluate with engine: vllm"
    ):
        TransformersSampler(tmp_path, device=torch.device("cpu"))


def test_answers_have_no_end_but_their_own_when_a_model_has_no_table_of_positions(tmp_path: Path) -> None:
    qwen = parse_uri("init://tiny-qwen2?hidden=16&layers=1&vocab=320&positions=64")
    build_model(qwen, tmp_path, texts=WORDS, seed=1, max_sequence_length=64)  # for its tokenizer
    config = BloomConfig(vocab_size=320, hidden_size=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    bloom = TransformersSampler(tmp_path, device=torch.device("cpu"))
    assert bloom.context_tokens is None
    assert _context_tokens(tmp_path, engine="transformers") is None, "Prepare knows no bound either"
    [found] = complete(bloom, [CompletionRequest(prompt="1" * 90, max_tokens=3, stops=("never",))])
    assert found.tokens <= 3


def test_positions_are_those_of_the_text_when_a_model_reads_pictures_too() -> None:
    assert positions_of(Gemma3Config()) == Gemma3Config().text_config.max_position_embeddings > 0


def test_draw_follows_the_softmax_when_the_temperature_is_not_one() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    requests = [CompletionRequest(prompt="", max_tokens=1, temperature=0.5, seed=seed) for seed in range(4_000)]
    logits = (0.5 * shares.log()).repeat(len(requests), 1)
    chosen = _Draw(requests, torch.device("cpu"))(torch.empty(0), logits).argmax(dim=-1)
    found = torch.bincount(chosen, minlength=4) / len(requests)
    assert torch.allclose(found, shares, atol=0.025)
    assert found[3] == 0


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1.0, [0, 1, 2, 3]), (0.9, [0, 1, 2]), (0.81, [0, 1, 2]), (0.79, [0, 1]), (0.5, [0]), (0.01, [0])],
)
def test_token_is_drawn_from_the_likeliest_that_hold_the_share_together(top_p: float, kept: list[int]) -> None:
    shuffled = [2, 0, 3, 1]
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log()[shuffled]
    left = _nucleus(scores, top_p=top_p)
    assert sorted(shuffled[index] for index in range(4) if torch.isfinite(left[index])) == kept


def test_drawing_is_greedy_when_only_the_likeliest_token_is_left(sampler: TransformersSampler) -> None:
    greedy = complete(sampler, [replace(DRAWN, temperature=0.0)])
    assert complete(sampler, [replace(DRAWN, top_p=1e-6)]) == greedy
    assert complete(sampler, [DRAWN]) != greedy


def test_identity_says_what_can_change_an_answer(sampler: TransformersSampler) -> None:
    identity = sampler.identity
    assert (identity["engine"], identity["precision"], identity["device"]) == ("transformers", "fp32", "cpu")
    assert set(identity) == {"engine", "transformers", "torch", "precision", "device"}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_room_of_a_completion_is_that_of_its_own_prompt_when_its_neighbours_are_long(
    sampler: TransformersSampler, temperature: float
) -> None:
    short = CompletionRequest(
        prompt="What is 1 + 2?", max_tokens=500, stops=("never",), temperature=temperature, seed=5
    )
    long_ = replace(short, prompt="1" * 60)
    widest = replace(short, prompt="1" * 63)
    alone = [complete(sampler, [request])[0] for request in (short, long_, widest)]
    assert complete(sampler, [short, long_, widest]) == alone
    assert complete(sampler, [widest, replace(short, max_tokens=2), short])[::2] == [alone[2], alone[0]]
    cut = [(each.tokens, each.finish) for each in alone if each.finish is Finish.LENGTH]
    assert cut[-1] == (1, Finish.LENGTH)
    prompt = sampler.count(short.prompt)
    assert temperature or cut[0] == (64 - prompt, Finish.LENGTH), "a greedy one fills what its prompt leaves"


def test_row_that_has_ended_does_not_go_beyond_the_positions_when_others_go_on(
    sampler: TransformersSampler, tmp_path: Path
) -> None:
    """A table of positions has no row for them, which an engine without rotary positions would stumble over."""
    torch.manual_seed(1)
    config = GPT2Config(n_positions=64, n_embd=32, n_layer=1, n_head=2, vocab_size=len(sampler.tokenizer))
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    sampler.tokenizer.save_pretrained(tmp_path)
    table = TransformersSampler(tmp_path, device=torch.device("cpu"))
    short = CompletionRequest(prompt="1 + 2", max_tokens=50, stops=("never",))
    found = complete(table, [short, replace(short, prompt="1" * 60)])
    assert found == [complete(table, [short])[0], complete(table, [replace(short, prompt="1" * 60)])[0]]
    assert [each.tokens for each in found] == [50, 4]


def test_completion_does_not_depend_on_its_neighbours_when_positions_are_scaled_by_the_longest_row(
    sampler: TransformersSampler, tmp_path: Path
) -> None:
    scaled = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 8.0, "original_max_position_embeddings": 8,
        "short_factor": [1.0] * 4, "long_factor": [50.0] * 4,
    }  # fmt: skip
    torch.manual_seed(1)
    config = Qwen2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(sampler.tokenizer), max_position_embeddings=64, rope_parameters=scaled,
        initializer_range=0.5,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    sampler.tokenizer.save_pretrained(tmp_path)
    engine = TransformersSampler(tmp_path, device=torch.device("cpu"))
    requests = [CompletionRequest(prompt=prompt, max_tokens=3) for prompt in ("1 + 2", "let me", "Wait", "1" * 40)]
    assert complete(engine, requests) == [complete(engine, [each])[0] for each in requests]
