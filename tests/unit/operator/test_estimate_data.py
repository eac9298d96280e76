"""What is known of models and datasets, and what is refused because it is not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_operator.domain.architectures import known_model, shape_of_config
from rft_operator.domain.estimate_data import PUBLISHED, DataShape, known_data, sequences
from rft_operator.errors import InvalidResource

CONFIG = {
    "model_type": "llama",
    "hidden_size": 4_096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
}
shapes = st.builds(
    DataShape,
    rows=st.integers(1, 200_000),
    mean_tokens=st.integers(10, 20_000),
    spread=st.floats(0, 1.5),
    longest_tokens=st.none() | st.integers(20_000, 40_000),
)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-Coder-3B", 3_085_938_688),
        ("Qwen/Qwen2.5-Math-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-14B", 14_770_033_664),
        ("Qwen/Qwen2.5-32B-Instruct", 32_763_876_352),
        ("NovaSky-AI/Sky-T1-32B-Preview", 32_763_876_352),
        ("Qwen/Qwen2.5-72B", 72_706_203_648),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("somebody/llama-3.1-8b-instruct", 8_030_261_248),
        ("meta-llama/Llama-3.3-70B-Instruct", 70_553_706_496),
        ("meta-llama/Llama-3.1-405B", 405_853_388_800),
    ],
)
def test_parameters_of_a_known_model_are_those_of_its_card(name: str, parameters: int) -> None:
    model = known_model(f"hf://{name}")
    assert model is not None
    assert model.parameters == parameters
    assert model.name == name.split("/")[1]


@pytest.mark.parametrize("uri", ["hf://org/unheard-of", "pvc://claim/Qwen2.5-7B", "file:///models/x", "init://other"])
def test_model_is_unknown_rather_than_guessed(uri: str) -> None:
    assert known_model(uri) is None


def test_preset_has_the_parameters_that_the_trainer_makes() -> None:
    model = known_model("init://tiny-qwen2?hidden=64&layers=2&vocab=360")
    assert model is not None
    assert model.parameters == 115_776


def test_bad_option_of_a_preset_is_refused_by_name() -> None:
    with pytest.raises(InvalidResource, match=r"spec\.model\.uri: .*hidden"):
        known_model("init://tiny-qwen2?hidden=wide")


def test_shape_is_read_from_a_config_json() -> None:
    shape = shape_of_config(CONFIG, name="mine")
    assert shape.parameters == 8_030_261_248
    assert shape_of_config({**CONFIG, "tie_word_embeddings": True}, name="mine").parameters < shape.parameters
    biased = shape_of_config({**CONFIG, "model_type": "qwen2"}, name="mine")
    assert biased.parameters - shape.parameters == 32 * (4_096 + 2 * 1_024)
    wide = shape_of_config({**CONFIG, "head_dim": 256}, name="mine")
    assert wide.parameters > shape.parameters
    normed = shape_of_config({**CONFIG, "model_type": "qwen3"}, name="mine")
    assert normed.parameters - shape.parameters == 32 * 2 * 128


def test_attention_without_groups_has_as_many_keys_as_heads() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}
    assert shape_of_config(config, name="mine").kv_heads == 32


@pytest.mark.parametrize("value", [None, 0, -1, "4096", 1.5, True])
def test_config_json_without_a_usable_size_is_refused_by_field_and_value(value: Any) -> None:
    with pytest.raises(InvalidResource) as refused:
        shape_of_config({**CONFIG, "hidden_size": value}, name="mine")
    assert f"mine: hidden_size is {value!r}" in str(refused.value)
    assert refused.value.reason == "ModelUnknown"


def test_mixture_of_experts_is_refused() -> None:
    with pytest.raises(InvalidResource, match="num_experts is 64: a mixture of experts"):
        shape_of_config({**CONFIG, "num_experts": 64}, name="mine")


def test_published_datasets_are_known_and_cut_by_max_samples() -> None:
    for name, shape in PUBLISHED.items():
        assert known_data(f"hf://{name}", max_samples=None) == shape
        cut = known_data(f"hf://{name}", max_samples=10)
        assert cut is not None
        assert cut.rows == 10
    whole = known_data("hf://simplescaling/s1K", max_samples=10**6)
    assert whole is not None
    assert whole.rows == 1_000


@pytest.mark.parametrize("uri", ["hf://any/rows", "pvc://claim/s1K.jsonl", "file:///s1K", "gym://leg_counting"])
def test_dataset_is_unknown_rather_than_guessed(uri: str) -> None:
    assert known_data(uri, max_samples=100) is None


def test_generator_that_was_measured_has_as_many_rows_as_asked_for() -> None:
    uri = "gym://chain_sum?min_terms=2&max_terms=2&min_digits=2&max_digits=2&allow_negation=false&seed=1"
    shape = known_data(uri, max_samples=12_000)
    assert shape is not None
    assert (shape.rows, shape.mean_tokens) == (12_000, 88)
    assert known_data(uri.replace("max_digits=2", "max_digits=4"), max_samples=12_000) is None
    assert known_data(uri, max_samples=None) is None


def test_s1k_has_as_many_long_rows_as_its_paper_says() -> None:
    found = sequences(PUBLISHED["simplescaling/s1K"], limit=32_768, packing=False)
    longer = sum(length > 4_096 for length in found.lengths) / len(found.lengths)
    assert longer == pytest.approx(0.74, abs=0.01)
    assert found.dropped_rows == 0


@given(data=shapes)
def test_lengths_have_the_given_mean_and_no_row_is_lost_when_all_are_short_enough(data: DataShape) -> None:
    found = sequences(data, limit=4_194_304, packing=False)
    assert found.mean == pytest.approx(data.mean_tokens, rel=0.01)
    assert (found.rows, found.dropped_rows, found.count) == (data.rows, 0, data.rows)
    assert list(found.lengths) == sorted(found.lengths)


def test_dataset_of_which_every_row_would_be_dropped_is_refused() -> None:
    with pytest.raises(InvalidResource, match="maxSequenceLength is 16, and rows have about 4650 tokens: every row"):
        sequences(PUBLISHED["NovaSky-AI/Sky-T1_data_17k"], limit=16, packing=False)


@given(data=shapes, share=st.floats(1, 4))
def test_longer_rows_are_dropped_whole_and_counted(data: DataShape, share: float) -> None:
    limit = math.ceil(data.mean_tokens * share)
    found = sequences(data, limit=limit, packing=False)
    assert round(max(found.lengths)) <= limit
    assert found.longest <= limit
    assert found.rows + found.dropped_rows == data.rows
    assert found.rows >= 1


@given(data=shapes)
def test_packed_sequences_hold_the_same_tokens_in_fewer_sequences(data: DataShape) -> None:
    single, packed = (sequences(data, limit=65_536, packing=packing) for packing in (False, True))
    assert packed.count <= single.count
    assert packed.count * packed.mean == pytest.approx(single.count * single.mean, rel=1e-9)
    assert packed.mean <= 65_536 or packed.count == 1


@given(data=shapes, few=st.integers(1, 64), more=st.integers(0, 64))
def test_longest_of_more_rows_is_longer_on_average(data: DataShape, few: int, more: int) -> None:
    found = sequences(data, limit=4_194_304, packing=False)
    one = found.mean_of_longest(lambda length: length, of=1)
    assert one == pytest.approx(found.mean, rel=1e-9)
    smaller = found.mean_of_longest(lambda length: length, of=few)
    larger = found.mean_of_longest(lambda length: length, of=few + more)
    assert smaller <= larger * (1 + 1e-9)
    assert larger <= max(found.lengths) * (1 + 1e-9)


@given(data=shapes, of=st.integers(1, 500))
def test_ranked_lengths_fall(data: DataShape, of: int) -> None:
    found = sequences(data, limit=4_194_304, packing=False)
    ranked = [found.ranked(position, of=of) for position in range(of)]
    assert ranked == sorted(ranked, reverse=True)
    assert set(ranked) <= set(found.lengths)


@given(of=st.integers(96, 500))
def test_ranked_lengths_average_to_the_mean(of: int) -> None:
    found = sequences(PUBLISHED["NovaSky-AI/Sky-T1_data_17k"], limit=16_384, packing=False)
    ranked = [found.ranked(position, of=of) for position in range(of)]
    assert math.fsum(ranked) / of == pytest.approx(found.mean, rel=0.02)
