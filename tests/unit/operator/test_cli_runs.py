"""Commands that make, list and change runs, from the arguments to the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from rft_operator.cli.main import main
from rft_operator.client import AsyncClient, Refused
from support.builders import NAME, NAMESPACE, resource
from support.command_line import COMPLETE, FAILED, TIME, CommandLine, condition, run_in


@pytest.mark.parametrize("words", [("get",), ("watch",), ("cost",), ("logs", NAME), ("apply", "-f", "run.yaml")])
def test_namespace_that_none_can_have_is_named_and_nothing_is_asked(cli: CommandLine, words: tuple[str, ...]) -> None:
    """The API server would have no such path, and the cluster be said to have no operator."""
    code, _, err = cli.rft(*words, "-n", "a/b")
    assert (code, err) == (2, "Error: 'a/b' is no name of a namespace: names have letters, digits, - and . only\n")
    assert not cli.api.requests


async def test_client_names_a_namespace_that_none_can_have(cli: CommandLine) -> None:
    async with await AsyncClient.connect(kubeconfig=cli.api.kubeconfig) as client:
        with pytest.raises(Refused, match="'team/x' is no name of a namespace"):
            await client.list(namespace="team/x")
    assert not cli.api.requests


def test_get_lists_runs_with_their_figures(cli: CommandLine) -> None:
    cli.put(run_in("one", status=COMPLETE), run_in("two"), run_in("three", namespace="other"))
    code, out, _ = cli.rft("get")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "STAGE", "PROGRESS", "SPENT", "LIMIT", "GPU-H", "NODES", "RESTARTS", "SCORE", "AGE"],
        ["one", "Complete", "100%", "$0.00", "$10.00", "0.000", "-", "0", "-", "90s"],
        ["two", "New", "-", "$0.00", "$10.00", "0.000", "-", "0", "-", "90s"],
    ]
    everywhere = cli.rft("get", "-A", "-o", "wide")[1].splitlines()
    assert everywhere[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert [line.split()[:2] for line in everywhere[1:]] == [["other", "three"], ["team", "one"], ["team", "two"]]
    assert cli.rft("get", "-n", "other", "-o", "name")[1] == "reasoningfinetune.rft.dev/three\n"
    assert cli.rft("get", "-n", "empty") == (0, "", "No runs in this namespace; -A shows all.\n")


WAITING = {
    "Scheduled": ("Unschedulable", "GangIncomplete", "WaitingForQuota", "JobSuspended"),
    "Running": ("ImagePullBackOff", "ContainerConfigError", "CrashLoopBackOff"),
    "Progressing": ("BackOff", "LedgerFull"),
}


@pytest.mark.parametrize(("type_", "reason"), [(type_, each) for type_, found in WAITING.items() for each in found])
def test_get_says_why_a_run_waits(cli: CommandLine, type_: str, reason: str) -> None:
    conditions = [
        condition("Accepted"),
        condition("Scheduled", "False", "No pod exists now.", "Creating"),
        condition("Running", "False", "0 of 2 run.", "Starting"),
        condition("Progressing", "False", "No attempt is running.", "NoAttempt"),
    ]
    cli.put(run_in("quiet", status={"conditions": conditions}))
    told = [each for each in conditions if each["type"] != type_] + [condition(type_, "False", "It waits.", reason)]
    cli.put(run_in("waits", status={"conditions": told}))
    head, quiet, waits = cli.rft("get", "-o", "wide")[1].splitlines()
    assert head.endswith("  WHY")
    assert quiet.endswith(" -")
    assert waits.endswith(f"  {reason}: It waits.")


def unread(**status: Any) -> dict[str, Any]:
    """Return a run of a later version: it spends more on what this one does not know."""
    later = run_in("later", status=status)
    later["spec"]["training"] = {"optimizer": "muon"}
    return later


def test_get_shows_the_others_and_what_can_be_read_when_a_run_is_of_another_version(cli: CommandLine) -> None:
    cli.put(run_in("one", status=COMPLETE), unread(stage="Training"))
    code, out, notes = cli.rft("get")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["later", "Training"], ["one", "Complete"]]
    assert notes.startswith("Note: team/later does not fit this version of rft: spec.training.optimizer is 'muon': ")
    assert cli.rft("watch", "later", "--timeout", "1", "-o", "lines")[0] == 3


def test_cost_has_the_bill_of_a_run_of_another_version_and_names_the_one_whose_bill_is_not_known(
    cli: CommandLine,
) -> None:
    total = {"stage": "train", "gpuSeconds": 1_000, "amount": str(1_000 * 3_600_000)}
    cli.put(run_in("one"), unread(ledger={"totals": [total]}))
    code, out, _ = cli.rft("cost")
    assert code == 0
    assert out.splitlines()[-1].split() == ["TOTAL", "0.278", "$1.00", "100.0%", "$20.00", "$0.00", "(0.0%)"]
    cli.put(unread(ledger={"totals": [total | {"gpuSeconds": "many"}]}))
    code, out, words = cli.rft("cost")
    assert (code, out) == (2, "")
    assert "team/later does not fit this version of rft: " in words
    assert "Its bill cannot be read: use the version that wrote it" in words


def test_get_gives_the_object_as_it_is_stored(cli: CommandLine) -> None:
    cli.put(run_in("one"), run_in("two", metadata={"labels": {"team": "x"}}))
    assert json.loads(cli.rft("get", "one", "-o", "json")[1])["metadata"]["name"] == "one"
    several = yaml.safe_load(cli.rft("get", "one", "two", "-o", "yaml")[1])
    assert (several["kind"], len(several["items"])) == ("List", 2)
    chosen = json.loads(cli.rft("get", "-l", "team=x", "-o", "json")[1])
    assert [each["metadata"]["name"] for each in chosen["items"]] == ["two"]
    assert cli.rft("get", "one", "-A")[0] == 2


@pytest.mark.parametrize("command", ["get", "watch", "report", "suspend", "resume", "logs", "cost"])
def test_unknown_run_is_one_line_with_the_nearest_name(cli: CommandLine, command: str) -> None:
    cli.put(run_in("demo"))
    code, out, err = cli.rft(command, "demmo")
    assert (code, out) == (2, "")
    assert err == "Error: no ReasoningFinetune 'demmo' in namespace team; did you mean demo?\n"


def test_missing_kubeconfig_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", NAME, "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "KUBECONFIG" in done.output
    assert len(done.output.splitlines()) == 1


def test_commands_take_another_namespace(cli: CommandLine) -> None:
    cli.put(run_in(NAME, namespace="elsewhere"))
    assert cli.rft("report", NAME, "-n", "elsewhere")[0] == 0
    code, _, err = cli.rft("report", NAME)
    assert code == 2
    assert "there is one in namespace elsewhere: add -n elsewhere" in err


def test_apply_says_what_it_did_and_what_the_operator_thinks(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(resource()))
    code, out, err = cli.rft("apply", "-f", str(file), "--accept-seconds", "1")
    assert (code, out) == (0, "team/demo: created\n")
    assert "no operator has looked at it within 1 s; rft version says whether one runs" in err
    accepted = [condition("Accepted", message="The budget is enough.")]
    cli.put(run_in(NAME, status={"observedGeneration": 1, "conditions": accepted}))
    assert cli.rft("apply", "-f", "-", stdin=file.read_text())[1].splitlines() == [
        "team/demo: unchanged",
        "team/demo: accepted. The budget is enough.",
    ]
    refused = [condition("Accepted", "False", message="No price is known.")]
    cli.put(run_in(NAME, status={"observedGeneration": 1, "conditions": refused}))
    code, out, err = cli.rft("apply", "-f", str(file))
    assert (code, err) == (0, "team/demo: not started yet, Accepted: No price is known.\n")


def test_apply_can_print_the_object_its_name_or_nothing_but_a_try(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(resource()))
    assert cli.rft("apply", "-f", str(file), "--dry-run")[1] == "team/demo: created (dry run)\n"
    assert not cli.api.kube.find("ReasoningFinetune")
    assert cli.rft("apply", "-f", str(file), "-o", "name")[1] == "reasoningfinetune.rft.dev/demo\n"
    assert json.loads(cli.rft("apply", "-f", str(file), "-o", "json")[1])["kind"] == "ReasoningFinetune"


def test_apply_shows_the_words_of_the_api_server_field_by_field(cli: CommandLine, tmp_path: Path) -> None:
    cli.api.fail(422, "is invalid", method="PATCH", causes={"spec.budget.limitUSD": "Invalid value: 0: too little"})
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(resource()))
    code, _, err = cli.rft("apply", "-f", str(file))
    assert code == 2
    assert "  spec.budget.limitUSD: Invalid value: 0: too little\n" in err


@pytest.mark.parametrize(("end", "code"), [(COMPLETE, 0), (FAILED, 1)])
def test_apply_with_watch_ends_as_the_run_does(
    cli: CommandLine, tmp_path: Path, end: dict[str, Any], code: int
) -> None:
    cli.put(run_in(NAME, status={**end, "observedGeneration": 1}))
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(resource()))
    found, out, _ = cli.rft("apply", "-f", str(file), "--watch", "--accept-seconds", "0")
    assert found == code
    assert f"{NAMESPACE}/{NAME}: {end['stage']}" in out


def test_apply_with_watch_follows_every_run_of_the_file_when_the_first_fails(cli: CommandLine, tmp_path: Path) -> None:
    cli.put(run_in("a", status={**FAILED, "observedGeneration": 1}))
    cli.put(run_in("b", status={**COMPLETE, "observedGeneration": 1}))
    file = tmp_path / "runs.yaml"
    file.write_text(yaml.safe_dump_all([resource("a"), resource("b")]))
    code, out, _ = cli.rft("apply", "-f", str(file), "--watch", "--accept-seconds", "0")
    assert code == 1
    assert "team/a: Failed" in out
    assert "team/b: Complete" in out


def test_apply_says_what_it_applied_before_what_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    cli.api.fail(422, "is invalid", method="PATCH", path="/b", causes={"spec.budget.limitUSD": "too little"})
    file = tmp_path / "runs.yaml"
    file.write_text(yaml.safe_dump_all([resource("a"), resource("b")]))
    code, _, err = cli.rft("apply", "-f", str(file))
    assert code == 2
    assert err.splitlines()[-2:] == ["  spec.budget.limitUSD: too little", "Applied before it: team/a (created)"]


def test_apply_of_bytes_that_are_no_text_is_one_line(cli: CommandLine) -> None:
    done = CliRunner().invoke(main, ["apply", "-f", "-", "--kubeconfig", str(cli.api.kubeconfig)], input=b"\xff\xfe")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: what stdin gives is no text in UTF-8: ")


def test_suspend_and_resume_say_what_happens(cli: CommandLine) -> None:
    rank = {"uid": "u", "pod": "demo-train-1-0", "stage": "train", "attempt": 1, "node": "node-1", "gpus": 1}
    rank |= {"microUSDPerGpuHour": 2_950_000, "priceSource": "spec", "startTime": TIME}
    cli.put(run_in(NAME, status={"ledger": {"open": [rank]}}), run_in("waits"))
    assert cli.rft("suspend", NAME)[1] == "team/demo: suspending, the ranks save and free their GPUs within 60 s\n"
    assert cli.rft("suspend", "waits")[1] == "team/waits: suspending, it holds no GPUs now\n"
    again = "team/demo: is being suspended already, the ranks save and free their GPUs within 60 s\n"
    assert cli.rft("suspend", NAME)[1] == again
    assert cli.rft("resume", NAME)[1] == "team/demo: resuming\n"
    assert cli.rft("resume", NAME)[1] == "team/demo: is not suspended\n"
    (row,) = json.loads(cli.rft("suspend", NAME, NAME, "-o", "json")[1])
    assert row == {"namespace": "team", "name": "demo", "suspend": True, "changed": True}


def test_suspend_stops_the_runs_that_are_there_when_one_is_not(cli: CommandLine) -> None:
    cli.put(run_in(NAME), run_in("other"))
    code, out, err = cli.rft("suspend", "typo", NAME, "none", "other", "-o", "json")
    assert code == 2
    assert [(row["name"], row["changed"]) for row in json.loads(out)] == [(NAME, True), ("other", True)]
    absent = "no ReasoningFinetune '{}' in namespace team; see rft get"
    assert err == f"Error: {absent.format('typo')}\nError: {absent.format('none')}\n"
    assert cli.rft("suspend", "other")[1] == "team/other: is being suspended already, it holds no GPUs now\n"


def test_suspend_stops_the_others_when_a_run_cannot_be_read_or_a_name_is_none(cli: CommandLine) -> None:
    of_another_version = run_in("old")
    of_another_version["spec"]["budget"] = "all of it"
    cli.put(of_another_version, run_in(NAME))
    code, out, err = cli.rft("suspend", "old", "a b", NAME)
    assert (code, out) == (2, "team/demo: suspending, it holds no GPUs now\n")
    assert "old" in err.splitlines()[0]
    assert "'a b' is no name of a run" in err


def test_suspend_can_wait_until_the_gpus_are_free(cli: CommandLine) -> None:
    cli.put(run_in(NAME))
    status = {"observedGeneration": 2, "conditions": [condition("Suspended")]}
    status |= {"checkpoint": {"step": 20, "time": TIME}}
    cli.once_watched(cli.becomes(status))
    code, out, _ = cli.rft("suspend", NAME, "--wait")
    assert code == 0
    assert out.splitlines()[-1] == "team/demo: suspended, checkpoint of step 20"
    assert cli.rft("suspend", NAME)[1] == "team/demo: is suspended already\n"
    assert cli.rft("resume", NAME, "--wait", "--timeout", "1")[0] == 3


def test_resume_of_a_run_without_money_says_how_to_give_it_some(cli: CommandLine) -> None:
    stopped = condition("Suspended", message="The stop line was reached.", reason="BudgetExhausted")
    cli.put(run_in(NAME, status={"conditions": [stopped]}))
    words = "stands still, BudgetExhausted: The stop line was reached.; give it money: rft top-up demo +N"
    assert cli.rft("resume", NAME)[1] == f"team/demo: {words}\n"


OVER = [
    (COMPLETE, "is complete, nothing of it runs any more"),
    (FAILED, "has failed (Failed), nothing of it runs any more"),
    (
        {"stage": "Failed", "conditions": [condition("Failed", reason="BudgetExhausted")]},
        "has failed (BudgetExhausted), nothing of it runs any more; give it money: rft top-up demo +N",
    ),
]


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize(("status", "words"), OVER)
def test_suspend_and_resume_promise_nothing_of_a_run_that_is_over(
    cli: CommandLine, status: dict[str, Any], words: str, suspended: bool
) -> None:
    cli.put(run_in(NAME, status={**status, "observedGeneration": 9}, spec=resource(suspend=suspended)["spec"]))
    assert cli.rft("suspend", NAME, "--wait") == (0, f"team/demo: {words}\n", "")
    assert cli.rft("resume", NAME)[1] == f"team/demo: {words}\n"
    code, _, err = cli.rft("resume", NAME, "--wait")
    assert (code, err.splitlines()[0].partition(" while ")[0].startswith("Error: team/demo ")) == (1, True)


def test_suspend_that_waits_says_no_when_the_run_fails_first(cli: CommandLine) -> None:
    cli.put(run_in(NAME))
    cli.once_watched(cli.becomes({**FAILED, "observedGeneration": 2}))
    code, _, err = cli.rft("suspend", NAME, "--wait")
    assert (code, err) == (1, "Error: team/demo failed while Suspended=True was waited for: Failed: No GPU left.\n")


def test_top_up_shows_before_after_and_what_it_buys(cli: CommandLine) -> None:
    status = {"cost": {"usdPerGpuHour": "2.000000", "reserveUSD": "1.000000", "forecastUSD": "14.000000"}}
    cli.put(run_in(NAME, status=status))
    assert cli.rft("top-up", NAME, "+6", "--dry-run")[1].splitlines() == [
        "team/demo: limit $10.00 -> $16.00 (+$6.00) (dry run: nothing was changed)",
        "  spent      $0.00, kept for the evaluation $1.00",
        "  buys       3.000 GPU-hours at $2.00, 90 min 0 s of 2 GPUs",
        "  training   can go on for 3 h 43 min before it must stop with a checkpoint (it was 2 h 13 min)",
        "  forecast   $14.00: fits now",
    ]
    code, out, err = cli.rft("top-up", NAME, "12", "--accept-seconds", "1")
    assert code == 0
    assert "still $2.00 more than the limit" in out
    assert "no operator has taken it over within 1 s" in err
    assert cli.rft("top-up", NAME, "12")[1] == "team/demo: the limit is $12.00 already, nothing to change\n"
    found = json.loads(cli.rft("top-up", NAME, "+0.50", "-o", "json")[1])
    assert (found["beforeUSD"], found["afterUSD"], found["boughtGpuSeconds"]) == ("12.000000", "12.500000", 900)
    code, _, err = cli.rft("top-up", NAME, "3")
    assert code == 2
    assert "a top-up only raises it" in err


def test_top_up_says_when_the_team_has_not_the_money(cli: CommandLine) -> None:
    waiting = condition("WithinBudget", "True", "Free $1.00; this run wants $5.00 more.", "TeamBudgetExhausted")
    cli.put(run_in())
    cli.once_watched(cli.becomes({"observedGeneration": 2, "conditions": [waiting]}))
    code, _, err = cli.rft("top-up", NAME, "+5")
    assert code == 0
    words = "the old limit holds until the money is there. Free $1.00; this run wants $5.00 more."
    assert err == f"  team       {words}\n"
