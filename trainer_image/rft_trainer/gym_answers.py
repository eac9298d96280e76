"""Which answers a generator's own scorer may be given: some of them evaluate what a model wrote as Python.

Invariant: nothing that a model wrote is run where there is a GPU or a token. What goes to such a scorer is plain data,
or an expression of arithmetic whose numbers stay small; all else is a wrong answer without being looked at.
"""

from __future__ import annotations

import ast
import re

LITERALS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Tasks of reasoning-gym whose scorers evaluate a text that is not the right one, in case it is a list."""
EXPRESSIONS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Tasks whose scorers read an expression with sympy, which evaluates it."""
LONGEST_CHARACTERS = 2_000
LARGEST_EXPONENT = 99
LARGEST_NUMBER = 10**30
DEEPEST_POWER = 2
"""A power of a power; the next one could take hours to write out."""
_LITERAL = re.compile(r"[\w\s,.\[\]'\"-]*")
_NAME = re.compile(r"[A-Za-z]|pi")
_FUNCTIONS = frozenset(
    {
        "sqrt", "exp", "log", "ln", "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "acot", "sinh",
        "cosh", "tanh", "asinh", "acosh", "atanh", "Abs", "erf", "erfi", "Ei", "Si", "Ci", "li", "Integral",
    }
)  # fmt: skip
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def may_be_scored(task: str, answer: str) -> bool:
    """Whether a task's scorer can do no harm with an answer."""
    if task in LITERALS:
        short = len(answer) <= LONGEST_CHARACTERS
        return short and "__" not in answer and _LITERAL.fullmatch(answer) is not None
    return task not in EXPRESSIONS or _is_expression(answer.strip())


def _is_expression(text: str) -> bool:
    if len(text) > LONGEST_CHARACTERS:
        return False
    try:
        return _is_plain(ast.parse(text, mode="eval").body, powers=0)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_plain(node: ast.expr, *, powers: int) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return powers < DEEPEST_POWER and _is_exponent(node.right) and _is_plain(node.left, powers=powers + 1)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, _OPERATORS) and all(_is_plain(it, powers=powers) for it in (node.left, node.right))
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub | ast.UAdd) and _is_plain(node.operand, powers=powers)
    if isinstance(node, ast.Call):
        known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
        return known and all(_is_plain(it, powers=powers) for it in node.args)
    if isinstance(node, ast.Constant):
        return _is_number(node.value, at_most=LARGEST_NUMBER)
    return isinstance(node, ast.Name) and _NAME.fullmatch(node.id) is not None


def _is_exponent(node: ast.expr) -> bool:
    """A small number, a fraction of two, or either times a name."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _is_exponent(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _is_exponent(node.left) and isinstance(node.right, ast.Name) and _is_exponent(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _is_exponent(node.left) and isinstance(node.right, ast.Constant) and _is_exponent(node.right)
    if isinstance(node, ast.Constant):
        return _is_number(node.value, at_most=LARGEST_EXPONENT)
    return isinstance(node, ast.Name) and _NAME.fullmatch(node.id) is not None


def _is_number(value: object, *, at_most: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= at_most
