"""What the API server says to good and to bad manifests: each refusal names the field, the value and the remedy."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rft_operator.api import KIND
from rft_operator.api.crd import custom_resource_definition, refusals
from rft_operator.api.spec import Spec
from support.admission import Admission, Refusal, admitting
from support.api_server import ROOT, ApiServer
from support.bad_manifests import BAD, FIXED, FREE
from support.bounds import Beyond, beyond, placed
from support.builders import merged, resource
from support.manifests import FULL, MINIMAL

SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
WITH_CLAIM = merged(FULL, {"storage": {"claimName": "data", "storageClassName": None, "size": None, "retain": None}})
WITH_PREFERENCE = merged(FULL, {"scheduling": {"topology": {"required": None, "preferred": "rack"}}})
BOUNDS = list(beyond(SCHEMA["properties"]["spec"]))
NAMES = {
    "n" * 41: "at most 40 characters, so that the names of its Jobs and pods fit; choose a shorter name",
    "7b-run": 'must start with a letter and have no "."',
    "run.v2": 'must start with a letter and have no "."',
}
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if f"kind: {KIND}\n" in path.read_text())


@pytest.fixture(scope="module")
def admission(server: ApiServer) -> Iterator[Admission]:
    """A namespace of the module's own."""
    with admitting(server) as made:
        yield made


@pytest.fixture(scope="module")
def started(admission: Admission) -> dict[str, Any]:
    """A run that has started and has spent $60.25."""
    return stored(admission, "started", FULL, started=True, spent_micro_usd=60_250_000)


@pytest.fixture(scope="module")
def complete(admission: Admission) -> dict[str, Any]:
    """A run that is complete."""
    stored(admission, "complete", FULL, started=True)
    done = {"type": "Complete", "status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-01-02T00:00:00Z"}
    return admission.patch_status("complete", {"conditions": [done]})


def stored(
    admission: Admission, name: str, spec: dict[str, Any], *, started: bool, spent_micro_usd: int = 0
) -> dict[str, Any]:
    answer = admission.create(with_spec(spec, name=name), dry_run=False)
    assert isinstance(answer, dict), answer
    cost = {"spentUSD": f"{spent_micro_usd / 1e6:.6f}", "spentMicroUSD": spent_micro_usd}
    status = {"cost": cost, **({"startTime": "2026-01-01T00:00:00Z"} if started else {})}
    return admission.patch_status(name, status)


def with_spec(spec: dict[str, Any], *, name: str = "run") -> dict[str, Any]:
    return {**resource(name), "spec": copy.deepcopy(spec)}


def edited(obj: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "spec": merged(obj["spec"], change)}


def wrong_spec(case: Beyond) -> tuple[dict[str, Any], str]:
    """Return a spec that has the value in its field, and the field's name."""
    found = (placed(spec, case.tokens, case.value) for spec in (FULL, WITH_CLAIM, WITH_PREFERENCE))
    spec = next((each for each in found if each is not None), None)
    assert spec is not None, f"manifests.FULL has no {case.tokens}"
    return spec


def refused(answer: dict[str, Any] | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), f"accepted: {answer}"
    assert answer.status == 422, answer.message
    return answer


def accepted(answer: dict[str, Any] | Refusal) -> dict[str, Any]:
    assert isinstance(answer, dict), answer.message
    return answer


def pruned(value: Any) -> Any:
    """Without empty maps and lists: to the API server an absent list and an empty one are two things."""
    if not isinstance(value, dict):
        return value
    inner = {key: pruned(each) for key, each in value.items()}
    return {key: each for key, each in inner.items() if each not in ({}, [])}


def plain(field: str) -> str:
    """One form for a map's value: the schema's errors name it ``.key``, those of rules ``[key]``."""
    return re.sub(r"\[([a-z][^]]*)\]", r".\1", field)


def case_name(value: object) -> str:
    if isinstance(value, Beyond):
        return ".".join(value.tokens)
    return value if isinstance(value, str) and value.startswith("spec") else ""


@pytest.mark.parametrize(("change", "field", "words"), BAD, ids=case_name)
def test_manifest_is_refused_with_field_and_remedy_when_it_is_wrong(
    admission: Admission, change: dict[str, Any], field: str, words: str
) -> None:
    answer = refused(admission.create(resource("run", **change)))
    assert [cause.field for cause in answer.causes] == [field], answer.message
    assert words in answer.causes[0].message


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_refused_when_no_child_could_have_its_name(admission: Admission, name: str) -> None:
    (cause,) = refused(admission.create(resource(name))).causes
    assert cause.field == "metadata.name"
    assert f"{name}: {NAMES[name]}" in cause.message


@pytest.mark.parametrize("case", BOUNDS, ids=case_name)
def test_field_is_refused_by_name_when_its_value_is_beyond_a_bound(admission: Admission, case: Beyond) -> None:
    spec, field = wrong_spec(case)
    answer = refused(admission.create({**resource("run"), "spec": spec}))
    mine = [cause.message for cause in answer.causes if plain(cause.field) == plain(f"spec{field}")]
    assert any(case.words in message for message in mine), answer.message
    assert "evaluating rule" not in answer.message


def test_rule_has_a_manifest_that_breaks_it_when_it_is_in_the_crd(
    admission: Admission, started: dict[str, Any], complete: dict[str, Any]
) -> None:
    answers = [admission.create(resource("run", **change)) for change, _, _ in BAD]
    answers += [admission.create(resource(name)) for name in NAMES]
    answers += [admission.replace(edited(started, change)) for change, _ in FIXED]
    answers.append(admission.replace(edited(started, {"budget": {"limitUSD": 1}})))
    answers.append(admission.replace(edited(complete, {"publish": None})))
    for case in BOUNDS:
        answers.append(admission.create({**resource("run"), "spec": wrong_spec(case)[0]}))
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


def test_manifest_is_refused_by_name_when_a_field_is_unknown(admission: Admission) -> None:
    answer = admission.create(resource("run", resources={"nodez": 2}))
    assert isinstance(answer, Refusal)
    assert answer.status == 400
    assert 'unknown field "spec.resources.nodez"' in answer.message


@pytest.mark.parametrize(("change", "field"), FIXED, ids=case_name)
def test_edit_is_refused_when_the_run_has_started_and_the_field_gives_it_its_meaning(
    admission: Admission, started: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    (cause,) = refused(admission.replace(edited(started, change))).causes
    assert cause.field == field
    assert "cannot change once the run has started; undo the change, or apply it" in cause.message


@pytest.mark.parametrize("publish", [{"uri": "hf://team/another"}, {"secretRef": {"name": "other"}}, None], ids=str)
def test_edit_of_publish_is_refused_when_the_run_is_complete_and_nobody_would_look_at_it(
    admission: Admission, complete: dict[str, Any], publish: dict[str, Any] | None
) -> None:
    (cause,) = refused(admission.replace(edited(complete, {"publish": publish}))).causes
    assert cause.field == "spec.publish"
    assert "nothing is published once the run is complete" in cause.message
    accepted(admission.replace(edited(complete, {"budget": {"limitUSD": 500}})))


@pytest.mark.parametrize("limit", [60, "60.249999", "1"])
def test_limit_is_refused_when_it_is_below_what_is_spent(
    admission: Admission, started: dict[str, Any], limit: int | str
) -> None:
    change = {"budget": {"limitUSD": limit, "evaluationReserveUSD": None}}
    (cause,) = refused(admission.replace(edited(started, change))).causes
    assert cause.field == "spec.budget.limitUSD"
    assert f"{limit}: cannot be lower than what is already spent (status.cost.spentUSD)" in cause.message
    assert "to stop the run set spec.suspend: true" in cause.message


@pytest.mark.parametrize("change", FREE, ids=str)
def test_edit_is_accepted_when_the_run_has_started_and_the_field_is_free(
    admission: Admission, started: dict[str, Any], change: dict[str, Any]
) -> None:
    answer = accepted(admission.replace(edited(started, change)))
    assert answer["metadata"]["generation"] == started["metadata"]["generation"] + 1


def test_edit_is_accepted_when_the_run_has_not_started(admission: Admission) -> None:
    waiting = stored(admission, "waiting", FULL, started=False)
    for change, _ in FIXED:
        accepted(admission.replace(edited(waiting, change)))


def test_status_is_accepted_when_more_is_spent_than_the_limit(admission: Admission) -> None:
    stored(admission, "overspent", FULL, started=True)
    written = admission.patch_status("overspent", {"cost": {"spentUSD": "900.000000", "spentMicroUSD": 900_000_000}})
    assert written["status"]["cost"]["spentMicroUSD"] == 900_000_000


def test_manifest_is_accepted_when_it_has_the_required_fields_alone(admission: Admission) -> None:
    answer = accepted(admission.create(with_spec(MINIMAL)))
    assert pruned(answer["spec"]) == pruned(Spec.model_validate(MINIMAL).to_wire())


@pytest.mark.parametrize("spec", [FULL, WITH_CLAIM, WITH_PREFERENCE], ids=["class", "claim", "preference"])
def test_manifest_is_accepted_as_written_when_it_sets_every_field(admission: Admission, spec: dict[str, Any]) -> None:
    answer = accepted(admission.create(with_spec(spec)))
    assert Spec.model_validate(answer["spec"]) == Spec.model_validate(spec)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_accepted_when_it_is_applied(admission: Admission, path: Any) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    resources = [each for each in documents if each["kind"] == KIND]
    assert resources
    for each in resources:
        accepted(admission.create(each))


def test_columns_show_the_run_when_it_is_listed(server: ApiServer, admission: Admission) -> None:
    stored(admission, "listed", {**FULL, "budget": {"limitUSD": 450}}, started=True)
    admission.patch_status(
        "listed",
        {
            "stage": "Training",
            "progress": {
                "stage": "train",
                "attempt": 2,
                "percent": 41,
                "display": "41%",
                "lastReportTime": "2026-01-01T01:00:00Z",
                "lastAdvanceTime": "2026-01-01T01:00:00Z",
            },
            "cost": {"spentUSD": "60.960112", "spentMicroUSD": 60_960_112, "display": "$60.97"},
            "usage": {"gpuSeconds": 74_400, "gpuHours": "20.667"},
            "pods": {"desired": 2, "ready": 2, "display": "2/2"},
            "restarts": {"total": 1},
            "evaluation": {"display": "0.02 -> 0.91"},
        },
    )
    shown = server.kubectl("get", "rft", "listed", "-n", admission.namespace).stdout.splitlines()
    assert re.split(r"\s{2,}", shown[0].strip()) == [
        "NAME", "STAGE", "PROGRESS", "SPENT", "LIMIT", "GPU-H", "NODES", "RESTARTS", "SCORE", "AGE"
    ]  # fmt: skip
    *columns, age = re.split(r"\s{2,}", shown[1].strip())
    assert columns == ["listed", "Training", "41%", "$60.97", "450", "20.667", "2/2", "1", "0.02 -> 0.91"]
    assert re.fullmatch(r"\d+[smh].*", age)


def test_field_is_explained_when_a_user_asks_for_it(server: ApiServer) -> None:
    words = " ".join(server.kubectl("explain", "rft.spec.budget.limitUSD").stdout.split())
    assert "Never spend more than this. A whole number or a quoted decimal, in US dollars." in words
