"""What every descent shares: the start, the mini-batches, the loop that advances and records."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from amem_core.dynamics.trajectory import Trajectory
from amem_core.memory import check_weights
from amem_core.problem import AssociationProblem
from amem_core.validation import finite, require_count

# steps taken at once, at most, so that the progress bar moves
STRIDE = 100


@runtime_checkable
class State(Protocol):
    """What the loop needs of a state: its value, and the field of ``Trajectory`` it fills."""

    stores: str

    def snapshot(self) -> Tensor:
        """The present value; the loop copies it."""


def start(problem: AssociationProblem, W0: Tensor | None) -> Tensor:
    """The start in the common batch shape, zero unless given, checked against the problem."""
    if W0 is None:
        W0 = torch.zeros(problem.d, problem.d, dtype=problem.dtype, device=problem.device)
    check_weights(W0, problem, "W0")
    batch = torch.broadcast_shapes(W0.shape[:-2], problem.batch_shape)
    return W0.detach().expand(*batch, *W0.shape[-2:])


def drawn_frequencies(problem: AssociationProblem, batch: torch.Size, size: int, generator: torch.Generator) -> Tensor:
    """Empirical frequencies (..., N) of ``size`` tokens drawn with replacement from ``p``."""
    p = problem.p.expand(*batch, problem.N).reshape(-1, problem.N).to(generator.device)
    drawn = torch.multinomial(p, size, replacement=True, generator=generator)
    counts = torch.zeros_like(p).scatter_add_(-1, drawn, torch.ones_like(drawn, dtype=p.dtype))
    return (counts / size).to(problem.device).reshape(*batch, problem.N)


def normal(shape: torch.Size, problem: AssociationProblem, generator: torch.Generator) -> Tensor:
    """Standard normals drawn where the generator lives, in the problem's type and on its device."""
    xi = torch.randn(shape, dtype=problem.dtype, generator=generator, device=generator.device)
    return xi.to(problem.device)


def check_run(steps: int, record_every: int) -> None:
    """Raise ``ValueError`` unless both are whole numbers of at least 1."""
    require_count("steps", steps)
    require_count("record_every", record_every)


def iterate(
    problem: AssociationProblem,
    W0: Tensor,
    state: State,
    advance: Callable[[int], None],
    steps: int,
    record_every: int,
    progress: bool,
    *,
    constant: bool = False,
    normalised: bool = False,
) -> Trajectory:
    """Call ``advance(t)`` for ``t = 0 .. steps-1``; record every ``record_every`` steps and the last.

    Where all steps are alike (``constant``), ``advance(k)`` takes ``k`` of them at once.
    """
    recorded = [*range(0, steps, record_every), steps]
    record = state.snapshot().new_empty(len(recorded), *state.snapshot().shape)
    record[0], t = state.snapshot(), 0
    with tqdm(total=steps, disable=not progress, delay=5, leave=False) as bar:
        for row, until in enumerate(recorded[1:], 1):
            while t < until:
                stride = min(STRIDE, until - t) if constant else 1
                advance(stride if constant else t)
                t += stride
                bar.update(stride)
            record[row] = state.snapshot()
    finite("the state", record[-1])  # what is not finite stays so
    times = torch.tensor(recorded, dtype=torch.float64)
    return Trajectory(problem, times, W0, normalised=normalised, **{state.stores: record})
