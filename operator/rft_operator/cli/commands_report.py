"""Commands that judge and tell: report and score."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from rft_operator.cli.common import Problem, Where, carry_out, cluster_options, complete_names, write_file
from rft_operator.errors import RftError

if TYPE_CHECKING:
    from rft_operator.api.resource import ReasoningFinetune
    from rft_operator.report.story import Story


@click.command("report", short_help="Tell what a run did, cost and is worth.")
@click.argument("target", metavar="NAME|DIR", shell_complete=complete_names)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a page, say report.html; - is stdout.")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="The run's folder on its volume, beside its resource."
)
@cluster_options
def report_command(target: str, where: Where, *, output: Path | None, directory: Path | None) -> None:
    """Tell what a run did, what it cost and what it is worth: as text, or with -o as one page with pictures.

    NAME is a run in the cluster; DIR its folder on the volume, which has every step and the full results but not the
    bill: NAME --directory DIR tells both. DIR may also be what rft evaluate left. The page needs no network: loss,
    spending against plan and stop line, scores with intervals and verdicts, accuracy against thinking tokens where it
    was measured, the ledger, the run card.
    """
    from rft_operator.cli.report import folder_report, report
    from rft_operator.report.from_folder import is_run_folder, story_of_folder

    if output is not None and str(output) != "-" and output.suffix not in (".html", ".htm"):
        raise click.UsageError(f"-o {output}: the page is HTML; write for example -o report.html")
    is_folder = "/" in target or target in (".", "..") or is_run_folder(Path(target))
    if is_folder and directory is not None:
        raise click.UsageError("give the name of a run with --directory, or its folder alone")
    try:
        if is_folder:
            story = story_of_folder(Path(target), now=int(time.time()))
            text = folder_report(story)
        else:
            run, story = carry_out(_story(target, where, directory=directory, pictures=output is not None))
            text = report(run)
    except RftError as error:
        raise Problem(str(error)) from error
    if output is None:
        click.echo(text, nl=False)
        return
    from rft_operator.report.page import page

    _write(page(story), output)


async def _story(name: str, where: Where, *, directory: Path | None, pictures: bool) -> tuple[ReasoningFinetune, Story]:
    from rft_operator.report.collect import collect

    async with where.client() as client:
        return await collect(client, name, directory=directory, with_logs=pictures)


def _write(text: str, output: Path) -> None:
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    write_file(output, text)
    click.echo(f"{output}: {len(text) // 1_024} KiB, open it in any browser", err=True)


@click.command("score", short_help="Judge answers with the evaluation's scorers.")
@click.argument("file", type=click.File("rb"))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: stdout.")
def score_command(file: BinaryIO, output: Path | None) -> None:
    """Judge answers with the evaluation's own scorers; exit code 2 if a row cannot be judged. FILE - is stdin.

    Rows are JSON, one a line: {"id", "scorer": "math|integer|letter|gsm8k", "answer": the right one, "text": the
    model's}; out come, in order, {"id", "extracted", "correct", "reason"}.
    """
    from rft_operator.cli.score import judge_rows, read_rows, summary, to_jsonl

    try:
        rows = read_rows(file)
        verdicts = judge_rows(rows)
    except (RftError, OSError) as error:
        raise Problem(str(error)) from error
    if output is None:
        click.echo(to_jsonl(rows, verdicts), nl=False)
    else:
        write_file(output, to_jsonl(rows, verdicts))
    click.echo(summary(verdicts), err=True)
