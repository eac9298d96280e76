"""``rft plan``: a page for people, a document for programs, and an exit code."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from rft_operator.domain.money import usd_display
from support.builders import merged
from support.planning import A100, H100, catalogue, document, plan, refused, rft
from support.published_runs import EXAMPLES

KEYS = {
    "": {"version", "steps", "tokens", "hours", "gpuHours", "usd", "reserveUSD", "memory", "budget", "advice"},
    "hours": {"low", "expected", "high"},
    "gpuHours": {"low", "expected", "high"},
    "usd": {"low", "expected", "high"},
    "memory": {"gpuGiB", "hostGiB", "fits"},
    "budget": {"limitUSD", "sufficient"},
}
GPU_KEYS = {"weights", "gradients", "optimizer", "activations", "logits", "total", "usable"}


@pytest.mark.parametrize("name", ["sky-t1-32b", "s1-32b"])
def test_examples_fit_and_their_budgets_suffice(name: str) -> None:
    result = rft("-f", str(EXAMPLES / f"{name}.yaml"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{name}: Qwen2.5-32B-Instruct (32.76 B parameters)"
    assert "Memory    fits" in lines
    assert "Money     enough for the expected end, not for the high one: training would stop with a checkpoint" in lines
    assert not any(line.startswith(("Advice", "Note")) for line in lines)
    assert max(len(line) for line in lines) <= 140


def test_adapters_of_the_example_fit_on_one_gpu_and_its_budget_suffices() -> None:
    result = rft("-f", str(EXAMPLES / "qwen-7b-lora.yaml"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "qwen-7b-lora: Qwen2.5-7B-Instruct (7.616 B parameters)"
    assert {"Memory    fits", "Money     enough, even for the high end"} <= set(lines)
    assert not any(line.startswith(("Advice", "Note")) for line in lines)


@pytest.mark.parametrize(("name", "gpu_hours"), [("sky-t1-32b", 152), ("s1-32b", 7)])
def test_json_of_the_examples_has_the_published_gpu_hours_within_15_percent(name: str, gpu_hours: int) -> None:
    result = rft("-f", str(EXAMPLES / f"{name}.yaml"), "-o", "json")
    assert json.loads(result.output)["gpuHours"]["expected"] == pytest.approx(gpu_hours, rel=0.15)


def test_page_says_memory_work_cost_and_the_last_moment_for_the_evaluation() -> None:
    text = plan().stdout
    for words in (
        "GiB          PER GPU  PER NODE (HOST)",
        "Data      1,000 rows of about 4,850 tokens",
        "Work      188 steps of 16 sequences",
        "waiting for the longest row",
        "TRAINING   LOW",
        "Price     $2.95 per GPU-hour (spec)",
        "Budget    limit $100.00, kept for the evaluation $3.00",
        "the evaluation starts then at the latest",
        "Money     enough, even for the high end",
    ):
        assert words in text
    assert "then it is stopped" in plan({"evaluation": None}).stdout


def test_json_has_the_keys_of_its_version_and_no_others() -> None:
    found = document()
    for place, keys in KEYS.items():
        assert set(found[place] if place else found) == keys
    assert set(found["memory"]["gpuGiB"]) == GPU_KEYS
    assert found["version"] == 1
    assert isinstance(found["steps"], int)
    assert isinstance(found["tokens"], int)
    assert found["advice"] == []


def test_json_says_what_the_page_says() -> None:
    found, text = document(), plan().stdout
    assert f"{found['hours']['expected']:.2f}" in text
    assert usd_display(int(Decimal(found["usd"]["low"]) * 10**6)) in text
    assert f"Work      {found['steps']} steps" in text
    assert found["budget"] == {"limitUSD": "100.000000", "sufficient": True}
    gpu = found["memory"]["gpuGiB"]
    assert gpu["total"] == pytest.approx(sum(gpu[key] for key in GPU_KEYS - {"total", "usable"}), abs=0.005)
    host = found["memory"]["hostGiB"]
    assert host["usable"] == 512
    assert host["total"] == pytest.approx(sum(host[key] for key in set(host) - {"total", "usable"}), abs=0.005)


def test_gpu_hours_are_hours_times_gpus_and_dollars_are_gpu_hours_times_the_price() -> None:
    found = document()
    for end in ("low", "expected", "high"):
        assert found["gpuHours"][end] == pytest.approx(8 * found["hours"][end], abs=0.005)
        assert float(found["usd"][end]) == pytest.approx(2.95 * found["gpuHours"][end], abs=0.005)


def test_run_that_does_not_fit_ends_with_1_and_advice() -> None:
    result = plan({"model": {"uri": "hf://Qwen/Qwen2.5-72B"}, "resources": {"memory": "2Ti"}})
    assert result.exit_code == 1
    assert "Memory    DOES NOT FIT: a GPU needs" in result.stdout
    assert "Advice    training.deepspeed.offload: " in result.stdout
    found = document({"model": {"uri": "hf://Qwen/Qwen2.5-72B"}, "resources": {"memory": "2Ti"}})
    assert found["memory"]["fits"] is False
    assert found["advice"]


def test_node_with_too_little_memory_is_named() -> None:
    change = {"training": {"deepspeed": {"offload": "all"}}, "resources": {"memory": "100Gi"}}
    result = plan(change)
    assert result.exit_code == 1
    assert "DOES NOT FIT: a node needs" in result.stdout
    assert "resources.memory is 100" in result.stdout


def test_budget_that_is_short_ends_with_1_and_says_by_how_much() -> None:
    change = {"budget": {"limitUSD": 5}}
    result = plan(change)
    assert result.exit_code == 1
    assert "Money     NOT ENOUGH: $" in result.stdout
    assert "Advice    " in result.stdout
    assert document(change)["budget"] == {"limitUSD": "5.000000", "sufficient": False}


def test_page_says_so_when_nothing_was_found_that_works() -> None:
    result = plan({"model": {"uri": "hf://meta-llama/Llama-3.1-405B"}, "resources": {"memory": "16Gi"}})
    assert result.exit_code == 1
    assert "use a smaller model" in result.stdout


def test_gpu_that_nobody_names_is_assumed_and_the_page_says_so() -> None:
    nameless = {"scheduling": None}
    assert "Note      Nothing names the GPU: NVIDIA-H100-80GB-HBM3 (80 GB) is assumed" in plan(nameless).stdout
    strange = {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-X9"}}}
    assert "Note      GPU NVIDIA-X9 is not known to this version: NVIDIA-H100" in plan(strange).stdout
    assert "is assumed" not in plan().stdout


def test_notes_of_the_json_form_go_to_the_standard_error() -> None:
    result = plan({"scheduling": None}, "-o", "json")
    assert json.loads(result.stdout)["version"] == 1
    assert result.stderr.startswith("Note: Nothing names the GPU")


def test_gpu_is_that_of_the_option_else_of_the_node_selector_else_of_the_price(tmp_path: Path) -> None:
    prices = catalogue(
        tmp_path, {"name": "a", "match": {"labels": {"pool": "old"}, "gpuProduct": A100}, "usdPerHour": 2}
    )
    pool = {
        "budget": {"usdPerGpuHour": None},
        "scheduling": {"nodeSelector": {"pool": "old", "nvidia.com/gpu.product": None}},
    }
    assert f"1 x 8 {A100}" in plan(pool, "--prices", prices).stdout
    assert f"1 x 8 {H100}" in plan().stdout
    assert "1 x 8 NVIDIA-L4" in plan(None, "--gpu", "NVIDIA-L4").stdout


def test_unknown_gpu_of_the_option_is_refused_with_the_known_ones() -> None:
    said = refused(plan(None, "--gpu", "H100"))
    assert "--gpu is 'H100'; known are " in said
    assert H100 in said


def test_memory_of_the_node_that_nobody_names_is_told() -> None:
    change = {"resources": {"memory": None}, "training": {"deepspeed": {"offload": "all"}}}
    assert "Note      resources.memory is not set: a pod needs about" in plan(change).stdout
    assert document(change)["memory"]["hostGiB"]["usable"] is None


def test_evaluation_that_cannot_load_the_model_is_told() -> None:
    change = {"model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"}, "evaluation": {"preset": "s1"}}
    assert "Note      The weights alone need 123 GiB in fp32 (preset s1)" in plan(change).stdout


def test_grace_that_is_shorter_than_a_save_is_told() -> None:
    assert "more than checkpoint.graceSeconds (10)" in plan({"checkpoint": {"graceSeconds": 10}}).stdout


def test_free_gpus_have_no_last_moment(tmp_path: Path) -> None:
    prices = catalogue(tmp_path, {"name": "own", "match": {"gpuProduct": H100}, "usdPerHour": 0, "free": True})
    text = plan({"budget": {"usdPerGpuHour": None}}, "--prices", prices).stdout
    assert "training must end" not in text
    assert "Money     enough, even for the high end" in text
    assert "Price     $0.00 per GPU-hour (own)" in text


def test_packed_rows_are_told() -> None:
    assert "packed into " in plan({"training": {"packing": True}}).stdout


def test_demo_on_the_local_cluster_can_be_planned() -> None:
    raw = yaml.safe_load((EXAMPLES / "tiny-local.yaml").read_text())
    result = rft("-f", "-", stdin=yaml.safe_dump(merged(raw, {"spec": {"budget": {"usdPerGpuHour": "2.95"}}})))
    assert result.exit_code == 0
    assert "Work      600 steps of 64 sequences" in result.stdout
