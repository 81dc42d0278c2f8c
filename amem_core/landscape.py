r"""Two-dimensional sections of the loss, the maximum-margin solution, and hitting times on grids.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension; ``c`` is :math:`\|u_1 - u_2\|^2`.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from torch import Tensor

from amem_core.memory import loss, zero_one_loss
from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require, require_alike, require_broadcast, require_count, require_floating

#: what ``hitting_times`` returns for a cell that was not done within its steps
NEVER = -1

# cells advanced together: few enough for the cache, and for torch to leave the work to one thread
POOL = 16384
# steps between two sweeps that take the finished cells out
BLOCK = 8


@dataclass(frozen=True, eq=False)
class Section:
    """Loss and 0-1 loss on a rectangle of matrices ``origin + a_i D_1 + b_j D_2``; row ``j``, column ``i``.

    Parameters
    ----------
    a, b : (A,) and (B,) coordinates
    loss : (B, A) cross-entropy (2), in nats
    zero_one_loss : (B, A) total frequency of the tokens not recalled (ties are errors)
    """

    a: Float[Tensor, " A"]
    b: Float[Tensor, " B"]
    loss: Float[Tensor, "B A"]
    zero_one_loss: Float[Tensor, "B A"]


def planar_directions(problem: AssociationProblem) -> Float[Tensor, "2 d d"]:
    r"""Two matrices that span what two classes can read in two dimensions, Section 4.3 of [CSB24].

    :math:`D_i = (u_1 - u_2) \otimes f_i / c` with :math:`f_i` the canonical basis, so that
    :math:`W = \gamma_1 D_1 + \gamma_2 D_2` has :math:`(u_1 - u_2)^\top W f_i = \gamma_i`. Eq. (21) of
    print has the opposite sign. Raises ``ValueError`` unless ``M = d = 2``, for a batch, and for equal outputs.

    >>> D = planar_directions(AssociationProblem.two_tokens(0.5, 0.75))
    >>> (D[0].T @ torch.tensor([1.0, -1.0], dtype=torch.float64)).tolist()
    [1.0, 0.0]
    """
    _require_single(problem)
    require((problem.M, problem.d) == (2, 2), "problem", f"M = {problem.M}, d = {problem.d}", "M = d = 2")
    gap = problem.U[0] - problem.U[1]
    c = gap @ gap
    require(float(c) > 0, "problem", "two equal output embeddings", "u_1 != u_2")
    return torch.einsum("r,is->irs", gap / c, torch.eye(2, dtype=problem.dtype, device=problem.device))


def section(
    problem: AssociationProblem, directions: Tensor, a: Tensor, b: Tensor, origin: Tensor | None = None
) -> Section:
    r"""Loss and 0-1 loss on the plane ``origin + a D_1 + b D_2``: what level lines are drawn from.

    Parameters
    ----------
    problem : one problem, any N, M, d
    directions : (2, d, d) the matrices ``D_1``, ``D_2``
    a, b : (A,) and (B,) coordinates
    origin : (d, d), zero by default

    Raises
    ------
    ValueError
        For a batch of problems, and directions, coordinates or an origin of the wrong shape or type.

    Examples
    --------
    >>> problem, line = AssociationProblem.two_tokens(0.5, 0.75), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    >>> section(problem, planar_directions(problem), line, line).zero_one_loss[1].tolist()  # b = 0
    [0.75, 1.0, 0.25]
    """
    _require_single(problem)
    d = problem.d
    origin = torch.zeros(d, d, dtype=problem.dtype, device=problem.device) if origin is None else origin
    shapes = {"directions": (directions, (2, d, d)), "a": (a, None), "b": (b, None), "origin": (origin, (d, d))}
    for name, (value, shape) in shapes.items():
        require_floating(name, value)
        require_alike(name, value, problem.E, "the problem")
        good = value.shape == shape if shape else value.ndim == 1 and len(value) > 0
        require(good, name, tuple(value.shape), str(shape or "a list of one value or more"))
    rows = []
    for height in b:  # one row at a time: memory A d^2
        W = origin + a[:, None, None] * directions[0] + height * directions[1]
        rows.append((loss(W, problem), zero_one_loss(W, problem)))
    values, errors = (torch.stack(part) for part in zip(*rows, strict=True))
    return Section(a, b, values, errors)


@dataclass(frozen=True, eq=False)
class MaxMargin:
    r"""The smallest matrix whose margins are all at least 1, and the multipliers that prove it.

    Parameters
    ----------
    W : (d, d) the matrix :math:`W_* = \sum_{x,z} \lambda_{xz}\, (u_{f^*(x)} - u_z) \otimes e_x`
    multipliers : (N, M) :math:`\lambda \ge 0`, 0 at the right class
    norm_squared : :math:`\|W_*\|_F^2 = \sum \lambda_{xz}`
    residual : largest violation of the four KKT conditions (margins, signs, stationarity, slackness), relative
    """

    W: Float[Tensor, "d d"]
    multipliers: Float[Tensor, "N M"]
    norm_squared: float
    residual: float


def max_margin(problem: AssociationProblem) -> MaxMargin:
    r"""Hard-margin solution :math:`\min \|W\|_F` subject to margins (13) of at least 1.

    Lawson and Hanson's least-distance programming: with the constraint vectors
    :math:`(u_{f^*(x)} - u_z) \otimes e_x` as the columns of ``A``, non-negative least squares on
    :math:`[A; 1^\top]\,y \approx (0, 1)` leaves the residual :math:`r`, and ``y / (1 - sum(y))`` are the
    multipliers. In double precision whatever the problem's type.

    Raises
    ------
    ValueError
        For a batch, and where no matrix gives every token a positive margin (relative to 1e-9).

    Examples
    --------
    >>> best = max_margin(AssociationProblem.two_tokens(0.5, 0.75))
    >>> round(best.norm_squared, 12)  # 2 / (c (1 - alpha)) with c = 2
    2.0
    """
    _require_single(problem)
    E, U = (part.cpu().double() for part in (problem.E, problem.U))
    right = problem.targets.cpu()
    gaps = U[right][:, None] - U  # (N, M, d)
    wrong = torch.ones(problem.N, problem.M, dtype=torch.bool).scatter(1, right[:, None], False)
    rows = torch.einsum("xzr,xs->xzrs", gaps, E)[wrong].flatten(1)  # (N (M - 1), d^2)
    scale = float(rows.norm(dim=1).max())
    require(scale > 0, "problem", "embeddings that are all zero or all equal", "tokens that can be recalled")
    A = (rows / scale).T.numpy()
    y, distance = nnls(np.vstack([A, np.ones(A.shape[1])]), np.append(np.zeros(len(A)), 1.0))
    require(distance > 1e-9, "problem", "tokens that no matrix recalls together", "associations that are separable")
    dual = torch.from_numpy(y / (1 - y.sum())) / scale**2
    W = dual @ rows
    multipliers = torch.zeros(problem.N, problem.M, dtype=torch.float64)
    multipliers[wrong] = dual
    margins = rows @ W
    slack = (dual * (margins - 1)).abs().max() / dual.max()
    residual = max(float((1 - margins).max()), float(slack), abs(float(W.flatten() @ W.flatten() / dual.sum()) - 1))
    like = {"dtype": problem.dtype, "device": problem.device}
    return MaxMargin(
        W.reshape(problem.d, problem.d).to(**like), multipliers.to(**like), float(dual.sum()), max(residual, 0.0)
    )


def hitting_times(
    alpha: float | Tensor,
    p1: float | Tensor,
    rate: float | Tensor,
    *,
    steps: int,
    output_distance_squared: float = 2.0,
    workers: int | None = None,
) -> Int[Tensor, "*batch"]:
    r"""Steps of gradient descent from ``W_0 = 0`` to perfect accuracy, two correlated tokens, Figure 3 of [CSB24].

    Token ``i`` writes :math:`g_i = \eta c\,p_i\,\sigma(-m_i)` on its own memory in each step, and the margins move
    by :math:`\Delta m_i = g_i - \alpha g_j`, Eq. (17). A cell is done at the first step after which both margins
    are positive (a margin of zero is an error). Done cells leave the pool and others take their place, so memory
    does not grow with the grid; every worker has a pool of its own. Double precision. In exact arithmetic
    a margin can be 0, as after one step where :math:`\alpha p_1 = p_2`; there rounding decides.

    Parameters
    ----------
    alpha, p1, rate : numbers or tensors that broadcast; a grid is three tensors along three axes
    steps : cells that need more than this are ``NEVER`` (-1)
    output_distance_squared : ``c``
    workers : threads, at most; by default one per processor

    Raises
    ------
    ValueError
        For values out of range or not finite, shapes that do not broadcast, ``steps`` or ``workers`` below 1.

    Examples
    --------
    >>> hitting_times(torch.tensor([-0.5, 0.2, 0.9], dtype=torch.float64), 0.75, 1.0, steps=1000).tolist()
    [1, 1, 26]
    """
    values = [torch.as_tensor(v, dtype=torch.float64) for v in (alpha, p1, rate, output_distance_squared)]
    device = next((v.device for v in values if v.device.type != "cpu"), values[0].device)
    alpha, p1, rate, c = (v.to(device) for v in values)
    require(bool((alpha.abs() <= 1).all()), "alpha", alpha, "-1 <= alpha <= 1")
    require(bool(((p1 >= 0) & (p1 <= 1)).all()), "p1", p1, "0 <= p1 <= 1")
    require(bool(((rate >= 0) & rate.isfinite()).all()), "rate", rate, "finite, >= 0")
    require(c.ndim == 0 and 0 < float(c) < float("inf"), "output_distance_squared", c, "one number, finite and > 0")
    require_count("steps", steps)
    workers = os.cpu_count() or 1 if workers is None else require_count("workers", workers)
    shape = require_broadcast({"alpha": alpha.shape, "p1": p1.shape, "rate": rate.shape})
    pressure = finite("rate", c * rate)
    grid = tuple(v.expand(shape) for v in (alpha, p1, pressure))
    times = torch.full((shape.numel(),), NEVER, dtype=torch.int32, device=device)
    workers = min(workers, max(1, -(-len(times) // POOL)))  # one pool is no work for two
    # interleaved, so that every worker has its share of the slow corner
    shares = [range(k, len(times), workers) for k in range(workers)]
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(lambda share: _run_share(grid, share, steps, times), shares))
    return times.reshape(shape)


@dataclass
class _Pool:
    """Cells on their way: ``n = -m`` (2, P) and writing strengths (2, P), correlation, number and age (P,)."""

    n: Float[Tensor, "2 P"]
    strength: Float[Tensor, "2 P"]
    alpha: Float[Tensor, " P"]
    number: Int[Tensor, " P"]
    age: Int[Tensor, " P"]

    def __len__(self) -> int:
        return len(self.age)

    def chosen(self, keep: Bool[Tensor, " P"]) -> "_Pool":
        """Those of the cells."""
        at = keep.nonzero()[:, 0]
        return _Pool(*(v.index_select(-1, at) for v in vars(self).values()))

    def joined(self, other: "_Pool") -> "_Pool":
        """These cells and others."""
        return _Pool(*(torch.cat(pair, -1) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


def _fresh(grid: tuple[Tensor, ...], numbers: range) -> _Pool:
    """The cells with these numbers, at the start."""
    number = torch.arange(numbers.start, numbers.stop, numbers.step, device=grid[0].device)
    at = torch.unravel_index(number, grid[0].shape) if grid[0].ndim else ()
    alpha, p1, pressure = (v[at].expand(len(number)) for v in grid)
    strength = torch.stack([pressure * p1, pressure * (1 - p1)])
    return _Pool(torch.zeros_like(strength), strength, alpha, number, torch.zeros_like(number, dtype=torch.int32))


def _advance(pool: _Pool) -> Bool[Tensor, " P"]:
    """``BLOCK`` steps; ``age`` counts those not done after each. Returns who is not done yet."""
    n, alpha = pool.n, pool.alpha
    g, worst, wrong = torch.empty_like(n), torch.empty_like(alpha), torch.empty_like(alpha, dtype=torch.bool)
    waiting = torch.ones_like(wrong)
    for _ in range(BLOCK):
        torch.sigmoid(n, out=g).mul_(pool.strength)
        n.sub_(g)
        n[0].addcmul_(alpha, g[1])
        n[1].addcmul_(alpha, g[0])
        torch.ge(torch.maximum(n[0], n[1], out=worst), 0, out=wrong)
        waiting.logical_and_(wrong)
        pool.age.add_(waiting)
    return waiting


def _run_share(grid: tuple[Tensor, ...], share: range, steps: int, times: Tensor) -> None:
    """Every cell of a share, through one pool that is refilled as cells are done; writes into ``times``."""
    pool, taken = _fresh(grid, share[:POOL]), POOL
    while len(pool):
        waiting = _advance(pool)
        late = pool.age >= steps  # a cell may be done in the last block and yet too late
        done = pool.chosen(~(waiting | late))
        times[done.number] = done.age + 1
        pool = pool.chosen(waiting & ~late)
        room = POOL - len(pool)
        if taken < len(share) and room > POOL // 8:
            pool = pool.joined(_fresh(grid, share[taken : taken + room]))
            taken += room


def _require_single(problem: AssociationProblem) -> None:
    require(not problem.batch_shape, "problem", f"batch {tuple(problem.batch_shape)}", "one problem")


__all__: list[str] = [
    "NEVER",
    "MaxMargin",
    "Section",
    "hitting_times",
    "max_margin",
    "planar_directions",
    "section",
]
