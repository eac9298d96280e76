"""All errors of the local cluster; each message says what to do."""

from __future__ import annotations


class LocalClusterError(Exception):
    """Base of all errors of the local cluster."""


class NotSupportedHere(LocalClusterError):  # noqa: N818 - named for the state
    """This machine cannot run the local cluster."""


class ToolMissing(LocalClusterError):  # noqa: N818 - named for the state
    """A program that cannot be built or installed."""


class StateError(LocalClusterError):
    """The cluster is not in the state the command needs."""


class StartError(LocalClusterError):
    """A part did not start in time."""
