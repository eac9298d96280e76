"""Runs programs that a model wrote so that they can do nothing but compute: see ``docs/code-execution.md``.

Invariant: the judge is another process, and what a right answer looks like is never in the process that is tested. A
sandbox that cannot be made, or lets through what it should not, is an error, and never a wrong answer.

Nothing is imported here: the process that runs the programs shall hold Python's own modules alone.
"""
