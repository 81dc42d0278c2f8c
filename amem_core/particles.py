r"""Memories as interacting particles: Theorem 1 of [CSB24] as code.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension. The particles are the scores
:math:`w_{xj} = u_j^\top W e_x`. Their motion needs the embeddings only through two Gram
matrices, :math:`K_E = E E^\top` and :math:`K_U = U U^\top`:

.. math:: \dot w = K_E\, F(w)\, K_U, \qquad F(w) = \mathrm{diag}(p)\,(Y - \mathrm{softmax}\,w),

with ``Y`` the one-hot matrix of the targets. ``F(w)``, of shape ``(N, M)``, is the *force*:
what each token writes on each class. Its accumulated sum ``C`` gives the matrix back exactly,
:math:`W_t = W_0 + U^\top C_t^\top E` and :math:`w_t = w_0 + K_E C_t K_U`. The cost of a step does not
depend on ``d``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amem_core.memory import check_weights, gradient_of, residuals, scores_of
from amem_core.problem import AssociationProblem
from amem_core.validation import (
    finite,
    require,
    require_alike,
    require_broadcast,
    require_floating,
    require_frequencies,
    require_rate,
    require_targets,
)


@dataclass(frozen=True, eq=False)
class ParticleSystem:
    """The closed dynamics of the particles, Theorem 1 of [CSB24].

    Parameters
    ----------
    K_E : (..., N, N) Gram matrix of the inputs, the :math:`\\alpha_{ij}` of Eq. (11)
    K_U : (..., M, M) Gram matrix of the outputs; :math:`\\beta_{ijk} = (K_U)_{ij} - (K_U)_{ik}`
    targets : (..., N) class of each token, integers in ``0 .. M-1``
    p : (..., N) frequencies, non-negative, summing to 1

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit, values that are not finite, matrices that are not
        symmetric (a Gram matrix is), and targets or frequencies that are not such.
    OverflowError
        Where particles would leave the range of their floating-point type.

    Examples
    --------
    >>> problem = AssociationProblem.two_tokens(0.5, 0.75)
    >>> system = ParticleSystem.of(problem)
    >>> w = system.encode(torch.zeros(2, 2, dtype=torch.float64), problem)
    >>> system.step(w, 1.0)
    tensor([[ 0.3125, -0.3125],
            [ 0.0625, -0.0625]], dtype=torch.float64)
    """

    K_E: Float[Tensor, "*batch_E N N"]
    K_U: Float[Tensor, "*batch_U M M"]
    targets: Int[Tensor, "*batch_t N"]
    p: Float[Tensor, "*batch_p N"]

    def __post_init__(self) -> None:
        for name in ("K_E", "K_U", "p"):
            require_floating(name, getattr(self, name))
        for name in ("K_E", "K_U"):
            K = getattr(self, name)
            require(K.ndim >= 2 and K.shape[-1] == K.shape[-2], name, tuple(K.shape), "square matrices (..., n, n)")
            # a product X X^T may differ from its transpose by rounding
            gap, size = float((K - K.mT).abs().max()), float(K.abs().max())
            allowed = 64 * torch.finfo(K.dtype).eps * size
            require(gap <= allowed, name, f"an asymmetry of {gap:.3g}", f"a symmetric matrix (within {allowed:.1g})")
        N, M = self.K_E.shape[-1], self.K_U.shape[-1]
        require(M >= 2, "K_U", f"M = {M} classes", "M >= 2 (with one class there is no choice)")
        object.__setattr__(self, "targets", require_targets(self.targets, N, M))
        for name, value in (("K_U", self.K_U), ("p", self.p), ("targets", self.targets.to(self.K_E.dtype))):
            require_alike(name, value, self.K_E, "K_E")
        require_frequencies(self.p, N)
        self.batch_shape  # noqa: B018  (raises where the batches do not broadcast)

    @classmethod
    def of(cls, problem: AssociationProblem) -> "ParticleSystem":
        """The particle system of a problem: its embeddings enter through their inner products alone."""
        E, U = problem.E, problem.U
        return cls(E @ E.mT, U @ U.mT, problem.targets, problem.p)

    @property
    def batch_shape(self) -> torch.Size:
        """Common leading shape; empty for one system."""
        shapes = {"K_E": self.K_E.shape[:-2], "K_U": self.K_U.shape[:-2]}
        return require_broadcast(shapes | {"targets": self.targets.shape[:-1], "p": self.p.shape[:-1]})

    @property
    def shape(self) -> torch.Size:
        """Shape (..., N, M) of the particles."""
        return torch.Size([*self.batch_shape, self.K_E.shape[-1], self.K_U.shape[-1]])

    def encode(self, W: Tensor, problem: AssociationProblem) -> Float[Tensor, "*out N M"]:
        """Particles of a matrix (..., d, d), Eq. (10): its scores."""
        self._check_problem(problem)
        check_weights(W, problem)
        return finite("encode", scores_of(W, problem.E, problem.U))

    def force(self, w: Tensor) -> Float[Tensor, "*out N M"]:
        r"""``F(w) = diag(p) (Y - softmax w)``: entry ``(x, j)`` is what token ``x`` writes on class ``j``."""
        self._check("w", w)
        return force_of(w, self.targets, self.p)

    def velocity(self, w: Tensor) -> Float[Tensor, "*out N M"]:
        r""":math:`\mathrm dw/\mathrm dt` under the flow (4): ``K_E F(w) K_U``, Eq. (12) without the rate."""
        return finite("velocity", self.K_E @ self.force(w) @ self.K_U)

    def step(self, w: Tensor, rate: float | Tensor) -> Float[Tensor, "*out N M"]:
        """One step of gradient descent (5) on the particles, Eq. (12): ``w + rate * velocity(w)``.

        ``rate`` is a number or a tensor of the batch shape.
        """
        self._check("w", w)
        rate = require_rate(rate, w)
        require_broadcast({"rate": rate.shape, "w": w.shape[:-2], "system": self.batch_shape})
        return finite("step", w + rate[..., None, None] * self.velocity(w))

    def particles(self, w0: Tensor, C: Tensor) -> Float[Tensor, "*out N M"]:
        """Particles reached from ``w0`` after writing ``C``, both (..., N, M): ``w0 + K_E C K_U``."""
        self._check("w0", w0)
        self._check("C", C)
        require_broadcast({"w0": w0.shape[:-2], "C": C.shape[:-2], "system": self.batch_shape})
        return finite("particles", w0 + self.K_E @ C @ self.K_U)

    def decode(self, W0: Tensor, C: Tensor, problem: AssociationProblem) -> Float[Tensor, "*out d d"]:
        """The matrix behind accumulated coefficients, exactly: ``W0 + U^T C^T E``.

        >>> problem = AssociationProblem.two_tokens(0.5, 0.75)
        >>> system, W0 = ParticleSystem.of(problem), torch.zeros(2, 2, dtype=torch.float64)
        >>> C = system.force(system.encode(W0, problem))
        >>> torch.allclose(system.encode(system.decode(W0, C, problem), problem), system.step(C * 0, 1.0))
        True
        """
        self._check_problem(problem)
        check_weights(W0, problem, "W0")
        self._check("C", C)
        require_broadcast({"W0": W0.shape[:-2], "C": C.shape[:-2], "problem": problem.batch_shape})
        return finite("decode", W0 + gradient_of(C, problem.E, problem.U))

    def _check(self, name: str, value: Tensor) -> None:
        require_floating(name, value)
        N, M = self.shape[-2:]
        require(value.ndim >= 2 and value.shape[-2:] == (N, M), name, tuple(value.shape), f"(..., {N}, {M})")
        require_alike(name, value, self.K_E, "the system")
        require_broadcast({name: value.shape[:-2], "system": self.batch_shape})

    def _check_problem(self, problem: AssociationProblem) -> None:
        sizes = (problem.N, problem.M)
        require(sizes == self.shape[-2:], "problem", f"(N, M) = {sizes}", f"{tuple(self.shape[-2:])}, the system's")


def force_of(w: Tensor, targets: Tensor, p: Tensor) -> Tensor:
    """``diag(p) (Y - softmax w)``, shape (..., N, M). Unchecked."""
    return residuals(w, targets) * -p[..., None]
