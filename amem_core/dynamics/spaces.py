r"""Where a step is taken: three state spaces for the same dynamics, and the choice between them.

A step with token weights :math:`q` (a rate times frequencies, batch counts or noise) writes
:math:`C \leftarrow C + \mathrm{diag}(q)\,(Y - \mathrm{softmax}\,w)`. Unchecked: the dynamics
validate once, then iterate.
"""

import torch
from torch import Tensor

from amem_core.memory import gradient_of, residuals, scores_of
from amem_core.problem import AssociationProblem
from amem_core.validation import require

# numbers of one state that are advanced together: small enough for the cache, large enough for the calls
CHUNK = 1 << 17


class Particles:
    """Scores ``w = w0 + K_E C K_U`` through the Gram matrices; N²M + NM² products a step, whatever ``d``.

    The scores are formed anew from ``C`` at each step: were they moved beside it, the roundings
    of both would drift apart. Members of a batch do not meet: a few at a time take all the steps.
    """

    stores = "C"

    def __init__(self, problem: AssociationProblem, W0: Tensor) -> None:
        # what is common to all outputs moves no margin and would only cost digits
        E, U = problem.E, problem.U - problem.U.mean(-2, keepdim=True)
        self.shape = (*torch.broadcast_shapes(W0.shape[:-2], problem.batch_shape), problem.N, problem.M)
        self.K_E, self.K_U = (self._members(X @ X.mT) for X in (E, U))
        self.targets = self._members(problem.targets[..., None])
        self.w0 = self._members(scores_of(W0, E, U)) if W0.any() else None
        self.w = torch.zeros(self.shape, dtype=E.dtype, device=E.device).reshape(-1, problem.N, problem.M)
        if self.w0 is not None:
            self.w.copy_(self.w0)
        self.C, self.buffer = torch.zeros_like(self.w), torch.empty_like(self.w)

    def _members(self, value: Tensor) -> Tensor:
        """One matrix a member of the batch, in one row; a single matrix, which all share, stays one."""
        if value.ndim == 2:
            return value
        return value.expand(*self.shape[:-2], *value.shape[-2:]).reshape(-1, *value.shape[-2:])

    def advance(self, q: Tensor, steps: int = 1) -> None:
        """Steps with token weights ``q`` (..., N); in place, since fresh memory costs more than the products."""
        q, stride = self._members(q[..., None]), max(1, CHUNK // (self.shape[-2] * self.shape[-1]))
        for first in range(0, len(self.C), stride):
            at = slice(first, first + stride)
            own = [v if v is None or v.ndim == 2 else v[at] for v in (self.K_E, self.K_U, self.targets, self.w0, q)]
            self._advance(*own, self.C[at], self.w[at], self.buffer[at], steps)

    @staticmethod
    def _advance(
        K_E: Tensor, K_U: Tensor, targets: Tensor, w0: Tensor | None, q: Tensor,
        C: Tensor, w: Tensor, buffer: Tensor, steps: int,
    ) -> None:  # fmt: skip
        for _ in range(steps):
            C.sub_(residuals(w, targets[..., 0], out=buffer).mul_(q))
            torch.matmul(K_E, C, out=buffer)
            torch.matmul(buffer, K_U, out=w)
            if w0 is not None:
                w.add_(w0)

    def snapshot(self) -> Tensor:
        """The accumulated coefficients ``C`` (..., N, M)."""
        return self.C.reshape(self.shape)


class BinaryParticles:
    """Two classes: one margin a token, ``m = m0 + G a``, ``a <- a + q sigma(-m)``, and nothing else to know."""

    stores = "C"

    def __init__(self, problem: AssociationProblem, W0: Tensor) -> None:
        E, U = problem.E, problem.U
        shape = (*torch.broadcast_shapes(W0.shape[:-2], problem.batch_shape), problem.N)
        self.sign = (1.0 - 2.0 * problem.targets).to(E)  # class 0: +1, class 1: -1
        gap = U[..., 0, :] - U[..., 1, :]
        kappa = (gap * gap).sum(-1)[..., None, None]
        G = kappa * self.sign[..., :, None] * (E @ E.mT) * self.sign[..., None, :]
        # members that share G are the rows of one product, others a batch of products
        self.shared = G.ndim == 2
        self.G = G if self.shared else G.expand(*shape[:-1], *G.shape[-2:]).reshape(-1, *G.shape[-2:])
        m = self.sign * (E @ (W0.mT @ gap[..., None]))[..., 0]
        # kept as minus the margin: its sigmoid is the probability of the wrong class
        self.start = -m.expand(shape).reshape((-1, problem.N) if self.shared else (-1, problem.N, 1))
        self.minus_m = self.start.clone()
        self.shape, self.wrong = shape, torch.empty_like(self.minus_m)
        self.written = torch.zeros_like(self.minus_m)

    def advance(self, q: Tensor, steps: int = 1) -> None:
        """Steps with token weights ``q`` (..., N)."""
        q = q.expand(self.shape).reshape(self.wrong.shape)
        for _ in range(steps):
            torch.sigmoid(self.minus_m, out=self.wrong)
            self.written.add_(self.wrong.mul_(q))
            if self.shared:  # G is symmetric
                torch.addmm(self.start, self.written, self.G, alpha=-1, out=self.minus_m)
            else:
                torch.baddbmm(self.start, self.G, self.written, alpha=-1, out=self.minus_m)

    def snapshot(self) -> Tensor:
        """The accumulated coefficients ``C`` (..., N, 2): what goes to one class leaves the other."""
        a = self.written.reshape(self.shape) * self.sign
        return torch.stack([a, -a], -1)


class Embeddings:
    """The matrix itself; 2 (min(N, M) d² + N M d) products a step, whatever the Gram matrices."""

    stores = "weights"

    def __init__(self, problem: AssociationProblem, W0: Tensor) -> None:
        self.E, self.U, self.targets = problem.E, problem.U, problem.targets
        batch = torch.broadcast_shapes(W0.shape[:-2], problem.batch_shape)
        self.W = W0.expand(*batch, problem.d, problem.d).clone()
        self.buffer = self.W.new_empty(*batch, problem.N, problem.M)

    def advance(self, q: Tensor, steps: int = 1) -> None:
        """Steps with token weights ``q`` (..., N)."""
        for _ in range(steps):
            R = residuals(scores_of(self.W, self.E, self.U), self.targets, out=self.buffer).mul_(q[..., None])
            self.W.sub_(gradient_of(R, self.E, self.U))

    def snapshot(self) -> Tensor:
        """The matrix (..., d, d)."""
        return self.W


SPACES = {"particles": Particles, "embeddings": Embeddings}


def operations(problem: AssociationProblem) -> dict[str, int]:
    """Multiplications of one step in each space (softmax apart, which both share).

    >>> operations(AssociationProblem.orthonormal(4, 4, 64))
    {'particles': 128, 'embeddings': 34816}
    """
    N, M, d = problem.N, problem.M, problem.d
    particles = N * N if M == 2 else N * N * M + N * M * M
    return {"particles": particles, "embeddings": 2 * (min(N, M) * d * d + N * M * d)}


def open_space(
    problem: AssociationProblem, W0: Tensor, space: str = "auto"
) -> Particles | BinaryParticles | Embeddings:
    """The state at ``W0`` in the space asked for, or with ``"auto"`` in the one with fewer operations."""
    require(space in ("auto", *SPACES), "space", repr(space), "'auto', 'particles' or 'embeddings'")
    if space == "auto":
        cost = operations(problem)
        space = min(cost, key=cost.get)
    if space == "particles" and problem.M == 2:
        return BinaryParticles(problem, W0)
    return SPACES[space](problem, W0)
