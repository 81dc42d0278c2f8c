"""Problems and matrices for Hypothesis, the awkward ones first among them.

Hypothesis chooses sizes, structure and scales; numbers come from a seeded generator, so that a
failing example is a handful of small integers.
"""

import torch
from hypothesis import strategies as st
from torch import Tensor

from amem_core import AssociationProblem

seeds = st.integers(0, 2**31)


@st.composite
def frequencies(draw: st.DrawFn, N: int) -> Tensor:
    """Random frequencies; often with zeros, sometimes all on one token."""
    kind = draw(st.sampled_from(["uniform", "random", "zeros", "one token", "tiny"]))
    generator = torch.Generator().manual_seed(draw(seeds))
    p = torch.rand(N, dtype=torch.float64, generator=generator) + 0.05
    if kind == "uniform":
        p = torch.ones(N, dtype=torch.float64)
    elif kind == "zeros" and N > 1:
        p[torch.randperm(N, generator=generator)[: draw(st.integers(1, N - 1))]] = 0.0
    elif kind == "one token":
        p = torch.zeros(N, dtype=torch.float64)
        p[draw(st.integers(0, N - 1))] = 1.0
    elif kind == "tiny":
        p[0] = 1e-200 if N > 1 else 1.0
    return p / p.sum()


@st.composite
def rows(draw: st.DrawFn, n: int, d: int, scales: tuple[float, ...] = (1.0,)) -> Tensor:
    """``n`` embeddings of dimension ``d``: generic, of small whole numbers, repeated, or with a zero."""
    kind = draw(st.sampled_from(["gaussian", "gaussian", "whole", "canonical"]))
    generator = torch.Generator().manual_seed(draw(seeds))
    X = torch.randn(n, d, dtype=torch.float64, generator=generator)
    if kind == "whole":
        X = torch.randint(-2, 3, (n, d), generator=generator).double()
    elif kind == "canonical":
        X = torch.eye(d, dtype=torch.float64)[torch.arange(n) % d]
    if n > 1:
        fault = draw(st.sampled_from(["none", "none", "repeated", "zero", "opposite", "dependent"]))
        faulty = {"repeated": X[0], "zero": 0 * X[0], "opposite": -X[0], "dependent": (X[0] + X[-1]) / 2}
        X[-1] = faulty.get(fault, X[-1])
    return X * draw(st.sampled_from(scales))


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    max_N: int = 5,
    max_M: int = 4,
    max_d: int = 6,
    scales: tuple[float, ...] = (1.0,),
) -> AssociationProblem:
    """Associations of any shape, N = 1, M = 2 and d = 1 included, without batch."""
    N, M, d = draw(st.integers(1, max_N)), draw(st.integers(2, max_M)), draw(st.integers(1, max_d))
    targets = draw(st.lists(st.integers(0, M - 1), min_size=N, max_size=N))
    return AssociationProblem(
        draw(rows(N, d, scales)), draw(rows(M, d, scales)), torch.tensor(targets), draw(frequencies(N))
    )


@st.composite
def problems_with_start(draw: st.DrawFn, reach: float = 3.0, **options: object) -> tuple[AssociationProblem, Tensor]:
    """A problem and a matrix whose scores are at most ``reach`` in size; the matrix is often zero."""
    problem = draw(problems(**options))
    generator = torch.Generator().manual_seed(draw(seeds))
    W = torch.randn(problem.d, problem.d, dtype=torch.float64, generator=generator)
    largest = float((problem.E @ W.mT @ problem.U.mT).abs().max())
    W = W * (reach / largest if largest > 0 else 1.0) * draw(st.sampled_from([1.0, 1.0, 0.1, 0.0]))
    return problem, W
