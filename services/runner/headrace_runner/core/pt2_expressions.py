"""Symbolic sizes of exported programs: sympy expressions as text, which sympy reads by evaluating it as Python.

So what is not an expression of numbers and symbols is refused before sympy sees it, and sizes are worked out here.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

_MOST_CHARACTERS = 2_000
_MOST_DEPTH = 60
_MOST_WORK = 10_000
"""About as many terms has an expression once it is multiplied out, which sympy does, or words its largest number."""
_MOST_SHIFT = 63
_MOST_PRECISION = 300
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?")
_SYMPY = """
    Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs floor ceiling Piecewise ExprCondPair And Or Not Eq Ne
    Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan BooleanTrue BooleanFalse
"""
"""As its srepr writes them."""
_TORCH = """
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow
    FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat
    Identity
"""
"""Of torch.utils._sympy.functions, which its reader adds."""
_FUNCTIONS = frozenset(f"{_SYMPY}{_TORCH}".split())
_LONG_EXPONENT = re.compile(r"[0-9.]e[-+]?[0-9_]{4,}", re.IGNORECASE)
"""1e9999999 is infinite to Python, and to sympy a number of as many digits."""
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_SHIFTS = frozenset({"LShift", "RShift", "RoundDecimal"})
_MEASURED = _POWERS | _SHIFTS
"""A small number as their second argument."""
_FACTORS = frozenset({"Mul"})
_OPERATORS: Mapping[type[ast.operator], str] = {
    ast.Pow: "Pow", ast.BitXor: "Pow", ast.LShift: "LShift", ast.RShift: "RShift", ast.Mult: "Mul",
}  # fmt: skip
"""As sympy's reader takes them."""
_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.operator, ast.unaryop, ast.cmpop, ast.Tuple,
)  # fmt: skip


class NotAnExpression(Exception):
    """The text is something else than an expression of sizes."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size that may vary.

    Attributes:
        label: for people: the symbol, or the expression of symbols.
        symbol: where it is nothing but one.
    """

    label: str
    symbol: str | None
    _node: ast.expr

    def value(self, symbols: Mapping[str, int]) -> int | None:
        """With these sizes for its symbols; None: that is for torch to say."""
        try:
            return _evaluate(self._node, symbols)
        except (KeyError, ArithmeticError):
            return None


def check_expression(text: str) -> ast.expr:
    """Parses text that sympy is about to evaluate.

    Raises:
        NotAnExpression
    """
    try:
        short = len(text) <= _MOST_CHARACTERS and not _LONG_EXPONENT.search(text)
        tree = ast.parse(text, mode="eval") if short else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not all(_allowed(node) for node in ast.walk(tree)) or _work(tree.body, 0) > _MOST_WORK:
        raise NotAnExpression(text[:80])
    return tree.body


def size_of(text: str) -> Size:
    """Raises NotAnExpression."""
    node = check_expression(text)
    label = _label(node)
    return Size(label, label if _SYMBOL.fullmatch(label) else None, node)


def _allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        return name in _FUNCTIONS and _texts_fit(name, node)
    if isinstance(node, ast.Constant):
        # Texts are looked at where they are arguments; elsewhere sympy would evaluate them in their turn.
        return isinstance(node.value, bool | int | float) or (isinstance(node.value, str) and _plain(node.value))
    if isinstance(node, ast.Name):
        return _SYMBOL.fullmatch(node.id) is not None and not node.id.startswith("_")
    return isinstance(node, _NODES)


def _work(node: ast.expr, depth: int) -> int:
    """What sympy may make of it, at least 1 and never far above _MOST_WORK."""
    if depth > _MOST_DEPTH:
        return _MOST_WORK + 1
    match node:
        case ast.BinOp(left, op, right):
            name, parts = _OPERATORS.get(type(op), ""), [left, right]
            if isinstance(left, ast.Tuple) or isinstance(right, ast.Tuple):
                return _MOST_WORK + 1  # (1,) * 10000000000
        case ast.Call(func=ast.Name(name)):
            parts = [*node.args, *(each.value for each in node.keywords)]
            if node.keywords and name in _MEASURED:
                return _MOST_WORK + 1
        case _:
            name, parts = "", [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
    works = [_work(each, depth + 1) for each in parts]
    if max(works, default=1) > _MOST_WORK:
        return _MOST_WORK + 1
    if name in _MEASURED:
        times = _literal(parts[1]) if len(parts) == 2 else None
        if times is None or times > _MOST_SHIFT:
            return _MOST_WORK + 1
        return min(max(works[0], 2) ** times, _MOST_WORK + 1) if name in _POWERS else works[0]
    return math.prod(works) if name in _FACTORS else max(1, sum(works))


def _literal(node: ast.expr) -> int | None:
    """How large a number is, rounded up; None: it is none."""
    match node:
        case ast.Constant(int(value) | float(value)) if abs(value) <= _MOST_SHIFT:
            return math.ceil(abs(value))
        case ast.UnaryOp(operand=inner) | ast.Call(func=ast.Name("Integer"), args=[inner]):
            return _literal(inner)
        case ast.Call(func=ast.Name("Rational"), args=[inner, ast.Constant(int())]):
            return _literal(inner)
    return None


def _texts_fit(name: str, node: ast.Call) -> bool:
    """Only Symbol('s0', integer=True) and Float('1.5', precision=53) have texts."""
    arguments = [*node.args, *(each.value for each in node.keywords)]
    texts = [each for each in arguments if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if name == "Float" and not all(_is_precision(each) for each in arguments[1:]):
        return False
    return not texts or (name in ("Symbol", "Float") and texts == node.args[:1] and len(texts) == 1)


def _is_precision(node: ast.expr) -> bool:
    """In bits or digits."""
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and 1 <= node.value <= _MOST_PRECISION


def _plain(text: str) -> bool:
    return _SYMBOL.fullmatch(text) is not None or _NUMBER.fullmatch(text) is not None


def _label(node: ast.expr) -> str:
    match node:
        case ast.Call(func=ast.Name("Symbol"), args=[ast.Constant(str(name)), *_]):
            return name
        case ast.Call(func=ast.Name("Integer"), args=[ast.Constant(int(value))]):
            return str(value)
        case ast.Call(func=ast.Name("Add" | "Mul" as name), args=[_, _, *_]):
            return (" + " if name == "Add" else "*").join(_label(each) for each in node.args)
        case ast.Call(func=ast.Name(name)):
            return f"{name}({', '.join(_label(each) for each in node.args)})"
    return ast.unparse(node)


_ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "Max": max,
    "Min": min,
    "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "CeilDiv": lambda a, b: -(-a // b),
}


def _evaluate(node: ast.expr, symbols: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(int(value)):
            return value
        case ast.Name(name) | ast.Call(func=ast.Name("Symbol"), args=[ast.Constant(str(name)), *_]):
            return symbols[name]
        case ast.Call(func=ast.Name("Integer" | "Identity"), args=[inner]):
            return _evaluate(inner, symbols)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluate(inner, symbols)
        case ast.Call(func=ast.Name("Pow" | "PowByNatural"), args=[base, ast.Call(args=[ast.Constant(int(power))])]):
            if not 0 <= power <= 8:
                raise ArithmeticError
            return math.prod([_evaluate(base, symbols)] * power)
        case ast.Call(func=ast.Name(name), args=[first, *rest]) if name in _ARITHMETIC:
            values = [_evaluate(each, symbols) for each in rest]
            return reduce(_ARITHMETIC[name], values, _evaluate(first, symbols))
    raise ArithmeticError
