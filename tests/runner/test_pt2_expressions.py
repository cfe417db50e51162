"""Sizes of exported programs as text: what sympy would compute for ever is refused before it sees it."""

from __future__ import annotations

import pytest

from headrace_runner.core.pt2_expressions import NotAnExpression, check_expression, size_of


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("10**10**10", id="a tower of powers"),
        pytest.param("10^10^10", id="sympy reads ^ as a power"),
        pytest.param("Pow(Integer(10), Pow(Integer(10), Integer(10)))", id="a tower of calls"),
        pytest.param("Pow(Pow(Pow(Pow(Integer(10), 60), 60), 60), 60)", id="powers of powers"),
        pytest.param("((((((9**9)**9)**9)**9)**9)**9)", id="operators on operators"),
        pytest.param("PowByNatural(Integer(10), Integer(10000000000))", id="a large exponent"),
        pytest.param("Pow(exp=10000000000, base=10)", id="a large exponent by name"),
        pytest.param("Pow(Integer(2), Add(60, Mul(60, 60, 60, 60, 60)))", id="an exponent to be worked out"),
        pytest.param("Pow(Integer(2), Symbol('s0'))", id="an exponent that may be anything"),
        pytest.param("Pow(Integer(2), Rational(10000000000, 3))", id="a large fraction"),
        pytest.param("Pow(Add(Symbol('a'), Symbol('b'), Symbol('c'), Symbol('d')), 20)", id="many terms"),
        pytest.param("*".join(["(a + b + c + d)"] * 20), id="many terms of factors"),
        pytest.param("1 << 10000000000", id="a shift"),
        pytest.param("LShift(Integer(1), Integer(10000000000))", id="a shift by call"),
        pytest.param("RoundDecimal(5, -10000000000)", id="rounded to more digits than there is memory"),
        pytest.param("1e9999999999", id="a float without end"),
        pytest.param("0E-9_999_999_999", id="a zero of many digits"),
        pytest.param("Float('1e9999999999')", id="a float as text"),
        pytest.param("Float('1.5', precision=10000000000)", id="a precision"),
        pytest.param("Float('1.5', 10000000000)", id="a precision by place"),
        pytest.param("(1,) * 10000000000", id="a tuple without end"),
        pytest.param("-" * 1500 + "1", id="signs without end"),
        pytest.param("Abs(" * 150 + "1" + ")" * 150, id="calls in calls"),
        pytest.param("+".join(["1"] * 900), id="operators without end"),
    ],
)
def test_expressions_without_measure_are_refused(text: str) -> None:
    with pytest.raises(NotAnExpression):
        check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', integer=True, positive=True)",
        "Add(Mul(Integer(4), Symbol('s0')), Integer(9223372036854775807))",
        "Mul(Rational(1, 2), Pow(Symbol('s0'), Integer(2)))",
        "Pow(Symbol('s0'), Rational(1, 2))",
        "Pow(Symbol('s0'), Integer(-1))",
        "FloorDiv(Add(Symbol('s0'), Integer(-1)), Integer(2))",
        "Piecewise(ExprCondPair(Symbol('s0'), Gt(Symbol('s0'), Integer(1))), ExprCondPair(Integer(1), true))",
        "2*s0**2 + s1//4 - 1",
        "Float('1.5', precision=53)",
        "Float('1e-06', precision=53)",
        "Mul(" + ", ".join(f"Symbol('s{index}')" for index in range(8)) + ")",
    ],
)
def test_sizes_of_programs_are_read(text: str) -> None:
    assert size_of(text).label
