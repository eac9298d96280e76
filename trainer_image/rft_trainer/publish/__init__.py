"""Gives the trained model away: to the hub or to a volume, with a card that says what it is worth and what it cost.

Invariant: what is published is what was measured. Scores of another checkpoint, or of a part of the questions, never
stand beside a model as if they were its own. Publishing again changes nothing, and goes on where it was broken off.
"""

from __future__ import annotations
