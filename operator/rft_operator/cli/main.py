"""``rft``, also ``kubectl rft``: run, follow, pay, judge and report; ``rft local`` where that package is installed.

Invariant: a command's module is imported when the command is used or described, and heavy libraries only when it works,
so that ``rft --help`` and the shell's completion answer at once. docs/cli.md describes every command.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.metadata import version
from typing import Any

import click

from rft_operator.cli.common import NOT_READ, Problem

COMMANDS = {
    "apply": "commands_runs:apply_command",
    "audit": "commands_money:audit_command",
    "completion": "commands_about:completion_command",
    "cost": "commands_money:cost_command",
    "evaluate": "commands_evaluate:evaluate_command",
    "get": "commands_runs:get_command",
    "lm-eval": "commands_lm_eval:lm_eval_command",
    "logs": "commands_follow:logs_command",
    "plan": "commands_money:plan_command",
    "publish": "commands_publish:publish_command",
    "report": "commands_report:report_command",
    "resume": "commands_suspend:resume_command",
    "score": "commands_report:score_command",
    "suspend": "commands_suspend:suspend_command",
    "top-up": "commands_runs:top_up_command",
    "version": "commands_about:version_command",
    "watch": "commands_follow:watch_command",
}
"""Command -> module of this package and function in it."""
OTHERS = {"local": "rft_local.cli:local"}
"""Commands of packages that need not be installed."""
EXTRA = "cli"
LIBRARIES = frozenset({"aiohttp", "kubernetes", "matplotlib", "prometheus_client", "rich"})
"""What the extra has, and the commands that need none of it do without."""
COMPLETES_FILES = {"file", "dir"}
NO_FILES, FILES = ":4", ":0"
"""Last line of an answer to kubectl's completion: whether the shell may offer files too."""


class LazyGroup(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all command names."""
        return sorted([*COMMANDS, *(name for name, place in OTHERS.items() if _is_installed(place))])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        place = f"rft_operator.cli.{COMMANDS[cmd_name]}" if cmd_name in COMMANDS else OTHERS.get(cmd_name)
        if place is None or not _is_installed(place):
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Carry the command out; what is not installed is named with the extra that has it."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in LIBRARIES:
                raise
            words = f"{library} is not installed; rft {ctx.invoked_subcommand} needs it"
            raise Problem(f"{words}: pip install 'reasoning-finetune-operator[{EXTRA}]'") from error
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else it is tried once more at the end
            sys.exit(NOT_READ)
        except OSError as error:  # of what is written to, as a full disk behind a redirection
            raise Problem(f"rft {ctx.invoked_subcommand}: {error}") from error


def _is_installed(place: str) -> bool:
    return importlib.util.find_spec(place.partition(".")[0]) is not None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("reasoning-finetune-operator"), prog_name="rft")
def main() -> None:
    """Train and evaluate reasoning models on Kubernetes within a budget.

    Exit codes: 0 yes; 1 no (the run failed, the plan is too dear, the bill disagrees); 2 the command could not be
    carried out; 3 time was up and the run goes on; 130 Ctrl-C; 141 the pipe that is written to was closed.
    """


def kubectl_plugin() -> None:
    """Entry point ``kubectl-rft``: kubectl runs it as ``kubectl rft``."""
    main(prog_name="kubectl rft")


def kubectl_completion() -> None:
    """Entry point ``kubectl_complete-rft``: kubectl asks it what may follow the words that were typed."""
    from click.shell_completion import ShellComplete

    *words, incomplete = sys.argv[1:] or [""]
    items = ShellComplete(main, {}, "rft", "_RFT_COMPLETE").get_completions(words, incomplete)
    for each in items:
        if each.type not in COMPLETES_FILES:
            click.echo(f"{each.value}\t{each.help}" if each.help else each.value)
    click.echo(FILES if any(each.type in COMPLETES_FILES for each in items) else NO_FILES)


if __name__ == "__main__":
    main()
