"""Judges answers. Needs no torch, so the command line can use it too."""

from __future__ import annotations

from rft_trainer.scoring.judge import Judge, Verdict

__all__ = ["Judge", "Verdict"]
