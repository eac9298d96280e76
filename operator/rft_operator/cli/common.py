"""What all commands share: where the cluster is, how an error ends a command, and what its exit code says.

Invariant: exit code 0 is yes, 1 is no (the run failed, the plan is too dear, the bill disagrees), 2 is that the command
could not be carried out, 3 is that time was up and the run goes on, 130 is Ctrl-C, 141 a closed pipe. An expected error
is words, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from rft_operator.errors import RftError, RunFailed, WaitTimeout

if TYPE_CHECKING:
    from rft_operator.client.aio import AsyncClient

Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])
NO = 1
INTERRUPTED = 130
NOT_READ = 141
"""As of a program that the closed pipe has ended: nobody reads what is written any more, which is no "no"."""
NAME_SECONDS = 2.0
"""A completion that takes longer is no help."""


class Problem(click.ClickException):
    """An expected error: not a "no", which has exit code 1."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        from rft_operator.cli.output import harmless

        super().__init__(harmless(message))


class ItFailed(Problem):
    """The command was carried out, and what it waited for can no longer happen: a "no"."""

    exit_code = NO


class TimeIsUp(Problem):
    """What was waited for did not happen in time."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which cluster, and which namespace of it."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """Connect for the time of a block."""
        from rft_operator.client.aio import AsyncClient

        async with await AsyncClient.connect(
            kubeconfig=self.kubeconfig, context=self.context, namespace=self.namespace
        ) as client:
            yield client


def cluster_options(command: Function) -> Function:
    """Add --kubeconfig, --context and --namespace; the command gets ``where``."""

    @click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: KUBECONFIG, else ~/.kube/config.")
    @click.option("--context", help="Context of the kubeconfig. Default: its current one.")
    @click.option("-n", "--namespace", help="Namespace. Default: that of the context.")
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, kubeconfig: Path | None, context: str | None, namespace: str | None, **options: Any
    ) -> Any:
        where = Where(kubeconfig=kubeconfig, context=context, namespace=namespace)
        return command(*arguments, where=where, **options)

    return cast(Function, wrapped)


def output_option(*choices: str) -> Callable[[Function], Function]:
    """Add -o; the first choice is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(choices), default=choices[0], show_default=True, help="Form of the output."
    )


def run_name(command: Function) -> Function:
    """Add the argument NAME, which the shell completes."""
    return click.argument("name", shell_complete=complete_names)(command)


def run_names(*, required: bool) -> Callable[[Function], Function]:
    """Add the argument NAME..., which the shell completes."""
    metavar = "NAME..." if required else "[NAME]..."
    return click.argument("names", metavar=metavar, nargs=-1, required=required, shell_complete=complete_names)


def carry_out(work: Coroutine[Any, Any, Value]) -> Value:
    """Run it; an expected error becomes words and an exit code."""
    try:
        return asyncio.run(work)
    except WaitTimeout as error:
        raise TimeIsUp(str(error)) from error
    except RunFailed as error:
        raise ItFailed(str(error)) from error
    except (RftError, TimeoutError) as error:
        raise Problem(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def write_file(output: Path, text: str) -> None:
    """Write a result to a file; raises Problem."""
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:  # its own name of the file is absent where a disk is full
        raise Problem(f"{output}: {error.strerror}") from error


def complete_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of runs that begin so; none if the cluster does not answer at once."""
    from rft_operator.client import aio  # noqa: F401 - its libraries take longer to load than the cluster to answer

    chosen = {key: ctx.params.get(key) for key in ("kubeconfig", "context", "namespace")}

    async def names() -> list[str]:
        async with asyncio.timeout(NAME_SECONDS), Where(**chosen).client() as client:
            return [str(each["metadata"]["name"]) for each in await client.read_all()]

    taken = ctx.params.get("names") or ()
    with contextlib.suppress(RftError, TimeoutError):
        return [each for each in asyncio.run(names()) if each.startswith(incomplete) and each not in taken]
    return []
