"""What programs are tested with, and what they print: read, refused, compared."""

from __future__ import annotations

import base64
import json
import os
import pickle
import platform
import re
import struct
import zlib
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.errors import BadInputError
from rft_trainer.sandbox.limits import Limits
from rft_trainer.sandbox.plain import NotPlainError, decode, encode
from rft_trainer.sandbox.seccomp import SealError, filter_program
from rft_trainer.sandbox.syscalls import CONDITIONAL, MACHINES, PATHS
from rft_trainer.scoring.code_rows import code_question, plain_problem, row_tests, sha256_of_tests
from rft_trainer.scoring.code_tests import FunctionTests, ProgramTests, parse_tests, read_tests
from rft_trainer.scoring.code_text import has_open_block, last_program, same_output, same_value


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ([], "are not an object"),
        ({}, "tests.inputs null is not a list"),
        ({"inputs": [], "outputs": []}, "tests.inputs [] is not a list of at least one"),
        ({"inputs": ["1"], "outputs": []}, "tests.outputs [] is not a list"),
        ({"inputs": ["1"], "outputs": ["1", "2"]}, "1 inputs and 2 outputs"),
        ({"inputs": [1], "outputs": ["1"]}, "tests.inputs has 1, which is not text"),
        ({"inputs": [1], "outputs": [1], "function": "f"}, "tests.inputs has 1; for a function give a list"),
        ({"inputs": [[1]], "outputs": [1], "function": "a b"}, "tests.function a b is not a name"),
        ({"inputs": ["1"], "outputs": ["1"], "cpu_seconds": 0}, "tests.cpu_seconds 0 is not a whole number of 1 to"),
        ({"inputs": ["1"], "outputs": ["1"], "memory_mib": "2"}, "tests.memory_mib 2 is not a whole number of 1 to"),
        ({"inputs": ["1"], "outputs": ["1"], "timeout": 3}, "tests.timeout is unknown"),
        ({"test": "assert f(", "function": "f"}, "tests.test is not Python"),
        ({"test": "f(1)", "function": "f"}, "tests.test asserts nothing"),
        ({"test": "assert f(1)", "function": None}, "tests.function null is not a name"),
        ({"test": "assert f(1)", "prompt": 5, "function": "f"}, "tests.prompt 5 is not text"),
    ],
)
def test_tests_are_refused_by_field_and_value_when_no_answer_could_be_judged(tests: Any, words: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(words)):
        parse_tests(json.dumps(tests))


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("first\n```python\na = 1\n```\nbetter\n```python\nb = 2\n```\nprints\n```\n5\n```", "b = 2\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("~~~py\na = 1\n~~~", "a = 1\n"),
        ("````python\ns = '```'\n```\n````", "s = '```'\n```\n"),
        ("a = int(input())\nprint(a)", "a = int(input())\nprint(a)"),
        ("The answer is five.", None),
        ("five", None),
        ("for example, take five", None),
        ("x = 5", "x = 5"),
        ("(" * 100_000, None),
        ("```c++\nint main() {}\n```", None),
        ("```python\na = 1\n", None),
        ("```python\na = 1\n```\nor rather\n```python\nb =", "a = 1\n"),
    ],
)
def test_the_last_closed_block_of_python_is_the_program(text: str, program: str | None) -> None:
    assert last_program(text) == program


def test_a_block_that_is_never_closed_is_seen_as_cut() -> None:
    assert has_open_block("```python\na = 1\n")
    assert not has_open_block("```python\na = 1\n```\n")


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ("3\n", "3", True),
        ("  3  \n4\n\n", "3\n4", True),
        ("3.0 1e3", "3 1000", True),
        ("YES", "yes", False),
        ("1 2", "1\n2", False),
        ("1  2", "1 2", True),
        ("a  b", "a b", False),
        ("nan", "nan", True),
        ("NaN", "nan", False),
        ("", "", True),
        ("", "0", False),
    ],
)
def test_outputs_are_compared_line_by_line_and_numbers_by_value(given: str, wanted: str, same: bool) -> None:
    assert same_output(given, wanted) is same


def test_a_tuple_is_as_good_as_the_list_that_json_has_for_it() -> None:
    assert same_value(encode((1, [(2, 3)])), [1, [[2, 3]]])
    assert same_value(encode({1: (2,)}), {"1": [2]})
    assert not same_value(encode((1, 2)), [2, 1])
    assert not same_value(encode("12"), ["1", "2"])


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        (True, 1, True),
        (1, True, True),
        (2.0, 2, True),
        (2, 2.0, True),
        (0.1 + 0.2, 0.3, False),
        (10**5000, 10**5000, True),
        (-7, -7, True),
        (None, None, True),
        (0, None, False),
        (None, 0, False),
        ("1", 1, False),
        ({"a": [1.5, None]}, {"a": [1.5, None]}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({1, 2}, [1, 2], False),
        (float("nan"), 1.0, False),
        ({10**5000: 1}, {"1": 1}, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_the_same_as_in_python(given: object, wanted: Any, same: bool) -> None:
    assert same_value(encode(given), wanted) is same


@pytest.mark.parametrize(
    "sent",
    [
        ["fraction", ["0x" + "f" * 3_000_000, "0x" + "e" * 3_000_000]],
        ["int", "0x" + "f" * 3_000_000],
        ["set", [["int", hex(number * (2**61 - 1))] for number in range(100_000)]],
        ["list", 5],
        ["dict", [5]],
        ["float", []],
        {"a": 1},
        [],
    ],
    ids=lambda value: str(value)[:12],
)
def test_nothing_that_a_program_sends_keeps_its_judge_busy(sent: Any) -> None:
    for wanted in (1, [1], {"a": 1}, "a", None, 0.5):
        assert not same_value(sent, wanted)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -5, 10**6000, 1.5, float("inf"), 1j, "ä\ud800", b"\x00", bytearray(b"1"), [1, [2]], (1, (2,)),
        {"a": {1, 2}}, {(1, 2): frozenset({3})}, range(1, 9, 2), deque([1]), Decimal("1.10"), Fraction(1, 3),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_plain_values_cross_unchanged(value: object) -> None:
    crossed = decode(json.loads(json.dumps(encode(value))))
    assert crossed == value
    assert type(crossed) is type(value)


def test_what_is_like_plain_data_crosses_as_plain_data() -> None:
    class Sly(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    assert type(decode(encode(Sly(3)))) is int
    assert decode(encode(OrderedDict(a=1))) == {"a": 1}
    assert decode(encode(Counter("aab"))) == {"a": 2, "b": 1}
    assert list(decode(encode(map(str, (1, 2))))) == ["1", "2"]
    assert decode(encode({1: 2}.values())) == [2]


@pytest.mark.parametrize("value", [object(), print, type, NotPlainError(), [object()], {"a": object()}])
def test_objects_with_methods_of_their_own_do_not_cross(value: object) -> None:
    with pytest.raises(NotPlainError):
        encode(value)


@pytest.mark.parametrize(
    "sent", [5, 1.5, {"a": 1}, ["list"], ["list", 5], ["int", "x"], ["eval", "1"], ["dict", [[["list", []], 1]]], []]
)
def test_what_is_no_encoded_value_is_refused(sent: Any) -> None:
    with pytest.raises(NotPlainError):
        decode(sent)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_filter_refuses_by_default_and_fits_the_kernels_bound(machine: str) -> None:
    program = filter_program(machine, pid=1234)
    assert len(program) < 4_096
    assert struct.unpack("HBBI", program[-1]) == (0x06, 0, 0, 0x00050001)  # EPERM
    numbers = MACHINES[machine].numbers
    assert len(set(numbers.values())) == len(numbers)
    assert not {"socket", "connect", "fork", "vfork", "execve", "kill", "ptrace", "unshare", "io_uring_setup"} & set(
        numbers
    )


def test_a_machine_whose_calls_are_not_known_has_no_filter() -> None:
    with pytest.raises(SealError, match="riscv64"):
        filter_program("riscv64", pid=1)


def test_numbers_of_system_calls_are_those_of_the_kernels_headers() -> None:
    """Compared with this machine's headers, where it has any."""
    machine = platform.machine()
    path = next(
        (
            each
            for each in (
                Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
                Path("/usr/include/aarch64-linux-gnu/asm/unistd_64.h"),
            )
            if machine in str(each) and each.is_file()
        ),
        None,
    )
    if path is None:
        pytest.skip("no kernel headers here")
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", path.read_text())}
    assert MACHINES[machine].numbers.items() <= known.items()


def test_every_conditional_call_and_path_is_known_to_some_machine() -> None:
    every = {name for machine in MACHINES.values() for name in machine.numbers}
    assert every >= CONDITIONAL | PATHS


def packed(cases: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def livecodebench_row(**changes: Any) -> dict[str, Any]:
    return {
        "question_id": "1873_A",
        "question_content": "Add two numbers.",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": packed([{"input": "3 4\n", "output": "7\n", "testtype": "stdin"}]),
        "metadata": "{}",
        **changes,
    }


def test_rows_of_livecodebench_are_read_as_they_are_published() -> None:
    question = code_question(livecodebench_row())
    assert question is not None
    assert question["id"] == "1873_A"
    assert "Add two numbers." in question["problem"]
    tests = read_tests(row_tests(livecodebench_row()))
    assert isinstance(tests, ProgramTests)
    assert (tests.inputs, tests.outputs) == (("1 2\n", "3 4\n"), ("3\n", "7\n"))
    assert tests.limits == Limits(memory_bytes=4 << 30), "6 s and 4 GB"


def test_rows_of_livecodebench_have_their_problem_alone_too() -> None:
    assert plain_problem(livecodebench_row()) == ("Add two numbers.", False)
    starter = livecodebench_row(starter_code="class Solution:\n    def f(self):\n        ")
    assert plain_problem(starter) == ("Add two numbers.\n\nclass Solution:\n    def f(self):", True)
    assert plain_problem({"problem": "1+1", "answer": "2"}) is None


def test_hash_of_tests_is_another_when_any_of_them_is_and_needs_none_unpacked() -> None:
    broken = livecodebench_row(private_test_cases="cannot be unpacked")
    rows = [livecodebench_row(), broken, livecodebench_row(metadata='{"func_name": "f"}')]
    rows += [{"tests": {"inputs": ["1"], "outputs": ["2"]}}, {"tests": {"inputs": ["1"], "outputs": ["3"]}}]
    assert len({sha256_of_tests(row) for row in rows}) == len(rows)
    asked_otherwise = livecodebench_row(question_content="Sum two numbers.")
    assert sha256_of_tests(asked_otherwise) == sha256_of_tests(rows[0]), (
        "the question has its own place in the exam's hash"
    )


def test_functional_rows_of_livecodebench_call_the_function_that_their_metadata_names() -> None:
    case = [{"input": '[1, 2]\n"a"', "output": "[2, 1]", "testtype": "functional"}]
    row = livecodebench_row(
        public_test_cases=json.dumps(case),
        private_test_cases="[]",
        starter_code="class Solution:\n    def turn(self, xs: List[int], s: str):\n        ",
        metadata=json.dumps({"func_name": "turn"}),
    )
    question = code_question(row)
    assert question is not None
    assert "def turn" in question["problem"]
    tests = read_tests(row_tests(row))
    assert isinstance(tests, FunctionTests)
    assert (tests.function, tests.arguments, tests.outputs) == ("turn", (([1, 2], "a"),), ([2, 1],))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("private_test_cases", base64.b64encode(zlib.compress(pickle.dumps(_Evil()))).decode(), "it wants to run"),
        ("private_test_cases", base64.b64encode(zlib.compress(pickle.dumps(5))).decode(), "the pickle holds no text"),
        ("private_test_cases", "not base64!", "private_test_cases cannot be read"),
        ("public_test_cases", '[{"input": 1}]', "public_test_cases is not a list of"),
    ],
)
def test_a_row_of_livecodebench_that_is_more_or_less_than_text_is_refused(field: str, value: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        row_tests(livecodebench_row(**{field: value}))


def test_other_rows_are_left_alone() -> None:
    assert code_question({"problem": "1+1", "answer": "2"}) is None
