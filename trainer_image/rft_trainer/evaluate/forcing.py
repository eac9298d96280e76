"""Budget forcing: how long a model thinks is set from outside (s1, arXiv 2501.19393, section 3.1).

A model that ends its thinking early has the mark dropped and ``Wait`` put there instead; one whose budget is used up
gets the mark that ends thinking, and the words that call for the answer. Invariant: a pure state machine, one for each
sample. All legs share one budget, the text put in by us included, and every text asked for is exactly what is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rft_trainer.evaluate.loops import is_looping
from rft_trainer.evaluate.sampler import Completion, Finish
from rft_trainer.prepare.formats import Format

FINAL_ANSWER = "\nFinal Answer:"
WAIT = "Wait"
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_BROKEN_AT_MOST = 3
"""All but one of a character's bytes; more of these marks than that the model wrote itself."""
PIECE_TOKENS = 1_024
"""A leg is generated in pieces of so many tokens at most; between two of them a loop is noticed."""


@dataclass(frozen=True)
class Delimiters:
    """The texts around the thinking of a family of models; each may be any number of tokens."""

    start: str
    end: str
    """What is put where thinking ends."""
    stops: tuple[str, ...]
    """The texts with which a model ends its thinking itself."""


SKY_T1 = Delimiters(
    start="<|begin_of_thought|>",
    end="<|end_of_thought|>\n\n<|begin_of_solution|>",
    stops=("<|end_of_thought|>", "<|begin_of_solution|>"),
)
S1 = Delimiters(start="<|im_start|>think", end="<|im_start|>answer", stops=("<|im_start|>",))
GENERIC = Delimiters(start="<think>", end="</think>", stops=("</think>",))


def delimiters_of(format_: Format) -> Delimiters:
    """The delimiters that a model trained on rows of this format knows."""
    return {"sky-t1": SKY_T1, "s1": S1}.get(format_, GENERIC)


@dataclass(frozen=True, kw_only=True)
class ThinkingBudget:
    """One setting of a sweep."""

    waits: int
    """So often an early end of thinking is not accepted."""
    thinking_tokens: int
    answer_tokens: int
    stages: tuple[int, ...] = ()
    """A leg is also interrupted where so many tokens are used: the smaller budgets of a sweep, which end there."""


class Ending(StrEnum):
    """How a sample ended."""

    NATURAL = "natural"
    """The model ended its thinking itself."""
    CAPPED = "capped"
    """The thinking budget was used up."""
    EOS = "eos"
    """The model ended its turn while it was thinking."""
    LOOPED = "looped"
    """The thinking went round in circles and was ended."""
    NO_ANSWER = "no-answer"
    """Nothing came after the thinking, or not all of it within the tokens kept for it; the legs say what was before."""


@dataclass(frozen=True)
class Leg:
    """The thinking up to one end of it, accepted or not."""

    tokens: int
    ending: Ending


@dataclass(frozen=True)
class Ask:
    """What the engine is to continue."""

    text: str
    stops: tuple[str, ...]
    max_tokens: int


@dataclass(frozen=True)
class ForcedAnswer:
    """A sample whose thinking was kept to a budget."""

    text: str
    """Everything after the prompt, the texts put in by us included."""
    legs: tuple[Leg, ...]
    waits: int
    """Used ones."""
    thinking_tokens: int
    """The Waits' own included."""
    answer_tokens: int
    answer_finished: bool
    ending: Ending


class Forcing:
    """One sample: ``ask`` says what to generate next, ``take`` what came of it."""

    def __init__(
        self,
        prompt: str,
        *,
        delimiters: Delimiters,
        budget: ThinkingBudget,
        wait_tokens: int,
        piece_tokens: int = PIECE_TOKENS,
    ) -> None:
        self._prompt, self._delimiters, self._budget = prompt, delimiters, budget
        self._wait_tokens, self._piece_tokens = wait_tokens, piece_tokens
        # Some chat templates open the thinking themselves.
        self._text = "" if prompt.rstrip().endswith(delimiters.start) else delimiters.start
        self._thinking_from = len(self._text)
        self._legs: list[Leg] = []
        self._leg_tokens = self._used = self._waits = 0
        self._thought: Ending | None = None
        self._answer: Completion | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._answer is not None

    def ask(self) -> Ask:
        """What to generate next; not to be called when done."""
        text = self._prompt + self._text
        if self._thought is not None:
            return Ask(text, (), self._budget.answer_tokens)
        to_stage = (stage - self._used for stage in self._budget.stages if stage > self._used)
        return Ask(text, self._delimiters.stops, min(self._piece_tokens, self._left, *to_stage))

    def take(self, completion: Completion) -> None:
        """Go on with what the engine gave for the last ``ask``."""
        if self._thought is not None:
            self._text += completion.text
            self._answer = completion
            return
        short = completion.tokens < self.ask().max_tokens
        self._text += without_broken_end(completion.text)
        self._leg_tokens += completion.tokens
        self._used += completion.tokens
        if completion.finish is Finish.LENGTH:
            self._cut(out_of_room=short or self._left <= 0)
        else:
            self._end(Ending.EOS if completion.finish is Finish.EOS else Ending.NATURAL)

    def answer(self) -> ForcedAnswer:
        """The finished sample."""
        assert self._answer is not None
        assert self._thought is not None
        finished = self._answer.finish is not Finish.LENGTH
        return ForcedAnswer(
            text=self._text,
            legs=tuple(self._legs),
            waits=self._waits,
            thinking_tokens=self._used,
            answer_tokens=self._answer.tokens,
            answer_finished=finished,
            ending=self._thought if finished and self._answer.text.strip() else Ending.NO_ANSWER,
        )

    @property
    def _left(self) -> int:
        return self._budget.thinking_tokens - self._used

    def _cut(self, *, out_of_room: bool) -> None:
        self._text = without_begun(self._text, self._delimiters.stops, keep=self._thinking_from)
        looping = is_looping(self._text[self._thinking_from :])
        if not looping and not out_of_room:
            return  # the leg goes on with its next piece
        self._close_leg(Ending.LOOPED if looping else Ending.CAPPED)
        self._thought = self._legs[-1].ending
        self._text += ("" if self._text.endswith("\n") else "\n") + self._delimiters.end + FINAL_ANSWER

    def _end(self, ending: Ending) -> None:
        self._close_leg(ending)
        if self._waits < self._budget.waits and self._left > self._wait_tokens:
            self._text += WAIT
            self._used += self._wait_tokens
            self._waits += 1
            return
        self._thought = ending
        self._text += self._delimiters.end

    def _close_leg(self, ending: Ending) -> None:
        self._legs.append(Leg(self._leg_tokens, ending))
        self._leg_tokens = 0


def without_broken_end(text: str) -> str:
    """``text`` without the character that a cut between its tokens has broken: its bytes decode to these marks.

    The model would else be shown a mark that it never wrote, and go on from there; now it writes the character anew.
    """
    kept = text.rstrip(_BROKEN)
    return kept if len(text) - len(kept) <= _BROKEN_AT_MOST else text


def without_begun(text: str, stops: tuple[str, ...], *, keep: int) -> str:
    """``text`` without a stop that the token limit cut in its middle; the first ``keep`` characters stay.

    Else the rest of the stop would be generated in the next piece, where nobody would know it.
    """
    for size in range(min(len(text) - keep, max(map(len, stops)) - 1), 0, -1):
        if any(len(stop) > size and text.endswith(stop[:size]) for stop in stops):
            return text[:-size]
    return text
