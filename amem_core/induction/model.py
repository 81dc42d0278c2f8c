r"""The simplified two-layer transformer: the definition, to be read. Appendix D of [CSB24], after [BCBJB23].

Letters: ``N`` tokens, ``B`` sequences, ``T`` positions, ``d`` dimension. Layers :math:`\ell = 1, 2` have one head, no
query matrix, no feed-forward block and no normalisation:

.. math::
    h^0_t &= e_{z_t} + p_t, \qquad
    a^\ell_{tj} = \mathrm{softmax}_{j \le t}\ \langle h^{\ell-1}_t, W_K^\ell h^{\ell-1}_j\rangle / \sqrt d, \\
    h^\ell_t &= h^{\ell-1}_t + W_O^\ell W_V^\ell \sum_{j\le t} a^\ell_{tj} h^{\ell-1}_j, \qquad
    \text{logits} = U h^2_t.

``W_K1``, ``W_K2`` and ``W_O2`` are trained; everything else is random and stays. :mod:`amem_core.induction.fast`
computes the same loss and gradients in less time and memory.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amem_core.induction.task import Sequences
from amem_core.validation import make_generator, require, require_alike, require_count, require_floating

TRAINED = ("W_K1", "W_K2", "W_O2")  # in the order of the layers
SCHEMES = ("code", "unit")
TENSORS = ("W_E", "p", "W_V1", "W_O1", "W_V2", "W_U", *TRAINED)


@dataclass(frozen=True, eq=False)
class Weights:
    """Every matrix of the simplified transformer.

    Parameters
    ----------
    W_E, W_U : (N, d) embeddings and unembeddings of the tokens
    p : (T, d) embeddings of the positions
    W_V1, W_O1, W_V2 : (d, d) values and output of the first layer, values of the second; frozen
    W_K1, W_K2, W_O2 : (d, d) keys of both layers, output of the second; trained
    scaled : attention scores are divided by ``sqrt(d)``

    Raises
    ------
    ValueError
        For shapes that do not fit, values that are not finite, mixed dtypes or devices.
    """

    W_E: Float[Tensor, "N d"]
    p: Float[Tensor, "T d"]
    W_V1: Float[Tensor, "d d"]
    W_O1: Float[Tensor, "d d"]
    W_V2: Float[Tensor, "d d"]
    W_U: Float[Tensor, "N d"]
    W_K1: Float[Tensor, "d d"]
    W_K2: Float[Tensor, "d d"]
    W_O2: Float[Tensor, "d d"]
    scaled: bool = True

    def __post_init__(self) -> None:
        for name in TENSORS:
            require_floating(name, getattr(self, name))
            require_alike(name, getattr(self, name), self.W_E, "W_E")
        for name, letters in (("W_E", "(N, d)"), ("p", "(T, d)")):
            shape = tuple(getattr(self, name).shape)
            require(len(shape) == 2 and min(shape) >= 1, name, shape, f"{letters} with sizes >= 1")
        d = self.d
        wanted = dict.fromkeys(TENSORS, (d, d)) | {"W_E": (self.N, d), "W_U": (self.N, d), "p": (self.T, d)}
        for name, shape in wanted.items():
            found = tuple(getattr(self, name).shape)
            require(found == shape, name, found, f"{shape}, as N = {self.N} and d = {d} of W_E ask")
        require(isinstance(self.scaled, bool), "scaled", repr(self.scaled), "True or False")

    @property
    def N(self) -> int:
        """Number of tokens."""
        return self.W_E.shape[0]

    @property
    def d(self) -> int:
        """Dimension of the embeddings."""
        return self.W_E.shape[1]

    @property
    def T(self) -> int:
        """Largest number of positions."""
        return self.p.shape[0]

    @property
    def beta(self) -> float:
        """What attention scores are multiplied with: ``1 / sqrt(d)``, or 1."""
        return 1 / math.sqrt(self.d) if self.scaled else 1.0

    @classmethod
    def draw(
        cls,
        N: int,
        T: int,
        d: int,
        seed: int | torch.Generator,
        *,
        scheme: str = "code",
        zero: tuple[str, ...] = (),
        scaled: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> "Weights":
        """Random weights; the same seed gives the same numbers in every dtype, rounded.

        Parameters
        ----------
        N, T, d : number of tokens and positions, dimension
        seed : number, or a generator on the CPU
        scheme : ``"code"``: embeddings have N(0, 1) entries; ``"unit"``: N(0, 1/d), so that they have length about 1.
            Every other matrix is uniform on ``[-1/sqrt(d), 1/sqrt(d)]`` in both.
        zero : trained matrices that start at zero instead, of ``"W_K1"``, ``"W_K2"``, ``"W_O2"``
        scaled : attention scores are divided by ``sqrt(d)``

        Examples
        --------
        >>> weights = Weights.draw(63, 256, 64, seed=0, zero=("W_O2",))
        >>> round(weights.W_E.std().item(), 1), weights.W_V1.abs().max().item() <= 1 / 8, weights.W_O2.any().item()
        (1.0, True, False)
        """
        for name, value in (("N", N), ("T", T), ("d", d)):
            require_count(name, value)
        require(scheme in SCHEMES, "scheme", repr(scheme), f"one of {SCHEMES}")
        known = isinstance(zero, tuple) and set(zero) <= set(TRAINED)
        require(known, "zero", repr(zero), f"a tuple of names from {TRAINED}")
        generator, size = make_generator(seed), 1.0 if scheme == "code" else d**-0.5
        drawn = {}
        for name in TENSORS:
            rows = {"W_E": N, "W_U": N, "p": T}.get(name, d)
            if name in ("W_E", "p"):
                drawn[name] = size * torch.randn(rows, d, dtype=torch.float64, generator=generator)
            else:
                unit = torch.rand(rows, d, dtype=torch.float64, generator=generator)
                drawn[name] = (2 * unit - 1) * d**-0.5 * (name not in zero)
        return cls(**{name: X.to(device=device, dtype=dtype) for name, X in drawn.items()}, scaled=scaled)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Weights":
        """The same weights in another dtype or on another device."""
        return self.replace(**{name: getattr(self, name).to(device=device, dtype=dtype) for name in TENSORS})

    def replace(self, **changes: Tensor | bool) -> "Weights":
        """These weights with some of them changed."""
        return replace(self, **changes)


class SimplifiedTransformer(torch.nn.Module):
    """The model as a module: frozen weights are buffers, trained ones are parameters.

    >>> model = SimplifiedTransformer(Weights.draw(N=5, T=8, d=4, seed=0))
    >>> [name for name, _ in model.named_parameters()]
    ['W_K1', 'W_K2', 'W_O2']
    >>> model(torch.tensor([[0, 3, 1]])).shape
    torch.Size([1, 3, 5])
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.scaled, self.beta = weights.scaled, weights.beta
        for name in TENSORS:
            tensor = getattr(weights, name).detach().clone()
            if name in TRAINED:
                self.register_parameter(name, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    @property
    def weights(self) -> Weights:
        """The present weights; they share memory with the module."""
        return Weights(**{name: getattr(self, name).detach() for name in TENSORS}, scaled=self.scaled)

    def attend(self, h: Float[Tensor, "B T d"], W_K: Float[Tensor, "d d"]) -> Float[Tensor, "B T T"]:
        """Attention of every position over itself and those before it, (B, T, T)."""
        scores = self.beta * (h @ W_K @ h.mT)
        future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        return scores.masked_fill(future, -math.inf).softmax(-1)

    def forward(
        self, tokens: Int64[Tensor, "B T"], *, maps: bool = False
    ) -> Float[Tensor, "B T N"] | tuple[Float[Tensor, "B T N"], Float[Tensor, "B T T"], Float[Tensor, "B T T"]]:
        """Logits of the next token at each position, (B, T, N); with ``maps``, also the attention of both layers."""
        require_tokens(tokens, *self.W_E.shape[:1], len(self.p))
        h0 = self.W_E[tokens] + self.p[: tokens.shape[1]]
        a1 = self.attend(h0, self.W_K1)
        h1 = h0 + a1 @ h0 @ self.W_V1.T @ self.W_O1.T
        a2 = self.attend(h1, self.W_K2)
        h2 = h1 + a2 @ h1 @ self.W_V2.T @ self.W_O2.T
        logits = h2 @ self.W_U.T
        return (logits, a1, a2) if maps else logits


def loss_plain(model: SimplifiedTransformer, sequences: Sequences) -> Float[Tensor, ""]:
    """Mean cross-entropy over the positions that count, of all sequences together; 0 when there is none.

    >>> from amem_core.induction import BigramTask
    >>> batch = BigramTask.shakespeare(length=32).sample(4, torch.Generator().manual_seed(0))
    >>> model = SimplifiedTransformer(Weights.draw(63, 32, 8, seed=0))
    >>> loss_plain(model, batch).backward()
    >>> model.W_K1.grad.shape
    torch.Size([8, 8])
    """
    logits = model(sequences.inputs)[sequences.counts]
    total = torch.nn.functional.cross_entropy(logits, sequences.targets[sequences.counts], reduction="sum")
    return total / max(len(logits), 1)


def require_tokens(tokens: Tensor, N: int, T: int) -> None:
    """Tokens (B, T') from 0 to N - 1, with at most T positions."""
    good = tokens.dtype == torch.int64 and tokens.ndim == 2 and 1 <= tokens.shape[1] <= T
    require(good, "tokens", f"{tokens.dtype} {tuple(tokens.shape)}", f"torch.int64 (B, T) with T from 1 to {T}")
    outside = tokens[(tokens < 0) | (tokens >= N)].tolist()[:3]
    require(not outside, "tokens", outside, f"0 to N-1 = {N - 1}")
