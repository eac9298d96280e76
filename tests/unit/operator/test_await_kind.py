"""The hook of a first install: it ends once the API server serves a kind, as every look says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from rft_operator import await_kind
from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.await_kind import IN_A_ROW, main, served
from rft_operator.errors import Forbidden, NotFound, Unavailable

Answer = Mapping[str, object] | Exception
THERE: Answer = {"resources": [{"kind": KIND}, {"kind": BUDGET_KIND}]}
OTHER: Answer = {"resources": [{"kind": KIND}]}


class Server:
    """An API server that gives answers in order, and the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.looks = 0

    async def look(self, path: str) -> dict[str, object]:
        assert path == "/apis/rft.dev/v1alpha1"
        answer = self.answers[min(self.looks, len(self.answers) - 1)]
        self.looks += 1
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.mark.parametrize(
    ("answers", "looks"),
    [
        ([THERE], IN_A_ROW),
        ([NotFound("no group"), OTHER, THERE], 2 + IN_A_ROW),
        ([Unavailable("busy"), Forbidden("not yet"), THERE], 2 + IN_A_ROW),
        ([THERE, OTHER, THERE], 2 + IN_A_ROW),  # another API server does not know it yet
        ([{"resources": None}, {}, THERE], 2 + IN_A_ROW),
    ],
    ids=["served", "later", "unwell", "by one", "odd"],
)
async def test_wait_ends_when_several_looks_in_a_row_see_the_kind(answers: list[Answer], looks: int) -> None:
    server = Server(*answers)
    await served(BUDGET_KIND, look=server.look, pause_seconds=0)
    assert server.looks == looks


async def test_wait_goes_on_while_the_kind_is_not_served() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await served(BUDGET_KIND, look=Server(OTHER).look, pause_seconds=0.001)


@pytest.mark.parametrize("words", [[], ["Pod"], [KIND, BUDGET_KIND]])
def test_words_that_name_none_of_our_kinds_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: python -m rft_operator.await_kind" in capsys.readouterr().err


@pytest.mark.parametrize(("there", "code"), [(True, 0), (False, 1)])
def test_exit_code_says_whether_the_kind_is_served(
    there: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def amain(kind: str) -> bool:
        assert kind == BUDGET_KIND
        return there

    monkeypatch.setattr(await_kind, "amain", amain)
    assert main([BUDGET_KIND]) == code
    said = capsys.readouterr()
    assert ("is not served after" in said.err) is not there
