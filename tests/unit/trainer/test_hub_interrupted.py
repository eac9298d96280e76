"""Downloads that are cut off, and hubs that change or go away: a part is never taken for the whole."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from rft_trainer.benchmarks import load_questions
from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.hub import DATA_FILES, download
from rft_trainer.paths import Layout
from support.hub_server import Hub
from unit.trainer.factory import wait_until
from unit.trainer.hub_content import MODEL, files, get_model, lines, wanted


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client's pauses between its retries take no time."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))


@pytest.mark.usefixtures("no_waiting")
def test_no_part_is_taken_for_the_whole_when_the_hub_goes_down_at_any_request(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("model", "org/base", MODEL)
    get_model("org/base", tmp_path / "first")
    for answered in itertools.count():
        # a new pod has the volume, but none of the client's own cache
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"cache-{answered}"))
        directory = tmp_path / f"model-{answered}"
        hub.answers_left = answered
        failure: StageError | None = None
        try:
            found = get_model("org/base", directory)
        except StageError as error:
            failure = error
        if failure is None:
            # The client asks at times a request more or less: here the last one was answered.
            assert files(found) == wanted(MODEL)
            assert answered > 10
            return
        assert str(failure).startswith("hf://org/base: the model ")
        assert not isinstance(failure, BadInputError)
        hub.answers_left = 0
        with pytest.raises(StageError, match=r"^hf://org/base: the model cannot be downloaded"):
            get_model("org/base", directory)
        hub.answers_left = None
        assert files(get_model("org/base", directory)) == wanted(MODEL)


def test_download_goes_on_with_what_is_missing_when_its_process_was_killed(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "org/base", MODEL)
    hub.held["model.safetensors"] = threading.Event()
    directory = tmp_path / "model"
    kill_while_half_sent(hub, directory)
    whole = {name: data for name, data in wanted(MODEL).items() if name != "model.safetensors"}
    assert files(directory) == whole
    assert list(directory.rglob("*.incomplete")) != []
    hub.fetched.clear()
    assert files(get_model("org/base", directory)) == wanted(MODEL)
    assert hub.fetched == ["model.safetensors"]
    assert list(directory.rglob("*.incomplete")) == [], "the half file would hold the volume's space"


def test_nothing_of_an_older_commit_is_kept_when_the_branch_moves_during_a_download(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add("model", "org/base", {**MODEL, "old_only.json": b"{}"})
    hub.held["model.safetensors"] = threading.Event()
    directory = tmp_path / "model"
    kill_while_half_sent(hub, directory)
    assert "old_only.json" in files(directory)
    newer = {**MODEL, "config.json": b'{"model_type": "newer"}'}
    repository.push(newer)
    assert files(get_model("org/base", directory)) == wanted(newer)


def kill_while_half_sent(hub: Hub, directory: Path) -> None:
    """Start a download in a process, kill it when all but the weights are there, let the hub go on."""
    code = "import sys; from pathlib import Path; from rft_trainer.hub import *; "
    code += "download('org/base', Path(sys.argv[1]), kind='model', patterns=MODEL_FILES)"
    content = next(iter(hub.repositories.values()))
    others = {name for name in wanted(content.commits[content.branches["main"]]) if name != "model.safetensors"}
    # a record of each finished file lies beside it; without one the file would have to be fetched again
    records = [directory / ".cache" / "huggingface" / "download" / f"{name}.metadata" for name in others]
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(hub.half_sent.is_set, what="half of the weights")
            wait_until(lambda: all(record.is_file() and record.read_text().count("\n") >= 3 for record in records))
        finally:
            process.kill()
    hub.held.pop("model.safetensors").set()


def test_another_revision_replaces_what_is_there_when_it_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add("model", "org/base", {**MODEL, "old_only.json": b"{}"})
    newer = {**MODEL, "model.safetensors": b"weights of the other" * 50}
    repository.push(newer, branch="v2")
    directory = tmp_path / "model"
    assert "old_only.json" in files(get_model("org/base", directory))
    assert files(get_model("org/base", directory, revision="v2")) == wanted(newer)


def test_evaluation_asks_the_questions_that_training_left_out_when_the_hub_changes_or_is_gone(
    hub: Hub, tmp_path: Path
) -> None:
    repository = hub.add("dataset", "org/questions", {"test.jsonl": lines({"problem": "1+1?", "answer": "2"})})
    benchmark = Benchmark(name="sums", uri="hf://org/questions", max_tokens=8)
    prepared = load_questions(benchmark, Layout(tmp_path), download_to=tmp_path / "benchmarks")
    repository.push({"test.jsonl": lines({"problem": "2+2?", "answer": "4"})})
    hub.requests.clear()
    hub.answers_left = 0
    evaluated = load_questions(benchmark, Layout(tmp_path), download_to=tmp_path / "benchmarks")
    assert [question.problem for question in evaluated] == ["1+1?"]
    assert evaluated == prepared
    assert hub.requests == []


def test_dataset_is_fetched_anew_when_other_files_of_it_are_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"train.jsonl": b"{}", "notes.txt": b"n"})
    download("org/rows", tmp_path / "to", kind="dataset", patterns=DATA_FILES)
    place = download("org/rows", tmp_path / "to", kind="dataset", patterns=("*.txt",))
    assert files(place) == {"notes.txt": b"n"}
