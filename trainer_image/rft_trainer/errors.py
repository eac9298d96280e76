"""Errors a stage can end with; each carries the exit code the operator reads (invariant: one meaning, one code)."""

from __future__ import annotations

from rft_trainer.contract import ExitCode


class StageError(Exception):
    """A failure that is explained to the user; ``exit_code`` tells the operator whether a retry can help."""

    exit_code: int = 1


class BadInputError(StageError):
    """Configuration, model or data that no retry can heal."""

    exit_code = ExitCode.BAD_INPUT


class RendezvousError(StageError):
    """The gang did not come together within its bound."""

    exit_code = ExitCode.RENDEZVOUS_FAILED


class DivergedError(StageError):
    """A loss, a gradient or a weight is not a finite number."""

    exit_code = ExitCode.DIVERGED


class DrainedError(StageError):
    """Asked to stop before the work was done, and nothing of it could be saved."""

    exit_code = ExitCode.DRAINED_WITHOUT_CHECKPOINT


class SandboxError(StageError):
    """Code cannot be run safely here: nothing is scored, for that would be a 0 that nobody earned."""


class NurseryLostError(SandboxError):
    """The sandbox went away while a program ran; another try may help."""
