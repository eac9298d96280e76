"""Steps that the stories of several test files share."""

from __future__ import annotations

from typing import Any

from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage
from support.stage import World


def silence_node(world: World, name: str) -> None:
    """The node loses its power or its network."""

    def write(obj: dict[str, Any]) -> None:
        obj["status"]["conditions"][0].update(status="Unknown", lastTransitionTime=rfc3339(world.now))

    world.kube.patch("Node", "", name, write)


async def to_unbound_gang(world: World) -> None:
    """Bring the run to a training gang whose pods wait for a node."""
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(1)
    world.complete(Stage.PREPARE)
    await world.settle()
    world.create_pods(Stage.TRAIN)
    await world.settle()
