"""Configurations and pods for the trainer's tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rft_trainer.contract import RunConfig, Stage
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.results import read_result, write_termination_message
from rft_trainer.stage_results import StageResult

GYM = "gym://chain_sum?min_terms=2&max_terms=2&min_digits=2&max_digits=2&allow_negation=false"


def run_config(**overrides: Any) -> RunConfig:
    """A small run; ``training__max_steps=5`` sets a nested field."""
    values: dict[str, Any] = {
        "namespace": "default",
        "name": "tiny",
        "uid": "uid-1",
        "data_directory": "/rft/data/tiny-uid-1",
        "nodes": 1,
        "gpus_per_node": 2,
        "model": {"uri": "init://tiny-qwen2?hidden=32&layers=2"},
        "dataset": {"uri": f"{GYM}&seed=1000000&size=300", "format": "s1"},
        "training": {
            "epochs": 100,
            "max_steps": 6,
            "learning_rate": 5e-3,
            "warmup_ratio": 0.1,
            "weight_decay": 1e-4,
            "adam_betas": (0.9, 0.95),
            "max_gradient_norm": 1.0,
            "schedule": "cosine",
            "global_batch_size": 16,
            "micro_batch_size": 4,
            "max_sequence_length": 128,
            "packing": False,
            "precision": "fp32",
            "gradient_checkpointing": False,
            "seed": 42,
            "zero_stage": 3,
            "offload": "none",
        },
        "checkpoint": {"every_minutes": 30, "every_steps": None, "keep_last": 2, "resume": "latest"},
        "evaluation": {
            "benchmarks": [{"name": "sums", "uri": f"{GYM}&seed=10000000", "limit": 8, "max_tokens": 24}],
            "baseline": "measure",
            "batch_size": 8,
            "max_seconds": 300,
        },
        "startup_seconds": 120,
    }
    for path, value in overrides.items():
        place = values
        *parents, last = path.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    return RunConfig.model_validate(values)


def row(*tokens: int, prompt: int) -> EncodedRow:
    """A row whose first ``prompt`` tokens are not trained."""
    target = np.asarray([0] * prompt + [1] * (len(tokens) - prompt), dtype=np.uint8)
    return EncodedRow(tokens=np.asarray(tokens, dtype=np.int32), target=target)


class Pod:
    """A directory that stands for ``/rft`` and the process that would be its pod's process 1."""

    def __init__(self, root: Path, config: RunConfig, *, hosts: str = "localhost slots=2\n") -> None:
        self.layout = Layout(root)
        self.config = config
        self.layout.config_file.parent.mkdir(parents=True, exist_ok=True)
        self.layout.config_file.write_text(config.model_dump_json())
        self.layout.hostfile.write_text(hosts)
        self.paths = RunPaths.of(self.layout, config)
        self.process: subprocess.Popen[str] | None = None

    def start(self, stage: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``rft-launch`` with its output in ``<root>/<stage>.log``."""
        variables = {**os.environ, "RFT_GRACE_SECONDS": "60", **environment}
        with (self.layout.root / f"{stage}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rft_trainer.launch.entry", stage, "--root", str(self.layout.root)],
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self.process

    def run(self, stage: str, *, timeout_seconds: float = 240, **environment: str) -> int:
        """Run a stage to its end and give its exit code."""
        return self.start(stage, **environment).wait(timeout_seconds)

    def run_here(self, stage: str) -> int:
        """Run what ``rft-launch`` would start for a stage in this process, which has its libraries loaded already."""
        hook = sys.excepthook
        try:
            code = int(import_module(f"rft_trainer.{stage}.main").main(["--root", str(self.layout.root)]))
        finally:
            sys.excepthook = hook
        self.tell_result(stage)
        return code

    def tell_result(self, stage: str) -> None:
        """Write the termination message of a stage that ended by itself, as ``rft-launch`` does."""
        result = read_result(self.layout.result_file, stage=Stage(stage))
        assert result is not None, "a stage that ends by itself says how"
        write_termination_message(self.layout.termination_log, result)

    def result(self) -> StageResult:
        """The termination message."""
        return StageResult.model_validate_json(self.layout.termination_log.read_bytes())

    def log(self, stage: str) -> str:
        """What the stage printed."""
        return (self.layout.root / f"{stage}.log").read_text()

    def progress_lines(self) -> list[dict[str, Any]]:
        """The progress lines on the training's stdout."""
        told = [line.removeprefix("[rank 0] ") for line in self.log("train").splitlines()]
        return [json.loads(line) for line in told if line.startswith('{"v": 1')]

    def steps(self) -> list[dict[str, Any]]:
        """The lines of every step of the run, resumed or not."""
        return [json.loads(line) for line in self.paths.steps.read_text().splitlines()]

    def ranks(self) -> list[psutil.Process]:
        """The processes of the ranks, in order."""
        assert self.process is not None
        found = [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "rft_trainer.train.main" in child.cmdline() and "deepspeed.launcher.launch" not in child.cmdline()
        ]
        return sorted(found, key=lambda child: int(child.environ()["RANK"]))

    def power_off(self) -> None:
        """Kill everything at once, as a lost node does."""
        if self.process is None or self.process.poll() is not None:
            return
        parent = psutil.Process(self.process.pid)
        for process in [*parent.children(recursive=True), parent]:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait(20)


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 120, what: str = "the condition") -> None:
    """Poll until ``condition`` holds; fails the test at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout_seconds} s")
        time.sleep(0.05)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
