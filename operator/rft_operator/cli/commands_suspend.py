"""Commands that stop runs and let them go on: suspend and resume.

Invariant: what is said of a run is what it will do: one that is over neither stops nor goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rft_operator.cli.common import Function, Problem, Where, carry_out, cluster_options, output_option, run_names

if TYPE_CHECKING:
    from rft_operator.api.resource import ReasoningFinetune
    from rft_operator.client.aio import AsyncClient


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
    from rft_operator.domain.draft import is_over

    def say(name: str, words: str) -> None:
        if output == "text":
            click.echo(f"{client.namespace}/{name}: {words}")

    async with where.client() as client:
        changes, waited_for, is_refused = {}, [], False
        for name in dict.fromkeys(names):
            asked = await _asked(client, name, wanted=wanted)
            if asked is None:
                is_refused = True
                continue
            changes[name], run = asked
            say(name, _what_happens(run, wanted=wanted, changed=changes[name]))
            if wait_seconds is not None and not (wanted and is_over(run.status)):  # that one holds nothing any more
                waited_for.append(name)
        for name in waited_for:
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
        if is_refused:
            raise click.exceptions.Exit(Problem.exit_code)


async def _asked(client: AsyncClient, name: str, *, wanted: bool) -> tuple[bool, ReasoningFinetune] | None:
    """Ask for it: whether that changed anything, and the run.

    None for one that it is told of that it cannot be asked: the others are to stop all the same, for they cost money.
    """
    from rft_operator.errors import Conflict, Forbidden, InvalidResource, Refused, Rejected, RunNotFound

    try:
        return await (client.suspend(name) if wanted else client.resume(name)), await client.get(name)
    except Forbidden:
        raise
    except (RunNotFound, Refused, InvalidResource, Rejected, Conflict) as error:
        Problem(str(error)).show()
        return None


def _what_happens(run: ReasoningFinetune, *, wanted: bool, changed: bool) -> str:
    from rft_operator.api.status import ConditionType
    from rft_operator.domain.draft import is_over, is_true

    if is_over(run.status):
        return _over(run)
    if not wanted:
        return "resuming" if changed else _why_not(run)
    if not changed and is_true(run.status, ConditionType.SUSPENDED):
        return "is suspended already"
    word = "suspending" if changed else "is being suspended already"
    if not run.status.ledger.open:
        return f"{word}, it holds no GPUs now"
    return f"{word}, the ranks save and free their GPUs within {run.spec.checkpoint.grace_seconds} s"


def _over(run: ReasoningFinetune) -> str:
    """A run that is over neither stops nor goes on; one that ended for want of money does with more."""
    from rft_operator.api.status import ConditionType
    from rft_operator.domain.conclusions import WANT_OF_MONEY
    from rft_operator.domain.draft import condition_of, has_failed

    failed = condition_of(run.status, ConditionType.FAILED)
    if failed is None or not has_failed(run.status):
        return "is complete, nothing of it runs any more"
    hint = _give_it_money(run) if failed.reason in WANT_OF_MONEY else ""
    return f"has failed ({failed.reason}), nothing of it runs any more{hint}"


def _why_not(run: ReasoningFinetune) -> str:
    """A run can stand still though nobody suspended it."""
    from rft_operator.api.status import ConditionType
    from rft_operator.domain.draft import condition_of, is_true

    found = condition_of(run.status, ConditionType.SUSPENDED)
    if not is_true(run.status, ConditionType.SUSPENDED) or found is None:
        return "is not suspended"
    hint = _give_it_money(run) if "Budget" in found.reason else ""
    return f"stands still, {found.reason}: {found.message}{hint}"


def _give_it_money(run: ReasoningFinetune) -> str:
    return f"; give it money: rft top-up {run.metadata.name} +N"
