"""Gathers a story: the resource from the API server, the steps from the logs of its trainer, the rest from its folder.

Invariant: what cannot be read is told in the place where it would stand, and the rest is told all the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.client.aio import AsyncClient
from rft_operator.client.log_lines import LogQuery
from rft_operator.errors import KubeError
from rft_operator.report.from_folder import losses_and_times, story_of_folder
from rft_operator.report.from_status import story_of_run
from rft_operator.report.story import LossPoint, Story
from rft_trainer.contract import Stage


async def collect(
    client: AsyncClient, name: str, *, directory: Path | None, with_logs: bool
) -> tuple[ReasoningFinetune, Story]:
    """Return a run and its story; raises RunNotFound, and ReportError for a folder that is none of a run."""
    run = await client.get(name)
    now = client.api.clock.now()
    if directory is not None:
        return run, _joined(story_of_run(run, now=now), story_of_folder(directory, now=now))
    if not with_logs:
        return run, story_of_run(run, now=now)
    losses, note = await _losses(client, name)
    story = story_of_run(run, now=now, losses=losses)
    return run, replace(story, losses_note=note or story.losses_note) if not losses else story


async def _losses(client: AsyncClient, name: str) -> tuple[tuple[LossPoint, ...], str]:
    """Read the progress lines that rank 0 writes every few seconds, of all attempts whose pods are there."""
    query = LogQuery(stage=Stage.TRAIN.value, rank=0)
    try:
        lines = [line.text async for line in client.logs(name, query)]
    except KubeError as error:
        return (), f"The trainer's logs, which have the steps, cannot be read: {error}"
    return losses_and_times(lines)[0], ""


def _joined(told: Story, folder: Story) -> Story:
    """Return the resource's story with what only the folder knows: every step, full results, the whole card."""
    return replace(
        told,
        losses=folder.losses,
        losses_note=folder.losses_note,
        total_steps=folder.total_steps or told.total_steps,
        evaluation=folder.evaluation or told.evaluation,
        scores_note="" if folder.evaluation is not None else told.scores_note,
        curves=folder.curves or told.curves,
        facts=folder.facts or told.facts,
        card={**told.card, **folder.card},
    )
