"""Runs a tested program, or a function of it, in a process that is already sealed.

Everything here shares the interpreter with code that may replace any of it. So nothing here decides anything: it hands
on what the program prints or returns, and the judge, elsewhere, compares.
"""

from __future__ import annotations

import atexit
import builtins
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from rft_trainer.sandbox.plain import NotPlainError, decode, encode

MEMORY_EXIT_CODE = 113
"""Python's own error where the limit on memory is reached."""
CHANNEL = 3
_CHUNK = 65_536
RECURSION_LIMIT = 50_000
INTEGER_DIGITS = 50_000
"""Both as LiveCodeBench's own harness sets them."""


class Lines:
    """JSON objects, one a line, on the descriptor to the judge."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest = descriptor, b""

    def read(self) -> Any:
        """The next object; None at the end."""
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            data = os.read(self._descriptor, _CHUNK)
            if not data:
                return None
            pieces.append(data)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return json.loads(line)

    def write(self, value: Any) -> None:
        """Send an object."""
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]


def fresh_streams() -> None:
    """Text streams on descriptors 0 to 2, which are the program's now."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115


def run_program(lines: Lines) -> int:
    """Run the whole program as ``__main__``; returns its exit code."""
    request = lines.read()
    os.close(CHANNEL)
    _widen()
    namespace = _namespace("__main__")
    exec(compile(request["prelude"], "prelude.py", "exec"), namespace)  # noqa: S102 - the judge's own
    code = _guarded(lambda: exec(compile(request["code"], "answer.py", "exec"), namespace))  # noqa: S102
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the program's threads, as at every exit
    atexit._run_exitfuncs()
    return code if _flushed() else 1


def _widen() -> None:
    sys.setrecursionlimit(RECURSION_LIMIT)
    sys.set_int_max_str_digits(INTEGER_DIGITS)


def _flushed() -> bool:
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except Exception:
        return False
    return True


def _guarded(run: Callable[[], None]) -> int:
    try:
        run()
    except SystemExit as error:
        return _exit_code(error.code)
    except MemoryError:
        return MEMORY_EXIT_CODE
    except BaseException:
        traceback.print_exc(limit=-5)
        return 1
    return 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def serve_function(lines: Lines) -> int:
    """Define a function and answer calls of it until the judge has no more."""
    request = lines.read()
    _widen()
    namespace = _namespace("answer")
    try:
        for part in ("prelude", "code"):
            exec(compile(request[part], "answer.py", "exec"), namespace)  # noqa: S102
        function = _find(namespace, request["function"])
    except BaseException as error:
        lines.write({"broken": _shown(error)})
        return 1
    lines.write({"ready": True})
    while (call := lines.read()) is not None:
        arguments = decode(call["call"])
        try:
            value = function(*arguments[0], **arguments[1])
            answer = {"value": encode(value), "arguments": encode(_changeable(arguments[0]))}
        except NotPlainError as error:
            answer = {"refused": str(error)}
        except BaseException as error:
            answer = {"raised": [type(error).__name__, _shown(error)]}
        lines.write(answer)
    return 0


def _changeable(arguments: Any) -> list[Any]:
    """The arguments as the function left them; what cannot be changed in place is left out."""
    return [each if isinstance(each, list | dict | set) else None for each in arguments]


def examine(lines: Lines) -> int:
    """Run a benchmark's own test against a function that lives in another process."""
    request = lines.read()
    namespace = _namespace("test")

    def candidate(*arguments: Any, **named: Any) -> Any:
        lines.write({"call": encode((arguments, named))})
        return _take(lines.read(), arguments)

    try:
        exec(compile(request["prompt"], "prompt.py", "exec"), namespace)  # noqa: S102
        namespace[request["function"]] = candidate
        exec(compile(request["test"], "test.py", "exec"), namespace)  # noqa: S102
        check = namespace.get("check")
        if check is not None:
            check(candidate)
    except AssertionError as error:
        lines.write({"verdict": "different", "why": _shown(error)})
        return 0
    except BaseException as error:
        lines.write({"verdict": "error", "why": _shown(error)})
        return 0
    lines.write({"verdict": "passed"})
    return 0


class _GoneError(BaseException):
    """The function's process has ended; no test may take that for the function's own error."""


def _take(reply: Any, arguments: tuple[Any, ...]) -> Any:
    """What the function returned, with its changes to the arguments; raises what it raised."""
    if not isinstance(reply, dict) or "gone" in reply:
        raise _GoneError
    if "raised" in reply:
        raise _as_error(*reply["raised"])
    if "value" not in reply:
        raise TypeError(str(reply.get("refused")))
    for given, left in zip(arguments, decode(reply["arguments"]), strict=True):
        if isinstance(given, list) and isinstance(left, list):
            given[:] = left
        elif (isinstance(given, dict) and isinstance(left, dict)) or (isinstance(given, set) and isinstance(left, set)):
            given.clear()
            given.update(left)
    return decode(reply["value"])


def _as_error(name: str, message: str) -> Exception:
    """Python's own exception of that name, so that a test can expect it; never a failed assertion."""
    kind = getattr(builtins, str(name), None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, AssertionError):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError wants five arguments
            return Exception(f"{name}: {message}")
    return Exception(f"{name}: {message}")


def _find(namespace: dict[str, Any], name: str) -> Callable[..., Any]:
    """The function of that name, or the method of a class ``Solution``, as LeetCode has it."""
    solution = namespace.get("Solution")
    found = namespace.get(name)
    if isinstance(solution, type) and (found is None or hasattr(solution, name)):
        found = getattr(solution(), name)
    if not callable(found):
        raise NameError(f"name {name!r} is not defined")  # noqa: TRY004 - what Python says of a missing function
    return found  # type: ignore[no-any-return]


def _namespace(name: str) -> dict[str, Any]:
    """Globals of a module of its own, which ``import`` finds too."""
    module = type(sys)(name)
    sys.modules[name] = module
    return module.__dict__


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:
        return type(error).__name__
