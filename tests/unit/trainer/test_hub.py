"""Models, datasets and benchmarks from the hub, against a hub on 127.0.0.1."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from rft_trainer.benchmarks import load_questions
from rft_trainer.contract import Benchmark, DatasetSource, ModelSource
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.hub import DATA_FILES, MODEL_FILES, download
from rft_trainer.paths import Layout
from rft_trainer.prepare.model import fetch_model
from rft_trainer.prepare.rows import conversations
from support.hub_server import EXPIRED_TOKEN, Hub, serving
from unit.trainer.factory import wait_until

MODEL = {
    "README.md": b"not wanted",
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": b"weights of the first" * 50,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"a": 1}',
}
TOKEN = "hf_secret"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process uses, with caches and tokens of nobody else."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    # the client reads its environment once, at the first import in this process
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client's pauses between its retries take no time."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))


def files(directory: Path) -> dict[str, bytes]:
    """What lies in a directory, but for hidden files."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    found = {str(path.relative_to(directory)): path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if not name.startswith(".")}


def wanted(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if not name.endswith(".md")}


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(*rows: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


def chat(question: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]}


def get_model(target: str, directory: Path, *, revision: str | None = None) -> Path:
    return download(target, directory, kind="model", patterns=MODEL_FILES, revision=revision)


@pytest.mark.parametrize("by", ["branch", "commit"])
def test_model_is_the_one_of_the_revision_when_one_is_named(hub: Hub, tmp_path: Path, by: str) -> None:
    repository = hub.add("model", "org/base", MODEL)
    older = {**MODEL, "config.json": b'{"model_type": "older"}'}
    commit = repository.push(older, branch="release/v1")
    revision = {"branch": "release/v1", "commit": commit}[by]
    fetch_model(
        ModelSource(uri="hf://org/base", revision=revision),
        Layout(tmp_path),
        tmp_path / "model",
        texts=[],
        seed=1,
        max_sequence_length=64,
    )
    assert files(tmp_path / "model") == wanted(older)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_model_is_the_newest_of_the_default_branch_when_no_revision_is_named(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add("model", "org/base", {**MODEL, "config.json": b"{}"})
    repository.push(MODEL)
    assert files(get_model("org/base", tmp_path / "model")) == wanted(MODEL)


def test_model_is_refused_when_the_repository_has_no_weights_in_safetensors(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "org/base", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    source = ModelSource(uri="hf://org/base")
    with pytest.raises(BadInputError, match=r"'hf://org/base': has no \*\.safetensors; convert the weights first"):
        fetch_model(source, Layout(tmp_path), tmp_path / "model", texts=[], seed=1, max_sequence_length=64)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        pytest.param({"train.jsonl": lines(chat("a"), chat("b"))}, {"test.jsonl": lines(chat("c"))}, id="jsonl"),
        pytest.param(
            {"data/train.jsonl.gz": gzip.compress(lines(chat("a"), chat("b")))},
            {"data/test.jsonl.gz": gzip.compress(lines(chat("c")))},
            id="gzip",
        ),
        pytest.param(
            {
                "data/train-00000-of-00002.parquet": table(chat("a")),
                "data/train-00001-of-00002.parquet": table(chat("b")),
            },
            {"data/test-00000-of-00001.parquet": table(chat("c"))},
            id="parquet",
        ),
    ],
)
def test_rows_are_those_of_the_split_when_a_dataset_has_several(
    hub: Hub, tmp_path: Path, train: dict[str, bytes], test: dict[str, bytes]
) -> None:
    hub.add("dataset", "org/rows", {**train, **test, "README.md": b"train"})
    questions = {}
    for split in ("train", "test"):
        source = DatasetSource(uri="hf://org/rows", split=split, format="messages")
        rows = conversations(source, Layout(tmp_path), download_to=tmp_path / "source")
        questions[split] = [row.question for row in rows if row is not None]
    assert questions == {"train": ["a", "b"], "test": ["c"]}
    source = DatasetSource(uri="hf://org/rows", split="dev", format="messages")
    with pytest.raises(BadInputError, match="hf://org/rows: no file is named for split 'dev', but others are"):
        list(conversations(source, Layout(tmp_path), download_to=tmp_path / "source"))


@pytest.mark.parametrize("inside", ["main", "main/train.jsonl"])
def test_rows_are_those_of_one_place_when_the_address_of_a_dataset_goes_on(
    hub: Hub, tmp_path: Path, inside: str
) -> None:
    content = {
        "main/train.jsonl": lines(chat("a")),
        "main2/train.jsonl": lines(chat("b")),
        "train.jsonl": lines(chat("c")),
    }
    hub.add("dataset", "org/rows", content)
    source = DatasetSource(uri=f"hf://org/rows/{inside}", format="messages")
    rows = list(conversations(source, Layout(tmp_path), download_to=tmp_path / "source"))
    assert [row.question for row in rows if row is not None] == ["a"]
    assert hub.fetched == ["main/train.jsonl"]


def test_dataset_is_refused_when_the_place_in_it_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"main/train.jsonl": lines(chat("a"))})
    source = DatasetSource(uri="hf://org/rows/other", format="messages")
    with pytest.raises(BadInputError, match=r"hf://org/rows/other: has no \.jsonl"):
        list(conversations(source, Layout(tmp_path), download_to=tmp_path / "source"))


def test_token_goes_to_the_hub_and_nowhere_else_when_there_is_one(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("model", "org/base", MODEL).token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert files(get_model("org/base", tmp_path / "model")) == wanted(MODEL)
    sent = {(request.host, request.authorization) for request in hub.requests if "/org/base" in request.path}
    assert sent == {("127.0.0.1", f"Bearer {TOKEN}")}
    elsewhere = {request.authorization for request in hub.requests if request.host == "localhost"}
    assert elsewhere == {None}, "the store of large files is another host"


def test_no_token_is_sent_when_there_is_none(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "org/base", MODEL)
    get_model("org/base", tmp_path / "model")
    assert {request.authorization for request in hub.requests} == {None}


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize(
    ("target", "revision", "token", "reason"),
    [
        ("org/private", None, None, "no such {kind}, or it is private; .*set secretRef to a token that may read it"),
        (
            "org/private",
            None,
            "another",
            "no such {kind}, or it is private; .*set secretRef to a token that may read it",
        ),
        ("org/missing", None, TOKEN, "no such {kind}, or it is private; check the name"),
        ("org/private", None, EXPIRED_TOKEN, "the hub refuses access .*401.*set secretRef to a valid token"),
        ("org/gated", None, TOKEN, "the {kind} is gated; accept its terms at the hub and set secretRef"),
        ("org/open", "v9", None, "the {kind} has no such revision; name a branch, tag or commit of it"),
        ("org/open", "0" * 40, None, "the {kind} has no such revision; name a branch, tag or commit of it"),
        ("org/two--dashes", None, None, "Cannot have -- or .. in repo_id"),
    ],
)
def test_download_is_refused_with_the_address_and_the_remedy_when_the_hub_says_no(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    target: str,
    revision: str | None,
    token: str | None,
    reason: str,
) -> None:
    for name in ("open", "private", "gated"):
        hub.add(kind, f"org/{name}", MODEL)
    hub.repositories[f"{kind}s", "org/private"].token = TOKEN
    hub.repositories[f"{kind}s", "org/gated"].gated = True
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    address = f"hf://{target}" + (f"@{revision}" if revision else "")
    with pytest.raises(BadInputError, match=f"^{address}: {reason.format(kind=kind)}") as raised:
        download(target, tmp_path / "to", kind=kind, patterns=("*.json",), revision=revision)  # type: ignore[arg-type] # a plain string
    assert "\n" not in str(raised.value)
    assert token is None or token not in str(raised.value)
    assert not (tmp_path / "to").exists()


def test_model_is_refused_when_its_address_names_a_place_in_the_repository(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="hf://org/base/sub: a model is a whole repository; write hf://org/base"):
        get_model("org/base/sub", tmp_path / "model")
    assert hub.requests == []


def test_download_may_be_tried_again_when_nothing_listens(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StageError, match=r"^hf://org/base: the model cannot be downloaded \(ConnectError: ") as raised:
        get_model("org/base", tmp_path / "model")
    assert not isinstance(raised.value, BadInputError)


@pytest.mark.usefixtures("no_waiting")
def test_no_part_is_taken_for_the_whole_when_the_hub_goes_down_at_any_request(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("model", "org/base", MODEL)
    get_model("org/base", tmp_path / "first")
    requests = len(hub.requests)
    assert requests > 10
    for answered in range(requests):
        # a new pod has the volume, but none of the client's own cache
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"cache-{answered}"))
        directory = tmp_path / f"model-{answered}"
        hub.answers_left = answered
        with pytest.raises(StageError, match=r"^hf://org/base: the model ") as raised:
            get_model("org/base", directory)
        assert not isinstance(raised.value, BadInputError)
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
