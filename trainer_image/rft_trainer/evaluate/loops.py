"""Sees whether a text has begun to repeat itself without end, as models that think for long sometimes do.

Invariant: only what repeats letter by letter is a loop; steps that are alike but differ in a digit are none.
"""

from __future__ import annotations

WINDOW_CHARACTERS = 16_384
"""So much of the end is looked at."""
LEAST_CHARACTERS = 600
"""Shorter repetitions are tables and rules."""
LEAST_REPEATS = 4


def is_looping(text: str) -> bool:
    """Whether the text ends with at least four times the same passage, 600 characters or more together."""
    if len(text) < LEAST_CHARACTERS:
        return False
    backwards = text[: -WINDOW_CHARACTERS - 1 : -1]
    # Knuth, Morris and Pratt: of each beginning, the longest one that it also ends with; the rest is its period.
    borders = [0] * len(backwards)
    for index in range(1, len(backwards)):
        size = borders[index - 1]
        while size and backwards[index] != backwards[size]:
            size = borders[size - 1]
        borders[index] = size + (backwards[index] == backwards[size])
    return any(
        length >= LEAST_REPEATS * (length - borders[length - 1])
        for length in range(LEAST_CHARACTERS, len(backwards) + 1)
    )
