"""The ranks of one pod, forked from a process that has loaded the libraries: a training without its start.

For tests of what a training computes, which takes a second where its start takes fifteen of a processor. Everything
before the ranks (``rft-launch``, DeepSpeed's launcher, a new interpreter each) has tests of its own.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Mapping
from multiprocessing import connection, get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from unittest import mock

from rft_trainer.contract import Stage
from rft_trainer.launch.commands import stage_environment
from unit.trainer.factory import Pod, free_port

LIBRARIES = ["torch._dynamo", "deepspeed", "deepspeed.ops", "transformers.models.qwen2.modeling_qwen2"]
SMALL_CHUNKS = Path(__file__).parent / "small_chunks" / "sitecustomize.py"


def train(
    pod: Pod,
    *,
    chunked: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 240,
) -> int:
    """Run a training to its end: the first exit code that is not 0, or 0. Its output is in ``train.log``.

    ``chunked`` names a file that is made once the loss holds few logits at a time (``small_chunks``).
    Raises TimeoutError, with no rank left, when it takes longer.
    """
    size = pod.config.nodes * pod.config.gpus_per_node
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    shared |= environment or {}
    if chunked is not None:
        shared["RFT_TEST_CHUNKED"] = str(chunked)
    pod.layout.run.mkdir(parents=True, exist_ok=True)
    log = pod.layout.root / "train.log"
    log.unlink(missing_ok=True)
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    ranks = [warm_server().Process(target=_rank, args=(pod.layout.root, log, {**shared, **place})) for place in places]
    for rank in ranks:
        rank.start()
    try:
        code = _wait(ranks, deadline=time.monotonic() + timeout_seconds)
        if pod.layout.result_file.exists():  # not after a crash, whose log says more
            pod.tell_result("train")
        return code
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def warm_server() -> ForkServerContext:
    """Where processes start with the libraries loaded."""
    server = get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)
    # what the libraries read when they are loaded comes from the server's own environment
    with mock.patch.dict(os.environ, stage_environment(dict(os.environ), stage=Stage.TRAIN)):
        ensure_running()
    return server


def _wait(ranks: list[ForkServerProcess], *, deadline: float) -> int:
    running = {rank.sentinel: rank for rank in ranks}
    while running:
        ended = connection.wait(list(running), timeout=max(0.0, deadline - time.monotonic()))
        if not ended:
            raise TimeoutError("the ranks train for too long")
        for sentinel in ended:
            rank = running.pop(int(str(sentinel)))
            rank.join()
            if rank.exitcode:
                return rank.exitcode
    return 0


def _rank(root: Path, log: Path, environment: dict[str, str]) -> None:
    """What the process of a rank does."""
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    if "RFT_TEST_CHUNKED" in environment:
        runpy.run_path(str(SMALL_CHUNKS))
    from rft_trainer.train.main import main

    sys.exit(main(["--root", str(root)]))
