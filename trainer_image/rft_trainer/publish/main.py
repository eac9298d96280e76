"""The Publish stage's process.

Invariant: the run's volume is only read; whatever goes wrong here, the model stays where it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rft_trainer.contract import ENV_PUBLISH_PRIVATE, ENV_PUBLISH_URI, ENV_RUN_COST, PUBLISH_DIRECTORY, Outcome, Stage
from rft_trainer.errors import BadInputError
from rft_trainer.hub_token import hub_token
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.publish.bundle import make_bundle
from rft_trainer.publish.published import Published
from rft_trainer.publish.story import read_story
from rft_trainer.publish.to_folder import publish_to_folder
from rft_trainer.publish.to_hub import publish_to_hub
from rft_trainer.stage_main import parse_layout, run_stage
from rft_trainer.stage_results import PublishSummary, StageResult
from rft_trainer.uris import parse_uri


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m rft_trainer.publish.main``."""
    layout = parse_layout(arguments, description="Publish the trained model with its card.")
    return run_stage(Stage.PUBLISH, layout, publish_run)


def publish_run(layout: Layout) -> StageResult:
    """Publish as the environment says."""
    paths = RunPaths.of(layout, layout.load_config())
    uri = os.environ.get(ENV_PUBLISH_URI, "")
    it = publish(
        paths,
        uri,
        folder=_folder(layout, uri) if uri else None,
        private=os.environ.get(ENV_PUBLISH_PRIVATE, "true") != "false",
        token=hub_token() if uri.startswith("hf://") else None,
        cost=_cost(os.environ.get(ENV_RUN_COST)),
    )
    sys.stdout.write(f"{it.uri}: {it.files} files, {it.written} of them new, {it.size} bytes\n")
    summary = PublishSummary(uri=it.uri, revision=it.revision, files=it.files, bytes=it.size)
    return StageResult(stage=Stage.PUBLISH, outcome=Outcome.COMPLETED, publish=summary)


def _folder(layout: Layout, uri: str) -> Path:
    """Where the volume's folder is mounted; what is outside of it would be gone with the pod, and told as published."""
    inside = PurePosixPath(parse_uri(uri).target.partition("/")[2].lstrip("/"))
    if ".." in inside.parts:
        raise BadInputError(f"publish.uri {uri!r}: '..' may leave the volume; write pvc://claim/path without it")
    return layout.real(PUBLISH_DIRECTORY) / inside


def publish(
    paths: RunPaths,
    uri: str,
    *,
    folder: Path | None = None,
    private: bool = True,
    token: str | None = None,
    cost: Mapping[str, Any] | None = None,
) -> Published:
    """Publish a run's folder to ``hf://organisation/name``, or to ``pvc://`` or ``file://``, which is at ``folder``."""
    target = parse_uri(uri)
    story = read_story(paths, cost=cost)
    if target.scheme == "hf":
        if target.target.count("/") != 1:
            raise BadInputError(f"publish.uri {uri!r}: a model is published as hf://organisation/name")
        bundle = make_bundle(story, paths, repository=target.target)
        return publish_to_hub(bundle, target.target, token=token, private=private)
    if target.scheme not in ("pvc", "file") or folder is None:
        raise BadInputError(f"publish.uri {uri!r}: write hf://organisation/name, pvc://claim/path or file:///path")
    if _is_within(folder, story.export):
        raise BadInputError(
            f"publish.uri {uri!r}: is within the exported model, which is only read; name a folder beside it"
        )
    return publish_to_folder(make_bundle(story, paths, repository=None), folder, name=uri)


def _is_within(folder: Path, export: Path) -> bool:
    """Whether a folder is another one or in it, also where a volume is mounted at two places."""
    above = (folder.absolute(), *folder.absolute().parents)
    return any(each.exists() and each.samefile(export) for each in above)


def _cost(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
