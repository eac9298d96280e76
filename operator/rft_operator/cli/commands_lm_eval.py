"""The command lm-eval: what the scores of lm-evaluation-harness are worth."""

from __future__ import annotations

import json
from pathlib import Path

import click

from rft_operator.cli.common import Problem, write_file

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("lm-eval", short_help="Judge what lm-evaluation-harness measured.")
@click.argument("folder", type=_FOLDER)
@click.option("--base", type=_FOLDER, help="The same of a model to compare with, question by question.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A JSON file of all that is known."
)
def lm_eval_command(folder: Path, base: Path | None, output: Path | None) -> None:
    """Say what scores of lm-evaluation-harness are worth: intervals, paired comparison, verdicts.

    FOLDER is what "lm_eval --output_path FOLDER --log_samples" wrote. The statistics are those of a run on a cluster:
    exact McNemar, adjusted for all scores together. The harness need not be installed.
    """
    try:
        from rft_trainer.errors import StageError
        from rft_trainer.evaluate.lm_eval_scores import scores_of
    except ImportError as error:
        raise Problem(
            f"lm-eval: needs the trainer's libraries ({error}); pip install 'reasoning-finetune-operator[trainer]'"
        ) from error
    try:
        found = scores_of(folder, base)
    except (StageError, OSError) as error:
        raise Problem(str(error)) from error
    if output is not None:
        write_file(output, json.dumps(found.document(), indent=1, sort_keys=True) + "\n")
    for line in found.lines():
        click.echo(line)
