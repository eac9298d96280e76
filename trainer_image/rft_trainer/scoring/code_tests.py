"""What a program is tested with: the ``tests`` of a code question.

Invariant: tests that no answer could fail, or none could pass, are refused by field and value before anything is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.sandbox.limits import MEBIBYTE, Limits

MAX_CPU_SECONDS = 120
MAX_MEMORY_MIB = 16_384
WALL_PER_CPU_SECOND = 2.5
"""A busy machine gives a program less than a whole processor."""
_FORMS = 'give {"inputs", "outputs"}, {"inputs", "outputs", "function"} or {"prompt", "test", "function"}'
_LIMITS = {"cpu_seconds", "memory_mib"}


@dataclass(frozen=True)
class ProgramTests:
    """The program reads an input and prints an output."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True)
class FunctionTests:
    """The program defines a function, or a method of a class ``Solution``, which is called."""

    function: str
    arguments: tuple[tuple[Any, ...], ...]
    outputs: tuple[Any, ...]
    limits: Limits


@dataclass(frozen=True)
class ExaminedTests:
    """The program defines a function that a test of the benchmark's own calls, as HumanEval has it."""

    prompt: str
    """What the model was given: helpers and the head of the function."""
    test: str
    """Code that defines ``check(candidate)`` or asserts at once."""
    function: str
    limits: Limits


CodeTests = ProgramTests | FunctionTests | ExaminedTests


@lru_cache(maxsize=1)
def parse_tests(text: str) -> CodeTests:
    """Read ``tests`` as JSON text; raises :class:`BadInputError`."""
    try:
        return read_tests(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"tests {_shown(text)} are not JSON ({error}); {_FORMS}") from error


def read_tests(tests: Any) -> CodeTests:
    """Read ``tests`` as a row has them; raises :class:`BadInputError`."""
    if not isinstance(tests, dict):
        raise BadInputError(f"tests {_shown(tests)} are not an object; {_FORMS}")
    known = {"inputs", "outputs", "function", "prompt", "test"} | _LIMITS
    strange = sorted(set(tests) - known)
    if strange:
        raise BadInputError(f"tests.{strange[0]} is unknown; {_FORMS}, and {' and '.join(sorted(_LIMITS))} if you like")
    limits = _limits(tests)
    if "test" in tests:
        return _examined(tests, limits)
    inputs, outputs = _list(tests, "inputs"), _list(tests, "outputs")
    if len(inputs) != len(outputs):
        raise BadInputError(f"tests have {len(inputs)} inputs and {len(outputs)} outputs; give one output an input")
    if "function" in tests:
        return _function(tests, inputs, outputs, limits)
    for name, values in (("inputs", inputs), ("outputs", outputs)):
        wrong = next((each for each in values if not isinstance(each, str)), None)
        if wrong is not None:
            raise BadInputError(f"tests.{name} has {_shown(wrong)}, which is not text; write it in quotes")
    return ProgramTests(tuple(inputs), tuple(outputs), limits)


def _function(tests: Mapping[str, Any], inputs: list[Any], outputs: list[Any], limits: Limits) -> FunctionTests:
    wrong = next((each for each in inputs if not isinstance(each, list)), None)
    if wrong is not None:
        raise BadInputError(f"tests.inputs has {_shown(wrong)}; for a function give a list of its arguments")
    return FunctionTests(_name(tests), tuple(tuple(each) for each in inputs), tuple(outputs), limits)


def _examined(tests: Mapping[str, Any], limits: Limits) -> ExaminedTests:
    prompt, test = tests.get("prompt", ""), tests["test"]
    for name, code in (("prompt", prompt), ("test", test)):
        if not isinstance(code, str):
            raise BadInputError(f"tests.{name} {_shown(code)} is not text; give Python code")
        try:
            compile(code, name, "exec")
        except (SyntaxError, ValueError) as error:
            raise BadInputError(f"tests.{name} is not Python ({error}); give code that runs by itself") from error
    if "assert" not in test and "raise" not in test:
        raise BadInputError("tests.test asserts nothing, so every answer would pass; give a test that can fail")
    return ExaminedTests(prompt, test, _name(tests), limits)


def _name(tests: Mapping[str, Any]) -> str:
    name = tests.get("function")
    if not isinstance(name, str) or not name.isidentifier():
        raise BadInputError(f"tests.function {_shown(name)} is not a name; give that of the function to call")
    return name


def _list(tests: Mapping[str, Any], field: str) -> list[Any]:
    value = tests.get(field)
    if not isinstance(value, list) or not value:
        raise BadInputError(f"tests.{field} {_shown(value)} is not a list of at least one; {_FORMS}")
    return value


def _limits(tests: Mapping[str, Any]) -> Limits:
    standard = Limits()
    cpu = _whole(tests, "cpu_seconds", standard.cpu_seconds, most=MAX_CPU_SECONDS)
    memory = _whole(tests, "memory_mib", standard.memory_bytes // MEBIBYTE, most=MAX_MEMORY_MIB)
    return Limits(cpu_seconds=cpu, wall_seconds=cpu * WALL_PER_CPU_SECOND, memory_bytes=memory * MEBIBYTE)


def _whole(tests: Mapping[str, Any], field: str, default: int, *, most: int) -> int:
    value = tests.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise BadInputError(f"tests.{field} {_shown(value)} is not a whole number of 1 to {most}")
    return value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
