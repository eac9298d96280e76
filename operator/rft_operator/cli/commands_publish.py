"""The command publish: gives the model of a run's folder away, with its card."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import click

from rft_operator.cli.common import Problem
from rft_operator.errors import PublishError, RftError

_FILE = "file://"


@click.command("publish", short_help="Publish the model of a run's folder.")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--to", "uri", required=True, metavar="URI", help="hf://organisation/name or file:///folder.")
@click.option("--public", is_flag=True, help="A repository that is made for it is public; else it is private.")
@click.option(
    "--run",
    "run_file",
    type=click.File("rb"),
    metavar="FILE",
    help="The run as `kubectl get rft NAME -o json` prints it, for its bill; - is stdin.",
)
def publish_command(directory: Path, uri: str, *, public: bool, run_file: BinaryIO | None) -> None:
    """Publish the trained model with a card that says what it is worth and what it cost.

    DIRECTORY is the run's folder on its volume. The same command again changes nothing, and goes on where it was broken
    off. The hub's token is HF_TOKEN, or that of `hf auth login`.
    """
    try:
        published = _publish(directory, uri, private=not public, cost=_cost(run_file))
    except RftError as error:
        raise Problem(str(error)) from error
    click.echo(published)


def _publish(directory: Path, uri: str, *, private: bool, cost: dict[str, Any]) -> str:
    from rft_trainer.errors import StageError
    from rft_trainer.hub_token import hub_token
    from rft_trainer.paths import RunPaths
    from rft_trainer.publish.main import publish

    if not uri.startswith(("hf://", _FILE)):
        raise PublishError(f"--to {uri!r}: write hf://organisation/name or file:///folder")
    folder = Path(uri.removeprefix(_FILE)) if uri.startswith(_FILE) else None
    paths = RunPaths(data=directory.absolute(), pod_data=PurePosixPath(directory.absolute()))
    try:
        token = hub_token() if folder is None else None
        it = publish(paths, uri, folder=folder, private=private, token=token, cost=cost)
    except StageError as error:
        raise PublishError(str(error)) from error
    except ModuleNotFoundError as error:
        raise PublishError(
            f"publish: {error.name} is not installed; pip install 'reasoning-finetune-operator[publish]'"
        ) from error
    where = it.uri + (f"@{it.revision}" if it.revision is not None else "")
    return f"{where}: {it.files} files, {it.written} of them new"


def _cost(run_file: BinaryIO | None) -> dict[str, Any]:
    """Return the bill in the run's status."""
    if run_file is None:
        return {}
    try:
        status = json.load(run_file)["status"]
        usage = status["usage"]
        return {
            "spentUSD": str(status["cost"]["spentUSD"]),
            "gpuHours": str(usage["gpuHours"]),
            "byStage": [
                {"stage": str(each["stage"]), "gpuSeconds": int(each["gpuSeconds"]), "spentUSD": str(each["spentUSD"])}
                for each in usage.get("byStage", ())
            ],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(
            f"--run: is not a run with a status ({error!r}); give what kubectl get rft NAME -o json prints"
        ) from error
