"""Commands that follow runs: watch and logs."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from rft_operator.cli.common import NO, Where, carry_out, cluster_options, output_option, run_name, run_names

if TYPE_CHECKING:
    from rft_operator.api.resource import ReasoningFinetune
    from rft_operator.cli.board import View

DAY_SECONDS = 86_400


def _stage(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return a stage that runs have; which there are is asked when one is given, for that needs the models."""
    if value is None:
        return None
    from rft_trainer.contract import Stage

    stages = [stage.value for stage in Stage]
    if value not in stages:
        raise click.BadParameter(f"{value!r} is no stage; there are {', '.join(stages)}")
    return value


def _stages(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from rft_trainer.contract import Stage

    return [stage.value for stage in Stage if stage.value.startswith(incomplete)]


@click.command("watch", short_help="Follow runs until they end.")
@run_names(required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Runs of all namespaces.")
@click.option("-l", "--selector", "label_selector", help="Runs with these labels, for example team=reasoning.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.IntRange(1),
    default=DAY_SECONDS,
    show_default=True,
    help="Give up after so many seconds; the runs go on.",
)
@cluster_options
@output_option("table", "lines", "json")
def watch_command(names: tuple[str, ...], where: Where, **options: Any) -> None:
    """Follow runs until they end: work, time left, dollars per hour, spent of the limit, time to the stop line.

    On a terminal the table redraws itself, elsewhere (or with -o lines) a line is printed at every change, with -o json
    an object. Without names all runs are followed until Ctrl-C. Exit code 1 if a run failed, 2 if it cannot be
    followed, 3 after --timeout.
    """
    if names and (options["all_namespaces"] or options["label_selector"]):
        raise click.UsageError("give names, or -A and -l, not both")
    if _follow(where, names, **options):
        sys.exit(NO)


def follow_to_the_end(where: Where, name: str) -> bool:
    """Follow one run as ``rft watch`` does; return whether it failed."""
    options = {"timeout_seconds": DAY_SECONDS, "all_namespaces": False, "label_selector": None}
    return _follow(where, (name,), output="table", **options)


def _follow(where: Where, names: tuple[str, ...], *, output: str, **options: Any) -> bool:
    from rft_operator.cli.board import Board
    from rft_operator.cli.report import report
    from rft_operator.domain.draft import has_failed

    async def go() -> list[ReasoningFinetune]:
        async with where.client() as client:
            with _view(output) as view:
                board = Board(client=client, view=view, names=frozenset(names))
                await board.follow(**options)
            return [run for _, run in sorted(board.runs.items())]

    runs = carry_out(go())
    for run in runs if output != "json" else ():
        click.echo("\n" + report(run), nl=False)
    return any(has_failed(run.status) for run in runs)


def _view(output: str) -> contextlib.AbstractContextManager[View]:
    from rft_operator.cli.board import Lines, Objects

    if output == "json":
        return contextlib.nullcontext(Objects(click.echo))
    if output == "table" and sys.stdout.isatty():
        from rft_operator.cli.live import LiveTable

        return LiveTable()
    return contextlib.nullcontext(Lines(click.echo))


@click.command("logs", short_help="Print the logs of all ranks.")
@run_name
@click.option("-f", "--follow", is_flag=True, help="Go on, over restarts and new attempts, until the run is over.")
@click.option(
    "--stage", callback=_stage, shell_complete=_stages, help="Only this stage, for example prepare, train or evaluate."
)
@click.option("--attempt", type=click.IntRange(1), help="Only this attempt (counts from 1 within a stage).")
@click.option("--rank", type=click.IntRange(0), help="Only this pod of the gang (node rank, from 0).")
@click.option("--tail", type=click.IntRange(0), help="The newest so many lines of each pod.")
@click.option("--since", "since_seconds", type=click.IntRange(1), help="Lines of the last so many seconds.")
@click.option("-c", "--container", default="trainer", show_default=True, help="Container, for example a sidecar's.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time.")
@click.option("--prefix", type=click.Choice(["full", "short", "none"]), default="full", show_default=True)
@cluster_options
@output_option("text", "json")
def logs_command(
    name: str, where: Where, output: str, *, follow: bool, timestamps: bool, prefix: str, **query: Any
) -> None:
    """Print the logs of all ranks, merged by time, former attempts too where their pods still are.

    Each line begins with attempt, rank and pod. -o json gives an object a line, for programs.
    """
    from rft_operator.cli.log_print import Printer, wants_colour
    from rft_operator.client.log_lines import LogQuery

    coloured = wants_colour(sys.stdout)
    printer = Printer(prefix=prefix, timestamps=timestamps, as_json=output == "json", coloured=coloured)

    async def go() -> int:
        count = 0
        async with where.client() as client:
            lines = client.logs(
                name, LogQuery(**query), follow=follow, on_note=lambda words: click.echo(f"Note: {words}", err=True)
            )
            async with contextlib.aclosing(lines):
                async for line in lines:
                    count += 1
                    click.echo(printer.text(line))
        return count

    if not carry_out(go()):
        click.echo(f"No line of {name} is there: its pods are gone, or have not started yet.", err=True)
