"""The command line over the fake API server: runs as they are stored, and what happens while a command works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from rft_operator.api import KIND
from rft_operator.cli.main import main
from support.builders import NAME, NAMESPACE
from support.fake_api import FakeApi
from support.objects import stored_run

TIME = "2026-01-01T00:00:00Z"


def condition(type_: str, status: str = "True", message: str = "", reason: str | None = None) -> dict[str, Any]:
    """Return a condition."""
    return {
        "type": type_,
        "status": status,
        "reason": reason or type_,
        "message": message,
        "lastTransitionTime": TIME,
    }


COMPLETE = {"stage": "Complete", "conditions": [condition("Complete")]}
FAILED = {"stage": "Failed", "conditions": [condition("Failed", message="No GPU left.")]}
TRAINING = {"stage": "Training"}


def run_in(name: str = NAME, *, namespace: str = NAMESPACE, **fields: Any) -> dict[str, Any]:
    """Return a stored run."""
    raw = stored_run(name=name, uid=f"uid-{namespace}-{name}", **fields)
    raw["metadata"] |= {"namespace": namespace, "creationTimestamp": TIME}
    return raw


@dataclass(slots=True)
class CommandLine:
    """``rft`` with the kubeconfig of a fake API server."""

    api: FakeApi

    def rft(self, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        """Run a command; return exit code, stdout and stderr."""
        done = CliRunner().invoke(main, [*arguments, "--kubeconfig", str(self.api.kubeconfig)], input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    def put(self, *objects: dict[str, Any]) -> None:
        """Store objects."""
        self.api.do(lambda: [self.api.kube.put(each) for each in objects])

    def becomes(self, status: dict[str, Any], *, name: str = NAME) -> Callable[[], object]:
        """Return what gives a run another status."""
        return lambda: self.api.kube.patch(KIND, NAMESPACE, name, lambda obj: obj.update(status=status))

    def once_watched(self, act: Callable[[], object]) -> None:
        """Do something to the cluster as soon as it is watched."""
        self.api.when(lambda: any("watch" in query for _, _, query, _ in self.api.requests), act)

    def away(self, *, then: Callable[[], object]) -> None:
        """The API server is away until it was asked three times; only for :meth:`once_watched`."""
        asked = len(self.api.requests)
        self.api.fail(503, "shutting down")
        self.api.break_off()

        def mend() -> None:
            self.api.mend()
            then()

        self.api.when(lambda: len(self.api.requests) >= asked + 3, mend)
