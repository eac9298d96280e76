"""Advice: only edits of which the estimate says that they work, and no more of them than it takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_operator.api.spec import Spec
from rft_operator.domain.architectures import known_model
from rft_operator.domain.estimate import Estimate, estimate
from rft_operator.domain.estimate_advice import MOST_ADVICE, MOST_EDITS, advise
from rft_operator.domain.estimate_data import DataShape
from rft_operator.domain.estimate_gpu import GPUS, GpuShape
from rft_operator.domain.rates import Rate
from rft_operator.errors import InvalidResource
from support.builders import merged

RATE = Rate(micro_usd_per_gpu_hour=2_950_000, source="test")
DATA = DataShape(rows=16_401, mean_tokens=4_650, longest_tokens=16_384)
BASE: dict[str, Any] = {
    "model": {"uri": "hf://Qwen/Qwen2.5-32B"},
    "dataset": {"uri": "hf://any/rows", "format": "messages"},
    "training": {"epochs": 3, "globalBatchSize": 96, "maxSequenceLength": 16_384},
    "resources": {"nodes": 1, "gpusPerNode": 8, "memory": "1000Gi"},
    "budget": {"limitUSD": 1_000},
    "checkpoint": {"everyMinutes": 240},
}
H100 = GPUS["NVIDIA-H100-80GB-HBM3"]


class Case:
    """A spec, its estimate and the advice."""

    def __init__(self, change: dict[str, Any], *, model: str = "Qwen2.5-32B", gpu: GpuShape = H100) -> None:
        self.raw = merged(BASE, change)
        shape = known_model(f"hf://{model}")
        assert shape is not None
        self.model, self.gpu = shape, gpu
        self.now = self.ask(self.raw)
        self.advice = advise(
            Spec.model_validate(self.raw), self.now, facts=self.model, data=DATA, rate=RATE, gpu=self.gpu
        )

    def ask(self, raw: dict[str, Any]) -> Estimate:
        """Return the estimate of a spec."""
        return estimate(Spec.model_validate(raw), facts=self.model, data=DATA, rate=RATE, gpu=self.gpu)

    def works(self, piece: str) -> bool:
        """Return whether a piece of advice, or half of one, is enough."""
        try:
            return self.taken(piece).works
        except InvalidResource:
            return False

    def taken(self, piece: str) -> Estimate:
        """Return the estimate after a user has followed a piece of advice to the letter."""
        return self.ask(merged(self.raw, edits(piece)))


def edits(piece: str) -> dict[str, Any]:
    """Return what a piece of advice says to write, as a change of the spec."""
    change: dict[str, Any] = {}
    for edit in piece.split(" (", maxsplit=1)[0].split(" and "):
        field, value = edit.split(": ")
        nested: Any = yaml.safe_load(value) if field != "training.deepspeed.offload" else value
        for part in reversed(field.split(".")):
            nested = {part: nested}
        change = merged(change, nested)
    return change


def fields(case: Case) -> list[set[str]]:
    return [{edit.split(": ")[0] for edit in piece.split(" (", maxsplit=1)[0].split(" and ")} for piece in case.advice]


cases = st.builds(
    Case,
    st.fixed_dictionaries(
        {
            "training": st.fixed_dictionaries(
                {
                    "epochs": st.sampled_from([1, 3, 10]),
                    "gradientCheckpointing": st.booleans(),
                    "microBatchSize": st.sampled_from([1, 2]),
                    "deepspeed": st.sampled_from(
                        [
                            {"zeroStage": 1},
                            {"zeroStage": 2, "offload": "optimizer"},
                            {"zeroStage": 3},
                            {"zeroStage": 3, "offload": "all"},
                        ]
                    ),
                }
            ),
            "resources": st.fixed_dictionaries(
                {"nodes": st.sampled_from([1, 2]), "memory": st.sampled_from(["200Gi", "2Ti"])}
            ),
            "budget": st.fixed_dictionaries({"limitUSD": st.sampled_from([1, 60, 450, 5_000])}),
        }
    ),
    model=st.sampled_from(["Qwen2.5-7B", "Qwen2.5-32B", "Qwen2.5-72B"]),
    gpu=st.sampled_from([H100, GPUS["NVIDIA-A100-SXM4-40GB"]]),
)


@settings(max_examples=40, deadline=None)
@given(case=cases)
def test_every_piece_of_advice_works_when_a_user_follows_it(case: Case) -> None:
    assert len(case.advice) <= MOST_ADVICE
    for piece in case.advice:
        assert not case.now.works
        followed = case.taken(piece)
        assert followed.works, piece
        assert f"{followed.gpu_seconds.expected / 3_600:.1f} GPU-hours" in piece


@settings(max_examples=40, deadline=None)
@given(case=cases)
def test_no_advice_does_more_than_it_must(case: Case) -> None:
    sets = fields(case)
    assert len({len(each) for each in sets}) <= 1
    assert all(len(each) <= MOST_EDITS for each in sets)
    assert len(set(case.advice)) == len(case.advice)
    if sets and len(sets[0]) == 2:
        for piece in case.advice:
            for edit in piece.split(" (", maxsplit=1)[0].split(" and "):
                assert not case.works(edit), edit


def test_run_that_works_gets_no_advice() -> None:
    case = Case({"training": {"deepspeed": {"offload": "all"}}})
    assert case.now.works
    assert case.advice == ()


def test_model_that_does_not_fit_is_advised_to_offload_or_to_take_more_nodes() -> None:
    case = Case({})
    assert not case.now.memory.fits
    assert {"training.deepspeed.offload"} in fields(case)
    assert {"resources.nodes"} in fields(case)


def test_budget_that_is_short_is_met_by_fewer_epochs_or_by_more_money_or_by_a_better_layout() -> None:
    case = Case({"training": {"deepspeed": {"offload": "all"}}, "budget": {"limitUSD": 400}})
    assert case.now.memory.fits
    assert {"training.epochs"} in fields(case)
    assert {"budget.limitUSD"} in fields(case)
    (epochs,) = [piece for piece in case.advice if piece.startswith("training.epochs")]
    assert edits(epochs) == {"training": {"epochs": 2}}


def test_raised_limit_is_the_last_advice_and_the_least_that_suffices() -> None:
    case = Case({"training": {"deepspeed": {"offload": "all"}}, "budget": {"limitUSD": 400}})
    limit = edits(case.advice[-1])["budget"]["limitUSD"]
    assert case.taken(case.advice[-1]).works
    assert not case.ask(merged(case.raw, {"budget": {"limitUSD": limit - 1}})).works


def test_node_with_too_little_memory_for_the_offload_is_named() -> None:
    case = Case({"training": {"deepspeed": {"offload": "all"}}, "resources": {"memory": "500Gi"}})
    assert case.now.memory.fits_gpu
    assert any(piece.startswith("resources.memory: 824Gi (") for piece in case.advice)


def test_two_edits_are_advised_where_one_is_not_enough() -> None:
    case = Case({"budget": {"limitUSD": 60}})
    assert all(len(each) >= 2 for each in fields(case))
    assert case.advice


def test_nothing_is_advised_where_nothing_was_found_that_works() -> None:
    case = Case(
        {"training": {"epochs": 1}, "resources": {"memory": "10Gi"}}, gpu=GPUS["NVIDIA-L4"], model="Llama-3.1-405B"
    )
    assert not case.now.works
    assert case.advice == ()


@pytest.mark.parametrize("limit", [1, 60, 400])
def test_advice_names_hours_dollars_and_memory(limit: int) -> None:
    for piece in Case({"budget": {"limitUSD": limit}}).advice:
        assert re.search(r"\([\d.]+ h, [\d.]+ GPU-hours, \$[\d.]+, [\d.]+ of 70\.3 GiB per GPU\)$", piece), piece
