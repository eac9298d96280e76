"""The typed Python client: apply, follow, pay and read runs from a notebook, a script or a program.

``Client`` is synchronous, ``AsyncClient`` its core. Errors are those of :mod:`rft_operator.errors`. See docs/client.md.
"""

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Spec
from rft_operator.client.aio import Applied, AsyncClient, Result
from rft_operator.client.conditions import Condition
from rft_operator.client.log_lines import LogLine, LogQuery
from rft_operator.client.sync import Client
from rft_operator.client.watching import Change, Happened
from rft_operator.domain.cost import By, CostTable
from rft_operator.domain.figures import Figures
from rft_operator.domain.top_up import TopUp
from rft_operator.errors import (
    Conflict,
    Forbidden,
    NotInstalled,
    Refused,
    Rejected,
    RftError,
    RunFailed,
    RunNotFound,
    Unavailable,
    WaitTimeout,
)

__all__ = [
    "Applied",
    "AsyncClient",
    "By",
    "Change",
    "Client",
    "Condition",
    "Conflict",
    "CostTable",
    "Figures",
    "Forbidden",
    "Happened",
    "LogLine",
    "LogQuery",
    "NotInstalled",
    "ReasoningFinetune",
    "Refused",
    "Rejected",
    "Result",
    "RftError",
    "RunFailed",
    "RunNotFound",
    "Spec",
    "TopUp",
    "Unavailable",
    "WaitTimeout",
]
