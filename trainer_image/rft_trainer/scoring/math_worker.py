"""Compares two mathematical expressions in a process of its own, one JSON object a line.

Invariant: an expression that hangs or kills the algebra system costs one verdict, never the evaluation: the parent
kills this process at a deadline and starts another.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Answer ``{"gold", "answer"}`` lines with ``{"verdict"}`` lines until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        verdict = compare(str(request["gold"]), str(request["answer"]))
        sys.stdout.write(json.dumps({"verdict": verdict}) + "\n")
        sys.stdout.flush()


def compare(gold: str, answer: str) -> str:
    """``equal``, ``different`` or ``unparsed`` (the answer is no mathematics)."""
    from math_verify import parse, verify

    wanted = parse(_as_math(gold), parsing_timeout=None)
    given = parse(_as_math(answer), parsing_timeout=None)
    if not given:
        return "unparsed"
    return "equal" if verify(wanted, given, timeout_seconds=None) else "different"


def _as_math(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"


if __name__ == "__main__":
    main()
