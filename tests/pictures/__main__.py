"""``make pictures``: draw the dashboards for the documentation.

The run's and the team's are drawn from an afternoon that the operator's core lives through on a simulated cluster,
the operator's own from a few minutes of a real one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import click

from pictures.live import watched
from pictures.page import ANY, PictureError, View, answered, bundle, draw
from pictures.stamp import FOLDER, write_stamp
from pictures.story import START, tell
from support.dashboards import dashboards
from support.prometheus import configuration, promtool, serving

PICTURES = {
    "run": ("rft-run", {"namespace": "reasoning", "finetune": "sky-t1-32b"}),
    "run-complete": ("rft-run", {"namespace": "code", "finetune": "s1-32b"}),
    "team": ("rft-team", {"namespace": ANY, "budget": ANY}),
}
"""File: dashboard and values of its variables."""
OPERATOR = "rft-operator"
S1_ENDED = 118 * 60
"""When the complete run's picture is taken, in seconds of the story."""


@click.command()
@click.option("--only", type=click.Choice(["story", "operator"]), help="Draw a part.")
@click.option("--minutes", default=5.0, show_default=True, help="How long the operator is watched.")
def main(only: str | None, minutes: float) -> None:
    """Draw the pictures in docs/img."""
    try:
        script = bundle()
        with tempfile.TemporaryDirectory(prefix="rft-pictures-") as name:
            folder = Path(name)
            FOLDER.mkdir(exist_ok=True)
            if only != "operator":
                asyncio.run(draw_story(script, folder))
                write_stamp(*{uid for uid, _ in PICTURES.values()})
            if only != "story":
                asyncio.run(draw_operator(script, folder, seconds=int(60 * minutes)))
                write_stamp(OPERATOR)
    except PictureError as error:
        raise click.ClickException(str(error)) from error


def board_of(uid: str) -> dict[str, object]:
    return next(board for board in dashboards() if board["uid"] == uid)


async def draw_story(script: Path, folder: Path) -> None:
    """Tell the story, fill a Prometheus with it, draw."""
    file, data = folder / "story.txt", folder / "story"
    until = await tell(file)
    made = await asyncio.to_thread(promtool, "tsdb", "create-blocks-from", "openmetrics", file, data)
    if made.returncode != 0:
        raise PictureError(f"promtool: {made.stderr[-2_000:]}")
    async with serving(folder, configuration(targets=[], rules=[], every_seconds=30), data=data) as prometheus:
        for name, (uid, values) in PICTURES.items():
            end = START + S1_ENDED if name == "run-complete" else until
            view = View(since=START, until=end, values={"job": ANY, "instance": ANY, **values}, rate_interval="4m")
            page = await answered(board_of(uid), prometheus, view)
            await asyncio.to_thread(draw, page, script=script, folder=folder, to=FOLDER / f"dashboard-{name}.png")
            say(f"drew {name}")


async def draw_operator(script: Path, folder: Path, *, seconds: int) -> None:
    """Watch a real operator at work, then draw."""
    async with watched(folder, seconds=seconds) as (prometheus, since, until):
        view = View(since=since, until=until, values={"job": ANY, "instance": ANY}, rate_interval="30s")
        page = await answered(board_of(OPERATOR), prometheus, view)
    await asyncio.to_thread(draw, page, script=script, folder=folder, to=FOLDER / "dashboard-operator.png")
    say("drew operator")


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
