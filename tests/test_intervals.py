"""Sharp constants enclosed twice: by arb, and by the package's own intervals, whose ends must hold the value."""

import flint
import mpmath
import pytest
import sympy

from amem_core.closed_forms import DEFECT_CONSTANT, LOSS_CONSTANT, log_bound_threshold
from amem_core.intervals import enclose_maximum, enclose_root
from tests.oracles import refuses


def arb_maximum(slope, value, low: float, high: float) -> flint.arb:
    """The maximum of a function that rises, turns once and falls: proven by signs of the slope on small pieces."""
    pieces, turn = [(flint.arb(low), flint.arb(high))], None
    while pieces:
        a, b = pieces.pop()
        middle = (a + b) / 2
        sign = slope(a.union(b))
        if sign > 0 or sign < 0:
            continue
        if (b - a) < flint.arb("1e-15"):
            turn = a.union(b) if turn is None else turn.union(a).union(b)
        else:
            pieces += [(a, middle), (middle, b)]
    return value(turn)


def test_the_constant_of_the_loss_is_enclosed():
    flint.ctx.prec = 160

    def value(m):
        return (m.exp() + m - 1) * (1 + (-m).exp()).log()

    def slope(m):
        return (m.exp() + 1) * (1 + (-m).exp()).log() - (m.exp() + m - 1) / (m.exp() + 1)

    found = arb_maximum(slope, value, 0.0, 6.0)
    assert found.rad() < flint.arb("1e-12") and abs(found - LOSS_CONSTANT) < flint.arb("1e-12")
    # a point close by gives it from below to all digits
    assert value(flint.arb("2.526139218479530002371153015689")) > LOSS_CONSTANT - 1e-15
    # beyond 6: log(1 + x) <= x leaves 1 + (m - 1) exp(-m), which falls from m = 2 on
    assert 1 + 5 * flint.arb(-6).exp() < LOSS_CONSTANT


def test_the_constant_of_the_defect_is_enclosed():
    flint.ctx.prec = 160

    def parts(m):
        y = m + m.exp()
        return y, (1 + m * (-m).exp()).log(), y.log()

    def value(m):
        y, h, log_y = parts(m)
        return h * y / log_y

    def slope(m):  # times log(y)^2 > 0
        y, h, log_y = parts(m)
        dy = 1 + m.exp()
        return ((dy / y - 1) * y + h * dy) * log_y - h * dy

    found = arb_maximum(slope, value, 0.5, 6.0)
    assert found.rad() < flint.arb("1e-12") and abs(found - DEFECT_CONSTANT) < flint.arb("1e-12")
    assert value(flint.arb("3.003176619994337649460717404249")) > DEFECT_CONSTANT - 1e-15
    # outside: h y / log y <= (1 + m exp(-m)) / (1 + exp(-m))
    one = flint.arb(1)
    assert (1 + (-one).exp()) / (1 + (-one / 2).exp()) < DEFECT_CONSTANT
    assert 1 + 6 * (-6 * one).exp() < DEFECT_CONSTANT


def test_the_threshold_is_enclosed():
    flint.ctx.prec = 160
    w = flint.arb(-1) / 2 * (flint.arb(-1) / 2).exp()
    root = -1 - 2 * w.lambertw(-1)
    assert root.rad() < flint.arb("1e-30") and abs(root - log_bound_threshold()) < flint.arb("1e-14")
    for ends, sign in ((root - flint.arb("1e-20"), -1), (root + flint.arb("1e-20"), 1)):
        assert sign * ((ends / 2).exp() - 1 - ends) > 0


def test_the_package_encloses_the_same_constants():
    m = sympy.Symbol("m")
    y = m + sympy.exp(m)
    constants = [
        (enclose_maximum((sympy.exp(m) + m - 1) * sympy.log(1 + sympy.exp(-m)), 0.0, 6.0), LOSS_CONSTANT),
        (enclose_maximum(sympy.log(1 + m * sympy.exp(-m)) * y / sympy.log(y), 0.5, 6.0), DEFECT_CONSTANT),
        (enclose_root(sympy.exp(m / 2) - 1 - m, 2.0, 4.0), log_bound_threshold()),
    ]
    for (low, high), constant in constants:
        assert low <= high and high - low < 1e-13
        assert abs(constant - float(low)) < 1e-15 * 4


@pytest.mark.parametrize(
    ("coefficient", "constant"),
    [
        (sympy.Rational(2**60 + 1, 2**60), 1),
        (sympy.Rational(1, 3), sympy.Rational(3, 10)),
        (sympy.Integer(2**200 + 1), sympy.Integer(2**200)),
        (sympy.exp(sympy.Rational(1, 7)), sympy.log(3)),
    ],
)
def test_intervals_contain_the_value_for_every_number(coefficient, constant):
    x = sympy.Symbol("x")
    low, high = enclose_root(x * coefficient - constant, 0.25, 2.0)
    with mpmath.workdps(80):
        exact = mpmath.mpf(str((constant / coefficient).evalf(70)))
        assert low <= exact <= high and high - low < 1e-20
    top_low, top_high = enclose_maximum(coefficient * x - coefficient * x**2 / 2, 0.0, 2.0)  # at x = 1
    with mpmath.workdps(80):
        assert top_low <= mpmath.mpf(str((coefficient / 2).evalf(70))) <= top_high


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("f", lambda: enclose_maximum(sympy.Symbol("x") / sympy.pi, 0.0, 1.0)),
        ("f", lambda: enclose_maximum(sympy.sqrt(2) * sympy.Symbol("x"), 0.0, 1.0)),
        ("f", lambda: enclose_root(sympy.sqrt(sympy.Symbol("x")) - 1, 0.5, 2.0)),
        ("f", lambda: enclose_root(0.1 * sympy.Symbol("x") - sympy.Float("0.1"), 0.5, 2.0)),
        ("f", lambda: enclose_maximum(sympy.Symbol("x") * sympy.Symbol("y"), 0.0, 1.0)),
        ("low, high", lambda: enclose_root(sympy.Symbol("x") ** 2, -1.0, 1.0)),
        ("low, high", lambda: enclose_root(sympy.Symbol("x") - 2, -1.0, 1.0)),
    ],
)
def test_bad_input_is_named(argument, call):
    with refuses(argument):
        call()
