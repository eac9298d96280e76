"""Gives answers to a generator's own scorer in a process of its own, one JSON object a line.

Invariant: a scorer that never ends, or takes all memory, costs one verdict: the parent kills this process at a deadline
and starts another. What a scorer prints is no reply.
"""

from __future__ import annotations

import base64
import json
import pickle
import resource
import sys

MEMORY_LIMIT_BYTES = 4 << 30


def main() -> None:
    """Answer ``{"answer", "entry"}`` lines with ``{"reward"}`` lines until the input ends; the URI is the argument."""
    from rft_trainer.gym import scorer_here
    from rft_trainer.uris import parse_uri

    replies, sys.stdout = sys.stdout, sys.stderr
    score = scorer_here(parse_uri(sys.argv[1]))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = MEMORY_LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(hard, MEMORY_LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    for line in sys.stdin:
        request = json.loads(line)
        entry = pickle.loads(base64.b64decode(request["entry"]))  # noqa: S301 - the parent's own, of the generator
        replies.write(json.dumps({"reward": score(str(request["answer"]), entry)}) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
