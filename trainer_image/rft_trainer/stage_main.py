"""What the processes of all stages share: reading the configuration, saying how they ended.

Invariant: a process that ends by itself has written either ``result.json`` or an error file; anything else was a
crash, and the supervisor says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.errors import DrainedError, StageError
from rft_trainer.files import write_json
from rft_trainer.paths import Layout
from rft_trainer.results import failed, write_result
from rft_trainer.stage_results import StageResult

CACHE_VARIABLES = {
    "HOME": "home",
    "HF_HOME": "huggingface",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
    "XDG_CACHE_HOME": "cache",
    "MPLCONFIGDIR": "matplotlib",
}


def scratch_environment(environment: dict[str, str]) -> dict[str, str]:
    """``environment`` plus cache directories that are writable when the root file system is read-only."""
    temporary = environment.get("TMPDIR", "/tmp")  # noqa: S108 - each user id gets a directory of its own below
    home = environment.get("HOME", "/")
    result = dict(environment)
    for name, directory in CACHE_VARIABLES.items():
        if name == "HOME" and os.access(home, os.W_OK) and home != "/":
            continue
        if name == "HOME" or name not in environment:
            result[name] = f"{temporary}/rft-cache-{os.getuid()}/{directory}"
    result.setdefault("USER", "rft")  # the user id of a pod need not have a name
    for name in CACHE_VARIABLES:
        if result.get(name, "").startswith(f"{temporary}/rft-cache-{os.getuid()}/"):
            Path(result[name]).mkdir(parents=True, exist_ok=True)
    return result


def parse_layout(arguments: Sequence[str] | None, *, description: str) -> Layout:
    """Read ``--root`` from a stage's command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=Path("/rft"), help="directory that stands for /rft")
    parsed = parser.parse_args(arguments)
    return Layout(parsed.root)


def run_stage(stage: Stage, layout: Layout, work: Callable[[Layout], StageResult]) -> int:
    """Run a single-process stage; returns the exit code after ``result.json`` is written."""
    install_crash_report(layout, rank=0)
    try:
        result = work(layout)
    except DrainedError as error:
        write_result(layout.result_file, StageResult(stage=stage, outcome=Outcome.DRAINED, error=str(error)))
        return error.exit_code
    except StageError as error:
        write_result(layout.result_file, failed(stage, str(error)))
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    write_result(layout.result_file, result)
    codes = {Outcome.COMPLETED: ExitCode.DONE, Outcome.DRAINED: ExitCode.DRAINED_WITHOUT_CHECKPOINT}
    return codes.get(result.outcome, 1)


def install_crash_report(layout: Layout, *, rank: int) -> None:
    """Leave the type and message of an unforeseen error on disk, with its time: the first rank's is the cause."""
    default = sys.excepthook

    def report(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        report_error(layout, rank=rank, text=f"{kind.__name__}: {value}".strip())
        default(kind, value, trace)

    sys.excepthook = report


def report_error(layout: Layout, *, rank: int, text: str) -> None:
    """Leave an error on disk for the supervisor, which may never see this rank's result."""
    write_json(layout.errors / f"rank-{rank}.json", {"time": time.time(), "rank": rank, "error": text})
