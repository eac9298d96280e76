"""The command line and the environment of a stage's processes.

Invariant: training never goes through the ``deepspeed`` command, which forwards no signal, orphans its ranks and can
exit 0 after its launcher was killed; we start DeepSpeed's per-node launcher ourselves.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from rft_trainer.contract import Stage
from rft_trainer.evaluate.machine import processors
from rft_trainer.launch.gang import Gang
from rft_trainer.stage_main import scratch_environment

_MODULES = {
    Stage.PREPARE: "rft_trainer.prepare.main",
    Stage.EVALUATE: "rft_trainer.evaluate.main",
    Stage.SCORE: "rft_trainer.evaluate.score_main",
    Stage.PUBLISH: "rft_trainer.publish.main",
}


def stage_command(stage: Stage, *, root: Path, gang: Gang | None) -> list[str]:
    """The command of the stage's process; training needs the gang."""
    if gang is None:
        return [sys.executable, "-m", _MODULES[stage], "--root", str(root)]
    world = {host: list(range(slots)) for host, slots in zip(gang.hosts, gang.slots, strict=True)}
    return [
        sys.executable,
        "-m",
        "deepspeed.launcher.launch",
        f"--world_info={base64.urlsafe_b64encode(json.dumps(world).encode()).decode()}",
        f"--node_rank={gang.node_rank}",
        f"--master_addr={gang.hosts[0]}",
        f"--master_port={gang.port}",
        "--module",
        "--no_local_rank",
        "rft_trainer.train.main",
        "--root",
        str(root),
    ]


def stage_environment(environment: dict[str, str], *, stage: Stage, ranks: int = 1) -> dict[str, str]:
    """Defaults that the libraries need; what the user set wins. ``ranks`` share the pod."""
    defaults = {
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_BUFFER_SIZE": "2000",
        "OMP_NUM_THREADS": str(_threads(stage, ranks=ranks)),
        "PYTHONWARNINGS": "ignore::SyntaxWarning",
    }
    if stage is Stage.TRAIN:
        # Nothing here is compiled by torch, but DeepSpeed decorates an optimizer that we do not use: every rank would
        # load the whole compiler for it, about 1.5 s of CPU time.
        defaults["TORCHDYNAMO_DISABLE"] = "1"
    if not gpus_visible():
        defaults |= {"DS_ACCELERATOR": "cpu", "DS_IGNORE_CUDA_DETECTION": "1"}
    return scratch_environment({**defaults, **environment})


def _threads(stage: Stage, *, ranks: int) -> int:
    """Threads of a rank: beside a GPU its share of the pod's processors, for offload updates the weights with them."""
    return max(1, processors() // ranks) if stage is Stage.TRAIN and gpus_visible() else 1


def gpus_visible() -> bool:
    """Whether this machine has an NVIDIA GPU; torch is not asked, for it takes seconds to load."""
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg")) or any(Path("/dev").glob("nvidia[0-9]*"))
