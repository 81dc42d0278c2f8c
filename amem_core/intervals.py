"""Constants enclosed, not only evaluated: maxima and roots of one-variable expressions by interval arithmetic.

Every operation on intervals is rounded outwards, and every number of the expression enters as an
interval that contains it; so what comes back contains the true value.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sympy
from mpmath import iv, mp, mpf

from amem_core.validation import require

BITS = 120  # about 36 digits


def enclose_maximum(f: sympy.Expr, low: float, high: float, digits: int = 12) -> tuple[mpf, mpf]:
    """Lower and upper bound on the maximum of ``f`` over ``[low, high]``.

    Pieces on which the interval of the derivative has one sign hold no maximum inside; the others are
    halved until they are as short as ``digits`` asks for.

    Parameters
    ----------
    f : expression in one symbol, made of sums, products, integer powers, ``exp``, ``log``, rational numbers
    low, high : the range; ``f`` and its derivative must be defined on all of it
    digits : decimal digits of the maximiser

    >>> x = sympy.Symbol("x")
    >>> low, high = enclose_maximum(x * sympy.exp(-x), 0.0, 4.0)
    >>> bool(low <= sympy.exp(-1).evalf(30) <= high), bool(high - low < 1e-11)
    (True, True)
    """
    x = _symbol(f)
    with _precision():
        value, slope, bend = (_compiled(f.diff(x, order), x) for order in range(3))
        best = [iv.mpf(value(iv.mpf(low))), iv.mpf(value(iv.mpf(high)))]
        pieces, shortest = [(mpf(low), mpf(high))], mpf(10) ** -digits
        while pieces:
            a, b = pieces.pop()
            middle = (a + b) / 2
            # mean value theorem: far tighter on short pieces than the interval of the slope itself
            turn = slope(iv.mpf(middle)) + bend(iv.mpf([a, b])) * (iv.mpf([a, b]) - middle)
            if turn.a > 0 or turn.b < 0:
                continue
            if b - a <= shortest:
                best.append(value(iv.mpf(middle)) + turn * (iv.mpf([a, b]) - middle))
                continue
            pieces += [(a, middle), (middle, b)]
        return max(mpf(v.a) for v in best), max(mpf(v.b) for v in best)


def enclose_root(f: sympy.Expr, low: float, high: float, digits: int = 20) -> tuple[mpf, mpf]:
    """Bounds on the one root of ``f`` in ``[low, high]``, by bisection on proven signs.

    Raises
    ------
    ValueError
        Unless the derivative has one sign on the range and ``f`` changes sign.

    Examples
    --------
    >>> x = sympy.Symbol("x")
    >>> low, high = enclose_root(x**2 - 2, 1.0, 2.0, digits=9)
    >>> bool(low**2 < 2 < high**2)
    True
    """
    x = _symbol(f)
    with _precision():
        value, slope = (_compiled(f.diff(x, order), x) for order in range(2))
        turn = iv.mpf(slope(iv.mpf([low, high])))
        require(turn.a > 0 or turn.b < 0, "low, high", (low, high), "a range on which f is monotone")
        sign = 1 if turn.a > 0 else -1
        ends = sign * value(iv.mpf(low)), sign * value(iv.mpf(high))
        require(ends[0].b < 0 < ends[1].a, "low, high", (low, high), "a range on which f changes sign")
        a, b = mpf(low), mpf(high)
        while b - a > mpf(10) ** -digits:
            middle = (a + b) / 2
            there = sign * value(iv.mpf(middle))
            if there.b < 0:
                a = middle
            elif there.a > 0:
                b = middle
            else:
                break
        return a, b


def _symbol(f: sympy.Expr) -> sympy.Symbol:
    require(isinstance(f, sympy.Expr), "f", repr(f), "a sympy expression")
    symbols = sorted(f.free_symbols, key=str)
    require(len(symbols) == 1, "f", f"the symbols {symbols}", "an expression in one symbol")
    for part in sympy.preorder_traversal(f):
        number = part.is_Symbol or part.is_Rational
        power = part.is_Pow and part.exp.is_Integer
        require(
            number or power or part.is_Add or part.is_Mul or isinstance(part, sympy.exp | sympy.log),
            "f",
            part,
            "sums, products, integer powers, exp, log and rational numbers",
        )
    return symbols[0]


def _compiled(f: sympy.Expr, x: sympy.Symbol) -> Callable:
    """The expression on intervals; its numbers become arguments, as code would round them to doubles."""
    known: dict[sympy.Rational, sympy.Symbol] = {}

    def lifted(part: sympy.Expr) -> sympy.Expr:
        if part.is_Rational:
            return known.setdefault(part, sympy.Dummy())
        if part.is_Pow:
            return sympy.Pow(lifted(part.base), part.exp)
        return part.func(*map(lifted, part.args)) if part.args else part

    general = lifted(f)
    code = sympy.lambdify([x, *known.values()], general, modules=[{"exp": iv.exp, "log": iv.log}], cse=True)
    numbers = [iv.mpf(int(q.p)) / iv.mpf(int(q.q)) for q in known]
    return lambda at: code(at, *numbers)


@contextmanager
def _precision() -> Iterator[None]:
    before, iv.prec = iv.prec, BITS
    try:
        with mp.workprec(BITS):
            yield
    finally:
        iv.prec = before
