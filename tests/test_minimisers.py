"""Minimisers of the loss in the plane, against exact arithmetic, SciPy and closed forms; both minima in batches."""

import importlib
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from amem_core import AssociationProblem, loss, zipf_frequencies
from amem_core.landscape import minimise_loss, minimise_zero_one
from tests.oracles import autograd, member, refuses
from tests.planar import EYE, circles, doubles, planar, signed, weakly_separated, whole_tokens

module = importlib.import_module("amem_core.landscape.minimum")


@given(whole_tokens())
def test_a_minimiser_exists_unless_a_half_plane_holds_all_tokens(drawn):
    z, weights = drawn
    best = minimise_loss(planar(z, weights))
    seen = [t for t, w in zip(z, weights, strict=True) if w]
    assert bool(best.attained) != weakly_separated(seen)
    if not best.attained:
        assert (best.v == 0).all() and (best.W == 0).all() and math.isclose(best.zero_one_loss, 1, rel_tol=1e-14)
        assert math.isclose(float(best.loss), math.log(2), rel_tol=1e-14)


@given(circles() | whole_tokens().map(lambda drawn: planar(*drawn)))
def test_the_gradient_vanishes_at_the_minimiser(problem):
    best = minimise_loss(problem)
    assume(bool(best.attained))
    terms = problem.p * torch.sigmoid(-signed(problem) @ best.v) * problem.E.norm(dim=-1)
    reach = 1 + float(best.v.norm() * problem.E.norm(dim=-1).max())  # margins are known to a rounding of this
    gradient = autograd(best.W, problem)
    assert float(gradient.norm()) <= 2**0.5 * float(terms.sum()) * 1e-14 * reach
    assert float(best.residual) <= 4e-15 * reach
    gap = problem.U[0] - problem.U[1]
    assert torch.allclose(best.W.T @ gap, best.v, rtol=1e-14, atol=1e-15)
    assert math.isclose(float(best.W.norm()), float(best.v.norm() / gap.norm()), rel_tol=1e-14, abs_tol=1e-15)
    assert torch.allclose(best.loss, loss(best.W, problem), rtol=1e-13)


@settings(max_examples=25)
@given(circles())
def test_scipy_finds_no_better(problem):
    best = minimise_loss(problem)
    z, p = signed(problem).numpy(), problem.p.numpy()

    def value(v):
        return float(p @ np.logaddexp(0, -z @ v))

    def slope(v):
        return -z.T @ (p / (1 + np.exp(z @ v)))

    def curvature(v):
        q = 1 / (1 + np.exp(-z @ v))
        return (z.T * (p * q * (1 - q))) @ z

    if not best.attained:
        far = minimize(value, np.zeros(2), jac=slope, method="BFGS", options={"maxiter": 30})
        assert value(2 * far.x) < value(far.x) < math.log(2)  # it goes on for ever
        return
    assume(float(best.v.norm()) < 50)
    other = minimize(value, np.zeros(2), jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-12})
    assert float(best.loss) <= other.fun * (1 + 1e-14)
    stiff = np.linalg.eigvalsh(curvature(best.v.numpy()))[0]
    # SciPy stops where rounding hides the fall of the loss: half of the digits
    assert np.abs(best.v.numpy() - other.x).max() <= 1e-7 / stiff**0.5


def test_a_minimiser_in_closed_form():
    q = Fraction(11, 10)
    weights = [Fraction(8, 5) * (1 + q**-5), 1 + q**4, 1 + q**4]
    E = doubles(1.0, 0.0, 0.8, -0.6, 0.8, 0.6).reshape(3, 2)
    p = doubles(*(float(w / sum(weights)) for w in weights))
    best = minimise_loss(AssociationProblem(E, EYE, torch.tensor([0, 1, 1]), p))
    assert torch.allclose(best.v, doubles(-5 * math.log(1.1), 0.0), rtol=1e-14, atol=1e-15)
    assert torch.allclose(best.zero_one_loss, p[0], rtol=1e-15)  # the most frequent of the three is forgotten
    assert p[0] > p[1] and best.attained


def test_the_smallest_examples_of_forgetting():
    E = doubles(1.0, 0.0, 0.8, -0.6, 0.8, 0.6).reshape(3, 2)
    problem = AssociationProblem(E, EYE, torch.tensor([0, 1, 1]), doubles(0.4, 0.3, 0.3))
    r = brentq(lambda r: 0.4 * (1 + math.exp(0.8 * r)) - 0.48 * (1 + math.exp(-r)), 0, 1, xtol=1e-15)
    best = minimise_loss(problem)
    assert torch.allclose(best.v, doubles(-r, 0.0), rtol=1e-13, atol=1e-15)
    assert math.isclose(best.zero_one_loss, 0.4) and math.isclose(minimise_zero_one(problem).zero_one_loss, 0.3)
    # only the rarest is kept
    E = doubles(40 / 41, 9 / 41, 40 / 41, -9 / 41, 0.0, -1.0).reshape(3, 2)
    rare = AssociationProblem(E, EYE, torch.tensor([0, 1, 0]), doubles(0.4, 0.4, 0.2))
    assert math.isclose(minimise_loss(rare).zero_one_loss, 0.8)
    found = minimise_zero_one(rare)
    assert math.isclose(found.zero_one_loss, 0.2) and found.recalled.tolist() == [True, True, False]


@given(circles(), st.floats(0.5, 0.999))
def test_a_token_of_frequency_one_half_is_never_forgotten(problem, p1):
    p = torch.cat([doubles(p1), (1 - p1) * problem.p[1:] / problem.p[1:].sum()])
    assume(problem.N > 1)
    best = minimise_loss(AssociationProblem(problem.E, problem.U, problem.targets, p / p.sum()))
    assume(bool(best.attained))
    assert float(signed(problem)[0] @ best.v) > 0


def test_newton_converges_quadratically(monkeypatch):
    angles = 2 * math.pi * torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = AssociationProblem.planar(angles, torch.arange(30) % 2, zipf_frequencies(30))
    path, step = [], module._step
    monkeypatch.setattr(module, "_step", lambda v, *rest: path.append(v[0].clone()) or step(v, *rest))
    best = minimise_loss(problem)
    errors = [float((v - best.v).norm() / best.v.norm()) for v in path]
    assert len(errors) <= 10
    assert all(after <= 3 * before**2 + 1e-15 for before, after in itertools.pairwise(errors) if before < 0.3)
    assert sum(error < 0.3 for error in errors) >= 3  # the line above has seen three or more


def test_repeated_and_collinear_tokens():
    # one input with two answers, 3 : 1, and another on its line; the margin of the input is the logarithm of the odds
    e = doubles(0.6, 0.8)
    problem = AssociationProblem(torch.stack([e, e]), 3 * EYE, torch.tensor([0, 1]), doubles(0.75, 0.25))
    best = minimise_loss(problem)
    assert torch.allclose(best.v, math.log(3) * e, rtol=1e-14) and best.attained
    assert math.isclose(best.zero_one_loss, 0.25)
    three = AssociationProblem(
        torch.stack([e, -0.5 * e, 0.1 * e]), EYE, torch.tensor([0, 0, 1]), doubles(0.5, 0.3, 0.2)
    )
    best = minimise_loss(three)
    t = brentq(
        lambda t: 0.5 / (1 + math.exp(t)) - 0.15 / (1 + math.exp(-t / 2)) - 0.02 / (1 + math.exp(-t / 10)), 0, 9,
        xtol=1e-15,
    )  # fmt: skip
    assert torch.allclose(best.v, t * e, rtol=1e-13)
    assert abs(float(best.v[0] * e[1] - best.v[1] * e[0])) < 1e-15  # nothing across the line: the least norm


def test_tokens_that_do_not_count():
    nothing = minimise_loss(planar([[0.0, 0.0], [0.0, 0.0]], [1.0, 3.0]))
    assert nothing.attained and (nothing.v == 0).all() and nothing.zero_one_loss == 1 and nothing.residual == 0
    z = [[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]]
    assert minimise_loss(planar(z, [1.0, 1.0, 1.0])).attained
    assert not minimise_loss(planar(z, [1.0, 1.0, 0.0])).attained
    with_zero = minimise_loss(planar([*z, [0.0, 0.0]], [1.0, 1.0, 1.0, 1.0]))
    assert torch.allclose(with_zero.v, minimise_loss(planar(z, [1.0, 1.0, 1.0])).v, rtol=1e-13)
    assert math.isclose(with_zero.zero_one_loss - 0.75 * minimise_loss(planar(z, [1.0] * 3)).zero_one_loss, 0.25)
    # balanced: the minimiser is 0 and recalls nothing
    balanced = minimise_loss(planar([[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0]))
    assert balanced.attained and (balanced.v == 0).all() and balanced.zero_one_loss == 1


def test_a_tie_at_the_minimiser_is_an_error():
    # symmetric about a line, so that v lies on it and the last two tokens are tied
    angles = torch.linspace(0, 6, 20, dtype=torch.float64)[:, None] + doubles(0.0, 2.2, -2.2, math.pi / 2, -math.pi / 2)
    best = minimise_loss(planar(torch.stack([angles.cos(), angles.sin()], -1), [5.0, 1.0, 1.0, 1.0, 1.0]))
    direction = torch.stack([angles[:, 0].cos(), angles[:, 0].sin()], -1)
    assert torch.allclose(best.v, best.v.norm(dim=-1, keepdim=True) * direction, atol=1e-14)
    assert torch.allclose(best.zero_one_loss, doubles(4 / 9).expand(20), rtol=1e-14)


@pytest.mark.parametrize("beyond", [1e-9, 1e-12])
def test_the_gap_between_the_angles_decides(beyond):
    def tokens(gap):  # two long ones leave a gap of this size, a third lies opposite to it
        return planar([[1.0, 0.0], [math.cos(gap), math.sin(gap)], [0.0, -1.0]], [1.0, 1.0, 1.0])

    assert minimise_loss(tokens(math.pi - beyond)).attained
    assert not minimise_loss(tokens(math.pi + beyond)).attained
    assert not minimise_loss(tokens(math.pi - 1e-15)).attained  # below the tolerance: one closed half-plane


def test_a_token_of_vanishing_frequency_still_counts():
    best = minimise_loss(planar([[1.0, 0.0], [-1.0, 0.0]], [1.0, 1e-200]))
    assert torch.allclose(best.v, doubles(200 * math.log(10), 0.0), rtol=1e-13)


@given(circles(), st.sampled_from([1e-150, 1e-3, 1e5, 1e150]))
def test_the_scale_of_the_inputs_does_not_matter(problem, scale):
    best = minimise_loss(problem)
    scaled = minimise_loss(AssociationProblem(scale * problem.E, problem.U, problem.targets, problem.p))
    assert best.attained == scaled.attained
    # near a gap of pi the minimiser is far, and known less precisely
    assert torch.allclose(scale * scaled.v, best.v, rtol=1e-12 * (1 + float(best.v.norm())) ** 2, atol=1e-12)


@pytest.mark.parametrize("orders", [1, 2])
def test_lengths_and_frequencies_over_many_orders_of_magnitude(orders):
    generator = torch.Generator().manual_seed(0)
    lengths = 10 ** (orders * torch.randn(3000, 5, 1, dtype=torch.float64, generator=generator))
    E = lengths * torch.randn(3000, 5, 2, dtype=torch.float64, generator=generator)
    p = 10 ** (-5 * orders * torch.rand(3000, 5, dtype=torch.float64, generator=generator))
    best = minimise_loss(planar(E, p))
    reach = 1 + best.v.norm(dim=-1) * E.norm(dim=-1).amax(-1)
    assert bool((best.residual <= 8e-15 * reach)[best.attained].all())
    assert 0.5 < float(best.attained.double().mean()) < 0.9  # of both kinds


def test_a_halt_before_the_minimum_is_reported(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 1)
    with pytest.raises(RuntimeError, match="minimise_loss: a gradient of"):
        minimise_loss(planar([[1.0, 0.0], [-1.0, 0.3], [0.0, -1.0]], [5.0, 1.0, 1.0]))


# Both minima, in batches


def test_batches_hold_their_members():
    generator = torch.Generator().manual_seed(0)
    E = torch.randint(-3, 4, (50, 1, 6, 2), generator=generator).double()
    U = torch.randn(4, 2, 2, dtype=torch.float64, generator=generator)
    p = torch.softmax(torch.randn(50, 1, 6, dtype=torch.float64, generator=generator), -1)
    problem = AssociationProblem(E, U, torch.randint(2, (4, 6), generator=generator), p)
    minimum, least = minimise_loss(problem), minimise_zero_one(problem)
    assert minimum.W.shape == least.W.shape == (50, 4, 2, 2) and least.recalled.shape == (50, 4, 6)
    assert minimum.attained.any() and not minimum.attained.all()
    for index in itertools.product(range(0, 50, 7), range(4)):
        one = member(problem, torch.Size([50, 4]), index)
        for alone, together in ((minimise_loss(one), minimum), (minimise_zero_one(one), least)):
            for name, value in vars(alone).items():
                value, found = value.double(), getattr(together, name)[index].double()
                assert torch.allclose(value, found, rtol=1e-11, atol=1e-13), name
    empty = AssociationProblem(E[:0], U, problem.targets, p[:0])
    assert minimise_loss(empty).loss.shape == minimise_zero_one(empty).angle.shape == (0, 4)


def test_single_precision_stays_single():
    angles = torch.linspace(0, 11, 12, dtype=torch.float64)
    problem = AssociationProblem.planar(angles, torch.arange(12) % 2, zipf_frequencies(12))
    single = problem.to(torch.float32)
    best, least = minimise_loss(single), minimise_zero_one(single)
    assert {best.v.dtype, best.loss.dtype, best.residual.dtype, least.W.dtype, least.angle.dtype} == {torch.float32}
    assert torch.allclose(best.v.double(), minimise_loss(problem).v, rtol=1e-4)
    assert torch.allclose(least.zero_one_loss.double(), minimise_zero_one(problem).zero_one_loss, rtol=1e-6)


@pytest.mark.parametrize("function", [minimise_loss, minimise_zero_one])
def test_other_problems_are_refused(function):
    for wrong in (AssociationProblem.orthonormal(2, 3), AssociationProblem.orthonormal(2, d=3)):
        with refuses("problem", allowed="M = d = 2"):
            function(wrong)
    with refuses("problem", found="equal"):
        function(planar([[1.0, 0.0]], [1.0], U=torch.stack([EYE, torch.ones(2, 2, dtype=torch.float64)])))


@pytest.mark.parametrize("tilt", [1e-3, 1e-5])
def test_what_is_no_minimum_is_not_returned_as_one(tilt):
    # the third token is out of reach of double precision, and the gradient of the other two stays
    z = torch.tensor([[1.0, 0.0], [-1.0, tilt], [0.0, -1.0]], dtype=torch.float64)
    p = torch.tensor([0.5, 0.4, 1e-300], dtype=torch.float64)
    problem = AssociationProblem(z, torch.eye(2, dtype=torch.float64), torch.zeros(3, dtype=torch.long), p / p.sum())
    with pytest.raises(RuntimeError, match="a gradient of"):
        minimise_loss(problem)
