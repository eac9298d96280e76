"""``python -m bench.learning``: does the example learn, whatever its seed? Trains it on two CPU ranks for each seed.

The configuration is the one that the operator writes for examples/tiny-local.yaml; only the seed and the gang's place
(one machine, two ranks) differ. Prints a line per seed: the score on held-out questions before and after, and the time
that all three stages took.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click
import yaml

from rft_operator.api import ReasoningFinetune
from rft_operator.domain.facts import Settings
from rft_operator.domain.resolve import resolve
from rft_trainer.contract import ExitCode, RunConfig
from unit.trainer.factory import Pod, free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tiny-local.yaml"
STAGE_SECONDS = 900.0


def configuration(seed: int) -> RunConfig:
    """Return the example's configuration with another seed."""
    raw = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    raw["metadata"] |= {"namespace": "default", "uid": f"seed-{seed}"}
    raw["spec"]["training"]["seed"] = seed
    raw["spec"]["resources"] |= {"nodes": 1, "gpusPerNode": 2}
    return resolve(ReasoningFinetune.parse(raw), Settings(trainer_image="none")).config


def measure(seed: int, folder: Path) -> str:
    """Run all stages; return the result as a line."""
    pod, began = Pod(folder, configuration(seed)), time.monotonic()
    port = str(free_port())
    for stage in ("prepare", "train", "evaluate"):
        code = pod.run(stage, timeout_seconds=STAGE_SECONDS, RFT_RENDEZVOUS_PORT=port)
        if code != ExitCode.DONE:
            sys.exit(f"seed {seed}: {stage} ended with {code}:\n{pod.log(stage)[-2_000:]}")
    summary = pod.result().evaluate
    assert summary is not None
    score = summary.scores[0]
    took = time.monotonic() - began
    return f"{seed:>6}  {score.baseline:>6.2f}  {score.value:>5.2f}  {score.stderr:>6.3f}  {took:>4.0f} s"


@click.command()
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2, 3), show_default=True)
def main(seeds: tuple[int, ...]) -> None:
    """Train and evaluate the example with several seeds."""
    click.echo("  seed  before  after  stderr  took")
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="rft-learning-") as folder:
            click.echo(measure(seed, Path(folder)))


if __name__ == "__main__":
    main()
