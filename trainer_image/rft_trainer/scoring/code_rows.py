"""Reads the rows of questions that programs answer: our own, and those of HumanEval and LiveCodeBench as published.

Invariants: a question is read without unpacking its tests. LiveCodeBench packs its private tests with pickle, which
runs whatever it finds; here it is read as text and nothing else, within a bound.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.presets import LIVE_CODE_BENCH_MIB
from rft_trainer.sandbox.limits import PROGRAM_MIB

MAX_TESTS_BYTES = 512 << 20
_HUMAN_EVAL = ("prompt", "test", "entry_point")
_LIVE_CODE_BENCH = ("question_content", "public_test_cases", "private_test_cases")
_TESTS_OF: Mapping[tuple[str, ...], tuple[str, ...]] = {
    _HUMAN_EVAL: _HUMAN_EVAL,
    _LIVE_CODE_BENCH: (*_LIVE_CODE_BENCH[1:], "metadata"),
}
"""Fields that the tests are in, by benchmark."""


def code_question(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row as ``{id, problem, scorer, tests}``, its tests as they are; None when it is of neither benchmark."""
    kind = _kind(row)
    if kind is None:
        return None
    key, problem = ("task_id", _human_eval(row)) if kind is _HUMAN_EVAL else ("question_id", _live_code_bench(row))
    return {"id": row.get(key), "problem": problem, "scorer": "code", "tests": {}}


def plain_problem(row: Mapping[str, Any]) -> tuple[str, bool] | None:
    """A problem of LiveCodeBench without our wish for a form, and whether a function answers it; None of others."""
    if _kind(row) is not _LIVE_CODE_BENCH:
        return None
    starter = str(row.get("starter_code") or "").rstrip()
    text = str(row["question_content"]).strip()
    return (f"{text}\n\n{starter}" if starter else text), bool(starter)


def published_problem(row: Mapping[str, Any]) -> str | None:
    """A problem of HumanEval or LiveCodeBench word for word; None of others."""
    kind = _kind(row)
    return None if kind is None else str(row["prompt" if kind is _HUMAN_EVAL else "question_content"])


def row_tests(row: Mapping[str, Any]) -> Any:
    """The tests of a row as they were given, or unpacked; raises :class:`BadInputError`."""
    kind = _kind(row)
    if kind is _HUMAN_EVAL:
        return {"prompt": row["prompt"], "test": row["test"], "function": row["entry_point"]}
    return row.get("tests") if kind is None else _unpacked_tests(row)


def sha256_of_tests(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row's tests as they are kept, which need not be unpacked for it."""
    digest = hashlib.sha256(f"{memory_mib(row)}\n".encode())
    for name in _TESTS_OF.get(_kind(row) or (), ("tests",)):
        value = row.get(name)
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
        data = text.encode(errors="surrogatepass")
        digest.update(f"{name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def memory_mib(row: Mapping[str, Any]) -> int:
    """What a program that answers a row may take."""
    if _kind(row) is _LIVE_CODE_BENCH:
        return LIVE_CODE_BENCH_MIB
    tests = row.get("tests")
    own = tests.get("memory_mib") if isinstance(tests, Mapping) else None
    return own if isinstance(own, int) and own > 0 else PROGRAM_MIB


def _kind(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    return next((names for names in _TESTS_OF if all(isinstance(row.get(name), str) for name in names)), None)


def _human_eval(row: Mapping[str, Any]) -> str:
    return (
        "Complete this Python function. Give the whole function, with what it needs, in one block of code.\n\n"
        f"```python\n{row['prompt'].rstrip()}\n```"
    )


def _unpacked_tests(row: Mapping[str, Any]) -> dict[str, Any]:
    cases = [*_cases(row, "public_test_cases"), *_cases(row, "private_test_cases")]
    tests: dict[str, Any] = {
        "inputs": [each["input"] for each in cases],
        "outputs": [each["output"] for each in cases],
        "memory_mib": LIVE_CODE_BENCH_MIB,
    }
    if any(each.get("testtype") == "functional" for each in cases):
        tests["function"] = _function_name(row)
        tests["inputs"] = [[_value(line) for line in text.split("\n") if line.strip()] for text in tests["inputs"]]
        tests["outputs"] = [_value(text) for text in tests["outputs"]]
    return tests


def _live_code_bench(row: Mapping[str, Any]) -> str:
    starter = str(row.get("starter_code") or "").rstrip()
    if starter:
        wish = f"Write a Python program that starts from this code, in one block of code.\n\n```python\n{starter}\n```"
    else:
        wish = "Write a Python program that reads standard input and prints the answer, in one block of code."
    return f"{row['question_content'].strip()}\n\n{wish}"


def _cases(row: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    text = row[field]
    try:
        cases = json.loads(text if text.lstrip().startswith("[") else _unpacked(text))
    except (ValueError, TypeError, EOFError, binascii.Error, zlib.error, pickle.UnpicklingError) as error:
        raise BadInputError(f"{field} cannot be read ({error}); give JSON, or what LiveCodeBench publishes") from error
    if not isinstance(cases, list) or not all(
        isinstance(each, dict) and isinstance(each.get("input"), str) and isinstance(each.get("output"), str)
        for each in cases
    ):
        raise BadInputError(f"{field} is not a list of {{input, output, testtype}}")
    return cases


def _unpacked(text: str) -> str:
    inflater = zlib.decompressobj()
    data = inflater.decompress(base64.b64decode(text, validate=True), MAX_TESTS_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {MAX_TESTS_BYTES} bytes")
    value = _TextUnpickler(io.BytesIO(data)).load()
    if not isinstance(value, str):
        raise TypeError("the pickle holds no text")
    return value


class _TextUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


def _function_name(row: Mapping[str, Any]) -> str:
    try:
        return str(json.loads(row.get("metadata") or "{}")["func_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError("metadata has no func_name, which functional tests need") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInputError(f"a functional test has {text[:60]!r}, which is not JSON") from error
