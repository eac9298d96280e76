"""A run that an older CRD let in and today's would refuse: it goes on, and only a new edit of that part is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from rft_operator.api.schema import Schema
from support.admission import Admission, Refusal, admitting
from support.api_server import CRD, ApiServer, install_crds
from support.builders import SPEC, merged, resource
from support.polling import eventually

IGNORED: dict[str, Any] = {
    "dataset": {"split": "test"},
    "storage": {"claimName": "data", "size": "2Ti", "retain": False},
    "publish": {"uri": "pvc://models/one", "private": False},
    "evaluation": {"benchmarks": [{**SPEC["evaluation"]["benchmarks"][0], "published": "0.5"}]},
}
"""What was accepted and ignored before there were rules about it."""
UNUSED_RESERVE: dict[str, Any] = {"evaluation": None, "budget": {"evaluationReserveUSD": 1}}
"""Ignored, too; but the limit beside it must remain free to be raised."""
EDITS: dict[str, dict[str, Any]] = {
    "spec.dataset.split": {"dataset": {"maxSamples": 50}},
    "spec.storage.retain": {"storage": {"size": None}},
    "spec.publish.private": {"publish": {"uri": "pvc://models/two"}},
    "spec.evaluation.benchmarks": {"evaluation": {"maxSeconds": 900}},
}


def without_rules(node: Schema) -> Schema:
    kept = {key: value for key, value in node.items() if key != "x-kubernetes-validations"}
    return {key: without_rules(value) if isinstance(value, dict) else value for key, value in kept.items()}


@contextlib.contextmanager
def crd_without_rules(server: ApiServer) -> Iterator[None]:
    found = json.loads(server.kubectl("get", "crd", CRD, "-o", "json").stdout)
    version = found["spec"]["versions"][0]
    version["schema"] = without_rules(version["schema"])
    server.kubectl("replace", "-f", "-", manifest=found)
    try:
        yield
    finally:
        install_crds(server)


@pytest.fixture
def admission(server: ApiServer) -> Iterator[Admission]:
    """A namespace of the test's own."""
    with admitting(server) as made:
        yield made


async def test_run_that_an_older_crd_let_in_goes_on_and_is_refused_only_where_it_is_edited(
    server: ApiServer, admission: Admission
) -> None:
    async def taken() -> bool:
        return isinstance(admission.create(resource("old", **IGNORED)), dict)

    async def refused() -> bool:
        return isinstance(admission.create(resource("new", **IGNORED)), Refusal)

    with crd_without_rules(server):
        await eventually(taken, what="the older CRD to be served", every_seconds=0.2)
        admission.create(resource("old", **IGNORED), dry_run=False)
        admission.create(resource("reserves", **UNUSED_RESERVE), dry_run=False)
    await eventually(refused, what="today's CRD to be served", every_seconds=0.2)
    written = admission.patch_status("old", {"observedGeneration": 1})
    for change in ({"suspend": True}, {"budget": {"limitUSD": 20}}, {"timeouts": {"stallSeconds": 60}}):
        answer = admission.replace({**written, "spec": merged(written["spec"], change)})
        assert isinstance(answer, dict), answer
    for field, change in EDITS.items():
        answer = admission.replace({**written, "spec": merged(written["spec"], change)})
        assert isinstance(answer, Refusal), field
        assert field in [cause.field for cause in answer.causes]
    reserves = admission.patch_status("reserves", {"observedGeneration": 1})
    answer = admission.replace({**reserves, "spec": merged(reserves["spec"], {"budget": {"limitUSD": 20}})})
    assert isinstance(answer, dict), answer


def test_reserve_is_refused_when_an_edit_takes_its_evaluation_away_or_adds_it_to_a_run_without(
    admission: Admission,
) -> None:
    evaluates = resource("evaluates", budget={"evaluationReserveUSD": 1})
    trains = resource("trains", evaluation=None)
    for before, change in ((evaluates, {"evaluation": None}), (trains, {"budget": {"evaluationReserveUSD": 1}})):
        stored = admission.create(before, dry_run=False)
        assert isinstance(stored, dict), stored
        answer = admission.replace({**stored, "spec": merged(stored["spec"], change)})
        assert isinstance(answer, Refusal)
        assert [cause.field for cause in answer.causes] == ["spec.budget.evaluationReserveUSD"]
