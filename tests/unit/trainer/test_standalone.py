"""``rft evaluate``: the cluster's evaluator on a model folder or an endpoint, resumable, with errors in words."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_operator.cli.evaluate import evaluation_of
from rft_operator.cli.main import main
from rft_trainer.evaluate import standalone
from rft_trainer.evaluate.forcing import S1
from rft_trainer.evaluate.standalone import Order, TerminalWork
from rft_trainer.prepare.tiny import build_model
from rft_trainer.stage_results import EvaluateSummary
from rft_trainer.uris import parse_uri
from support.completions_server import Completions, Reply, as_vllm, card, serving
from support.scripted_engine import EOS, ScriptedSampler

WORDS = ["What is 12 + 30? The answer is 42. Wait, so let me think of it again."] * 5


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=256")
    build_model(uri, path, texts=WORDS, seed=1, max_sequence_length=256)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    questions = [
        {"id": str(n), "problem": f"What is {n} + 1?", "answer": str(n + 1), "scorer": "integer"} for n in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in questions))
    return path


@pytest.fixture
def server() -> Iterator[Completions]:
    """An engine that thinks one word and knows every second answer."""
    script: dict[str, list[str]] = {}
    for number in range(6):
        asked = f"What is {number} + 1?<|im_end|>\n<|im_start|>assistant\n"
        answer = number + 1 if number % 2 else 99
        script[f"{asked}{S1.start}"] = [" hm", S1.stops[0]]
        script[f"{asked}{S1.start} hm{S1.end}"] = [f"\nAnswer: {answer}", EOS]
        script[asked] = [f"{S1.start} hm{S1.end}\nAnswer: {answer}", EOS]
    models = [card(name, max_model_len=200) for name in ("served", "one", "two")]
    with serving(Completions(as_vllm(ScriptedSampler(script)), models=models)) as found:
        yield found


def rft(*words: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *words])


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_model_folder_is_evaluated_against_its_base_and_nothing_is_asked_twice(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = (str(model), "--base", str(model), "-b", f"own={rows}", "--max-tokens", "6", "-o", str(out))
    done = rft(*words)
    assert done.exit_code == 0, done.output
    [score] = results(out)["scores"]
    assert (score["benchmark"], score["questions"], score["comparison"]) == ("own", 6, "paired")
    assert (score["wins"], score["losses"], score["verdict"]) == (0, 0, "Inconclusive")
    assert "own: accuracy" in done.output
    assert " of 6 answers" in done.output
    again = rft(*words)
    assert again.exit_code == 0
    assert " of 6 answers" not in again.output
    assert results(out)["scores"] == [score]


def test_endpoint_is_evaluated_with_a_sweep_that_shares_its_thinking(
    server: Completions, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    done = rft(
        "served", "--endpoint", server.url, "--tokenizer", str(model), "--format", "s1", "-b", f"own={rows}",
        "--thinking-tokens", "40,80", "--max-tokens", "100", "-o", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [(s["metric"], s["value"]) for s in results(tmp_path / "out")["scores"]] == [
        ("accuracy@think=80", 0.5),
        ("accuracy@think=40", 0.5),
    ]
    assert {body["model"] for body in server.bodies} == {"served"}
    assert set(server.authorizations) == {"Bearer secret"}
    thought = [body for body in server.bodies if "stop" in body]
    assert len(thought) == 6, "what both budgets share is asked for once"
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json*"))


@pytest.mark.parametrize(
    ("words", "format_"),
    [
        (("--preset", "s1"), "s1"),
        (("--preset", "skythought"), "sky-t1"),
        (("--preset", "reasoning-v1"), "messages"),
        ((), "messages"),
        (("--preset", "s1", "--format", "messages"), "messages"),
        (("--format", "prompt-completion"), "prompt-completion"),
    ],
    ids=" ".join,
)
def test_marks_of_thinking_are_the_presets_when_no_format_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], format_: str
) -> None:
    orders: list[Order] = []

    def take(order: Order) -> EvaluateSummary:
        orders.append(order)
        return EvaluateSummary(scores=())

    monkeypatch.setattr(standalone, "evaluate", take)
    done = rft("hf://own/model", "-b", "aime24", *words, "-o", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert [order.format for order in orders] == [format_]


def test_evaluation_goes_on_where_the_engine_was_lost(
    server: Completions, model: Path, rows: Path, tmp_path: Path
) -> None:
    words = (
        "served", "--endpoint", server.url, "--tokenizer", str(model), "--format", "s1", "-b", f"own={rows}",
        "--batch-size", "1", "--max-tokens", "100", "-o", str(tmp_path / "out"),
    )  # fmt: skip
    give = server.give
    asked = itertools.count(1)

    def give_four(body: dict[str, Any]) -> Any:
        if next(asked) == 4:
            server.failures += [Reply(401, b"no such key")]
        return give(body)

    server.give = give_four
    lost = rft(*words)
    assert lost.exit_code == 2
    assert "answered 401: no such key" in lost.output
    server.give, server.failures = give, []
    before = len(server.bodies)
    done = rft(*words)
    assert done.exit_code == 0, done.output
    assert results(tmp_path / "out")["scores"][0]["value"] == 0.5
    assert len({body["prompt"] for body in server.bodies[before:]}) == 2, "four of six answers were there"


def test_answers_of_another_model_are_not_taken_for_this_ones(
    server: Completions, model: Path, rows: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        words = ("--endpoint", server.url, "--tokenizer", str(model), "--format", "s1", "-b", f"own={rows}")
        assert rft(name, *words, "--max-tokens", "100", "-o", str(tmp_path / "out")).exit_code == 0
    assert [body["model"] for body in server.bodies].count("one") == 6
    assert [body["model"] for body in server.bodies].count("two") == 6


def test_questions_are_asked_anew_when_the_tokenizer_of_an_endpoint_was_mended(
    server: Completions, model: Path, rows: Path, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    shutil.copytree(model, mended, ignore=shutil.ignore_patterns("*.safetensors"))
    template = mended / "chat_template.jinja"
    template.write_text(f"Think. {template.read_text()}")
    for tokenizer in (model, mended, mended):
        words = ("--endpoint", server.url, "--tokenizer", str(tokenizer), "--format", "s1", "-b", f"own={rows}")
        assert rft("served", *words, "--max-tokens", "100", "-o", str(tmp_path / "out")).exit_code == 0
    assert [body["prompt"].startswith("Think.") for body in server.bodies] == [False] * 6 + [True] * 6


def test_folder_is_left_alone_when_another_evaluation_is_at_work_there(model: Path, rows: Path, tmp_path: Path) -> None:
    words = (str(model), "-b", f"own={rows}", "--max-tokens", "4", "-o", str(tmp_path))
    with standalone._alone(tmp_path):
        done = rft(*words)
    assert done.exit_code == 2, done.output
    assert "another rft evaluate is at work there; wait for its end" in done.output
    assert not (tmp_path / "results.json").exists()
    assert rft(*words).exit_code == 0


def test_scores_are_partial_and_the_exit_code_says_so_when_time_is_up(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_trainer.evaluate.stopping.Stop.reason", "deadline")
    done = rft(str(model), "-b", f"own={rows}", "--max-seconds", "60", "-o", str(tmp_path / "out"))
    assert done.exit_code == 3
    assert "the same command goes on" in done.output
    assert results(tmp_path / "out")["stopped"] == "deadline"
    assert results(tmp_path / "out")["missing"] == [{"benchmark": "own", "metric": "accuracy"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "-b", "own=ROWS"], "model 'nowhere': is no folder with config.json"),
        (["MODEL", "-b", "own"], "own has no uri; say where its rows are"),
        (["MODEL", "-b", "own=ROWS", "-b", "own=ROWS"], "--benchmark own: is asked for twice"),
        (["MODEL", "-b", "own=/nowhere.jsonl"], "file:///nowhere.jsonl: /nowhere.jsonl does not exist"),
        (["MODEL", "-b", "own=ROWS", "--waits", "1"], "--waits: needs --thinking-tokens"),
        (["MODEL", "-b", "own=ROWS", "--thinking-tokens", "many"], "--thinking-tokens 'many': must be whole numbers"),
        (["MODEL", "-b", "own=ROWS", "--thinking-tokens", "9000"], "maxThinkingTokens is 9000, and own has maxTokens"),
        (["MODEL", "-b", "own=ROWS", "--samples", "4"], "own asks for 4 answers of temperature 0"),
        (["MODEL", "-b", "own=ROWS", "--scorer", "magic"], "--scorer 'magic': input should be 'math'"),
        (["MODEL", "-b", "own=ROWS", "--limit", "0"], "--limit 0: input should be greater than or equal to 1"),
        (["MODEL", "-b", "own=ROWS", "--thinking-tokens", "9", "--waits", "99"], "--waits 99: input should be less"),
        (["MODEL", "-b", "own=ROWS", "--thinking-tokens", "0"], "--thinking-tokens 0: input should be greater"),
        (["MODEL", "-b", "own=ROWS", "--temperature", "5"], "--temperature 5: must be at least 0 and at most 2"),
        (["MODEL", "-b", "own=ROWS", "--temperature", "1", "--top-p", "0"], "--top-p 0: must be above 0 and at most 1"),
        (["MODEL", "-b", "own=ROWS", "--gpus", "2"], "--gpus 2: the engine transformers uses one GPU"),
        (["MODEL", "-b", "g=gym://chain_sum", "--scorer", "math"], "--scorer math: the generator of g judges its"),
        (["MODEL", "-b", "own="], "--benchmark own=: give its rows as a JSONL file"),
        (["MODEL", "-b", "own=pvc://claim/rows"], "--benchmark own=pvc://claim/rows: give its rows as a JSONL file"),
        (["MODEL", "-b", "Own=ROWS"], "--benchmark 'Own': string should match pattern"),
        (["m", "-b", "own=ROWS", "--endpoint", "http://x/v1"], "--endpoint: needs --tokenizer"),
        (["m", "-b", "own=ROWS", "--endpoint", "x", "--tokenizer", "MODEL"], "endpoint 'x': must start with http://"),
        (
            ["m", "-b", "own=ROWS", "--tokenizer", "t"],
            "--tokenizer t: is of no use here; add --endpoint, or leave it out",
        ),
        (["m", "-b", "own=ROWS", "--context-tokens", "8"], "--context-tokens 8: is of no use here; add --endpoint"),
        (
            ["m", "-b", "own=ROWS", "--endpoint", "http://x/v1", "--tokenizer", "MODEL", "--engine", "vllm"],
            "--engine vllm: is of no use here; remove --endpoint",
        ),
        (["MODEL", "-b", "own=ROWS", "--max-seconds", "0"], "--max-seconds 0: input should be greater than or equal"),
        (["MODEL", "-b", "own=ROWS", "--engine", "vllm"], "vllm is not installed here"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else None,
)
def test_error_names_what_is_wrong_and_what_to_do(
    model: Path, rows: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    filled = [word.replace("MODEL", str(model)).replace("ROWS", str(rows)) for word in words]
    done = rft(*filled, "-o", str(tmp_path / "out"))
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_error_names_the_folder_when_nothing_can_be_written_there(model: Path, rows: Path) -> None:
    done = rft(str(model), "-b", f"own={rows}", "-o", "/proc/nowhere/out")
    assert done.exit_code == 2, done.output
    assert "output /proc/nowhere/out: cannot be written to (No such file or directory); name another" in done.output


def test_each_number_of_waits_is_measured_once_when_it_is_named_twice() -> None:
    found = evaluation_of(["math500"], {"waits": "1,0,1", "thinking_tokens": "8"}, model="m", compared=False)
    assert found.budget_forcing is not None
    assert found.budget_forcing.waits == (1, 0)


def test_random_weights_are_made_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (
        "init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=256", "-b", "sums=gym://chain_sum?min_terms=2",
        "--limit", "3", "--max-tokens", "4", "-o", str(out),
    )  # fmt: skip
    first = rft(*words)
    assert first.exit_code == 0, first.output
    [weights] = out.glob("models/*/model.safetensors")
    made = weights.stat().st_mtime_ns
    assert rft(*words).exit_code == 0
    assert weights.stat().st_mtime_ns == made
    assert results(out)["scores"][0]["questions"] == 3


def test_time_left_is_told_by_what_this_command_did(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    work = TerminalWork(clock=lambda: now[0])
    for at, done in ((0, 80), (5, 82), (60, 90)):
        now[0] = at
        work.tell(done=done, total=100, phase="model own", known=80)
    assert capsys.readouterr().err == "model own: 90 % of all answers, about 1 min left\n"
    now[0] = 60 + 3 * 3_600
    work.tell(done=91, total=100, phase="model own", known=80)
    assert "about 2 h 28 min left" in capsys.readouterr().err
