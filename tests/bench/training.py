"""``python -m bench.training``: non-padding tokens a second of this trainer and of TRL's SFTTrainer, side by side.

Both train the same tiny model on the same rows on two CPU ranks with DeepSpeed, the same ZeRO stage, fp32, without
packing and then with it; the lengths are spread as Sky-T1's are, 32 times shorter. TRL goes into an environment of its
own in the cache, on top of the project's, with pinned versions. The runs alternate, and their first steps are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from bench.machine import facts
from rft_trainer.contract import ExitCode, RunConfig, Stage
from rft_trainer.launch.commands import stage_environment
from unit.trainer.factory import Pod, free_port, run_config, wait_until

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "trl-requirements.txt"
RANKS = 2
WARM_UP_STEPS = 5
ROWS_A_STEP = 32
"""Without packing."""
MEAN_TOKENS, LONGEST_TOKENS, SPREAD = 145, 512, 0.7
RUN_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What one run did after its first steps."""

    tokens: int
    """Without padding."""
    seconds: float
    processor_seconds: float
    """Of both ranks: what strangers on the machine take does not count."""

    @property
    def tokens_per_second(self) -> float:
        """By the clock."""
        return self.tokens / self.seconds

    @property
    def tokens_per_processor_second(self) -> float:
        """By the ranks' own use of the processors."""
        return self.tokens / self.processor_seconds


def configuration(*, stage: int, packing: bool) -> RunConfig:
    """One epoch of the rows, so that both trainers see each of them once; a packed sequence holds three or four."""
    rows_at_once, rows_a_step = (1, 8) if packing else (4, ROWS_A_STEP)
    return run_config(
        model={"uri": "init://tiny-qwen2?hidden=128&layers=4&vocab=1024"},
        dataset={"uri": "file:///rft/claims/rows/rows.jsonl", "format": "messages"},
        evaluation=None,
        training__epochs=1,
        training__max_steps=None,
        training__learning_rate=1e-3,
        training__global_batch_size=rows_a_step,
        training__micro_batch_size=rows_at_once,
        training__packing=packing,
        training__max_sequence_length=LONGEST_TOKENS,
        training__zero_stage=stage,
        checkpoint__every_minutes=60,
    )


def write_rows(path: Path, *, count: int) -> None:
    """Rows whose lengths are lognormal; the words are numbers, so that a word is a few tokens."""
    chance = random.Random(1)
    mean = MEAN_TOKENS / 2.718281828 ** (SPREAD**2 / 2)
    lines = []
    for _ in range(count):
        tokens = min(LONGEST_TOKENS - 40, int(mean * chance.lognormvariate(0, SPREAD)))
        answer = "".join(chance.choice("0123456789") for _ in range(max(2, tokens - 20)))
        turns = [{"role": "user", "content": "Say a number."}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns}))
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")


def prepare(folder: Path, config: RunConfig, *, rows: int) -> Pod:
    """Tokenise the rows once; both trainers read the result."""
    pod = Pod(folder, config, hosts=f"localhost slots={RANKS}\n")
    write_rows(pod.layout.claim("rows", "rows.jsonl"), count=rows)
    if pod.run("prepare") != ExitCode.DONE:
        sys.exit(f"prepare failed:\n{pod.log('prepare')[-2_000:]}")
    return pod


def ours(prepared: Pod, folder: Path) -> Speed:
    """Train with this project's trainer; the processors' use is read when a step's line appears."""
    pod = Pod(folder, prepared.config, hosts=f"localhost slots={RANKS}\n")
    shutil.copytree(prepared.layout.root / "data", folder / "data")
    process = pod.start("train", RFT_RENDEZVOUS_PORT=str(free_port()))
    used = [_processor_seconds(pod, process, after=step) for step in (WARM_UP_STEPS, _steps(prepared))]
    if process.wait(RUN_SECONDS) != ExitCode.DONE:
        sys.exit(f"training failed:\n{pod.log('train')[-2_000:]}")
    lines = pod.steps()
    counted = lines[WARM_UP_STEPS:]
    return Speed(
        tokens=counted[-1]["tokens"] - lines[WARM_UP_STEPS - 1]["tokens"],
        seconds=sum(line["step_s"] for line in counted),
        processor_seconds=used[1] - used[0],
    )


def _steps(prepared: Pod) -> int:
    summary = prepared.result().prepare
    assert summary is not None
    return summary.steps


def _processor_seconds(pod: Pod, process: subprocess.Popen[str], *, after: int) -> float:
    wait_until(
        lambda: process.poll() is not None or (pod.paths.steps.is_file() and len(pod.steps()) >= after),
        timeout_seconds=RUN_SECONDS,
        what=f"step {after}",
    )
    times = [rank.cpu_times() for rank in pod.ranks()] if process.poll() is None else []
    return sum(each.user + each.system for each in times)


def trl(prepared: Pod, folder: Path, *, python: Path, sampling: str) -> Speed:
    """Train with TRL's SFTTrainer, started by the same launcher."""
    folder.mkdir()
    command = [
        *[str(python), "-m", "deepspeed.launcher.launch", f"--world_info={_world()}", "--master_addr=127.0.0.1"],
        *[f"--master_port={free_port()}", "--node_rank=0", "--no_local_rank", str(HERE / "trl_run.py")],
        *["--config", str(prepared.layout.config_file), "--data", str(prepared.paths.data)],
        *["--output", str(folder), "--sampling", sampling],
    ]
    environment = {**stage_environment(dict(os.environ), stage=Stage.TRAIN), "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, timeout=RUN_SECONDS)
    if done.returncode != 0:
        sys.exit(f"TRL failed:\n{(folder / 'log').read_text()[-3_000:]}")
    ranks = [json.loads((folder / f"rank-{rank}.json").read_bytes()) for rank in range(RANKS)]
    training = prepared.config.training
    skipped = WARM_UP_STEPS * training.global_batch_size // (training.micro_batch_size * RANKS)
    ended = ranks[0]["ended"]
    return Speed(
        tokens=sum(sum(rank["tokens"][skipped:]) for rank in ranks),
        seconds=ended[-1] - ended[WARM_UP_STEPS - 1],
        processor_seconds=sum(rank["used"][-1] - rank["used"][WARM_UP_STEPS - 1] for rank in ranks),
    )


def _world() -> str:
    import base64

    return base64.urlsafe_b64encode(json.dumps({"localhost": list(range(RANKS))}).encode()).decode()


def trl_python() -> Path:
    """The interpreter of an environment with TRL, made on first use; it sees the project's own packages too."""
    cache = Path(os.environ.get("RFT_CACHE_DIR") or Path.home() / ".cache" / "rft")
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.prefix.encode()).hexdigest()[:12]
    home = cache / f"bench-trl-{key}"
    python = home / "bin" / "python"
    if not (home / "ready").is_file():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(REQUIREMENTS)]
        subprocess.run(install, check=True)
        [packages] = home.glob("lib/python*/site-packages")
        ours_at = sysconfig.get_paths()["purelib"]
        (packages / "project.pth").write_text(f"import site; site.addsitedir({ours_at!r})\n")
        (home / "ready").touch()
    return python


@click.command()
@click.option("--stage", default=1, show_default=True, help="ZeRO stage of both.")
@click.option("--steps", default=40, show_default=True, help="Optimizer steps of each run without packing.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each trainer; they alternate.")
def main(stage: int, steps: int, repeat: int) -> None:
    """Train with both and print a line for each."""
    python = trl_python()
    folder = Path(tempfile.mkdtemp(prefix="rft-bench-training-"))
    rows = steps * ROWS_A_STEP
    plain, packed = (
        prepare(folder / name, configuration(stage=stage, packing=packing), rows=rows)
        for name, packing in (("plain", False), ("packed", True))
    )
    groups: list[dict[str, Callable[[Path], Speed]]] = [
        {
            "this trainer": lambda at: ours(plain, at),
            "TRL SFTTrainer": lambda at: trl(plain, at, python=python, sampling="random"),
            "TRL SFTTrainer, grouped by length": lambda at: trl(plain, at, python=python, sampling="group_by_length"),
        },
        {
            "this trainer, packed": lambda at: ours(packed, at),
            "TRL SFTTrainer, packed": lambda at: trl(packed, at, python=python, sampling="random"),
        },
    ]
    found: dict[str, list[Speed]] = {name: [] for group in groups for name in group}
    for number in range(repeat):
        for group in groups:
            for name, train in group.items():
                speed = train(Path(tempfile.mkdtemp(dir=folder)) / "run")
                found[name].append(speed)
                sys.stderr.write(f"{number + 1} {name}: {speed}\n")
    shutil.rmtree(folder)
    click.echo(f"{facts()}\nZeRO-{stage}, {RANKS} ranks, {rows} rows, {repeat} runs each; medians")
    for group in groups:
        _print([(name, *_medians(found[name])) for name in group])


def _print(lines: list[tuple[str, float, float]]) -> None:
    """A table against its first line."""
    click.echo(f"{'':<36}{'tokens/s':>10}{'ours / this':>13}{'tokens/processor-s':>20}{'ours / this':>13}")
    _, by_clock, by_use = lines[0]
    for name, clock, use in lines:
        click.echo(f"{name:<36}{clock:>10.0f}{by_clock / clock:>13.2f}{use:>20.0f}{by_use / use:>13.2f}")


def _medians(speeds: list[Speed]) -> tuple[float, float]:
    clock = statistics.median(each.tokens_per_second for each in speeds)
    return clock, statistics.median(each.tokens_per_processor_second for each in speeds)


if __name__ == "__main__":
    main()
