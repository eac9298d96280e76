"""Commands that follow runs: watch and logs, with the exit code that says how it ended."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from rft_operator.api import KIND
from rft_operator.cli.log_print import wants_colour
from support.builders import NAME, NAMESPACE
from support.command_line import COMPLETE, FAILED, TRAINING, CommandLine, condition, run_in


@pytest.mark.parametrize(("end", "code"), [(COMPLETE, 0), (FAILED, 1)])
def test_watch_says_each_change_and_ends_with_the_run_and_its_story(
    cli: CommandLine, end: dict[str, Any], code: int
) -> None:
    cli.put(run_in(status=TRAINING))
    cli.once_watched(cli.becomes(end))
    found, out, _ = cli.rft("watch", NAME)
    assert found == code
    said = [line.split("s  ", 1)[1].split(",")[0] for line in out.splitlines() if "s  " in line][:2]
    assert said == ["Training", end["stage"]]
    assert f"{NAMESPACE}/{NAME}: {end['stage']}" in out


def test_watch_of_several_runs_ends_with_the_last_and_fails_if_one_did(cli: CommandLine) -> None:
    cli.put(run_in("a", status=COMPLETE), run_in("b", status=TRAINING), run_in("c"))
    cli.once_watched(cli.becomes(FAILED, name="b"))
    code, out, _ = cli.rft("watch", "a", "b")
    assert code == 1
    assert "a: Complete" in out
    assert "b: Failed" in out
    assert "c: " not in out


def test_watch_waits_a_lost_connection_out_and_says_so(cli: CommandLine) -> None:
    cli.put(run_in(status=TRAINING))
    cli.once_watched(lambda: cli.away(then=cli.becomes(COMPLETE)))
    code, out, _ = cli.rft("watch", NAME)
    assert code == 0
    assert out.count("the API server does not answer, trying again") == 1


def test_watch_gives_up_after_its_time_with_a_code_of_its_own(cli: CommandLine) -> None:
    cli.put(run_in())
    code, _, err = cli.rft("watch", NAME, "--timeout", "1")
    assert code == 3
    assert f"it goes on: rft watch {NAME}" in err


def test_watch_says_when_the_run_is_deleted(cli: CommandLine) -> None:
    cli.put(run_in())
    cli.once_watched(lambda: cli.api.kube.remove(KIND, NAMESPACE, NAME))
    code, _, err = cli.rft("watch", NAME)
    assert (code, err) == (2, "Error: team/demo was deleted\n")


def test_watch_gives_programs_an_object_a_line(cli: CommandLine) -> None:
    cli.put(run_in(status=COMPLETE))
    code, out, _ = cli.rft("watch", NAME, "-o", "json")
    assert code == 0
    (found,) = [json.loads(line) for line in out.splitlines()]
    assert (found["metadata"]["name"], found["status"]["stage"]) == (NAME, "Complete")


def test_watch_gives_programs_every_word_as_it_is_stored(cli: CommandLine) -> None:
    words = "two  spaces,\u00a0one that does not break,\na line"
    cli.put(run_in(status={**COMPLETE, "conditions": [condition("Complete", message=words)]}))
    (line,) = cli.rft("watch", NAME, "-o", "json")[1].splitlines()
    assert json.loads(line)["status"]["conditions"][0]["message"] == words


LAST_WORDS = "the trainer ended with 1:\nTraceback:\n\x1b]0;mine\x07\x1b[2J\x9b31mValueError:\r\tno"
SAID = "the trainer ended with 1: Traceback: ]0;mine[2J31mValueError: no"


def test_last_words_of_a_trainer_neither_break_a_table_nor_drive_the_terminal(cli: CommandLine) -> None:
    failed = condition("Failed", message=LAST_WORDS, reason="TrainerFailed")
    ended = {"stage": "Failed", "conditions": [failed], "observedGeneration": 9}
    cli.put(run_in(status=ended), run_in("other"))
    head, row, other = cli.rft("get", "-o", "wide")[1].splitlines()
    assert row.endswith(f"  TrainerFailed: {SAID}")
    assert (head.split()[0], other.split()[0]) == ("NAME", "other")
    told = [cli.rft("watch", NAME)[1], cli.rft("report", NAME)[1], cli.rft("resume", NAME, "--wait")[2]]
    for text in told:
        assert "ValueError:\tno" in text
        assert not {"\x1b", "\x07", "\x9b", "\r"} & set(text)
    restarting = {"stage": "Restarting", "conditions": [condition("BudgetAtRisk", message=LAST_WORDS)]}
    cli.put(run_in("again", status=restarting))
    (line,) = [each for each in cli.rft("watch", "again", "--timeout", "1")[1].splitlines() if each]
    assert line.endswith(SAID)


def test_logs_are_prefixed_with_attempt_rank_and_pod(cli: CommandLine) -> None:
    cli.put(run_in())
    for rank in (0, 1):
        labels = {"rft.dev/finetune": NAME, "rft.dev/stage": "train", "rft.dev/attempt": "2"}
        labels["batch.kubernetes.io/job-completion-index"] = str(rank)
        meta = {"name": f"pod-{rank}", "namespace": NAMESPACE, "labels": labels}
        cli.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {}})
        cli.api.write(f"pod-{rank}", (f"2026-01-01T00:00:0{rank}Z", f"hello {rank}\x1b[2J\x9b"))
    cli.api.write("pod-1", ("2026-01-01T00:00:02Z", "[rank 11] a rank's line"))
    assert cli.rft("logs", NAME)[1].splitlines() == [
        "[train-2 node 0 pod-0] hello 0[2J",
        "[train-2 node 1 pod-1] hello 1[2J",
        "[train-2 rank 11 pod-1] a rank's line",
    ]
    assert cli.rft("logs", NAME, "--rank", "1", "--prefix", "none", "--timestamps")[1].splitlines() == [
        "2026-01-01T00:00:01.000Z hello 1[2J",
        "2026-01-01T00:00:02.000Z a rank's line",
    ]
    found = [json.loads(line) for line in cli.rft("logs", NAME, "-o", "json")[1].splitlines()]
    assert [(line["attempt"], line["rank"], line["global_rank"], line["pod"]) for line in found] == [
        (2, 0, None, "pod-0"),
        (2, 1, None, "pod-1"),
        (2, 1, 11, "pod-1"),
    ]
    code, out, err = cli.rft("logs", NAME, "--stage", "evaluate")
    assert (code, out) == (0, "")
    assert "No line of demo is there" in err


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_terminal_gets_colours_unless_its_user_wants_none(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = io.StringIO()
    assert not wants_colour(terminal)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    assert wants_colour(terminal) is coloured


def test_logs_refuse_a_stage_that_no_run_has(cli: CommandLine) -> None:
    cli.put(run_in())
    code, _, err = cli.rft("logs", NAME, "--stage", "training")
    assert code == 2
    assert "'training' is no stage; there are prepare, train, evaluate" in err
