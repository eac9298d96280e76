"""Models, datasets and benchmarks from the hub, against a hub on 127.0.0.1."""

from __future__ import annotations

import errno
import gzip
import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from rft_trainer.contract import DatasetSource, ModelSource
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.hub import download
from rft_trainer.paths import Layout
from rft_trainer.prepare.model import fetch_model
from rft_trainer.prepare.rows import conversations
from support.hub_server import EXPIRED_TOKEN, Hub
from unit.trainer.hub_content import MODEL, files, get_model, lines, wanted

TOKEN = "hf_secret"


def table(*rows: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


def chat(question: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]}


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
        questions[split] = [row.questions[-1] for row in rows if row is not None]
    assert questions == {"train": ["a", "b"], "test": ["c"]}
    source = DatasetSource(uri="hf://org/rows", split="dev", format="messages")
    with pytest.raises(BadInputError, match="hf://org/rows: no file is named for split 'dev', but others are"):
        list(conversations(source, Layout(tmp_path), download_to=tmp_path / "source"))


def test_rows_are_those_of_the_revision_when_the_branch_has_moved_on(hub: Hub, tmp_path: Path) -> None:
    dataset = hub.add("dataset", "org/rows", {"train.jsonl": lines(chat("new"))})
    dataset.push({"train.jsonl": lines(chat("old"))}, branch="v1")
    source = DatasetSource(uri="hf://org/rows", revision="v1", format="messages")
    rows = list(conversations(source, Layout(tmp_path), download_to=tmp_path / "source"))
    assert [row.questions for row in rows if row is not None] == [("old",)]
    gone = source.model_copy(update={"revision": "v2"})
    with pytest.raises(BadInputError, match="hf://org/rows@v2: the dataset has no such revision"):
        list(conversations(gone, Layout(tmp_path), download_to=tmp_path / "source"))


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
    assert [row.questions for row in rows if row is not None] == [("a",)]
    assert hub.fetched == ["main/train.jsonl"]


def test_dataset_of_several_configurations_is_refused_when_none_is_named(hub: Hub, tmp_path: Path) -> None:
    """Rows of GSM8K stand there in two wordings, and those of OpenR1-Math in two selections and in all."""
    content = {f"{name}/train.jsonl": lines(chat(name)) for name in ("main", "socratic")}
    repository = hub.add("dataset", "org/rows", content)
    places = {"main": "main/train*", "socratic": [{"split": "train", "path": ["socratic/train*"]}]}
    repository.card = {"configs": [{"config_name": name, "data_files": place} for name, place in places.items()]}
    whole = DatasetSource(uri="hf://org/rows", format="messages")
    with pytest.raises(BadInputError) as refused:
        list(conversations(whole, Layout(tmp_path), download_to=tmp_path / "source"))
    assert str(refused.value).endswith(
        "name the folder or file of the one that is meant, as hf://org/rows/FOLDER: main (main/train*); "
        "socratic (socratic/train*)"
    )
    repository.card = {"configs": [{"config_name": name, "data_dir": name} for name in places]}
    with pytest.raises(BadInputError, match=r"FOLDER: main \(main\); socratic \(socratic\)"):
        list(conversations(whole, Layout(tmp_path), download_to=tmp_path / "source"))
    one = whole.model_copy(update={"uri": "hf://org/rows/main"})
    rows = list(conversations(one, Layout(tmp_path), download_to=tmp_path / "source"))
    assert [row.questions for row in rows if row is not None] == [("main",)]
    repository.card = {"configs": [{"config_name": "default", "data_files": "main/*"}]}
    assert len(list(conversations(whole, Layout(tmp_path), download_to=tmp_path / "again"))) == 2


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


def test_full_volume_is_not_said_to_be_an_error_of_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.add("model", "org/base", MODEL)
    monkeypatch.setattr("huggingface_hub.HfApi.snapshot_download", full)
    with pytest.raises(OSError, match="No space left on device"):
        get_model("org/base", tmp_path)


def test_download_may_be_tried_again_when_nothing_listens(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StageError, match=r"^hf://org/base: the model cannot be downloaded \(ConnectError: ") as raised:
        get_model("org/base", tmp_path / "model")
    assert not isinstance(raised.value, BadInputError)
