"""Compares two mathematical expressions in a process of its own, one JSON object a line.

Invariant: an expression that hangs or kills the algebra system costs one verdict, never the evaluation: the parent
kills this process at a deadline and starts another, and its memory is bounded.
"""

from __future__ import annotations

import json
import re
import resource
import sys

MEMORY_LIMIT_BYTES = 4 << 30


def main() -> None:
    """Answer ``{"gold", "answer"}`` lines with ``{"verdict"}`` lines until the input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = MEMORY_LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(hard, MEMORY_LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    for line in sys.stdin:
        request = json.loads(line)
        verdict = compare(str(request["gold"]), str(request["answer"]))
        sys.stdout.write(json.dumps({"verdict": verdict}) + "\n")
        sys.stdout.flush()


def compare(gold: str, answer: str) -> str:
    """``equal``, ``different`` or ``unparsed``: the right answer is mathematics and the given one is not."""
    from math_verify import parse, verify

    wanted = parse(_as_math(gold), parsing_timeout=None)
    given = parse(_as_math(answer), parsing_timeout=None)
    if verify(wanted, given, timeout_seconds=None):
        return "equal"
    return "unparsed" if _is_mathematics(wanted) and not _is_mathematics(given) else "different"


def _is_mathematics(parsed: list[object]) -> bool:
    """math-verify gives the text alone where it could not read an expression."""
    return any(not isinstance(each, str) for each in parsed)


def _as_math(text: str) -> str:
    dollars = re.findall(r"(?<!\\)\$", text)
    if "\\boxed" in text or (dollars and len(dollars) % 2 == 0):
        return text
    return "$" + re.sub(r"\\?\$", "", text) + "$"


if __name__ == "__main__":
    main()
