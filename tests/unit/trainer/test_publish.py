"""A model is published whole or not at all, with scores that are its own, and a second time for nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants

from rft_trainer.contract import Outcome, Stage
from rft_trainer.errors import BadInputError, StageError
from rft_trainer.files import write_json
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.publish import main as publish_main
from rft_trainer.publish.bundle import LIST_FILE
from rft_trainer.publish.main import publish
from rft_trainer.publish.plot import scaling_plot
from rft_trainer.publish.published import Published
from rft_trainer.results import read_result
from rft_trainer.stage_results import StageResult
from support.hub_upload_server import TOKEN, WritableHub, taking
from unit.trainer.factory import run_config

# The hub's client hands large files to its HTTP library in a way that the library discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
COST = {
    "spentUSD": "12.340000",
    "gpuHours": "4.183",
    "byStage": [{"stage": "train", "gpuSeconds": 14_400, "spentUSD": "11.800000"}],
}
SCORE = {
    "benchmark": "math500", "metric": "accuracy@waits=0", "value": 0.864, "stderr": 0.0153, "questions": 500,
    "samples": 1,
    "of_answers": None, "no_answer": 2, "capped": 3, "thinking_tokens": 3_268.0, "interval": [0.831, 0.891],
    "baseline": 0.814, "baseline_stderr": 0.017, "comparison": "paired", "wins": 35, "losses": 10, "p_value": 0.0002,
    "verdict": "Improved", "protocol": "ab12",
}  # fmt: skip
POINTS = [
    {"setting": f"waits={waits}", "thinking_tokens": 1_000.0 * (waits + 1), "value": value, "stderr": 0.02}
    for waits, value in enumerate((0.5, 0.6, 0.65))
]
RESULTS: dict[str, Any] = {
    "version": 1,
    "model": "step-600",
    "stopped": None,
    "scores": [
        SCORE,
        {**SCORE, "metric": "accuracy@waits=4", "value": 0.9},
        {**SCORE, "benchmark": "own", "comparison": "published", "wins": None, "losses": None},
    ],
    "scaling": [
        {
            "benchmark": "math500", "of": of, "control": 1.0, "slope_points_per_1000_tokens": 9.1, "performance": 0.65,
            "points": POINTS,
        }
        for of in ("trained", "base")
    ],
    "missing": [],
}  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """The folder of a finished run."""
    layout = Layout(tmp_path / "rft")
    math500 = {"name": "math500", "uri": "hf://HuggingFaceH4/MATH-500", "max_tokens": 9}
    config = run_config(
        model={"uri": "hf://Qwen/Qwen2.5-32B-Instruct"},
        dataset={"uri": "hf://simplescaling/s1K", "format": "s1"},
        evaluation__benchmarks=[math500, {"name": "own", "uri": "pvc://rows/own.jsonl", "max_tokens": 9}],
    )
    write_json(layout.config_file, config.model_dump(mode="json"))
    layout.run.mkdir(parents=True)
    paths = RunPaths.of(layout, config)
    paths.export.mkdir(parents=True)
    (paths.export / "model.safetensors").write_bytes(b"weights" * 100)
    (paths.export / "config.json").write_text("{}")
    write_json(paths.export / "rft-export.json", {"version": 1, "step": 600})
    card = {
        "run": config.model_dump(mode="json"),
        "model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct", "commit": "c0ffee"},
        "data": {"uri": "hf://simplescaling/s1K", "commit": "beef", "sha256": "da7a", "rows": 1_000,
                 "source_files": {"s1K.parquet": "5a1"}},
        "ranks": 16, "device": "NVIDIA H100", "versions": {"torch": "2.15.0", "cuda": None},
    }  # fmt: skip
    write_json(paths.export / "run-card.json", card)
    write_json(paths.evaluation / "results.json", RESULTS)
    write_json(paths.evaluation / "protocol.json", {"hash": "ab12"})
    write_json(paths.data / "benchmarks" / "math500" / ".download.json", {"commit": "5eed"})
    paths.model.mkdir()
    (paths.model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    return paths


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A hub that the client of this process publishes to."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with taking() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


def push(paths: RunPaths, uri: str = "hf://team/s1", **change: Any) -> Published:
    return publish(paths, uri, **{"token": TOKEN, "cost": COST, **change})


def test_nothing_private_is_pushed_where_everybody_reads(paths: RunPaths, hub: WritableHub) -> None:
    push(paths, private=False)
    before = dict(hub.models["team/s1"].files)
    (paths.export / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BadInputError, match=r"is public, and publish\.private is true"):
        push(paths)
    assert hub.models["team/s1"].files == before


def test_a_model_is_on_the_hub_with_card_scores_and_sources(paths: RunPaths, hub: WritableHub) -> None:
    it = push(paths)
    model = hub.models["team/s1"]
    assert (it.uri, it.revision, model.private, model.commits) == ("hf://team/s1", model.head, True, 1)
    assert model.files["model.safetensors"] == b"weights" * 100
    assert {"README.md", "run-card.json", "evaluation/results.json", "evaluation/protocol.json", "scaling.svg"} <= set(
        model.files
    )
    assert "rft-export.json" not in model.files
    text = model.files["README.md"].decode()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["base_model"], head["datasets"]) == (
        "apache-2.0", "Qwen/Qwen2.5-32B-Instruct", ["simplescaling/s1K"]
    )  # fmt: skip
    for words in (
        "| math500 | accuracy@waits=0 | 86.4 % ± 1.5 | 83.1 to 89.1 % | 500 | 81.4 % | 35, 10 | 0.0002 | Improved |",
        "| 81.4 % (published) |",
        "in 2 of 500 answers none could be read; they count as wrong",
        "| total | 4.183 | $12.340000 |",
        "| train | 4.000 | $11.800000 |",
        "`hf://simplescaling/s1K` at `beef`",
        "`da7a`",
        "protocol `sha256:ab12`",
        "torch 2.15.0",
        "| math500 | 9.10 | 100.0 % | 65.0 % |",
    ):
        assert words in text, words


def test_scores_are_given_to_the_hub_for_its_own_benchmarks_and_the_first_setting(
    paths: RunPaths, hub: WritableHub
) -> None:
    push(paths)
    files = {name: data for name, data in hub.models["team/s1"].files.items() if name.startswith(".eval_results/")}
    assert list(files) == [".eval_results/math500.yaml"]
    [entry] = huggingface_hub.parse_eval_result_entries(yaml.safe_load(files[".eval_results/math500.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value, entry.dataset_revision) == (
        "HuggingFaceH4/MATH-500", "default", 86.4, "5eed"
    )  # fmt: skip
    assert entry.source_url == "https://huggingface.co/team/s1/blob/main/evaluation/results.json"
    assert entry.notes is not None
    assert "accuracy@waits=0 in percent over 500 questions; 95 % interval 83.1 to 89.1" in entry.notes


@pytest.mark.parametrize(("limit", "asked", "given"), [(20, 20, False), (500, 500, True), (900, 500, True)])
def test_score_over_the_first_questions_of_a_benchmark_is_not_given_as_its_score(
    paths: RunPaths, tmp_path: Path, limit: int, asked: int, given: bool
) -> None:
    card = json.loads((paths.export / "run-card.json").read_text())
    card["run"]["evaluation"]["benchmarks"][0]["limit"] = limit
    write_json(paths.export / "run-card.json", card)
    write_json(paths.evaluation / "results.json", {**RESULTS, "scores": [{**SCORE, "questions": asked}]})
    push(paths, "file:///a", folder=tmp_path / "a")
    assert (tmp_path / "a" / ".eval_results" / "math500.yaml").exists() is given


def test_publishing_again_changes_nothing(paths: RunPaths, hub: WritableHub) -> None:
    first = push(paths)
    hub.models["team/s1"].files["discussion.md"] = b"a user's own"
    again = push(paths)
    assert (again.revision, again.written) == (first.revision, 0)
    assert hub.models["team/s1"].commits == 1


def test_a_new_model_of_the_run_replaces_what_changed_and_takes_away_what_is_gone(
    paths: RunPaths, hub: WritableHub
) -> None:
    push(paths)
    hub.models["team/s1"].files["discussion.md"] = b"a user's own"
    (paths.export / "config.json").write_text('{"new": 1}')
    (paths.evaluation / "results.json").unlink()
    it = push(paths)
    model = hub.models["team/s1"]
    assert it.revision == model.head
    assert model.commits == 2
    assert model.files["config.json"] == b'{"new": 1}'
    assert not any(name.startswith((".eval_results", "evaluation", "scaling")) for name in model.files)
    assert "discussion.md" in model.files
    assert len(hub.uploads) == 1, "the weights are there"


def test_weights_are_sent_once_when_the_hub_goes_down_before_the_commit(paths: RunPaths, hub: WritableHub) -> None:
    hub.refused_commits = 1
    with pytest.raises(StageError, match="the next attempt goes on"):
        push(paths)
    assert set(hub.models["team/s1"].files) == {".gitattributes"}, "all files or none"
    push(paths)
    assert hub.models["team/s1"].commits == 1
    assert len(hub.uploads) == 1


def test_nothing_is_committed_when_an_upload_breaks_off(paths: RunPaths, hub: WritableHub) -> None:
    hub.refused_uploads = 1
    with pytest.raises((StageError, BadInputError)):
        push(paths)
    assert hub.models["team/s1"].commits == 0
    push(paths)
    assert hub.models["team/s1"].commits == 1


def test_somebody_elses_repository_is_left_alone(paths: RunPaths, hub: WritableHub) -> None:
    push(paths)
    hub.models["team/other"] = hub.models.pop("team/s1")
    hub.models["team/other"].files.pop(LIST_FILE)
    before = dict(hub.models["team/other"].files)
    with pytest.raises(BadInputError, match="no run of ours published"):
        push(paths, "hf://team/other")
    assert hub.models["team/other"].files == before


@pytest.mark.parametrize(
    ("uri", "change", "words"),
    [
        ("hf://forbidden/s1", {}, "publish.secretRef"),
        ("hf://team/s1", {"token": "wrong"}, "publish.secretRef"),
        ("hf://team/s1/part", {}, "hf://organisation/name"),
        ("hf://team/sp ace", {}, "hf://team/sp ace: "),
        ("s3://team/s1", {}, "write hf://organisation/name"),
    ],
)
def test_a_target_that_cannot_be_written_to_is_named_with_its_remedy(
    paths: RunPaths, hub: WritableHub, uri: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        push(paths, uri, **change)


def published_by_the_stage(paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> StageResult:
    layout = Layout(tmp_path / "rft")
    monkeypatch.setenv("RFT_PUBLISH_URI", "hf://team/s1")
    monkeypatch.setenv("HF_TOKEN", token)
    publish_main.main(["--root", str(layout.root)])
    result = read_result(layout.result_file, stage=Stage.PUBLISH)
    assert result is not None
    return result


def test_line_break_at_the_end_of_a_token_is_none_of_it(
    paths: RunPaths, hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published_by_the_stage(paths, tmp_path, monkeypatch, f"{TOKEN}\n").outcome is Outcome.COMPLETED


@pytest.mark.parametrize("token", ["hf_hidden\nhf_other", "hf_hidden hf_other", "hf_hiddén", "hf_hidden\x7f"])
def test_token_that_cannot_be_one_is_told_and_repeated_nowhere(
    paths: RunPaths, hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    result = published_by_the_stage(paths, tmp_path, monkeypatch, token)
    assert result.error is not None
    assert "HF_TOKEN holds characters that no token has" in result.error
    assert "hidd" not in result.model_dump_json()
    assert not hub.models


def test_a_run_without_a_model_is_not_published(paths: RunPaths, tmp_path: Path) -> None:
    (paths.export / "model.safetensors").unlink()
    with pytest.raises(BadInputError, match="holds no exported model"):
        push(paths, "file:///a", folder=tmp_path / "a")


def test_scores_of_another_checkpoint_are_not_told_as_the_models_own(paths: RunPaths, tmp_path: Path) -> None:
    write_json(paths.evaluation / "results.json", {**RESULTS, "model": "step-300"})
    push(paths, "file:///a", folder=tmp_path / "a")
    text = (tmp_path / "a" / "README.md").read_text()
    assert "the scores at hand are of step-300, and the model is of step 600" in text
    assert "86.4" not in text
    assert not (tmp_path / "a" / ".eval_results").exists()
    assert not (tmp_path / "a" / "evaluation").exists()


def test_partial_scores_say_so_and_are_not_given_to_leaderboards(paths: RunPaths, tmp_path: Path) -> None:
    partial = {**SCORE, "of_answers": 900}
    write_json(paths.evaluation / "results.json", {**RESULTS, "stopped": "deadline", "scores": [partial]})
    push(paths, "file:///a", folder=tmp_path / "a")
    text = (tmp_path / "a" / "README.md").read_text()
    assert "is **partial**: 500 of 900 answers" in text
    assert not (tmp_path / "a" / ".eval_results").exists()


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        ("paired", "against the base model on the same questions (exact McNemar"),
        ("published", "against a published score of the base model, as if of other questions (Fisher's exact test"),
        (None, "Nothing was compared."),
    ],
)
def test_card_says_how_scores_were_compared(paths: RunPaths, tmp_path: Path, comparison: str | None, said: str) -> None:
    write_json(paths.evaluation / "results.json", {**RESULTS, "scores": [{**SCORE, "comparison": comparison}]})
    push(paths, "file:///a", folder=tmp_path / "a")
    text = (tmp_path / "a" / "README.md").read_text()
    assert said in text
    assert ("Everything below was measured by the run itself" in text) is (comparison != "published")


def test_a_card_is_written_when_little_is_known(paths: RunPaths, tmp_path: Path) -> None:
    for file in (paths.evaluation / "results.json", paths.export / "run-card.json", paths.model / "README.md"):
        file.unlink()
    push(paths, "file:///a", folder=tmp_path / "a", cost=None)
    text = (tmp_path / "a" / "README.md").read_text()
    assert "the model was not evaluated" in text
    assert "## Cost" not in text
    assert "license" not in text


def test_a_folder_gets_every_file_whole_and_only_once(paths: RunPaths, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "s1"
    first = push(paths, "pvc://models/s1", folder=folder)
    assert (first.revision, first.written) == (None, first.files)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert push(paths, "pvc://models/s1", folder=folder).written == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == stamps

    (folder / LIST_FILE).unlink()
    (folder / "config.json").write_text("{")
    (folder / ".rft-publishing").touch()
    assert push(paths, "pvc://models/s1", folder=folder).written == 1, "goes on where a kill broke it off"
    assert not (folder / ".rft-publishing").exists()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"cut")], ids=["gone", "cut"])
def test_a_folder_is_made_whole_again_when_a_file_of_it_went(
    paths: RunPaths, tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    folder = tmp_path / "models"
    push(paths, "pvc://models/s1", folder=folder)
    spoil(folder / "model.safetensors")
    assert push(paths, "pvc://models/s1", folder=folder).written == 1
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 100


def test_nothing_of_a_former_model_is_left_when_publishing_the_next_one_was_broken_off(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    (paths.export / "adapter").mkdir()
    (paths.export / "adapter" / "adapter_config.json").write_text("{}")
    push(paths, "pvc://models/s1", folder=folder)
    (paths.export / "adapter" / "adapter_config.json").unlink()
    (paths.export / "model.safetensors").write_bytes(b"other weights")
    with monkeypatch.context() as broken:
        broken.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError("no room")))
        with pytest.raises(StageError, match="cannot be written"):
            push(paths, "pvc://models/s1", folder=folder)
    push(paths, "pvc://models/s1", folder=folder)
    assert not (folder / "adapter" / "adapter_config.json").exists()
    assert (folder / "model.safetensors").read_bytes() == b"other weights"


def test_a_folder_of_somebody_else_is_left_alone(paths: RunPaths, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInputError, match="no run of ours published"):
        push(paths, "pvc://models/a", folder=tmp_path / "a")
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("inside", ["", "published/here"])
def test_the_exported_model_is_never_written_to(paths: RunPaths, tmp_path: Path, inside: str) -> None:
    """Else the next publication would hold this one."""
    before = sorted(paths.export.rglob("*"))
    (tmp_path / "mounted-elsewhere").symlink_to(paths.export)
    with pytest.raises(BadInputError, match="is within the exported model"):
        publish(paths, "file:///x", folder=tmp_path / "mounted-elsewhere" / inside)
    assert sorted(paths.export.rglob("*")) == before


def test_the_picture_of_a_sweep_is_well_formed_and_always_the_same() -> None:
    text = scaling_plot(RESULTS["scaling"])
    assert text is not None
    assert text == scaling_plot(RESULTS["scaling"])
    root = ElementTree.fromstring(text)
    circles = [each for each in root.iter() if each.tag.endswith("circle")]
    assert len(circles) == 6
    assert all(0 <= float(each.attrib["cx"]) <= 640 and 0 <= float(each.attrib["cy"]) <= 400 for each in circles)
    assert scaling_plot([]) is None
    assert scaling_plot([{**RESULTS["scaling"][0], "points": POINTS[:1]}]) is None, "a point is no curve"


def test_the_stage_publishes_as_its_environment_says(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "rft")
    monkeypatch.setenv("RFT_PUBLISH_URI", "pvc://models/team/s1")
    monkeypatch.setenv("RFT_RUN_COST", json.dumps(COST))
    assert publish_main.main(["--root", str(layout.root)]) == 0
    result = read_result(layout.result_file, stage=Stage.PUBLISH)
    assert result is not None
    assert result.outcome is Outcome.COMPLETED
    assert result.publish is not None
    assert (result.publish.uri, result.publish.revision) == ("pvc://models/team/s1", None)
    assert "$12.340000" in (layout.root / "publish" / "team" / "s1" / "README.md").read_text()


def test_the_stage_writes_to_the_volume_when_the_path_begins_with_a_slash(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "rft")
    monkeypatch.setenv("RFT_PUBLISH_URI", f"pvc://models/{tmp_path}/elsewhere")
    assert publish_main.main(["--root", str(layout.root)]) == 0
    assert not (tmp_path / "elsewhere").exists()
    assert (layout.root / "publish" / str(tmp_path).lstrip("/") / "elsewhere" / "README.md").is_file()


@pytest.mark.parametrize("inside", ["../../elsewhere", "a/%2E%2E/..%2F../elsewhere"])
def test_the_stage_refuses_a_path_that_leaves_the_volume(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    layout = Layout(tmp_path / "rft")
    monkeypatch.setenv("RFT_PUBLISH_URI", f"pvc://models/{inside}")
    assert publish_main.main(["--root", str(layout.root)]) == BadInputError.exit_code
    result = read_result(layout.result_file, stage=Stage.PUBLISH)
    assert result is not None
    assert result.error is not None
    assert "'..' may leave the volume" in result.error


def test_the_stage_says_what_is_wrong_with_its_target(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "rft")
    monkeypatch.delenv("RFT_PUBLISH_URI", raising=False)
    assert publish_main.main(["--root", str(layout.root)]) == BadInputError.exit_code
    result = read_result(layout.result_file, stage=Stage.PUBLISH)
    assert result is not None
    assert result.error is not None
    assert "is not a URI" in result.error
