"""Commands that make and change runs: apply, get, suspend, resume, top-up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rft_operator.cli.common import Function, Where, carry_out, cluster_options, output_option, run_name, run_names

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

    With --watch the exit code is that of the run: 1 if it failed.
    """
    from rft_operator.cli.commands_follow import follow_to_the_end

    applied = carry_out(_apply(where, output, **options))
    runs = [each for each in applied if each.kind == "ReasoningFinetune"]
    if follow and runs and not options["dry_run"]:
        for each in runs:
            follow_to_the_end(
                Where(kubeconfig=where.kubeconfig, context=where.context, namespace=each.namespace), each.name
            )


async def _apply(
    where: Where, output: str, *, file: Path, dry_run: bool, force_conflicts: bool, accept_seconds: int
) -> list[Applied]:
    from rft_operator.cli.output import structured

    source = sys.stdin.read() if str(file) == "-" else file
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
        for line in table(_rows(raws, now=now, wide=output == "wide", spaces=all_namespaces)):
            click.echo(line)


def _rows(raws: list[dict[str, Any]], *, now: int, wide: bool, spaces: bool) -> list[tuple[str, ...]]:
    from rft_operator.cli.figures import HEAD, WIDE_HEAD, cells
    from rft_operator.client.manifests import parsed
    from rft_operator.domain.figures import figures

    names = ("NAMESPACE", "NAME") if spaces else ("NAME",)
    rows: list[tuple[str, ...]] = [(*names, *HEAD, *(WIDE_HEAD if wide else ()))]
    for raw in raws:
        it = figures(parsed(raw), now=now)
        rows.append((*((it.namespace,) if spaces else ()), it.name, *cells(it, wide=wide)))
    return rows


def _wait_options(command: Function) -> Function:
    wait = click.option("--wait", is_flag=True, help="Return when it has happened.")
    timeout = click.option(
        "--timeout", "timeout_seconds", type=click.IntRange(1), default=900, show_default=True, help="Seconds to wait."
    )
    return wait(timeout(command))


@click.command("suspend", short_help="Stop runs with a checkpoint, free their GPUs.")
@run_names(required=True)
@_wait_options
@cluster_options
@output_option("text", "json", "yaml")
def suspend_command(names: tuple[str, ...], where: Where, output: str, *, wait: bool, timeout_seconds: int) -> None:
    """Stop runs with a checkpoint and free their GPUs; rft resume goes on from there."""
    carry_out(_set_suspend(where, names, wanted=True, output=output, wait_seconds=timeout_seconds if wait else None))


@click.command("resume", short_help="Let suspended runs go on.")
@run_names(required=True)
@_wait_options
@cluster_options
@output_option("text", "json", "yaml")
def resume_command(names: tuple[str, ...], where: Where, output: str, *, wait: bool, timeout_seconds: int) -> None:
    """Let suspended runs go on from their newest checkpoint."""
    carry_out(_set_suspend(where, names, wanted=False, output=output, wait_seconds=timeout_seconds if wait else None))


async def _set_suspend(
    where: Where, names: tuple[str, ...], *, wanted: bool, output: str, wait_seconds: int | None
) -> None:
    from rft_operator.cli.output import structured

    def say(name: str, words: str) -> None:
        if output == "text":
            click.echo(f"{client.namespace}/{name}: {words}")

    async with where.client() as client:
        changes = {}
        for name in dict.fromkeys(names):
            changes[name] = await (client.suspend(name) if wanted else client.resume(name))
            say(name, await _what_happens(client, name, wanted=wanted, changed=changes[name]))
        for name in changes if wait_seconds is not None else ():
            run = await client.wait(name, "Suspended" if wanted else "Running", timeout_seconds=wait_seconds)
            step = run.status.checkpoint.step if run.status.checkpoint is not None else None
            saved = f"checkpoint of step {step}" if step is not None else "no checkpoint yet"
            say(name, f"suspended, {saved}" if wanted else "all ranks run")
        if output != "text":
            rows = [
                {"namespace": client.namespace, "name": name, "suspend": wanted, "changed": changed}
                for name, changed in changes.items()
            ]
            click.echo(structured(rows, output), nl=False)


async def _what_happens(client: AsyncClient, name: str, *, wanted: bool, changed: bool) -> str:
    if not wanted:
        return "resuming" if changed else await _why_not(client, name)
    if not changed:
        return "is suspended already"
    grace = (await client.get(name)).spec.checkpoint.grace_seconds
    return f"suspending, the ranks save and free their GPUs within {grace} s"


async def _why_not(client: AsyncClient, name: str) -> str:
    """A run can stand still though nobody suspended it."""
    from rft_operator.api.status import ConditionType
    from rft_operator.domain.draft import condition_of, is_true

    run = await client.get(name)
    found = condition_of(run.status, ConditionType.SUSPENDED)
    if not is_true(run.status, ConditionType.SUSPENDED) or found is None:
        return "is not suspended"
    hint = f"; give it money: rft top-up {name} +N" if "Budget" in found.reason else ""
    return f"stands still, {found.reason}: {found.message}{hint}"


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
