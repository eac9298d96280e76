"""What pods read under /rft/config is what the run began with, but for what may change while it lives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rft_trainer.contract import RunConfig, Stage
from support.builders import NAMESPACE
from support.stage import World


def config_of(world: World, stage: Stage, attempt: int = 1) -> dict[str, str]:
    """Return the files of a pod's config volume, as the kubelet puts them there; a key that is missing holds it up."""
    volumes = world.job(stage, attempt)["spec"]["template"]["spec"]["volumes"]
    (volume,) = [each for each in volumes if each["name"] == "rft-config"]
    files: dict[str, str] = {}
    for source in volume["projected"]["sources"]:
        wanted = source["configMap"]
        data = world.kube.objects["ConfigMap", NAMESPACE, wanted["name"]]["data"]
        for item in wanted.get("items") or [{"key": key, "path": key} for key in data]:
            assert item["path"] not in files, "the API server refuses two sources of one path"
            files[item["path"]] = data[item["key"]]
    return files


def run_of(files: dict[str, str]) -> RunConfig:
    return RunConfig.model_validate_json(files["run.json"])


async def to_second_attempt(world: World) -> None:
    world.finish_pods(Stage.TRAIN, exit_code=77)
    await world.settle()
    await world.after(60)
    assert world.status.attempts[-1].number == 2


async def test_ranks_of_the_next_attempt_wait_as_long_as_the_edited_timeouts_say() -> None:
    world = World()
    await world.to_training()
    first = run_of(config_of(world, Stage.TRAIN))
    edited = {"pendingSeconds": 7_200, "startupSeconds": 5_400, "stallSeconds": 4_000}
    world.edit(timeouts=edited)
    await to_second_attempt(world)
    second = run_of(config_of(world, Stage.TRAIN, 2))
    assert (second.pending_seconds, second.startup_seconds, second.stall_seconds) == tuple(edited.values())
    same = {"pending_seconds", "startup_seconds", "stall_seconds"}
    assert second.model_dump(exclude=same) == first.model_dump(exclude=same)


@pytest.mark.parametrize("before", ["PEM", None])
async def test_pods_trust_the_authority_that_the_operator_has_when_they_are_made(before: str | None) -> None:
    world = World()
    now = world.settings
    world.settings = replace(now, progress_ca=before, progress_url=now.progress_url if before else None)
    await world.to_training()
    assert config_of(world, Stage.TRAIN).get("ca.crt") == before
    assert config_of(world, Stage.PREPARE).get("ca.crt") == before
    world.settings = replace(now, progress_ca="ANOTHER")
    await to_second_attempt(world)
    assert config_of(world, Stage.TRAIN, 2)["ca.crt"] == "ANOTHER"
    world.run_pods(Stage.TRAIN, 2)
    await world.settle()
    world.complete(Stage.TRAIN, 2)
    await world.after(1)
    assert config_of(world, Stage.EVALUATE)["ca.crt"] == "ANOTHER"
    assert run_of(config_of(world, Stage.EVALUATE)) == run_of(config_of(world, Stage.PREPARE))


async def test_a_stage_that_reads_what_the_run_has_needs_no_object_of_its_own() -> None:
    world = World()
    await world.to_training()
    world.complete(Stage.TRAIN)
    await world.after(1)
    maps = {name for kind, _, name in world.kube.objects if kind == "ConfigMap"}
    assert maps == {f"{world.key.name}-run", f"{world.key.name}-train-1"}


async def test_the_cache_keeps_the_values_of_the_run_alone() -> None:
    world = World()
    await world.to_training()
    kept = {each.name: set(each.data) for each in world.cache.children(world.key).objects if each.data}
    assert kept == {f"{world.key.name}-run": {"run.json", "deepspeed.json", "operator.json", "ca.crt"}}
