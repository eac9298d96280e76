"""Commands that judge and tell: report and score."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from rft_operator.cli.common import Problem, Where, carry_out, cluster_options, run_name
from rft_operator.errors import RftError


@click.command("report", short_help="Tell what a run did, cost and is worth.")
@run_name
@cluster_options
def report_command(name: str, where: Where) -> None:
    """Print what a run did, what it cost and what it is worth."""
    from rft_operator.cli.report import report

    async def go() -> str:
        async with where.client() as client:
            return report(await client.get(name))

    click.echo(carry_out(go()), nl=False)


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
        if output is None:
            click.echo(to_jsonl(rows, verdicts), nl=False)
        else:
            output.write_text(to_jsonl(rows, verdicts))
    except RftError as error:
        raise Problem(str(error)) from error
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}") from error
    click.echo(summary(verdicts), err=True)
