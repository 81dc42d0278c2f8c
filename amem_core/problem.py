"""The problem: tokens, classes, embeddings, the map between them and its frequencies.

Letters: ``N`` tokens, ``M`` classes, ``d`` dimension. Row ``x`` of ``E`` is the input
embedding ``e_x``, row ``y`` of ``U`` the output embedding ``u_y``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amem_core.data import load_shakespeare
from amem_core.validation import (
    make_generator,
    require,
    require_alike,
    require_broadcast,
    require_count,
    require_floating,
    require_frequencies,
    require_targets,
)

Seed = int | torch.Generator


@dataclass(frozen=True, eq=False)
class AssociationProblem:
    r"""A set of associations :math:`x \to f^*(x)` to store in one matrix. Section 1 of [CSB24].

    Token :math:`x` appears with probability :math:`p(x)`; a matrix :math:`W` gives class
    :math:`j` the score :math:`w_{xj} = u_j^\top W e_x`, Eq. (1). Immutable; leading batch
    dimensions of ``E``, ``U``, ``targets`` and ``p`` broadcast together, so that one object
    holds a whole grid of problems.

    Parameters
    ----------
    E : (..., N, d) input embeddings, float32 or float64
    U : (..., M, d) output embeddings, same dtype and device
    targets : (..., N) class :math:`f^*(x)` of each token, integers in ``0 .. M-1``
    p : (..., N) frequencies, non-negative, summing to 1

    Raises
    ------
    ValueError
        For a wrong shape, dtype or device, values that are not finite, targets out of range,
        frequencies that are negative or do not sum to 1, and for ``M = 1``: a softmax over
        one class is constant and there is nothing to learn.

    Examples
    --------
    >>> problem = AssociationProblem.orthonormal(3)
    >>> problem.N, problem.M, problem.d, problem.targets.tolist()
    (3, 3, 3, [0, 1, 2])
    """

    E: Float[Tensor, "*batch_E N d"]
    U: Float[Tensor, "*batch_U M d"]
    targets: Int[Tensor, "*batch_t N"]
    p: Float[Tensor, "*batch_p N"]

    def __post_init__(self) -> None:
        for name in ("E", "U", "p"):
            require_floating(name, getattr(self, name))
            object.__setattr__(self, name, getattr(self, name).detach())  # data, not parameters
        E, U, p = self.E, self.U, self.p
        require(E.ndim >= 2 and E.shape[-2] >= 1 and E.shape[-1] >= 1, "E", tuple(E.shape), "(..., N, d), N, d >= 1")
        require(U.ndim >= 2, "U", tuple(U.shape), "(..., M, d)")
        require(U.shape[-2] >= 2, "U", f"M = {U.shape[-2]} classes", "M >= 2 (with one class there is no choice)")
        require(U.shape[-1] == E.shape[-1], "U", f"d = {U.shape[-1]}", f"the dimension of E, d = {E.shape[-1]}")
        object.__setattr__(self, "targets", require_targets(self.targets, self.N, self.M))
        for name, other in (("U", U), ("p", p), ("targets", self.targets.to(E.dtype))):
            require_alike(name, other, E, "E")
        require_frequencies(p, self.N)
        self.batch_shape  # noqa: B018  (raises where the batches do not broadcast)

    @property
    def N(self) -> int:
        """Number of tokens."""
        return self.E.shape[-2]

    @property
    def M(self) -> int:
        """Number of classes."""
        return self.U.shape[-2]

    @property
    def d(self) -> int:
        """Dimension of the embeddings."""
        return self.E.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of everything but the targets."""
        return self.E.dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.E.device

    @property
    def batch_shape(self) -> torch.Size:
        """Common leading shape of ``E``, ``U``, ``targets`` and ``p``; empty for one problem."""
        shapes = {"E": self.E.shape[:-2], "U": self.U.shape[:-2], "targets": self.targets.shape[:-1]}
        return require_broadcast(shapes | {"p": self.p.shape[:-1]})

    def to(self, dtype: torch.dtype | None = None, device: "torch.device | str | None" = None) -> "AssociationProblem":
        """The same problem in another floating-point type or on another device."""
        dtype = dtype or self.dtype
        p = self.p.to(device=device, dtype=dtype)
        return replace(
            self,
            E=self.E.to(device=device, dtype=dtype),
            U=self.U.to(device=device, dtype=dtype),
            targets=self.targets.to(device=device),
            p=p / p.sum(-1, keepdim=True),
        )

    @classmethod
    def stack(cls, problems: "Sequence[AssociationProblem]") -> "AssociationProblem":
        """Problems of one size side by side: a new leading batch dimension.

        >>> AssociationProblem.stack([AssociationProblem.gaussian(3, 2, 4, seed=s) for s in range(5)]).batch_shape
        torch.Size([5])
        """
        require(len(problems) > 0, "problems", "none", "one or more")
        sizes = {(q.N, q.M, q.d, q.batch_shape) for q in problems}
        require(len(sizes) == 1, "problems", f"sizes (N, M, d, batch) {sorted(sizes)}", "one size")
        parts = (torch.stack([getattr(q, name) for q in problems]) for name in ("E", "U", "targets", "p"))
        return cls(*parts)

    @classmethod
    def orthonormal(
        cls,
        N: int,
        M: int | None = None,
        d: int | None = None,
        *,
        targets: Tensor | None = None,
        p: Tensor | None = None,
    ) -> "AssociationProblem":
        """Orthonormal inputs and outputs, Section 4.1 of [CSB24]: the first vectors of the canonical basis.

        Defaults: ``M = N``, the smallest ``d``, ``targets = x mod M``, uniform frequencies.

        >>> AssociationProblem.orthonormal(2, 3).E
        tensor([[1., 0., 0.],
                [0., 1., 0.]], dtype=torch.float64)
        """
        M = N if M is None else M
        _check_sizes(N, M)
        d = max(N, M) if d is None else require_count("d", d)
        require(d >= max(N, M), "d", d, f"at least max(N, M) = {max(N, M)} for orthonormal embeddings")
        E, U = torch.eye(N, d, dtype=torch.float64), torch.eye(M, d, dtype=torch.float64)
        return _assemble(cls, E, U, targets, p)

    @classmethod
    def spherical(
        cls, N: int, M: int, d: int, *, seed: Seed, targets: Tensor | None = None, p: Tensor | None = None
    ) -> "AssociationProblem":
        """Embeddings drawn independently and uniformly on the unit sphere, Section 5.2 of [CSB24].

        >>> problem = AssociationProblem.spherical(5, 3, 2, seed=0)
        >>> torch.allclose(problem.E.norm(dim=-1), torch.ones(5, dtype=torch.float64))
        True
        """
        E, U = _gaussian_rows(N, M, d, seed)
        return _assemble(cls, E / E.norm(dim=-1, keepdim=True), U / U.norm(dim=-1, keepdim=True), targets, p)

    @classmethod
    def gaussian(
        cls, N: int, M: int, d: int, *, seed: Seed, targets: Tensor | None = None, p: Tensor | None = None
    ) -> "AssociationProblem":
        """Embeddings with independent N(0, 1/d) entries: norms close to 1, inner products of order 1/sqrt(d).

        >>> AssociationProblem.gaussian(5, 3, 2, seed=0).U.shape
        torch.Size([3, 2])
        """
        E, U = _gaussian_rows(N, M, d, seed)
        return _assemble(cls, E / d**0.5, U / d**0.5, targets, p)

    @classmethod
    def two_tokens(
        cls, alpha: float | Tensor, p1: float | Tensor, *, output_distance_squared: float | Tensor = 2.0
    ) -> "AssociationProblem":
        r"""Two tokens with correlated unit inputs, Eq. (16) of [CSB24]; ``f*(x) = x``.

        :math:`\langle e_1, e_2\rangle = \alpha`, :math:`p(1) = p_1` and
        :math:`c = \|u_1 - u_2\|^2` = ``output_distance_squared``, with orthogonal outputs of
        equal norm (``c = 2``: orthonormal). All three may be tensors that broadcast.

        >>> problem = AssociationProblem.two_tokens(0.5, torch.tensor([0.6, 0.75], dtype=torch.float64))
        >>> problem.batch_shape, (problem.E[0, 0] @ problem.E[0, 1]).item()
        (torch.Size([2]), 0.5)
        """
        alpha, p1, c = (torch.as_tensor(v, dtype=torch.float64) for v in (alpha, p1, output_distance_squared))
        require(bool((alpha.abs() <= 1).all()), "alpha", alpha, "-1 <= alpha <= 1")
        require(bool(((p1 >= 0) & (p1 <= 1)).all()), "p1", p1, "0 <= p1 <= 1")
        require(bool(((c > 0) & c.isfinite()).all()), "output_distance_squared", c, "finite and > 0")
        shapes = {"alpha": alpha.shape, "p1": p1.shape, "output_distance_squared": c.shape}
        alpha, p1, c = (v.expand(require_broadcast(shapes)) for v in (alpha, p1, c))
        e1 = torch.stack([torch.ones_like(alpha), torch.zeros_like(alpha)], -1)
        e2 = torch.stack([alpha, (1 - alpha**2).sqrt()], -1)
        U = (c / 2).sqrt()[..., None, None] * torch.eye(2, dtype=torch.float64)
        return cls(torch.stack([e1, e2], -2), U, torch.arange(2), torch.stack([p1, 1 - p1], -1))

    @classmethod
    def planar(cls, angles: Tensor, targets: Tensor, p: Tensor | None = None) -> "AssociationProblem":
        """Unit inputs in the plane at these angles (radians), two orthonormal classes: ``d = M = 2``, Eq. (21).

        >>> AssociationProblem.planar(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0, 1, 1])).N
        3
        """
        angles = torch.as_tensor(angles, dtype=torch.float64)
        require(angles.ndim >= 1, "angles", tuple(angles.shape), "(..., N)")
        E = torch.stack([angles.cos(), angles.sin()], -1)
        return _assemble(cls, E, torch.eye(2, dtype=torch.float64), targets, p)

    @classmethod
    def circle(cls, N: int, *, seed: Seed, p: Tensor | None = None, batch: Sequence[int] = ()) -> "AssociationProblem":
        """``planar`` with independent uniform angles and fair labels, Figure 4 of [CSB24]; a batch of such problems.

        >>> AssociationProblem.circle(3, seed=0, batch=(5,)).targets.shape
        torch.Size([5, 3])
        """
        generator, shape = make_generator(seed), (*batch, require_count("N", N))
        angles = 2 * math.pi * torch.rand(shape, dtype=torch.float64, generator=generator)
        return cls.planar(angles, torch.randint(2, shape, generator=generator), p)

    @classmethod
    def shakespeare(cls, d: int, *, seed: Seed, embeddings: str = "spherical") -> "AssociationProblem":
        """The most likely next character after each character of Shakespeare's plays.

        ``N = M`` characters with their true frequencies ``p``, random embeddings of dimension
        ``d``, ``"spherical"`` or ``"gaussian"``. Data: ``amem_core.data.load_shakespeare``.

        >>> AssociationProblem.shakespeare(16, seed=0).E.shape
        torch.Size([63, 16])
        """
        makers = {"spherical": cls.spherical, "gaussian": cls.gaussian}
        require(embeddings in makers, "embeddings", repr(embeddings), " or ".join(map(repr, makers)))
        table = load_shakespeare()
        V = len(table.characters)
        return makers[embeddings](V, V, d, seed=seed, targets=table.most_likely_next, p=table.p)


def zipf_frequencies(N: int, exponent: float = 1.0) -> Float[Tensor, " N"]:
    """Frequencies ``p(x)`` proportional to ``x**-exponent`` for ``x = 1 .. N``, float64.

    >>> zipf_frequencies(2).tolist()
    [0.6666666666666666, 0.3333333333333333]
    """
    require_count("N", N)
    finite = isinstance(exponent, int | float) and abs(exponent) < float("inf")
    require(finite, "exponent", exponent, "a finite number")
    # through the logarithm: large exponents underflow to 0 instead of overflowing
    return torch.softmax(-exponent * torch.arange(1, N + 1, dtype=torch.float64).log(), 0)


def _check_sizes(N: int, M: int, d: int = 1) -> None:
    for name, value in (("N", N), ("M", M), ("d", d)):
        require_count(name, value, least=2 if name == "M" else 1)


def _gaussian_rows(N: int, M: int, d: int, seed: Seed) -> tuple[Tensor, Tensor]:
    _check_sizes(N, M, d)
    generator = make_generator(seed)
    # one draw, so that the embeddings of a seed do not depend on how they are used
    rows = torch.randn(N + M, d, dtype=torch.float64, generator=generator, device=generator.device)
    return rows[:N], rows[N:]


def _assemble(
    cls: type[AssociationProblem], E: Tensor, U: Tensor, targets: Tensor | None, p: Tensor | None
) -> AssociationProblem:
    N, M = E.shape[-2], U.shape[-2]
    targets = torch.arange(N, device=E.device) % M if targets is None else torch.as_tensor(targets, device=E.device)
    p = torch.full((N,), 1.0 / N, dtype=E.dtype, device=E.device) if p is None else p
    p = p if isinstance(p, Tensor) else torch.as_tensor(p, dtype=E.dtype, device=E.device)
    if p.dtype == E.dtype:
        return cls(E, U, targets, p)
    # frequencies of another precision: judged in their own, then normalised in this one
    cls(E.to(p.dtype) if p.is_floating_point() else E, U.to(p.dtype) if p.is_floating_point() else U, targets, p)
    p = p.to(E)
    return cls(E, U, targets, p / p.sum(-1, keepdim=True))
