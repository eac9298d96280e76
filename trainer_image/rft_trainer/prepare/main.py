"""The Prepare stage's process.

Invariant: it can be killed and repeated at any point. Each product appears whole, the marker ``prepared.json`` comes
last and names the configuration it stands for; the same configuration gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rft_trainer import weights
from rft_trainer.benchmarks import Question, load_questions
from rft_trainer.contract import Outcome, RunConfig, Stage
from rft_trainer.errors import BadInputError, DrainedError
from rft_trainer.evaluate.engines import check_engine
from rft_trainer.evaluate.prompts import wordings
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.room import check_room
from rft_trainer.files import read_json, write_json
from rft_trainer.full_volume import room_explained
from rft_trainer.libraries import load_libraries
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.chat import ChatRenderer, EncodedRow
from rft_trainer.prepare.dataset import PreparedDataset, build, load, question_hash, save
from rft_trainer.prepare.formats import Conversation
from rft_trainer.prepare.model import check_rows, check_trainable, count_parameters, fetch_model, load_tokenizer
from rft_trainer.prepare.packing import pack, singles
from rft_trainer.prepare.rows import conversations
from rft_trainer.prepare.volume import check_volume
from rft_trainer.report import Reporter, Work
from rft_trainer.stage_main import parse_layout, run_stage
from rft_trainer.stage_results import PrepareSummary, StageResult
from rft_trainer.steps import total_steps
from rft_trainer.stored_tests import check_room as check_memory
from rft_trainer.train.plan import BatchPlan, accumulation_steps, padding_share

_BATCH_ROWS = 512
_READ, _FETCHED, _DONE = 10, 40, 100
"""Percent of the stage after the rows are read, after the model is there, and at the end."""
_TOKENIZER_ROWS = 2_000


@dataclass
class _Counts:
    without_answer: int = 0
    held_out: int = 0
    too_long: int = 0
    longest_tokens: int = 0
    """Of all rows, those too long included."""

    @property
    def dropped(self) -> int:
        return self.without_answer + self.held_out + self.too_long


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m rft_trainer.prepare.main``."""
    layout = parse_layout(arguments, description="Fetch the model, tokenise the rows.")
    return run_stage(Stage.PREPARE, layout, prepare)


def prepare(layout: Layout) -> StageResult:
    """Do the stage; returns at once when the volume already holds its products."""
    config = layout.load_config()
    paths = RunPaths.of(layout, config)
    if config.evaluation is not None:
        check_engine(config.evaluation)  # also when all is there: the image may be another one now
    paths.data.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(config)
    marker = read_json(paths.prepared)
    if isinstance(marker, dict) and marker.get("fingerprint") == fingerprint:
        return _result(PrepareSummary.model_validate(marker["summary"]))
    with room_explained(paths.data, what="prepare"):
        return _prepare(config, layout, paths, fingerprint=fingerprint)


def _prepare(config: RunConfig, layout: Layout, paths: RunPaths, *, fingerprint: str) -> StageResult:
    """Make the products, the marker last."""
    counts = _Counts()
    work = Work(Reporter.from_environment())
    work.tell(done=0, total=_DONE, phase="read")
    questions = _questions(config, layout, paths)
    kept = list(_training_rows(config, layout, paths, questions=questions, counts=counts))
    _check_stop(layout)
    if not kept:
        raise BadInputError(f"dataset.uri {config.dataset.uri!r}: {_nothing_left(counts)}")
    _put_model(config, layout, paths, kept=kept, questions=questions, work=work)
    dataset = _tokenise(config, layout, paths, kept=kept, counts=counts, work=work)
    save(dataset, paths.dataset)
    summary = _summary(config, paths, counts=counts)
    check_volume(config, paths, parameters=summary.parameters, steps=summary.steps)
    write_json(paths.prepared, {"fingerprint": fingerprint, "summary": summary.model_dump()})
    work.tell(done=_DONE, total=_DONE, phase="done")
    work.close()
    sys.stdout.write(
        f"prepared {summary.rows} rows, {summary.tokens} tokens, {summary.steps} steps; "
        f"dropped {counts.too_long} too long, {counts.without_answer} without an answer, "
        f"{counts.held_out} held out for the evaluation; {summary.sequences} sequences, "
        f"{_percent(summary.fill)} filled, {_percent(summary.padding_share)} of what is computed is padding\n"
    )
    return _result(summary)


def _put_model(
    config: RunConfig,
    layout: Layout,
    paths: RunPaths,
    *,
    kept: Sequence[Conversation],
    questions: dict[str, list[Question]],
    work: Work,
) -> None:
    """Have the model on the volume, one that can be trained and evaluated as asked."""
    work.tell(done=_READ, total=_DONE, phase="model")
    training = config.training
    load_libraries("torch", "transformers.modeling_utils")
    texts = [message.content for row in kept[:_TOKENIZER_ROWS] for message in row.messages]
    fetch_model(
        config.model,
        layout,
        paths.model,
        texts=texts,
        seed=training.seed,
        max_sequence_length=training.max_sequence_length,
    )
    check_trainable(
        paths.model,
        training.lora,
        packing=training.packing,
        gradient_checkpointing=training.gradient_checkpointing,
    )
    if config.evaluation is not None:
        check_room(Exam(evaluation=config.evaluation, format=config.dataset.format, questions=questions), paths.model)
    _check_stop(layout)
    if config.evaluation is not None and config.evaluation.baseline == "measure":
        work.tell(done=_READ, total=_DONE, phase="hash")
        weights.fingerprint(paths.model)  # kept beside the weights: an evaluation with GPUs does not read them for it
        _check_stop(layout)


def _nothing_left(counts: _Counts) -> str:
    if not counts.dropped:
        return "has no rows"
    return (
        f"no row can be trained on: {counts.without_answer} have no answer, {counts.held_out} are questions of a "
        "benchmark; check dataset.format and the rows' fields"
    )


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):.1f} %"


def _result(summary: PrepareSummary) -> StageResult:
    return StageResult(stage=Stage.PREPARE, outcome=Outcome.COMPLETED, prepare=summary)


def _fingerprint(config: RunConfig) -> str:
    """Everything that the products depend on."""
    training = config.training
    values = {
        "model": config.model.model_dump(),
        "dataset": config.dataset.model_dump(),
        "sequence": [training.max_sequence_length, training.packing, training.seed],
        "steps": [training.epochs, training.max_steps, training.global_batch_size],
        "benchmarks": [b.model_dump() for b in config.evaluation.benchmarks] if config.evaluation else [],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _questions(config: RunConfig, layout: Layout, paths: RunPaths) -> dict[str, list[Question]]:
    """What each benchmark asks, as the evaluation will."""
    evaluation, found = config.evaluation, {}
    if evaluation is None:
        return {}
    for benchmark in evaluation.benchmarks:
        questions = load_questions(benchmark, layout, download_to=paths.data / "benchmarks", seed=evaluation.seed)
        if evaluation.program_memory_mib is not None:
            tests = [question.tests for question in questions]
            check_memory(tests, memory_mib=evaluation.program_memory_mib, where=f"benchmark {benchmark.name}")
        found[benchmark.name] = questions
    return found


def _training_rows(
    config: RunConfig, layout: Layout, paths: RunPaths, *, questions: Mapping[str, Sequence[Question]], counts: _Counts
) -> Iterator[Conversation]:
    """Rows with an answer whose question no benchmark asks."""
    held_out = {question_hash(text) for asked in questions.values() for each in asked for text in wordings(each)}
    for row in conversations(config.dataset, layout, download_to=paths.data / "source"):
        if row is None:
            counts.without_answer += 1
        elif any(question_hash(each) in held_out for each in row.questions):
            counts.held_out += 1
        else:
            yield row


def _tokenise(
    config: RunConfig,
    layout: Layout,
    paths: RunPaths,
    *,
    kept: Sequence[Conversation],
    counts: _Counts,
    work: Work,
) -> PreparedDataset:
    renderer = ChatRenderer(load_tokenizer(paths.model), eos=config.dataset.eos)
    limit = config.training.max_sequence_length
    rows: list[EncodedRow] = []
    hashes: set[str] = set()
    for start, batch in _batches(kept):
        _check_stop(layout)
        work.tell(done=_FETCHED + (_DONE - _FETCHED) * start // len(kept), total=_DONE, phase="tokenise")
        for conversation, row in zip(batch, renderer.encode(batch), strict=True):
            counts.longest_tokens = max(counts.longest_tokens, len(row.tokens))
            if len(row.tokens) > limit:
                counts.too_long += 1
            elif not row.target[1:].any():
                counts.without_answer += 1
            else:
                rows.append(row)
                hashes.update(map(question_hash, conversation.questions))
    _check_lengths(config, kept=len(kept), usable=len(rows), counts=counts)
    lengths = [len(row.tokens) for row in rows]
    check_rows(paths.model, rows)
    sequences = pack(lengths, capacity=limit) if config.training.packing else singles(len(rows))
    return build(rows, sequences, question_hashes=frozenset(hashes))


def _check_lengths(config: RunConfig, *, kept: int, usable: int, counts: _Counts) -> None:
    limit = config.training.max_sequence_length
    if not usable:
        raise BadInputError(f"training.maxSequenceLength={limit}: all {counts.too_long} rows are longer; raise it")
    if counts.too_long and config.dataset.overlong == "fail":
        raise BadInputError(
            f"dataset.overlong=fail: {counts.too_long} of {kept} rows exceed training.maxSequenceLength={limit}, "
            f"the longest has {counts.longest_tokens} tokens; raise it, or drop them whole with overlong: drop"
        )


def _batches(rows: Sequence[Conversation]) -> Iterator[tuple[int, Sequence[Conversation]]]:
    for start in range(0, len(rows), _BATCH_ROWS):
        yield start, rows[start : start + _BATCH_ROWS]


def _summary(config: RunConfig, paths: RunPaths, *, counts: _Counts) -> PrepareSummary:
    dataset, training = load(paths.dataset), config.training
    tokens = int(dataset.row_offsets[-1])
    return PrepareSummary(
        rows=dataset.rows,
        dropped_rows=counts.dropped,
        too_long_rows=counts.too_long,
        unanswered_rows=counts.without_answer,
        held_out_rows=counts.held_out,
        tokens=tokens,
        target_tokens=int(dataset.sequence_targets().sum()),
        steps=total_steps(training, sequences=len(dataset)),
        sequences=len(dataset),
        longest_row_tokens=int(np.diff(dataset.row_offsets).max()),
        fill=round(tokens / (len(dataset) * training.max_sequence_length), 4),
        padding_share=round(_padding_share(config, dataset), 4),
        parameters=count_parameters(paths.model),
        dataset_sha256=dataset.sha256,
    )


def _padding_share(config: RunConfig, dataset: PreparedDataset) -> float:
    training, ranks = config.training, config.nodes * config.gpus_per_node
    accumulation_steps(training, world_size=ranks)  # better refused here than by GPUs that cost money
    plan = BatchPlan(
        lengths=dataset.sequence_lengths(),
        targets=dataset.sequence_targets(),
        seed=training.seed,
        global_batch_size=training.global_batch_size,
        micro_batch_size=training.micro_batch_size,
        world_size=ranks,
    )
    return padding_share(plan, steps=-(-len(dataset) // training.global_batch_size))


def _check_stop(layout: Layout) -> None:
    if layout.stop_file.exists():
        raise DrainedError("stopped while preparing; the next attempt repeats what is missing")


if __name__ == "__main__":
    sys.exit(main())
