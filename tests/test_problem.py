"""The problem: its constructors make what they say, and nothing malformed is ever built."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amem_core import AssociationProblem, zipf_frequencies
from amem_core.data import load_shakespeare
from tests.oracles import refuses
from tests.strategies import problems

D = torch.float64
EYE = torch.eye(2, dtype=D)
HALF = torch.full((2,), 0.5, dtype=D)
TARGETS = torch.arange(2)
EPS = torch.finfo(D).eps


def build(E=EYE, U=EYE, targets=TARGETS, p=HALF) -> AssociationProblem:
    return AssociationProblem(E, U, targets, p)


@pytest.mark.parametrize(("N", "M", "d"), [(1, 2, 2), (3, 3, 3), (2, 5, 9), (6, 2, 6)])
def test_orthonormal_rows_have_the_identity_as_gram_matrix(N, M, d):
    problem = AssociationProblem.orthonormal(N, M, d)
    assert torch.equal(problem.E @ problem.E.mT, torch.eye(N, dtype=D))
    assert torch.equal(problem.U @ problem.U.mT, torch.eye(M, dtype=D))
    assert problem.targets.tolist() == [x % M for x in range(N)]
    assert (problem.N, problem.M, problem.d, problem.batch_shape) == (N, M, d, ())
    assert problem.p.tolist() == [1 / N] * N


def test_spherical_rows_are_uniform_on_the_sphere():
    problem = AssociationProblem.spherical(4000, 2, 3, seed=0)
    assert float((problem.E.norm(dim=-1) - 1).abs().max()) < 4 * EPS
    # uniform on the sphere: mean 0 and covariance I/3; each entry within 5 standard errors,
    # which random data exceed once in a million
    assert float(problem.E.mean(0).abs().max()) < 5 * math.sqrt(1 / 3 / 4000)
    covariance = problem.E.mT @ problem.E / 4000
    assert float((covariance - torch.eye(3, dtype=D) / 3).abs().max()) < 5 * math.sqrt(4 / 45 / 4000)


def test_gaussian_entries_have_variance_one_over_d():
    problem = AssociationProblem.gaussian(6000, 2, 8, seed=1)
    entries = problem.E.flatten() * math.sqrt(8)
    assert abs(float(entries.mean())) < 5 / math.sqrt(len(entries))
    assert abs(float((entries**2).mean()) - 1) < 5 * math.sqrt(2 / len(entries))
    kurtosis = float((entries**4).mean())  # 3 for a Gaussian, with variance 96/n
    assert abs(kurtosis - 3) < 5 * math.sqrt(96 / len(entries))


@pytest.mark.parametrize("maker", [AssociationProblem.spherical, AssociationProblem.gaussian])
def test_a_seed_fixes_every_bit_and_another_seed_changes_them(maker):
    first, again, other = maker(5, 3, 4, seed=7), maker(5, 3, 4, seed=7), maker(5, 3, 4, seed=8)
    generated = maker(5, 3, 4, seed=torch.Generator().manual_seed(7))
    assert torch.equal(first.E, again.E)
    assert torch.equal(first.U, again.U)
    assert torch.equal(first.E, generated.E)
    assert not torch.equal(first.E, other.E)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(1e-6, 1e6))
def test_two_tokens_have_the_stated_geometry(alpha, p1, c):
    problem = AssociationProblem.two_tokens(alpha, p1, output_distance_squared=c)
    gram = problem.E @ problem.E.mT
    expected = torch.tensor([[1, alpha], [alpha, 1]], dtype=D)
    assert float((gram - expected).abs().max()) < 4 * EPS
    distance = float((problem.U[0] - problem.U[1]).square().sum())
    assert abs(distance - c) < 8 * EPS * c
    assert float(problem.U[0] @ problem.U[1]) == 0
    assert problem.p.tolist() == [p1, 1 - p1]


def test_two_tokens_broadcast_into_a_grid():
    alpha, p1 = torch.linspace(-1, 1, 5, dtype=D)[:, None], torch.linspace(0, 1, 3, dtype=D)
    grid = AssociationProblem.two_tokens(alpha, p1)
    assert grid.batch_shape == (5, 3)
    single = AssociationProblem.two_tokens(alpha[3, 0], p1[1])
    assert torch.equal(grid.E[3, 1], single.E)
    assert torch.equal(grid.p[3, 1], single.p)


def test_a_circle_is_uniform_with_fair_labels():
    problem = AssociationProblem.circle(40, seed=0, batch=(500,))
    assert problem.E.shape == (500, 40, 2) and problem.targets.shape == (500, 40) and problem.M == 2
    # means of 20 000 signs and coordinates, of deviation 1 and 1/sqrt(2): five deviations
    assert abs(float(problem.targets.double().mean()) - 0.5) < 5 * 0.5 / 20_000**0.5
    assert float(problem.E.mean((0, 1)).abs().max()) < 5 * (0.5 / 20_000) ** 0.5
    shares = torch.histc(torch.atan2(problem.E[..., 1], problem.E[..., 0]), 8) / 20_000
    assert float((shares - 1 / 8).abs().max()) < 5 * (1 / 8 * 7 / 8 / 20_000) ** 0.5


def test_a_circle_is_that_of_its_seed_or_the_next_of_its_generator():
    p, generator = zipf_frequencies(5), torch.Generator().manual_seed(3)
    first, same = AssociationProblem.circle(5, seed=3, p=p), AssociationProblem.circle(5, seed=generator, p=p)
    assert torch.equal(first.E, same.E) and torch.equal(first.targets, same.targets) and torch.equal(first.p, p)
    assert not torch.equal(first.E, AssociationProblem.circle(5, seed=generator, p=p).E)


def test_planar_tokens_stand_at_their_angles():
    angles = torch.tensor([0.0, math.pi / 2, -math.pi / 3], dtype=D)
    problem = AssociationProblem.planar(angles, torch.tensor([0, 1, 1]))
    found = torch.atan2(problem.E[:, 1], problem.E[:, 0])
    assert float((found - angles).abs().max()) < 4 * EPS
    assert torch.equal(problem.U, EYE)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_zipf_frequencies_fall_as_the_stated_power(exponent):
    p = zipf_frequencies(50, exponent)
    rank = torch.arange(1, 51, dtype=D)
    assert abs(float(p.sum()) - 1) < 50 * EPS
    # the exponential multiplies the rounding of its argument, |exponent| log 50 < 8
    assert float((p / p[0] * rank**exponent - 1).abs().max()) < 32 * EPS


def test_zipf_frequencies_of_a_huge_exponent_underflow_to_zero():
    assert zipf_frequencies(3, 1e300).tolist() == [1.0, 0.0, 0.0]


def test_shakespeare_takes_frequencies_and_targets_from_the_table():
    table = load_shakespeare()
    for embeddings in ("spherical", "gaussian"):
        problem = AssociationProblem.shakespeare(16, seed=3, embeddings=embeddings)
        assert torch.equal(problem.p, table.p)
        assert torch.equal(problem.targets, table.most_likely_next)
        assert (problem.N, problem.M, problem.d) == (63, 63, 16)


def test_frequencies_and_targets_can_be_given_to_every_constructor():
    p, targets = torch.tensor([0.25, 0.75], dtype=D), torch.tensor([1, 1])
    for made in (
        AssociationProblem.orthonormal(2, targets=targets, p=p),
        AssociationProblem.spherical(2, 2, 3, seed=0, targets=targets, p=p),
        AssociationProblem.gaussian(2, 2, 3, seed=0, targets=targets, p=p),
        AssociationProblem.planar(torch.zeros(2), targets, p),
    ):
        assert torch.equal(made.p, p)
        assert made.targets.tolist() == [1, 1]


def test_single_precision_frequencies_are_normalised_in_double():
    p = AssociationProblem.orthonormal(3, p=torch.full((3,), 1 / 3)).p
    assert p.dtype == D
    assert abs(float(p.sum()) - 1) < 4 * EPS


@given(problems(max_N=5))
def test_conversion_to_single_precision_and_back_keeps_a_valid_problem(problem):
    narrow = problem.to(torch.float32)
    assert narrow.dtype == narrow.p.dtype == narrow.U.dtype == torch.float32
    assert torch.equal(narrow.to(D).E.float(), problem.E.float())
    assert torch.equal(narrow.targets, problem.targets)


def test_a_problem_is_data_frozen_and_without_gradients():
    problem = build(E=EYE.clone().requires_grad_())
    assert not problem.E.requires_grad
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.p = HALF


def test_targets_of_32_bits_become_64():
    assert build(targets=TARGETS.to(torch.int32)).targets.dtype == torch.int64


@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_normalised_frequencies_are_always_accepted(N, seed):
    for dtype in (D, torch.float32):
        p = torch.rand(N, dtype=dtype, generator=torch.Generator().manual_seed(seed)) ** 8 + 1e-30
        build(
            torch.ones(N, 1, dtype=dtype), torch.ones(2, 1, dtype=dtype), torch.zeros(N, dtype=torch.long), p / p.sum()
        )


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("argument", "value", "found", "allowed"),
    [
        ("E", [[1.0]], "list", "torch.Tensor"),
        ("E", torch.eye(2, dtype=torch.int64), "torch.int64", "torch.float64"),
        ("E", torch.eye(2, dtype=torch.float16), "torch.float16", "torch.float32"),
        ("E", torch.ones(2, dtype=D), r"\(2,\)", "N, d"),
        ("E", torch.ones(2, 0, dtype=D), r"\(2, 0\)", "d >= 1"),
        ("E", torch.ones(0, 2, dtype=D), r"\(0, 2\)", "N, d >= 1"),
        ("E", EYE * NAN, "NaN", "finite"),
        ("E", EYE + INF, "infinite", "finite"),
        ("U", EYE[0], r"\(2,\)", "M, d"),
        ("U", EYE[:1], "M = 1", "M >= 2"),
        ("U", torch.eye(3, dtype=D), "d = 3", "d = 2"),
        ("U", EYE.float(), "torch.float32", "torch.float64"),
        ("U", EYE * INF, "NaN", "finite"),
        ("targets", [0, 1], "list", "integers"),
        ("targets", torch.tensor([0.0, 1.0]), "torch.float32", "integers"),
        ("targets", torch.tensor([True, False]), "torch.bool", "integers"),
        ("targets", torch.tensor([0, 1, 1]), r"\(3,\)", "N = 2"),
        ("targets", torch.tensor(0), r"\(\)", "N = 2"),
        ("targets", torch.tensor([0, 2]), r"\[2\]", "0 to M-1 = 1"),
        ("targets", torch.tensor([-1, 0]), r"\[-1\]", "0 to M-1 = 1"),
        ("p", torch.tensor([0.5, 0.6], dtype=D), r"1\.1", "sums of 1"),
        ("p", torch.tensor([0.5, 0.5 + 1e-9], dtype=D), r"1\.0", "sums of 1"),
        ("p", torch.tensor([1.5, -0.5], dtype=D), r"-0\.5", "non-negative"),
        ("p", torch.tensor([NAN, 1.0], dtype=D), "NaN", "finite"),
        ("p", torch.tensor([INF, 0.0], dtype=D), "infinite", "finite"),
        ("p", torch.ones(3, dtype=D) / 3, r"\(3,\)", "N = 2"),
        ("p", HALF.float(), "torch.float32", "torch.float64"),
        ("p", torch.tensor([1, 0]), "torch.int64", "torch.float64"),
    ],
)
def test_malformed_parts_are_refused(argument, value, found, allowed):
    with refuses(argument, found, allowed):
        build(**{argument: value})


def test_batches_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"E, U, targets, p: found .*\(2,\).*\(3,\).*broadcast"):
        build(E=EYE.expand(2, 2, 2), U=EYE.expand(3, 2, 2))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("N", lambda: AssociationProblem.orthonormal(0)),
        ("M", lambda: AssociationProblem.orthonormal(3, 1)),
        ("d", lambda: AssociationProblem.orthonormal(3, 3, 2)),
        ("d", lambda: AssociationProblem.spherical(3, 3, 0, seed=0)),
        ("M", lambda: AssociationProblem.gaussian(3, -1, 2, seed=0)),
        ("seed", lambda: AssociationProblem.gaussian(3, 2, 2, seed=-1)),
        ("seed", lambda: AssociationProblem.gaussian(3, 2, 2, seed=2**80)),
        ("alpha", lambda: AssociationProblem.two_tokens(1.5, 0.5)),
        ("alpha", lambda: AssociationProblem.two_tokens(NAN, 0.5)),
        ("p1", lambda: AssociationProblem.two_tokens(0.0, -0.1)),
        ("p1", lambda: AssociationProblem.two_tokens(0.0, torch.tensor([0.5, 1.1]))),
        ("output_distance_squared", lambda: AssociationProblem.two_tokens(0.0, 0.5, output_distance_squared=0.0)),
        ("output_distance_squared", lambda: AssociationProblem.two_tokens(0.0, 0.5, output_distance_squared=INF)),
        ("alpha, p1, .*", lambda: AssociationProblem.two_tokens(torch.zeros(2), torch.zeros(3))),
        ("N", lambda: AssociationProblem.circle(0, seed=0)),
        ("angles", lambda: AssociationProblem.planar(torch.tensor(0.0), torch.tensor([0]))),
        ("targets", lambda: AssociationProblem.planar(torch.zeros(2), torch.tensor([0, 2]))),
        ("embeddings", lambda: AssociationProblem.shakespeare(4, seed=0, embeddings="cubic")),
        ("d", lambda: AssociationProblem.shakespeare(0, seed=0)),
        ("N", lambda: zipf_frequencies(0)),
        ("exponent", lambda: zipf_frequencies(3, NAN)),
        ("exponent", lambda: zipf_frequencies(3, INF)),
        ("E", lambda: build().to(torch.float16)),
        ("E", lambda: build(E=EYE * 1e300).to(torch.float32)),
    ],
)
def test_constructors_refuse_what_they_cannot_make(argument, call):
    with refuses(argument):
        call()
