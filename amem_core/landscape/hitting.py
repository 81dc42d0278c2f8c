r"""Steps to perfect accuracy on grids of two-token problems.

``c`` is :math:`\|u_1 - u_2\|^2`.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from amem_core.validation import finite, require, require_broadcast, require_count

#: what ``hitting_times`` returns for a cell that was not done within its steps
NEVER = -1

# cells advanced together: few enough for the cache, and for torch to leave the work to one thread
POOL = 16384
# steps between two sweeps that take the finished cells out
BLOCK = 8


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
