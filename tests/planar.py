"""Planar problems for Hypothesis, and their geometry in whole numbers."""

import itertools
import math
from fractions import Fraction

import torch
from hypothesis import strategies as st

from amem_core import AssociationProblem, zipf_frequencies
from tests.strategies import seeds

EYE = torch.eye(2, dtype=torch.float64)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def planar(z, p, U=EYE):
    """A problem of the first class only, whose signed tokens are its inputs."""
    z, p = torch.as_tensor(z, dtype=torch.float64), torch.as_tensor(p, dtype=torch.float64)
    return AssociationProblem(z, U, torch.zeros(z.shape[:-1], dtype=torch.int64), p / p.sum(-1, keepdim=True))


@st.composite
def whole_tokens(draw, max_N=7):
    """Signed tokens of small whole numbers (parallel, repeated and zero ones among them) and whole weights."""
    N = draw(st.integers(1, max_N))
    z = draw(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=N, max_size=N))
    weights = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 7]), min_size=N, max_size=N).filter(any))
    return z, weights


@st.composite
def circles(draw, max_N=30):
    """Random angles, classes and frequencies, as in Figure 4."""
    N, generator = draw(st.integers(1, max_N)), torch.Generator().manual_seed(draw(seeds))
    angles = 2 * math.pi * torch.rand(N, dtype=torch.float64, generator=generator)
    p = torch.rand(N, dtype=torch.float64, generator=generator).log()
    p = zipf_frequencies(N) if draw(st.booleans()) else p / p.sum()
    return AssociationProblem.planar(angles, torch.randint(2, (N,), generator=generator), p)


def signed(problem):
    return (1 - 2 * problem.targets.double())[:, None] * problem.E


def inner(v, z):
    return v[0] * z[0] + v[1] * z[1]


def weakly_separated(z):
    """In whole numbers: some v with no negative margin and a positive one. Extreme v are normals, or tokens."""
    normals = [(s * -y, s * x) for x, y in z for s in (1, -1)]
    return any(min(inner(v, t) for t in z) >= 0 < max(inner(v, t) for t in z) for v in [*normals, *z])


def least_error(z, weights):
    """In whole numbers: every open arc between normals holds a sum of two of them, or a token."""
    normals = [(s * -y, s * x) for x, y in z for s in (1, -1)]
    sums = [(a[0] + b[0], a[1] + b[1]) for a, b in itertools.product(normals, repeat=2)]
    losses = (sum(w for t, w in zip(z, weights, strict=True) if inner(v, t) <= 0) for v in [*sums, *z])
    return Fraction(min(losses), sum(weights))
