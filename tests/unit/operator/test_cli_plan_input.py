"""What ``rft plan`` reads, and what it says of files, options and fields that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.builders import merged
from support.planning import A100, H100, catalogue, document, plan, refused, rft

CONFIG = {
    "hidden_size": 4_096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
}


def test_missing_file_is_one_line() -> None:
    result = rft("-f", "/nowhere.yaml")
    assert result.exit_code == 2
    assert "/nowhere.yaml" in result.output


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    assert refused(rft("-f", str(tmp_path / "x.yaml")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "the file is no YAML"),
        ("spec: {budget: {limitUSD: 5, limitUSD: 500}}", "limitUSD is there twice; keep the one that is meant"),
        ("", "holds 0 (kinds: none)"),
        ("kind: Pod", "must hold one resource of kind ReasoningFinetune, but holds 0 (kinds: Pod)"),
        ("- 1", "holds 0 (kinds: [1])"),
        ("kind: ReasoningFinetune\n---\nkind: ReasoningFinetune", "holds 2"),
        ("kind: ReasoningFinetune\napiVersion: v1", "apiVersion is 'v1'; write rft.dev/v1alpha1"),
    ],
)
def test_file_without_one_resource_is_refused(text: str, words: str) -> None:
    assert words in refused(rft("-f", "-", stdin=text))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": None}, "spec.budget is missing; add it"),
        ({"budget": {"limitUSD": None}}, "spec.budget.limitUSD is missing; add it"),
        ({"colour": "red"}, "spec.colour is no field of this resource; remove it"),
        (
            {"budget": {"limitUSD": 450.5}},
            "spec.budget.limitUSD is 450.5: must be above 0 and below a billion US dollars: a whole number",
        ),
        (
            {"budget": {"limitUSD": "much"}},
            "spec.budget.limitUSD is 'much': must be above 0 and below a billion US dollars: a whole number",
        ),
        ({"resources": {"memory": "much"}}, """spec.resources.memory is 'much': must be a quantity above 0"""),
        ({"training": {"epochs": 0}}, "spec.training.epochs is 0: Input should be greater than or equal to 1"),
        ({"model": {"uri": "s3://x"}}, "spec.model.uri is 's3://x': must start with hf://, pvc://, file:// or init://"),
        ({"training": {"precision": "fp8"}}, "spec.training.precision is 'fp8': Input should be 'bf16' or 'fp32'"),
        ({"training": {"globalBatchSize": 17}}, "training.globalBatchSize is 17, which 8 GPUs"),
        ({"evaluation": {"benchmarks": []}}, "spec.evaluation.benchmarks is []"),
        ({"evaluation": {"benchmarks": [{"uri": "gym://x"}]}}, "spec.evaluation.benchmarks[0].name is missing; add it"),
        (
            {"evaluation": {"benchmarks": [{"name": "x"}]}},
            "evaluation.benchmarks: x has no uri; say where its rows are",
        ),
        ({"model": {"uri": "init://tiny-qwen2?depth=x&hidden=y"}}, "spec.model.uri: init://tiny-qwen2"),
        ({"training": {"maxSequenceLength": 64}}, "spec.training.maxSequenceLength is 64"),
        ({"training": {"deepspeed": {"zeroStage": 1, "offload": "all"}}}, "offload is all with zeroStage 1"),
    ],
)
def test_bad_field_is_refused_with_its_value_and_what_to_write(change: dict[str, Any], words: str) -> None:
    assert words in refused(plan(change))


def test_each_bad_field_is_told_once() -> None:
    said = refused(plan({"training": {"epochs": 0}, "colour": "red", "budget": {"limitUSD": 1.5}}))
    assert len(said.splitlines()) == 3


@pytest.mark.parametrize("uri", ["hf://org/unheard-of", "pvc://models/mine", "file:///nowhere", "init://other"])
def test_unknown_model_is_refused_with_the_option_that_helps(uri: str) -> None:
    said = refused(plan({"model": {"uri": uri}}))
    assert f"spec.model.uri is {uri!r}" in said
    assert "--config FILE" in said


def test_config_json_describes_an_unknown_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    unheard = {"model": {"uri": "hf://org/unheard-of"}}
    result = plan(unheard, "--config", str(tmp_path / "config.json"))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"mine: {tmp_path.name} (8.8")
    local = plan({"model": {"uri": f"file://{tmp_path}"}})
    assert local.stdout.splitlines()[2:] == result.stdout.splitlines()[2:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
        ("{}", "num_attention_heads is None"),
        (json.dumps({**CONFIG, "vocab_size": "many"}), "vocab_size is 'many'"),
        (json.dumps({**CONFIG, "num_local_experts": 8}), "num_local_experts is 8: a mixture of experts"),
    ],
)
def test_bad_config_json_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert words in refused(plan(None, "--config", str(tmp_path / "config.json")))


def test_config_json_that_is_not_there_is_refused() -> None:
    assert "--config /nowhere: cannot be read" in refused(plan(None, "--config", "/nowhere"))


def test_unknown_dataset_is_refused_with_the_options_that_are_missing() -> None:
    said = refused(plan({"dataset": {"uri": "hf://org/rows"}}))
    assert "spec.dataset.uri is 'hf://org/rows'" in said
    assert "--rows N (or set spec.dataset.maxSamples) and --mean-tokens N" in said
    said = refused(plan({"dataset": {"uri": "gym://leg_counting", "maxSamples": 100}}))
    assert "--mean-tokens N" in said
    assert "--rows" not in said


def test_options_describe_an_unknown_dataset_and_correct_a_known_one() -> None:
    unheard = {"dataset": {"uri": "hf://org/rows"}}
    given = document(unheard, "--rows", "320", "--mean-tokens", "2000")
    assert given["steps"] == 60
    assert given["tokens"] == pytest.approx(60 * 16 * 2_000, rel=0.01)
    cut = document(merged(unheard, {"dataset": {"maxSamples": 160}}), "--mean-tokens", "2000")
    assert cut["steps"] == 30
    assert document(None, "--rows", "160")["steps"] == 30
    assert document({"dataset": {"maxSamples": 160}}, "--rows", "10000")["steps"] == 30


def test_rows_that_are_too_long_are_counted() -> None:
    assert "rows are longer than training.maxSequenceLength (4,096 tokens) and are dropped" in (
        plan({"training": {"maxSequenceLength": 4_096}}).stdout
    )
    refusing = {"training": {"maxSequenceLength": 4_096}, "dataset": {"overlong": "fail"}}
    assert "(4,096 tokens) and dataset.overlong: fail refuses the run for them" in plan(refusing).stdout


def test_price_that_nobody_names_is_refused_with_both_remedies(tmp_path: Path) -> None:
    free = {"budget": {"usdPerGpuHour": None}}
    said = refused(plan(free))
    assert "PriceUnknown: spec.budget.usdPerGpuHour is not set, and no catalogue is given (--prices FILE)" in said
    other = catalogue(tmp_path, {"name": "a", "match": {"gpuProduct": A100}, "usdPerHour": 2})
    said = refused(plan(free, "--prices", other))
    assert "no entry of the catalogue, or no unique one, fits spec.scheduling.nodeSelector" in said
    assert f"{{'nvidia.com/gpu.product': '{H100}'}}" in said
    assert "Set spec.budget.usdPerGpuHour" in said


@pytest.mark.parametrize(
    ("entry", "per_gpu_hour"),
    [
        ({"name": "own", "match": {"gpuProduct": H100}, "usdPerHour": "3.99"}, 3.99),
        ({"name": "own", "match": {"gpuProduct": H100}, "usdPerHour": "31.92", "basis": "node"}, 3.99),
    ],
    ids=["gpu", "node"],
)
def test_price_comes_from_the_catalogue_by_the_labels_of_the_node_selector(
    entry: dict[str, Any], per_gpu_hour: float, tmp_path: Path
) -> None:
    free, prices = {"budget": {"usdPerGpuHour": None}}, catalogue(tmp_path, entry)
    assert "Price     $3.99 per GPU-hour (own)" in plan(free, "--prices", prices).stdout
    found = document(free, "--prices", prices)
    assert float(found["usd"]["expected"]) == pytest.approx(per_gpu_hour * found["gpuHours"]["expected"], abs=0.005)
    assert "(spec)" in plan(None, "--prices", prices).stdout


@pytest.mark.parametrize(("content", "words"), [("{", "prices.yaml is no YAML"), ("prices: []", "version must be 1")])
def test_file_that_is_no_catalogue_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(content)
    assert words in refused(plan(None, "--prices", str(tmp_path / "prices.yaml")))


def test_catalogue_that_is_not_there_is_refused() -> None:
    assert "--prices /nowhere: cannot be read" in refused(plan(None, "--prices", "/nowhere"))


def test_bad_entry_of_a_catalogue_is_noted_and_the_good_ones_count(tmp_path: Path) -> None:
    prices = catalogue(
        tmp_path,
        {"name": "bad", "match": {}, "usdPerHour": 1},
        {"name": "good", "match": {"gpuProduct": H100}, "usdPerHour": 3},
    )
    text = plan({"budget": {"usdPerGpuHour": None}}, "--prices", prices).stdout
    assert "Note      The price catalogue leaves out prices[0]" in text
    assert "(good)" in text


def test_price_that_is_left_out_or_too_old_is_named_when_nothing_else_prices_the_pool(tmp_path: Path) -> None:
    free, pool = {"budget": {"usdPerGpuHour": None}}, {"gpuProduct": H100}
    bad = catalogue(tmp_path, {"name": "bad", "match": pool, "usdPerHour": 2.95})
    said = refused(plan(free, "--prices", bad))
    assert "PriceUnknown" in said
    assert "The price catalogue leaves out prices[0].usdPerHour" in said
    old = tmp_path / "old.yaml"
    entry = f'{{name: old, match: {{gpuProduct: {H100}}}, usdPerHour: "3", asOf: 2020-01-01}}'
    old.write_text(f"version: 1\nmaxAgeDays: 30\nprices:\n- {entry}\n")
    assert "(old: older than the catalogue's maxAgeDays" in refused(plan(free, "--prices", str(old)))
