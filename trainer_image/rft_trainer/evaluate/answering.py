"""Keeps an engine supplied with questions, and hands on the answers as they come.

Invariant: as many requests are under way as may be, for as long as there are any; an answer is handed on as soon as it
is there. The settings of a sweep share the thinking that they have in common, and no engine is asked for it twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Generic, TypeVar

from rft_trainer.evaluate.exchanges import Answer, Exchange
from rft_trainer.evaluate.sampler import Completion, CompletionRequest, Sampler

ANSWERING_VERSION = 5
"""Part of the protocol: raised when a change of ours can change what a model answers."""

Key = TypeVar("Key")


def ask_all(
    sampler: Sampler, places: Iterable[Mapping[Key, Exchange]], *, at_once: int
) -> Generator[tuple[Key, Answer], None, None]:
    """Give each answer when it is there, in any order.

    A place is a question's answers that may have thinking in common: the settings of a sweep. ``at_once`` requests are
    under way at most. Places are begun in their order, and only when there is room for them.
    """
    with closing(_Answering(sampler, places, at_once=at_once)) as answering:
        yield from answering.run()


class _Place(Generic[Key]):
    """The answers to one question that share what they ask for."""

    def __init__(self, exchanges: Mapping[Key, Exchange]) -> None:
        self.open = dict(exchanges)
        self._known: dict[CompletionRequest, Completion] = {}
        self._awaited: dict[CompletionRequest, list[Key]] = {}

    def begin(self) -> Sequence[CompletionRequest]:
        """What is to be asked for first."""
        return [request for key in self.open for request in self._advance(key)]

    def take(self, request: CompletionRequest, completion: Completion) -> Sequence[CompletionRequest]:
        """Go on with what came of a request; returns what is to be asked for then."""
        self._known[request] = completion
        return [new for key in self._awaited.pop(request) for new in self._advance(key)]

    def finished(self) -> Sequence[tuple[Key, Answer]]:
        """Take out the answers that are there."""
        done = [key for key, exchange in self.open.items() if exchange.done]
        return [(key, self.open.pop(key).answer()) for key in done]

    def _advance(self, key: Key) -> Sequence[CompletionRequest]:
        exchange = self.open[key]
        while not exchange.done:
            request = exchange.ask()
            if request not in self._known:
                awaiting = self._awaited.setdefault(request, [])
                awaiting.append(key)
                return [request] if len(awaiting) == 1 else []
            exchange.take(self._known[request])
        return []


class _Answering(Generic[Key]):
    """A window that is kept full."""

    def __init__(self, sampler: Sampler, places: Iterable[Mapping[Key, Exchange]], *, at_once: int) -> None:
        self._window, self._at_once = sampler.window(), at_once
        self._places = iter(places)
        self._next: deque[tuple[_Place[Key], CompletionRequest]] = deque()
        self._under_way: dict[int, tuple[_Place[Key], CompletionRequest]] = {}
        self._tickets = 0

    def run(self) -> Iterator[tuple[Key, Answer]]:
        """Give the answers."""
        self._fill()
        while self._under_way:
            for ticket, completion in self._window.get():
                place, request = self._under_way.pop(ticket)
                self._next.extend((place, new) for new in place.take(request, completion))
                yield from place.finished()
            self._fill()

    def close(self) -> None:
        """Leave what is under way."""
        self._window.close()

    def _fill(self) -> None:
        # What was begun goes before what was not: a restart repeats less.
        while len(self._under_way) < self._at_once and (self._next or self._begin()):
            self._tickets += 1
            self._under_way[self._tickets] = self._next.popleft()
            self._window.put(self._tickets, self._under_way[self._tickets][1])

    def _begin(self) -> bool:
        for exchanges in self._places:
            place = _Place(exchanges)
            self._next.extend((place, request) for request in place.begin())
            if self._next:
                return True
        return False
