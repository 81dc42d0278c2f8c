r"""The general transformer: one or two layers, everything trained. The first experiment of [BCBJB23], and of ours.

Letters: ``N`` tokens, ``B`` sequences, ``T`` positions, ``d`` dimension, ``L`` layers, ``H`` heads. With token and
position embeddings, each layer adds to the state :math:`h_t` what its heads have read, and, where there is one, what a
feed-forward block makes of the result; ``norm`` is the layer norm with its own gains and shifts:

.. math::
    a_{tj} = \mathrm{softmax}_{j \le t}\ \langle W_Q\,\mathrm{norm}(h_t),\, W_K\,\mathrm{norm}(h_j)\rangle / \sqrt{d/H},
    \qquad h_t \leftarrow h_t + W_O \sum_{j\le t} a_{tj} W_V\,\mathrm{norm}(h_j), \qquad
    \text{logits} = U\,\mathrm{norm}(h_t).

:func:`amem_core.induction.train_general` trains it.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amem_core.induction.model import require_tokens
from amem_core.induction.task import BigramTask
from amem_core.validation import make_generator, require, require_count, require_positive


@dataclass(frozen=True)
class GeneralConfig:
    """A training run of the general transformer: everything that its numbers depend on.

    Parameters
    ----------
    layers, d, heads, feed_forward : the model, as in ``GeneralTransformer``
    K, length, no_repeat, random_triggers : the task, as in ``BigramTask.shakespeare``
    sequences : B, number of fresh sequences at each step
    held_out : number of other sequences for loss and accuracy at recorded steps
    everywhere : the loss is over all positions, instead of those that count
    rate, weight_decay : of AdamW, whose averages forget after about 10 and 100 steps
    warm_up : steps over which the rate rises to its value; afterwards it falls on a line to zero at the last step
    steps : number of steps
    record_every : steps between records; the last step is recorded too
    maps_at : steps at which the attention on one sequence is kept
    shown : number of that sequence among those held out
    seed, seed_data, seed_held_out : of the weights, of the sequences and of those held out; the last two differ

    Raises
    ------
    ValueError
        For a value outside what is allowed.

    Examples
    --------
    >>> config = GeneralConfig(layers=2, d=16, length=32, sequences=8, steps=100)
    >>> config.task.N, config.model().d, config.digest == GeneralConfig(**vars(config)).digest
    (63, 16, True)
    """

    layers: int = 2
    d: int = 64
    heads: int = 1
    feed_forward: bool = False
    length: int = 256
    K: int = 5
    no_repeat: bool = False
    random_triggers: bool = False
    sequences: int = 32
    held_out: int = 512
    everywhere: bool = False
    rate: float = 5e-3
    weight_decay: float = 0.01
    warm_up: int = 50
    steps: int = 800
    record_every: int = 50
    maps_at: tuple[int, ...] = ()
    shown: int = 0
    seed: int = 0
    seed_data: int = 1
    seed_held_out: int = 2

    def __post_init__(self) -> None:
        for name in ("layers", "d", "heads", "K", "sequences", "held_out", "steps", "record_every"):
            require_count(name, getattr(self, name))
        require_count("length", self.length, 2)
        for name in ("shown", "warm_up", "seed", "seed_data", "seed_held_out"):
            value = require_count(name, getattr(self, name), 0)
            require(value < 2**63, name, value, "a whole number below 2**63")
        object.__setattr__(self, "rate", require_positive("rate", self.rate))
        object.__setattr__(self, "weight_decay", require_positive("weight_decay", self.weight_decay, zero=True))
        for name in ("feed_forward", "no_repeat", "random_triggers", "everywhere"):
            require(isinstance(getattr(self, name), bool), name, repr(getattr(self, name)), "True or False")
        require(self.d % self.heads == 0, "heads", self.heads, f"a divisor of d = {self.d}")
        require(self.warm_up <= self.steps, "warm_up", self.warm_up, f"0 to steps = {self.steps}")
        require(self.shown < self.held_out, "shown", self.shown, f"0 to held_out-1 = {self.held_out - 1}")
        at = self.maps_at
        whole = isinstance(at, tuple) and all(isinstance(s, int) and 0 <= s <= self.steps for s in at)
        require(whole and list(at) == sorted(set(at)), "maps_at", repr(at), f"rising steps from 0 to {self.steps}")
        same = self.seed_data == self.seed_held_out
        require(not same, "seed_held_out", self.seed_held_out, "another number than seed_data")
        require(self.K <= self.task.N, "K", self.K, f"at most N = {self.task.N}")

    @property
    def task(self) -> BigramTask:
        """The distribution of sequences."""
        return BigramTask.shakespeare(
            self.K, self.length, no_repeat=self.no_repeat, random_triggers=self.random_triggers
        )

    def model(self) -> "GeneralTransformer":
        """The model before the first step."""
        shape = {"layers": self.layers, "heads": self.heads, "feed_forward": self.feed_forward, "seed": self.seed}
        return GeneralTransformer(self.task.N, self.length, self.d, **shape)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step.

        >>> [round(GeneralConfig(rate=1.0, warm_up=2, steps=6).rate_at(step), 2) for step in range(7)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        """
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        return self.rate * (self.steps - step) / max(self.steps - self.warm_up, 1)

    @property
    def digest(self) -> str:
        """SHA-256 of all values, by which a checkpoint knows its run."""
        words = json.dumps({"kind": "general transformer", **asdict(self)}, sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()


class Attention(nn.Module):
    """Causal attention of one layer: each position reads those before it, and itself.

    >>> layer = Attention(d=8, heads=2)
    >>> read, a = layer(torch.randn(3, 5, 8))
    >>> read.shape, a.shape, a[0, 1].triu(1).any().item()
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 5, 5]), False)
    """

    def __init__(self, d: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, h: Float[Tensor, "B T d"]) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B H T T"]]:
        """What is read at each position, (B, T, d), and the attention, (B, H, T, T)."""
        B, T, d = h.shape
        q, k, v = (part(h).view(B, T, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value))
        future = torch.full((T, T), -math.inf, dtype=h.dtype, device=h.device).triu(1)
        a = (q @ k.mT / math.sqrt(d // self.heads) + future).softmax(-1)  # (B, H, T, T)
        return self.output((a @ v).transpose(1, 2).reshape(B, T, d)), a


class Layer(nn.Module):
    """Attention and, where there is one, a feed-forward block, each with a layer norm before it and added to its input.

    >>> h, a = Layer(d=8, feed_forward=True)(torch.randn(3, 5, 8))
    >>> h.shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, d: int, heads: int = 1, feed_forward: bool = False) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(d), Attention(d, heads)
        block = (nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.feed_forward = nn.Sequential(*block) if feed_forward else None

    def forward(self, h: Float[Tensor, "B T d"]) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B H T T"]]:
        """The new state, (B, T, d), and the attention, (B, H, T, T)."""
        read, a = self.attention(self.norm(h))
        h = h + read
        return (h if self.feed_forward is None else h + self.feed_forward(h)), a


class GeneralTransformer(nn.Module):
    """A transformer of one or more layers; every weight is trained.

    Before the first step the entries of every matrix are N(0, 1/d), gains are 1, shifts 0.

    Parameters
    ----------
    N, T, d : number of tokens and of positions, dimension
    layers, heads : numbers of layers, and of heads in each; ``heads`` divides ``d``
    feed_forward : each layer has a feed-forward block of width ``4 d``
    seed : of the weights

    Raises
    ------
    ValueError
        For a number below 1, or heads that do not divide ``d``.

    Examples
    --------
    >>> model = GeneralTransformer(N=5, T=8, d=4, layers=2, seed=0)
    >>> logits, a = model(torch.tensor([[0, 3, 1]]), maps=True)
    >>> logits.shape, a.shape
    (torch.Size([1, 3, 5]), torch.Size([1, 2, 1, 3, 3]))
    """

    def __init__(
        self, N: int, T: int, d: int, *, layers: int = 2, heads: int = 1, feed_forward: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        for name, value in (("N", N), ("T", T), ("d", d), ("layers", layers), ("heads", heads)):
            require_count(name, value)
        require(d % heads == 0, "heads", heads, f"a divisor of d = {d}")
        with torch.random.fork_rng(devices=[]):  # torch's own start leaves no trace
            self.embedding, self.position = nn.Embedding(N, d), nn.Embedding(T, d)
            self.layers = nn.ModuleList(Layer(d, heads, feed_forward) for _ in range(layers))
            self.norm, self.unembedding = nn.LayerNorm(d), nn.Linear(d, N, bias=False)
        generator = make_generator(seed)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, 0.0, d**-0.5, generator=generator)
        for part in self.modules():
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    @property
    def d(self) -> int:
        """Dimension of the states."""
        return self.embedding.embedding_dim

    def forward(
        self, tokens: Int64[Tensor, "B T"], *, maps: bool = False
    ) -> Float[Tensor, "B T N"] | tuple[Float[Tensor, "B T N"], Float[Tensor, "B L H T T"]]:
        """Logits of the next token at each position, (B, T, N); with ``maps``, also all attention, (B, L, H, T, T)."""
        require_tokens(tokens, self.embedding.num_embeddings, self.position.num_embeddings)
        h, attention = self.embedding(tokens) + self.position.weight[: tokens.shape[1]], []
        for layer in self.layers:
            h, a = layer(h)
            attention.append(a)
        logits = self.unembedding(self.norm(h))
        return (logits, torch.stack(attention, 1)) if maps else logits


def strongest(attention: Float[Tensor, "T T"], few: int = 4) -> list[list[list[int]]]:
    """Of each position, those it attends to most: pairs of a position and its share in percent, largest first.

    Parameters
    ----------
    attention : rows sum to 1 and do not look ahead
    few : at most so many pairs, those below one percent left out

    Examples
    --------
    >>> strongest(torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.004, 0.496, 0.5]]))
    [[[0, 100]], [[1, 75], [0, 25]], [[1, 50], [2, 50]]]
    """
    require_count("few", few)
    share, place = (100 * attention).round().long().sort(dim=-1, descending=True, stable=True)
    rows = zip(place[:, :few].tolist(), share[:, :few].tolist(), strict=True)
    return [[[j, percent] for j, percent in zip(*row, strict=True) if percent >= 1] for row in rows]
