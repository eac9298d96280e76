"""A model on this machine: each row of a batch has its own limit, stop texts, temperature and chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.sampler import CompletionRequest, Finish
from rft_trainer.evaluate.transformers_sampler import TransformersSampler, _Draw
from rft_trainer.prepare.tiny import build_model
from rft_trainer.uris import parse_uri

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
    alone = [sampler.complete([request])[0] for request in (DRAWN, GREEDY)]
    assert sampler.complete([GREEDY, replace(DRAWN, seed=6), DRAWN])[::2] == alone[::-1]
    assert [each.tokens for each in alone if each.finish is Finish.LENGTH] == [24, 9]
    assert sampler.complete([replace(DRAWN, seed=6)]) != alone[:1]


def test_completion_ends_before_its_stop_text_when_that_is_several_tokens_long(sampler: TransformersSampler) -> None:
    [whole] = sampler.complete([DRAWN])
    ids = sampler.tokenizer(whole.text, add_special_tokens=False)["input_ids"]
    readable = [at for at in range(6, len(whole.text) - 4) if "\ufffd" not in whole.text[at : at + 4]]
    stop = whole.text[readable[0] : readable[0] + 4]
    assert sampler.count(stop) > 1
    cut, other = sampler.complete([replace(DRAWN, stops=("never", stop)), replace(DRAWN, stops=("never",))])
    assert (cut.text, cut.finish) == (whole.text[: whole.text.index(stop)], Finish.STOP)
    assert cut.tokens < len(ids)
    assert other == whole


def test_completion_ended_with_the_turn_when_the_model_says_so(sampler: TransformersSampler) -> None:
    found = sampler.complete([replace(DRAWN, seed=seed, max_tokens=40) for seed in range(40)])
    ended = [each for each in found if each.finish is Finish.EOS]
    assert ended, "a model of random weights ends its turn now and then"
    assert all(each.tokens < 40 and "<|im_end|>" not in each.text for each in ended)


def test_prompt_is_refused_when_it_fills_the_context(sampler: TransformersSampler) -> None:
    assert sampler.context_tokens == 64
    with pytest.raises(BadInputError, match="leaves no room for an answer in the model's 64"):
        sampler.complete([CompletionRequest(prompt="1" * 64, max_tokens=1)])
    [short] = sampler.complete([CompletionRequest(prompt="1" * 60, max_tokens=9, stops=("never",))])
    assert short.tokens <= 4


def test_draw_follows_the_softmax_when_the_temperature_is_not_one() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    requests = [CompletionRequest(prompt="", max_tokens=1, temperature=0.5, seed=seed) for seed in range(4_000)]
    logits = (0.5 * shares.log()).repeat(len(requests), 1)
    chosen = _Draw(requests, torch.device("cpu"))(torch.empty(0), logits).argmax(dim=-1)
    found = torch.bincount(chosen, minlength=4) / len(requests)
    assert torch.allclose(found, shares, atol=0.025)
    assert found[3] == 0
