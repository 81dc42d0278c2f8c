"""Theorem 1: particles and embeddings are one dynamics, whatever the embeddings."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amem_core import AssociationProblem, ParticleSystem, gradient, scores
from amem_core.dynamics import gradient_descent
from amem_core.dynamics.spaces import BinaryParticles, Embeddings, Particles, open_space, operations
from tests.oracles import autograd, descend, largest_curvature, member, refuses
from tests.strategies import problems, problems_with_start, seeds

D = torch.float64
EPS = torch.finfo(D).eps
SIZES = (1.0, 1.0, 1e-3, 1e3)  # lengths of embeddings


def distance(a: Tensor, b: Tensor, unit: float) -> float:
    """Largest difference, relative to the largest entry or to ``unit``, the size of what was summed."""
    scale = max(float(a.abs().max()), float(b.abs().max()), unit)
    return float((a - b).abs().max()) / scale if scale > 0 else 0.0


def one_step(problem: AssociationProblem, rate: float) -> float:
    """Largest term that one step at this rate adds to a score, before terms cancel."""
    K_E, K_U = problem.E @ problem.E.mT, problem.U @ problem.U.mT
    return rate * float((K_E.abs() @ problem.p).max() * K_U.abs().max())


def stable_rate(problem: AssociationProblem, fraction: float) -> float:
    bound = largest_curvature(problem)
    return 2 * fraction / bound if bound > 0 else 1.0


@given(problems_with_start())
def test_velocity_is_the_displayed_sum_over_tokens_and_classes(drawn):
    problem, W = drawn
    system = ParticleSystem.of(problem)
    w = system.encode(W, problem)
    alpha, u = problem.E @ problem.E.mT, problem.U
    P = torch.softmax(w, -1)
    expected = torch.zeros_like(w)
    # Eq. (12), index by index: alpha_ix beta_{j f*(x) z} p_W(z | x), beta_{jkl} = <u_j, u_k - u_l>
    for i, j, x, z in itertools.product(range(problem.N), range(problem.M), range(problem.N), range(problem.M)):
        beta = u[j] @ (u[problem.targets[x]] - u[z])
        expected[i, j] += problem.p[x] * alpha[i, x] * beta * P[x, z]
    assert distance(system.velocity(w), expected, one_step(problem, 1.0)) < 1e-13


@given(problems_with_start(), st.sampled_from([0.0, 1e-3, 1.0, 1e6]))
def test_a_step_of_particles_is_a_step_of_the_matrix(drawn, rate):
    problem, W = drawn
    system = ParticleSystem.of(problem)
    moved = system.step(system.encode(W, problem), rate)
    expected = system.encode(W - rate * autograd(W, problem), problem)
    assert distance(moved, expected, one_step(problem, rate)) < 1e-13


@given(problems_with_start(), st.sampled_from([0.1, 0.9]))
def test_coefficients_decode_to_the_matrix_and_encode_to_the_particles(drawn, fraction):
    problem, W0 = drawn
    system, rate = ParticleSystem.of(problem), stable_rate(problem, fraction)
    w0 = w = system.encode(W0, problem)
    C = torch.zeros_like(w)
    for _ in range(5):
        C, w = C + rate * system.force(w), system.step(w, rate)
    W = system.decode(W0, C, problem)
    size = one_step(problem, 5 * rate)
    assert distance(W, descend(W0, problem, [rate] * 5), size) < 1e-12
    assert distance(system.encode(W, problem), w, size) < 1e-12
    assert distance(system.particles(w0, C), w, size) < 1e-12


@given(problems(), seeds)
def test_only_inner_products_matter(problem, seed):
    # the same Gram matrices from embeddings rotated into 40 dimensions
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(40, problem.d, dtype=D, generator=generator)).Q
    rotated = AssociationProblem(problem.E @ rotation.mT, problem.U @ rotation.mT, problem.targets, problem.p)
    system = ParticleSystem(problem.E @ problem.E.mT, problem.U @ problem.U.mT, problem.targets, problem.p)
    rate, w = stable_rate(problem, 0.7), torch.zeros(system.shape, dtype=D)
    for _ in range(5):
        w = system.step(w, rate)
    run = gradient_descent(rotated, rate=rate, steps=5, space="embeddings", progress=False)
    assert distance(run.particles[-1], w, one_step(problem, 5 * rate)) < 1e-12


@settings(max_examples=25)  # a thousand steps each
@given(problems_with_start(scales=SIZES), st.sampled_from([0.3, 0.9, 0.99]))
def test_a_thousand_stable_steps_agree_in_all_spaces(drawn, fraction):
    # below the stability limit, 2 over the largest curvature, rounding is not amplified
    problem, W0 = drawn
    rate = stable_rate(problem, fraction)
    options = {"rate": rate, "steps": 1000, "record_every": 250, "progress": False}
    inside = gradient_descent(problem, W0, space="particles", **options)
    outside = gradient_descent(problem, W0, space="embeddings", **options)
    unit = one_step(problem, rate)
    assert distance(inside.particles, outside.particles, unit) < 1e-10
    reach = float(problem.E.abs().max() * problem.U.abs().max())
    assert distance(inside.W * reach, outside.W * reach, unit) < 1e-10


@settings(max_examples=5)
@given(problems_with_start(scales=SIZES))
def test_a_thousand_steps_of_a_system_agree_with_autograd(drawn):
    problem, W = drawn
    rate = stable_rate(problem, 0.9)
    system = ParticleSystem.of(problem)
    w = system.encode(W, problem)
    for _ in range(1000):
        w = system.step(w, rate)
    expected = system.encode(descend(W, problem, [rate] * 1000), problem)
    assert distance(w, expected, one_step(problem, rate)) < 1e-10


@given(problems_with_start(scales=SIZES), st.sampled_from([1e-3, 1.0, 1e3, 1e6]))
def test_three_steps_agree_at_any_rate(drawn, rate):
    # further on, large rates are chaotic: a margin near zero decides what the next step writes
    problem, W0 = drawn
    inside = gradient_descent(problem, W0, rate=rate, steps=3, space="particles", progress=False)
    outside = gradient_descent(problem, W0, rate=rate, steps=3, space="embeddings", progress=False)
    assert distance(inside.particles, outside.particles, one_step(problem, rate)) < 1e-10
    assert torch.isfinite(inside.loss).all()


@settings(max_examples=25)
@given(problems_with_start(max_M=2), st.sampled_from([0.3, 0.99]))
def test_one_margin_a_token_is_the_same_as_two_scores(drawn, fraction):
    problem, W0 = drawn
    rate = stable_rate(problem, fraction)
    binary, general = BinaryParticles(problem, W0), Particles(problem, W0)
    assert isinstance(open_space(problem, W0, "particles"), BinaryParticles)
    for _ in range(1000):
        binary.advance(rate * problem.p)
        general.advance(rate * problem.p)
    system = ParticleSystem.of(problem)
    w0 = system.encode(W0, problem)
    found, expected = (system.particles(w0, state.snapshot()) for state in (binary, general))
    assert distance(found, expected, one_step(problem, rate)) < 1e-10


@pytest.mark.parametrize("M", [2, 3])
@pytest.mark.parametrize("batched", list(itertools.product([(), (3,), (2, 1)], repeat=3)))
def test_spaces_take_every_combination_of_batches(M, batched):
    of_W, of_problem, of_rate = batched
    generator = torch.Generator().manual_seed(0)
    E = torch.randn(*of_problem, 4, 5, dtype=D, generator=generator)
    U = torch.randn(M, 5, dtype=D, generator=generator)
    problem = AssociationProblem(E, U, torch.arange(4) % M, torch.full((4,), 0.25, dtype=D))
    W0 = torch.randn(*of_W, 5, 5, dtype=D, generator=generator)
    rate = torch.rand(of_rate, dtype=D, generator=generator)
    batch = torch.broadcast_shapes(*batched)
    runs = {
        space: gradient_descent(problem, W0, rate=rate, steps=4, space=space, progress=False)
        for space in ("particles", "embeddings")
    }
    for index in itertools.product(*map(range, batch)):
        eta = float(rate.expand(batch)[index])
        alone = descend(W0.expand(*batch, 5, 5)[index], member(problem, batch, index), [eta] * 4)
        for run in runs.values():
            assert run.W.shape == (5, *batch, 5, 5)
            assert float((run.W[(-1, *index)] - alone).abs().max()) < 1e-12


def test_the_cheaper_space_is_chosen_by_operation_count():
    wide, narrow = AssociationProblem.gaussian(8, 8, 64, seed=0), AssociationProblem.gaussian(64, 64, 8, seed=0)
    # N^2 M + N M^2 against 2 (min(N, M) d^2 + N M d)
    assert operations(wide) == {"particles": 1024, "embeddings": 2 * (8 * 64**2 + 64 * 64)}
    assert operations(narrow) == {"particles": 2 * 64**3, "embeddings": 2 * (64 * 64 + 64 * 64 * 8)}
    # two classes: one margin a token, N^2
    assert operations(AssociationProblem.gaussian(8, 2, 3, seed=0)) == {"particles": 64, "embeddings": 2 * (18 + 48)}
    assert isinstance(open_space(wide, torch.zeros(64, 64, dtype=D)), Particles)
    assert isinstance(open_space(narrow, torch.zeros(8, 8, dtype=D)), Embeddings)


def test_a_system_of_grams_needs_no_embeddings_and_takes_batches():
    K_E = torch.tensor([[[1.0, a], [a, 1.0]] for a in (-0.5, 0.0, 0.9)], dtype=D)
    system = ParticleSystem(K_E, torch.eye(2, dtype=D), torch.arange(2), torch.tensor([0.75, 0.25], dtype=D))
    assert system.shape == (3, 2, 2)
    together = system.step(torch.zeros(2, 2, dtype=D), torch.tensor([1.0, 2.0, 3.0], dtype=D))
    for k, alpha in enumerate((-0.5, 0.0, 0.9)):
        problem = AssociationProblem.two_tokens(alpha, 0.75)
        expected = scores(-(k + 1.0) * gradient(torch.zeros(2, 2, dtype=D), problem), problem)
        assert float((together[k] - expected).abs().max()) < 1e-14


EYE, HALF, TARGETS = torch.eye(2, dtype=D), torch.full((2,), 0.5, dtype=D), torch.arange(2)
SYSTEM = ParticleSystem(EYE, EYE, TARGETS, HALF)
PROBLEM = AssociationProblem(EYE, EYE, TARGETS, HALF)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("K_E", lambda: ParticleSystem(torch.ones(2, 3, dtype=D), EYE, TARGETS, HALF)),
        ("K_E", lambda: ParticleSystem(torch.ones(2, dtype=D), EYE, TARGETS, HALF)),
        ("K_E", lambda: ParticleSystem(EYE + torch.tensor([[0, 1e-9], [0, 0]]), EYE, TARGETS, HALF)),
        ("K_E", lambda: ParticleSystem(EYE * torch.nan, EYE, TARGETS, HALF)),
        ("K_E", lambda: ParticleSystem.of(AssociationProblem(EYE * 1e200, EYE, TARGETS, HALF))),
        ("K_U", lambda: ParticleSystem(EYE, EYE.float(), TARGETS, HALF)),
        ("K_U", lambda: ParticleSystem(EYE, EYE[:1, :1], TARGETS * 0, HALF)),
        ("targets", lambda: ParticleSystem(EYE, EYE, TARGETS + 1, HALF)),
        ("targets", lambda: ParticleSystem(EYE, EYE, TARGETS.double(), HALF)),
        ("targets", lambda: ParticleSystem(EYE, EYE, torch.arange(3), HALF)),
        ("p", lambda: ParticleSystem(EYE, EYE, TARGETS, HALF * 2)),
        ("p", lambda: ParticleSystem(EYE, EYE, TARGETS, torch.tensor([2.0, -1.0], dtype=D))),
        ("p", lambda: ParticleSystem(EYE, EYE, TARGETS, torch.ones(3, dtype=D) / 3)),
        ("K_E, K_U, targets, p", lambda: ParticleSystem(EYE.expand(2, 2, 2), EYE.expand(3, 2, 2), TARGETS, HALF)),
        ("w", lambda: SYSTEM.force(torch.zeros(2, dtype=D))),
        ("w", lambda: SYSTEM.velocity(torch.zeros(3, 2, dtype=D))),
        ("w", lambda: SYSTEM.step(torch.zeros(2, 2), 1.0)),
        ("w", lambda: SYSTEM.step(EYE * torch.inf, 1.0)),
        ("rate", lambda: SYSTEM.step(EYE, -1.0)),
        ("rate", lambda: SYSTEM.step(EYE, torch.nan)),
        ("rate", lambda: SYSTEM.step(EYE, torch.tensor([1.0, torch.inf]))),
        ("rate, w, system", lambda: SYSTEM.step(EYE.expand(3, 2, 2), torch.ones(2))),
        ("C", lambda: SYSTEM.particles(EYE, torch.zeros(3, 2, dtype=D))),
        ("w0", lambda: SYSTEM.particles(torch.zeros(2, dtype=D), EYE)),
        ("w0, C, system", lambda: SYSTEM.particles(EYE.expand(2, 2, 2), EYE.expand(3, 2, 2))),
        ("W0", lambda: SYSTEM.decode(torch.zeros(3, 3, dtype=D), EYE, PROBLEM)),
        ("C", lambda: SYSTEM.decode(EYE, torch.zeros(3, 2, dtype=D), PROBLEM)),
        ("problem", lambda: SYSTEM.decode(torch.zeros(3, 3, dtype=D), EYE, AssociationProblem.orthonormal(3))),
        ("problem", lambda: SYSTEM.encode(torch.zeros(3, 3, dtype=D), AssociationProblem.orthonormal(3))),
        ("W", lambda: SYSTEM.encode(torch.zeros(2, 3, dtype=D), PROBLEM)),
        ("space", lambda: open_space(PROBLEM, EYE, "fourier")),
    ],
)
def test_malformed_systems_and_particles_are_refused(argument, call):
    with refuses(argument):
        call()


def test_particles_that_leave_the_range_are_an_error():
    large = ParticleSystem(EYE * 1e200, EYE * 1e200, TARGETS, HALF)
    w = torch.zeros(2, 2, dtype=D)
    for call in (
        lambda: large.velocity(w),
        lambda: large.particles(w, EYE),
        lambda: ParticleSystem(EYE * 4, EYE * 4, TARGETS, HALF).step(w, 1e308),
    ):
        with pytest.raises(OverflowError, match=r"range of torch\.float64"):
            call()


def test_a_part_common_to_all_outputs_costs_no_digits():
    """It moves no margin. Embeddings lose eps * 1e6 = 2e-10 to it in each score; particles must not lose its square."""
    problem = AssociationProblem.spherical(4, 4, 5, seed=0)
    shifted = replace(problem, U=problem.U + 1e6 * torch.eye(5, dtype=torch.float64)[0])
    plain = gradient_descent(problem, rate=0.5, steps=200, record_every=200).tightest_margin[-1]
    moved = gradient_descent(shifted, rate=0.5, steps=200, record_every=200, space="particles").tightest_margin[-1]
    assert (moved - plain).abs().max() <= 1e-8 * plain.abs().max()
