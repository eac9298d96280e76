"""What the API server says to good and to bad team budgets: each refusal names the field, the value and the remedy."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rft_operator.api import BUDGET_KIND, BUDGET_PLURAL
from rft_operator.api.crd import TEAM_BUDGET, custom_resource_definition, refusals
from rft_operator.api.team import TeamSpec
from support.admission import Admission, Refusal, admitting
from support.api_server import ROOT, ApiServer
from support.bad_budgets import BAD, FULL
from support.bounds import Beyond, beyond, placed
from support.builders import merged
from support.team import team_budget

SCHEMA = custom_resource_definition(TEAM_BUDGET)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
BOUNDS = list(beyond(SCHEMA["properties"]["spec"]))
LONG_NAME = "n" * 64


@pytest.fixture(scope="module")
def admission(server: ApiServer) -> Iterator[Admission]:
    """A namespace of the module's own."""
    with admitting(server, plural=BUDGET_PLURAL) as made:
        yield made


@pytest.fixture(scope="module")
def stored(admission: Admission) -> dict[str, Any]:
    """A budget that exists."""
    answer = admission.create(with_spec(FULL, name="stored"), dry_run=False)
    assert isinstance(answer, dict), answer
    return answer


def with_spec(spec: dict[str, Any], *, name: str = "team") -> dict[str, Any]:
    return {**team_budget(name), "spec": copy.deepcopy(spec)}


def refused(answer: dict[str, Any] | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), f"accepted: {answer}"
    assert answer.status == 422, answer.message
    return answer


def edited(obj: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**obj, "spec": merged(obj["spec"], change)}


def case_name(value: object) -> str:
    if isinstance(value, Beyond):
        return ".".join(value.tokens)
    return value if isinstance(value, str) and value.startswith("spec") else ""


def plain(field: str) -> str:
    """One form for a map's value: the schema's errors name it ``.key``, those of rules ``[key]``."""
    return re.sub(r"\[([a-z][^]]*)\]", r".\1", field)


@pytest.mark.parametrize(("change", "field", "words"), BAD, ids=case_name)
def test_budget_is_refused_with_field_and_remedy_when_it_is_wrong(
    admission: Admission, change: dict[str, Any], field: str, words: str
) -> None:
    answer = refused(admission.create(with_spec(merged({"limitUSD": 1}, change))))
    assert [cause.field for cause in answer.causes] == [field], answer.message
    assert words in answer.causes[0].message


def test_budget_is_refused_when_its_events_could_not_have_its_name(admission: Admission) -> None:
    (cause,) = refused(admission.create(team_budget(LONG_NAME))).causes
    assert cause.field == "metadata.name"
    assert "at most 63 characters, so that the names of its Events fit" in cause.message


@pytest.mark.parametrize("case", BOUNDS, ids=case_name)
def test_field_is_refused_by_name_when_its_value_is_beyond_a_bound(admission: Admission, case: Beyond) -> None:
    found = placed(FULL, case.tokens, case.value)
    assert found is not None, f"FULL has no {case.tokens}"
    answer = refused(admission.create(with_spec(found[0])))
    mine = [cause.message for cause in answer.causes if plain(cause.field) == plain(f"spec{found[1]}")]
    assert any(case.words in message for message in mine), answer.message
    assert "evaluating rule" not in answer.message


def test_reset_is_refused_when_it_is_earlier_than_the_last_one(admission: Admission, stored: dict[str, Any]) -> None:
    (cause,) = refused(admission.replace(edited(stored, resetTime="2025-12-31T23:59:59Z"))).causes
    assert cause.field == "spec.resetTime"
    assert "cannot be earlier than the last reset" in cause.message


@pytest.mark.parametrize(
    "change", [{"resetTime": "2026-01-01T00:00:01Z"}, {"resetTime": None}, {"limitUSD": 0}, {"window": "day"}], ids=str
)
def test_edit_is_accepted_when_it_turns_nothing_back(
    admission: Admission, stored: dict[str, Any], change: dict[str, Any]
) -> None:
    assert isinstance(admission.replace(edited(stored, **change)), dict)


def test_rule_has_a_budget_that_breaks_it_when_it_is_in_the_crd(admission: Admission, stored: dict[str, Any]) -> None:
    answers = [admission.create(with_spec(merged({"limitUSD": 1}, change))) for change, _, _ in BAD]
    answers += [
        admission.create(team_budget(LONG_NAME)),
        admission.replace(edited(stored, resetTime="2025-01-01T00:00:00Z")),
    ]
    causes = {
        (re.sub(r"\[\d+\]", "[]", re.sub(r"\[[a-z][^]]*\]", "[*]", cause.field)), cause.message)
        for answer in answers
        for cause in refused(answer).causes
    }
    silent = [
        (field, message)
        for field, message in refusals(SCHEMA)
        if not any(field == where and message in words for where, words in causes)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "spec", [FULL, {"limitUSD": 0}, {"limitUSD": 450, "selector": {}}], ids=["full", "zero", "all"]
)
def test_budget_is_accepted_as_written(admission: Admission, spec: dict[str, Any]) -> None:
    answer = admission.create(with_spec(spec))
    assert isinstance(answer, dict), answer
    assert TeamSpec.model_validate(answer["spec"]) == TeamSpec.model_validate(spec)


def test_example_is_accepted_when_it_is_applied(admission: Admission) -> None:
    documents = yaml.safe_load_all((ROOT / "examples" / "team-budget.yaml").read_text(encoding="utf-8"))
    budgets = [each for each in documents if each["kind"] == BUDGET_KIND]
    assert budgets
    for each in budgets:
        assert isinstance(admission.create(each), dict)


def test_field_is_explained_when_a_user_asks_for_it(server: ApiServer) -> None:
    words = " ".join(server.kubectl("explain", "rftb.spec.resetTime").stdout.split())
    assert "Nothing that was spent before this instant counts any more" in words
