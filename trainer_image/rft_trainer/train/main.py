"""The process of one rank.

Invariant: the first rank of every node writes ``result.json`` before any rank exits, for the launcher kills the
others as soon as one of them ends with a code that is not 0.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rft_trainer.contract import ExitCode, Outcome, RunConfig, Stage
from rft_trainer.errors import StageError
from rft_trainer.files import write_json
from rft_trainer.launch.output import speak_as_rank
from rft_trainer.libraries import load_libraries
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.dataset import PreparedDataset, load
from rft_trainer.report import Reporter
from rft_trainer.results import failed, write_result
from rft_trainer.stage_main import install_crash_report, parse_layout, report_error
from rft_trainer.stage_results import StageResult, TrainSummary
from rft_trainer.steps import total_steps
from rft_trainer.train.heartbeat import Heartbeat, answer_dump_requests
from rft_trainer.train.run import Run

if TYPE_CHECKING:
    import torch

    from rft_trainer.train.checkpoint import Checkpoint
    from rft_trainer.train.engine import Trainer
    from rft_trainer.train.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m rft_trainer.train.main``; DeepSpeed's launcher sets RANK and its kin."""
    layout = parse_layout(arguments, description="Train as one rank of a gang.")
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    speak_as_rank(layout, rank=rank)
    install_crash_report(layout, rank=rank)
    try:
        result = train(layout, local_rank=local_rank)
    except StageError as error:
        report_error(layout, rank=rank, text=str(error))
        if local_rank == 0:
            write_result(layout.result_file, failed(Stage.TRAIN, str(error)))
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return finish(layout, result, local_rank=local_rank)


def finish(layout: Layout, result: StageResult, *, local_rank: int) -> int:
    """Write the result on every node, wait for all, and give the exit code."""
    import torch.distributed as dist

    if local_rank == 0:
        write_result(layout.result_file, result)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    if result.outcome is Outcome.COMPLETED:
        return ExitCode.DONE
    assert result.train is not None
    saved = result.train.checkpoint_step is not None
    return ExitCode.DRAINED if saved else ExitCode.DRAINED_WITHOUT_CHECKPOINT


def train(layout: Layout, *, local_rank: int) -> StageResult:
    """Resume or start, run the loop, export."""
    heartbeat = Heartbeat(layout, rank=int(os.environ.get("RANK", "0")))
    heartbeat.beat("load")
    answer_dump_requests(layout, rank=int(os.environ.get("RANK", "0")))
    # dynamo's import inside zero.Init fails, so it must come before
    load_libraries("deepspeed", "torch._dynamo", "transformers.modeling_utils")
    from rft_trainer.train.engine import connect
    from rft_trainer.train.export import exported_step

    config = layout.load_config()
    paths = RunPaths.of(layout, config)
    dataset = load(paths.dataset)
    steps = total_steps(config.training, sequences=len(dataset))
    device = connect(config, local_rank=local_rank)
    if exported_step(paths.export) == steps:
        return _already_exported(paths, dataset, steps=steps)
    return _train(Run(layout, config, dataset, heartbeat), device=device, local_rank=local_rank, steps=steps)


def _train(run: Run, *, device: torch.device, local_rank: int, steps: int) -> StageResult:
    import torch.distributed as dist

    from rft_trainer.train import checkpoint as checkpoints
    from rft_trainer.train.engine import start
    from rft_trainer.train.loop import Loop, set_checkpoint
    from rft_trainer.train.memory import memory_explained
    from rft_trainer.train.progress import Meter, Progress

    layout, paths, rank = run.layout, run.paths, dist.get_rank()
    meter = Meter(total_steps=steps, saves=run.config.checkpoint)
    reporter = Reporter.from_environment() if rank == 0 else None
    progress = Progress(meter, path=layout.progress_file, steps=paths.steps, active=rank == 0, reporter=reporter)
    progress.tell("load", force=True)
    saved = _find_checkpoint(run.config, paths, dataset=run.dataset)
    other_size = saved is not None and saved.world_size != dist.get_world_size()
    if saved is not None:
        meter.step, meter.tokens = saved.step, saved.tokens
        set_checkpoint(meter, saved, paths=paths)
    with memory_explained(rank=rank, steps_made=lambda: meter.step):
        trainer = start(run.config, layout, device=device, local_rank=local_rank, universal=other_size)
        if saved is not None:
            path = _converted(run, saved, progress) if other_size else saved.path
            checkpoints.restore(trainer.engine, saved, path=path)
        progress.begin()
        card = _write_card(run, trainer) if rank == 0 else {}
        loop = Loop(trainer, run, meter=meter, progress=progress, card=card)
        outcome = loop.run()
    export_path = _export(run, trainer, progress, card=card, step=steps) if outcome is Outcome.COMPLETED else None
    progress.close()
    return StageResult(stage=Stage.TRAIN, outcome=outcome, train=meter.summary(export_path=export_path))


def _write_card(run: Run, trainer: Trainer) -> dict[str, Any]:
    from rft_trainer.train.card import run_card

    card = run_card(
        run.config,
        run.paths,
        run.dataset,
        deepspeed=trainer.settings,
        kernels=trainer.kernels,
        world_size=trainer.world_size,
    )
    write_json(run.paths.run_card, card)
    return card


def _export(run: Run, trainer: Trainer, progress: Progress, *, card: Mapping[str, Any], step: int) -> str:
    from rft_trainer.train.export import Export, export_engine

    run.heartbeat.beat("export")
    progress.tell("export", force=True)
    export_engine(
        Export.of(run.config, run.paths),
        trainer.model.model,
        card=card,
        step=step,
        zero3=trainer.zero3,
        rank=trainer.rank,
    )
    progress.tell("done", force=True)
    return run.paths.pod_path(run.paths.export)


def _find_checkpoint(config: RunConfig, paths: RunPaths, *, dataset: PreparedDataset) -> Checkpoint | None:
    """The checkpoint to resume from; rank 0 looks and tells, for nodes may see a shared volume differently."""
    import torch.distributed as dist

    from rft_trainer.train import checkpoint as checkpoints

    found: list[str | None] = [None]
    if dist.get_rank() == 0:
        if config.checkpoint.resume == "never":
            shutil.rmtree(paths.checkpoints, ignore_errors=True)
        checkpoints.remove_remains(paths.checkpoints)
        newest = checkpoints.newest(paths.checkpoints, dataset_sha256=dataset.sha256)
        found = [newest.path.name if newest else None]
    dist.broadcast_object_list(found, src=0)
    return None if found[0] is None else checkpoints.read(paths.checkpoints / found[0])


def _converted(run: Run, saved: Checkpoint, progress: Progress) -> Path:
    """The checkpoint in its universal form, which may take as long as a save."""
    run.heartbeat.beat("convert")
    progress.tell("convert", force=True)
    path = _universal(saved)
    run.heartbeat.beat("load")
    progress.tell("load", force=True)
    return path


def _universal(saved: Checkpoint) -> Path:
    """The checkpoint converted for this number of ranks; rank 0 converts."""
    import torch.distributed as dist

    from rft_trainer.train import checkpoint as checkpoints

    if dist.get_rank() == 0:
        checkpoints.universal(saved)
    dist.barrier()
    return checkpoints.converted(saved)


def _already_exported(paths: RunPaths, dataset: PreparedDataset, *, steps: int) -> StageResult:
    """The result of a run whose process ended after the export but before it could say so."""
    from rft_trainer.train import checkpoint as checkpoints

    saved = checkpoints.newest(paths.checkpoints, dataset_sha256=dataset.sha256)
    summary = TrainSummary(
        step=steps,
        total_steps=steps,
        tokens=saved.tokens if saved else 0,
        checkpoint_step=saved.step if saved else None,
        checkpoint_path=paths.pod_path(saved.path) if saved else None,
        checkpoint_seconds=saved.seconds if saved else None,
        export_path=paths.pod_path(paths.export),
    )
    return StageResult(stage=Stage.TRAIN, outcome=Outcome.COMPLETED, train=summary)


if __name__ == "__main__":
    sys.exit(main())
