"""The evaluation outside of a cluster: a model folder, a hub model, or an endpoint that speaks OpenAI's completions.

Invariant: it is the same session that runs in a pod, so the same protocol has the same hash everywhere. Everything is
kept in one folder: the same command again goes on where it was, and another model's answers are never taken for this
one's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_trainer.benchmarks import Question, file_hashes, load_questions, source_files
from rft_trainer.contract import EvaluationConfig, ModelSource
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.http_connection import HttpConnection
from rft_trainer.evaluate.http_sampler import HttpSampler
from rft_trainer.evaluate.http_served import look_at
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.runner import Model
from rft_trainer.evaluate.session import BASE, Candidate, Session
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.evaluate.turn_ends import turn_ends
from rft_trainer.paths import Layout
from rft_trainer.prepare.chat import ChatRenderer
from rft_trainer.prepare.formats import Format
from rft_trainer.report import Work
from rft_trainer.stage_results import EvaluateSummary
from rft_trainer.weights import fingerprint

_HASH_LETTERS = 8
_INIT_TOKENS = 1_024
LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An engine at the other end of a connection."""

    url: str
    """Ends before ``/completions``, as ``http://host:8000/v1``."""
    tokenizer: str
    """Folder or ``hf://`` address: prompts are rendered here, and tokens counted."""
    api_key: str | None = None
    context_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be evaluated, with what, and where it is kept."""

    model: str
    """A folder, ``hf://``, ``init://``; with an endpoint the name that it serves."""
    base: str | None = None
    """The same for the model to compare with."""
    evaluation: EvaluationConfig
    format: Format
    """How the model was trained: what its questions look like and how it marks its thinking."""
    output: Path
    endpoint: Endpoint | None = None
    run_code: bool = False
    """Whether programs among the answers may be run on this machine."""


class TerminalWork(Work):
    """Says on stderr how long it will take."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, every_seconds: float = 10.0) -> None:
        super().__init__(None)
        self._clock, self._every_seconds = clock, every_seconds
        self._said_at = self._began = clock()

    def tell(self, *, done: int, total: int, phase: str, known: int = 0) -> None:
        """Say it, but not all the time."""
        now = self._clock()
        if now - self._said_at < self._every_seconds or done <= known:
            return
        left = (now - self._began) * (total - done) / (done - known)
        self._said_at = now
        sys.stderr.write(f"{phase}: {100 * done // max(1, total)} % of all answers, about {_span(left)} left\n")


def evaluate(order: Order, *, work: Work | None = None) -> EvaluateSummary:
    """Measure, and leave answers, ``results.json`` and ``protocol.json``; raises ``StageError`` in the user's words."""
    with _alone(order.output):
        return _evaluate(order, work or TerminalWork())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep another command out of the folder: the two would ask everything twice, and write into each other's lines."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise BadInputError(f"output {folder}: cannot be written to ({error.strerror}); name another folder") from error
    with lock as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInputError(
                f"output {folder}: another rft evaluate is at work there; wait for its end, or name another folder"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def _evaluate(order: Order, work: Work) -> EvaluateSummary:
    exam, folder = _exam(order), order.output
    texts = [question.text for questions in exam.questions.values() for question in questions]
    session = Session(
        exam=exam,
        directory=folder,
        artifacts=str(folder),
        stop=Stop(deadline=time.monotonic() + order.evaluation.max_seconds),
        work=work,
        baselines=folder / "none",
        programs=order.run_code,
    )
    base = _candidate(order, order.base, texts, is_base=True) if order.base is not None else None
    return session.run(_candidate(order, order.model, texts, is_base=False), base)


def _exam(order: Order) -> Exam:
    questions: dict[str, list[Question]] = {}
    files: dict[str, Mapping[str, str]] = {}
    layout, folder = Layout(), order.output / "benchmarks"
    for each in order.evaluation.benchmarks:
        questions[each.name] = load_questions(each, layout, download_to=folder, seed=order.evaluation.seed)
        files[each.name] = file_hashes(source_files(each, layout, download_to=folder))
    return Exam(evaluation=order.evaluation, format=order.format, questions=questions, files=files)


def _candidate(order: Order, model: str, texts: Sequence[str], *, is_base: bool) -> Candidate:
    if order.endpoint is not None:
        return _remote(order, order.endpoint, model, texts, is_base=is_base)
    from rft_trainer.evaluate.engines import free_memory, loader

    path = _folder(order, model, texts)
    mark = fingerprint(path)
    name = _name(mark, is_base=is_base)
    return Candidate(name=name, fingerprint=mark, load=loader(name, path, order.evaluation), unload=free_memory)


def _remote(order: Order, endpoint: Endpoint, model: str, texts: Sequence[str], *, is_base: bool) -> Candidate:
    """A model at an endpoint.

    Other weights under the same name are another model, so what is served is asked first; so they are when they are
    asked through another tokenizer, which the user may have mended since.
    """
    from rft_trainer.prepare.model import load_tokenizer

    tokenizer: Any = load_tokenizer(_folder(order, endpoint.tokenizer, texts))
    ends = turn_ends(tokenizer)
    connection = HttpConnection(endpoint.url, api_key=endpoint.api_key)
    served = look_at(connection, model, ends=list(ends), context_tokens=endpoint.context_tokens)
    mark = f"endpoint:{endpoint.url} {model} {served.weights} tokenizer:{_tokenizer_hash(tokenizer)}"
    name = _name(mark, is_base=is_base)
    sampler = HttpSampler(
        connection,
        served,
        count=lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        ends=ends,
        connections=order.evaluation.batch_size,
    )
    it = Model(name, sampler=sampler, render=ChatRenderer(tokenizer).prompt)
    return Candidate(name=name, fingerprint=mark, load=lambda: it)


def _tokenizer_hash(tokenizer: Any) -> str:
    """Of all that a prompt and its length depend on."""
    parts = [tokenizer.chat_template, sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:_HASH_LETTERS]


def _folder(order: Order, model: str, texts: Sequence[str]) -> Path:
    """Where the model's files are; what is at the hub is fetched once."""
    from rft_trainer.prepare.model import fetch_model

    if "://" not in model:
        path = Path(model).expanduser()
        if not (path / "config.json").is_file():
            raise BadInputError(
                f"model {model!r}: is no folder with config.json; give a Hugging Face model folder, hf://organisation/"
                "name, or --endpoint with the name that it serves"
            )
        return path
    address, _, revision = model.partition("@") if model.startswith("hf://") else (model, "", "")
    destination = order.output / "models" / hashlib.sha256(model.encode()).hexdigest()[:_HASH_LETTERS]
    destination.parent.mkdir(parents=True, exist_ok=True)
    source = ModelSource(uri=address, revision=revision or None)
    longest = max([_INIT_TOKENS, *(each.max_tokens for each in order.evaluation.benchmarks)])
    fetch_model(source, Layout(), destination, texts=texts, seed=order.evaluation.seed, max_sequence_length=longest)
    return destination


def _name(mark: str, *, is_base: bool) -> str:
    """Names the weights in the names of files."""
    return f"{BASE if is_base else 'model'}-{hashlib.sha256(mark.encode()).hexdigest()[:_HASH_LETTERS]}"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
