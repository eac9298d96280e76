"""The cache of base models' answers has bounds, and trouble with it hinders no run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rft_operator.api.training import Model
from rft_operator.domain.actions import KeepBaselines
from rft_operator.domain.baselines import MOST_BYTES, MOST_ENTRIES, map_manifest, map_name
from rft_operator.errors import Conflict, KubeError, NotFound, Rejected
from rft_operator.runtime.baselines import TRIES, write_baselines
from rft_trainer.stage_results import BaseAnswers, KeptBaseAnswers
from support.fake_kube import FakeKube


def entry(number: int, *, size: int = 4, key: str | None = None) -> tuple[str, str]:
    answers = BaseAnswers(key=f"{number:040x}", questions=10, samples=1, rights="A" * size)
    when = f"2026-01-01T{number // 3_600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    kept = KeptBaseAnswers(measured_by="run", measured_at=when, answers=answers)
    return key or answers.key, kept.model_dump_json(by_alias=True, exclude_none=True)


def action(*entries: tuple[str, str]) -> KeepBaselines:
    return KeepBaselines(namespace="team", name="rft-baseline-1", model="hf://org/base", entries=dict(entries))


def existing(**data: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "7"}, "data": data}


def test_oldest_entries_go_when_there_are_too_many() -> None:
    former = existing(**dict(entry(number) for number in range(MOST_ENTRIES)))
    data = map_manifest(action(entry(5_000)), former)["data"]
    assert len(data) == MOST_ENTRIES
    assert f"{0:040x}" not in data
    assert f"{5_000:040x}" in data


def test_oldest_entries_go_when_they_are_too_large() -> None:
    former = existing(**dict(entry(number, size=8_000) for number in range(40)))
    data = map_manifest(action(entry(5_000, size=8_000)), former)["data"]
    assert sum(len(key) + len(text) for key, text in data.items()) <= MOST_BYTES
    assert f"{5_000:040x}" in data
    assert f"{0:040x}" not in data
    assert len(data) > 20


def test_entries_that_nobody_can_read_go() -> None:
    former = existing(readme="hello", **dict([entry(1), entry(2, key="f" * 40)]))
    assert list(map_manifest(action(entry(3)), former)["data"]) == [f"{1:040x}", f"{3:040x}"]


def test_every_base_model_and_revision_has_a_map_of_its_own() -> None:
    models = [{"uri": "hf://a/b"}, {"uri": "hf://a/b", "revision": "main"}, {"uri": "hf://a/c"}]
    names = {map_name(Model.model_validate(each)) for each in models}
    assert len(names) == 3
    assert all(len(name) < 63 for name in names)


class Broken(FakeKube):
    """Raises an error at each write; ``before`` runs first, as another writer does."""

    def __init__(self, error: KubeError | None) -> None:
        super().__init__(lambda: 0)
        self.error, self.tries = error, 0

    async def apply(self, manifest: Any) -> Any:
        self.tries += 1
        if self.error is not None:
            raise self.error
        return await super().apply(manifest)


@pytest.mark.parametrize(
    ("error", "tries"),
    [(Conflict("changed", status=409), TRIES), (Rejected("too large", status=422), 1)],
    ids=["conflict", "rejected"],
)
async def test_trouble_ends_in_the_log(error: KubeError, tries: int, caplog: pytest.LogCaptureFixture) -> None:
    kube = Broken(error)
    await write_baselines(kube, action(entry(1)))
    assert kube.tries == tries
    assert "base answers are not kept" in caplog.text


async def test_entry_of_a_run_that_writes_meanwhile_is_not_lost() -> None:
    kube = FakeKube(lambda: 0)
    await write_baselines(kube, action(entry(1)))
    read = await kube.get(kind="ConfigMap", namespace="team", name="rft-baseline-1")
    await write_baselines(kube, action(entry(2)))
    with pytest.raises(Conflict):  # what a writer would do that has read before
        await kube.apply(map_manifest(action(entry(3)), read))
    await write_baselines(kube, action(entry(3)))
    kept = await kube.get(kind="ConfigMap", namespace="team", name="rft-baseline-1")
    assert list(kept["data"]) == [f"{number:040x}" for number in (1, 2, 3)]


class Slow(FakeKube):
    """Answers each look only after everybody who is there has looked."""

    async def get(self, *, kind: str, namespace: str | None, name: str) -> Any:
        try:
            return await super().get(kind=kind, namespace=namespace, name=name)
        finally:
            await asyncio.sleep(0)


async def test_first_entries_of_runs_that_end_at_once_are_all_kept() -> None:
    kube = Slow(lambda: 0)
    await asyncio.gather(*(write_baselines(kube, action(entry(number))) for number in (1, 2)))
    kept = await kube.get(kind="ConfigMap", namespace="team", name="rft-baseline-1")
    assert list(kept["data"]) == [f"{number:040x}" for number in (1, 2)]


class Swept(FakeKube):
    """Somebody deletes the map after the first look."""

    async def get(self, *, kind: str, namespace: str | None, name: str) -> Any:
        found = await super().get(kind=kind, namespace=namespace, name=name)
        if self.writes == 1:
            self.remove(kind, "team", name)
        return found


async def test_entries_are_kept_when_the_map_is_deleted_meanwhile() -> None:
    kube = Swept(lambda: 0)
    kube.put(map_manifest(action(entry(1)), None))
    kube.writes = 1
    await write_baselines(kube, action(entry(2)))
    kept = await kube.get(kind="ConfigMap", namespace="team", name="rft-baseline-1")
    assert list(kept["data"]) == [f"{2:040x}"]


async def test_nothing_is_made_when_a_version_is_named_that_is_gone() -> None:
    with pytest.raises(NotFound):
        await FakeKube(lambda: 0).apply(map_manifest(action(entry(1)), existing()))
