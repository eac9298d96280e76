"""Reads the rows of HumanEval and LiveCodeBench as they are published.

Invariant: LiveCodeBench packs its private tests with pickle, which runs whatever it finds; here it is read as text and
nothing else, within a bound.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from rft_trainer.errors import BadInputError

MAX_TESTS_BYTES = 512 << 20
_HUMAN_EVAL = ("prompt", "test", "entry_point")
_LIVE_CODE_BENCH = ("question_content", "public_test_cases", "private_test_cases")


def code_row(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row as ``{id, problem, scorer, tests}``; None when it is of neither benchmark."""
    if all(isinstance(row.get(name), str) for name in _HUMAN_EVAL):
        return _human_eval(row)
    if all(isinstance(row.get(name), str) for name in _LIVE_CODE_BENCH):
        return _live_code_bench(row)
    return None


def _human_eval(row: Mapping[str, Any]) -> dict[str, Any]:
    problem = (
        "Complete this Python function. Give the whole function, with what it needs, in one block of code.\n\n"
        f"```python\n{row['prompt'].rstrip()}\n```"
    )
    tests = {"prompt": row["prompt"], "test": row["test"], "function": row["entry_point"]}
    return {"id": row.get("task_id"), "problem": problem, "scorer": "code", "tests": tests}


def _live_code_bench(row: Mapping[str, Any]) -> dict[str, Any]:
    cases = [*_cases(row, "public_test_cases"), *_cases(row, "private_test_cases")]
    tests: dict[str, Any] = {"inputs": [each["input"] for each in cases], "outputs": [each["output"] for each in cases]}
    starter = str(row.get("starter_code") or "").rstrip()
    if any(each.get("testtype") == "functional" for each in cases):
        tests["function"] = _function_name(row)
        tests["inputs"] = [[_value(line) for line in text.split("\n") if line.strip()] for text in tests["inputs"]]
        tests["outputs"] = [_value(text) for text in tests["outputs"]]
    if starter:
        wish = f"Write a Python program that starts from this code, in one block of code.\n\n```python\n{starter}\n```"
    else:
        wish = "Write a Python program that reads standard input and prints the answer, in one block of code."
    problem = f"{row['question_content'].strip()}\n\n{wish}"
    return {"id": row.get("question_id"), "problem": problem, "scorer": "code", "tests": tests}


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
