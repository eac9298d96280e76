"""Commands that make and change runs: apply, get, top-up."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rft_operator.cli.common import NO, Function, Where, carry_out, cluster_options, output_option, run_name, run_names
from rft_operator.errors import Refused

if TYPE_CHECKING:
    from rft_operator.api.resource import ReasoningFinetune
    from rft_operator.client.aio import Applied, AsyncClient

ACCEPT_SECONDS = 10


def _accept_option(command: Function) -> Function:
    return click.option(
        "--accept-seconds",
        type=click.IntRange(0),
        default=ACCEPT_SECONDS,
        show_default=True,
        help="Wait so long for the operator's word on it.",
    )(command)


@click.command("apply", short_help="Apply a file and say whether it is accepted.")
@click.option("-f", "--file", "file", type=click.Path(path_type=Path), required=True, help="The resources; - is stdin.")
@click.option("--watch", "follow", is_flag=True, help="Follow the run until it ends, as rft watch does.")
@click.option("--dry-run", is_flag=True, help="Let the API server judge, and change nothing.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that somebody else has set since.")
@_accept_option
@cluster_options
@output_option("text", "json", "yaml", "name")
def apply_command(where: Where, output: str, *, follow: bool, **options: Any) -> None:
    """Apply a file (server-side) and say what the API server and the operator think of it.

    With --watch the exit code is that of the run: 1 if it failed, or one of several did.
    """
    from rft_operator.cli.commands_follow import follow_to_the_end

    applied = carry_out(_apply(where, output, **options))
    if not follow or options["dry_run"]:
        return
    failed = [
        follow_to_the_end(replace(where, namespace=each.namespace), each.name)
        for each in applied
        if each.kind == "ReasoningFinetune"
    ]
    if any(failed):
        sys.exit(NO)


async def _apply(
    where: Where, output: str, *, file: Path, dry_run: bool, force_conflicts: bool, accept_seconds: int
) -> list[Applied]:
    from rft_operator.cli.output import structured

    source = _stdin() if str(file) == "-" else file
    async with where.client() as client:
        applied = list(await client.apply(source, force=force_conflicts, dry_run=dry_run))
        if output in ("json", "yaml"):
            raws = [dict(each.raw) for each in applied]
            click.echo(structured(raws[0] if len(raws) == 1 else _list(raws), output), nl=False)
            return applied
        for each in applied:
            if output == "name":
                click.echo(f"{each.kind.lower()}.rft.dev/{each.name}")
                continue
            tried = " (dry run)" if dry_run else ""
            click.echo(f"{each.namespace}/{each.name}: {each.result.value}{tried}")
            if each.kind == "ReasoningFinetune" and not dry_run and accept_seconds:
                await _say_acceptance(client, each, seconds=accept_seconds)
        return applied


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Refused(f"what stdin gives is no text in UTF-8: {error}; it must be the YAML of a resource") from error


async def _say_acceptance(client: AsyncClient, applied: Applied, *, seconds: int) -> None:
    """Say what the operator thinks: the arithmetic of the budget, or what is missing."""
    from rft_operator.api.status import ConditionStatus, ConditionType
    from rft_operator.client.conditions import is_fresh
    from rft_operator.domain.draft import condition_of, is_over
    from rft_operator.errors import WaitTimeout

    def is_decided(run: ReasoningFinetune) -> bool:
        found = condition_of(run.status, ConditionType.ACCEPTED)
        known = found is not None and found.status is not ConditionStatus.UNKNOWN
        return is_fresh(run) and (known or is_over(run.status))

    try:
        run = await client.wait(
            applied.name,
            is_decided,
            namespace=applied.namespace,
            timeout_seconds=seconds,
        )
    except WaitTimeout:
        words = f"no operator has looked at it within {seconds} s; rft version says whether one runs"
        click.echo(f"{applied.namespace}/{applied.name}: {words}", err=True)
        return
    found = condition_of(run.status, ConditionType.ACCEPTED)
    if found is None or is_over(run.status):
        stage = run.status.stage.value if run.status.stage is not None else "over"
        click.echo(f"{applied.namespace}/{applied.name}: the run is {stage} already")
    elif found.status is ConditionStatus.TRUE:
        click.echo(f"{applied.namespace}/{applied.name}: accepted. {found.message}".rstrip())
    else:
        click.echo(f"{applied.namespace}/{applied.name}: not started yet, {found.reason}: {found.message}", err=True)


def _list(raws: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": raws}


@click.command("get", short_help="List runs, or show some.")
@run_names(required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Runs of all namespaces.")
@click.option("-l", "--selector", "label_selector", help="Runs with these labels, for example team=reasoning.")
@cluster_options
@output_option("table", "wide", "json", "yaml", "name")
def get_command(
    names: tuple[str, ...], where: Where, output: str, *, all_namespaces: bool, label_selector: str | None
) -> None:
    """List runs, or show some: stage, progress, dollars to the second, score.

    The money is the ledger's at this moment, newer than what kubectl get shows.
    """
    from rft_operator.cli.output import structured, table
    from rft_operator.client.manifests import shown

    if names and (all_namespaces or label_selector):
        raise click.UsageError("give names, or -A and -l, not both")

    async def go() -> tuple[list[dict[str, Any]], int]:
        async with where.client() as client:
            if names:
                return [await client.read(name) for name in names], client.api.clock.now()
            found = await client.read_all(all_namespaces=all_namespaces, label_selector=label_selector)
            return list(found), client.api.clock.now()

    raws, now = carry_out(go())
    if output in ("json", "yaml"):
        click.echo(structured(raws[0] if len(names) == 1 else _list(raws), output), nl=False)
    elif output == "name":
        for raw in raws:
            click.echo(f"reasoningfinetune.rft.dev/{raw['metadata']['name']}")
    elif not raws:
        click.echo("No runs." if all_namespaces else "No runs in this namespace; -A shows all.", err=True)
    else:
        runs = [shown(raw) for raw in raws]
        for line in table(_rows([it.run for it in runs], now=now, wide=output == "wide", spaces=all_namespaces)):
            click.echo(line)
        for it in runs:
            if it.trouble:
                click.echo(f"Note: {it.trouble}. The rest of it is shown.", err=True)


def _rows(runs: list[ReasoningFinetune], *, now: int, wide: bool, spaces: bool) -> list[tuple[str, ...]]:
    from rft_operator.cli.figures import HEAD, WIDE_HEAD, cells
    from rft_operator.domain.figures import figures

    names = ("NAMESPACE", "NAME") if spaces else ("NAME",)
    rows: list[tuple[str, ...]] = [(*names, *HEAD, *(WIDE_HEAD if wide else ()))]
    for run in runs:
        it = figures(run, now=now)
        rows.append((*((it.namespace,) if spaces else ()), it.name, *cells(it, wide=wide)))
    return rows


@click.command("top-up", short_help="Raise the limit of a run.")
@run_name
@click.argument("amount")
@click.option("--dry-run", is_flag=True, help="Say what it would buy, and change nothing.")
@_accept_option
@cluster_options
@output_option("text", "json", "yaml")
def top_up_command(name: str, amount: str, where: Where, output: str, *, dry_run: bool, accept_seconds: int) -> None:
    """Raise the limit of a run: to AMOUNT (120 or 120.50), or by so much (+20); never lower it.

    A run that was stopped for want of money goes on by itself. Where the money is a team's, the new limit holds once
    the team budget has it; until then it says what is free.
    """
    carry_out(_top_up(where, name, amount, output=output, dry_run=dry_run, accept_seconds=accept_seconds))


async def _top_up(where: Where, name: str, amount: str, *, output: str, dry_run: bool, accept_seconds: int) -> None:
    from rft_operator.cli.output import structured
    from rft_operator.cli.top_up import document, page

    async with where.client() as client:
        found = await client.top_up(name, amount, dry_run=dry_run)
        if output != "text":
            click.echo(structured(document(found), output), nl=False)
            return
        click.echo(page(f"{client.namespace}/{name}", found, dry_run=dry_run), nl=False)
        if found.added_micro_usd and not dry_run and accept_seconds:
            await _say_team(client, name, seconds=accept_seconds)


async def _say_team(client: AsyncClient, name: str, *, seconds: int) -> None:
    """Say what the operator thinks of a higher limit where a team has to have the money."""
    from rft_operator.api.status import ConditionType
    from rft_operator.client.conditions import is_fresh
    from rft_operator.domain.draft import condition_of
    from rft_operator.domain.team_run import ASKING, WAITING
    from rft_operator.errors import WaitTimeout

    def reason(run: ReasoningFinetune) -> str | None:
        found = condition_of(run.status, ConditionType.WITHIN_BUDGET)
        return found.reason if found is not None else None

    try:
        run = await client.wait(name, lambda run: is_fresh(run) and reason(run) != WAITING, timeout_seconds=seconds)
    except WaitTimeout:
        words = f"no operator has taken it over within {seconds} s; rft version says whether one runs"
        click.echo(f"  operator   {words}", err=True)
        return
    found = condition_of(run.status, ConditionType.WITHIN_BUDGET)
    if found is not None and found.reason in ASKING:
        click.echo(f"  team       the old limit holds until the money is there. {found.message}", err=True)
