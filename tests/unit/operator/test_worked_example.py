"""The figures of docs/metering.md are computed here by the operator's own code."""

from __future__ import annotations

from pathlib import Path

from rft_operator.api.ledger import Ledger
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.bill import bill
from rft_operator.domain.budget import Terms, evaluation_reserve, pod_deadline_seconds
from rft_operator.domain.money import micro_usd, usd_display, usd_text
from rft_operator.domain.rates import Rate
from rft_trainer.contract import Stage
from support.builders import merged, resource

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metering.md").read_text(encoding="utf-8")
RATE = Rate(micro_usd_per_gpu_hour=2_950_000, source="example")


def closed(*segments: tuple[int, int]) -> Ledger:
    """Return a ledger of 8 GPUs held for some seconds at each price."""
    amount = sum(8 * seconds * price for seconds, price in segments)
    seconds = sum(8 * each for each, _ in segments)
    return Ledger.model_validate({"totals": [{"stage": "train", "gpuSeconds": seconds, "amount": str(amount)}]})


def spent(*segments: tuple[int, int]) -> str:
    return usd_text(bill(closed(*segments), now=0).spent_micro_usd)


def test_dollar_is_counted_as_the_page_says() -> None:
    assert f"**${spent((3_602, 2_950_000))}**" in PAGE
    assert f"**${spent(*[(3_602, 2_950_000)] * 3)}**" in PAGE
    assert f"**${spent((1_800, 2_950_000), (1_802, 5_900_000))}**" in PAGE


def test_limit_buys_as_much_training_as_the_page_says() -> None:
    raw = resource(
        budget={"limitUSD": 450, "usdPerGpuHour": "2.95"},
        checkpoint={"graceSeconds": 300},
        resources={"nodes": 1, "gpusPerNode": 8},
        training={"globalBatchSize": 8},
        evaluation={"maxSeconds": 3_600},
    )
    run = ReasoningFinetune.parse(merged(raw, {"metadata": {"uid": "x", "resourceVersion": "1", "generation": 1}}))
    reserve = evaluation_reserve(run.spec, rate=RATE)
    assert f"**{usd_display(reserve)}**" in PAGE
    terms = Terms(
        spec=run.spec,
        stage=Stage.TRAIN,
        rate=RATE,
        limit_micro_usd=micro_usd(450),
        reserve_micro_usd=reserve,
        grace=300,
    )
    seconds = pod_deadline_seconds(terms, bill(Ledger(), now=0))
    assert f"{seconds:,} s, which is {seconds // 3_600} h {seconds % 3_600 // 60} min {seconds % 60} s" in PAGE
    assert f"${seconds * 8 * 2.95 / 3_600:.2f} are spent" in PAGE
