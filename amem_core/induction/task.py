r"""The bigram task: text in which some characters are followed by what the context says. Section 5.3 of [CSB24].

Letters: ``N`` tokens, ``B`` sequences, ``T`` positions, ``K`` triggers. In each sequence every trigger ``q`` gets one
output ``o_q``, uniform over the vocabulary. The first token is drawn from the unigram model; after a trigger comes its
output, after anything else a draw from the bigram model. Where a trigger stands that has stood before in the sequence,
the next token is known from the context alone: these positions count for the loss.

Task: Appendix D of [CSB24], after [BCBJB23] (Bietti, Cabannes, Bouchacourt, Jégou, Bottou, *Birth of a Transformer*,
NeurIPS 2023).
"""

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from amem_core.data import load_shakespeare
from amem_core.validation import require, require_count

BLOCK = 32  # positions whose random numbers are drawn at once
SEQUENCES = 2048  # of a batch that walk together on a CPU: their rules stay in its cache


@dataclass(frozen=True, eq=False)
class Sequences:
    """A batch of sequences.

    Parameters
    ----------
    tokens : (B, T + 1) what the model reads, and one token more: targets are ``tokens[:, 1:]``
    triggers : (B, K) the trigger tokens of each sequence
    outputs : (B, K) what follows each of them in this sequence
    counts : (B, T) where the next token counts for the loss

    Raises
    ------
    ValueError
        For other shapes or dtypes, or tensors on different devices.

    Examples
    --------
    >>> row = torch.tensor([[0, 2, 1, 0, 2]])
    >>> trigger, output = torch.tensor([[0]]), torch.tensor([[2]])
    >>> batch = Sequences(row, trigger, output, counted_positions(row[:, :-1], trigger))
    >>> batch.counts.tolist(), batch.targets[batch.counts].tolist()
    ([[False, False, False, True]], [2])
    """

    tokens: Int64[Tensor, "B _"]
    triggers: Int64[Tensor, "B K"]
    outputs: Int64[Tensor, "B K"]
    counts: Bool[Tensor, "B T"]

    def __post_init__(self) -> None:
        for field in fields(self):
            _require_matrix(
                field.name, getattr(self, field.name), torch.bool if field.name == "counts" else torch.int64
            )
        B, T = self.counts.shape
        require(T >= 1, "counts", tuple(self.counts.shape), "(B, T) with T >= 1")
        shape = tuple(self.tokens.shape)
        require(shape == (B, T + 1), "tokens", shape, f"(B, T + 1) = {(B, T + 1)}")
        for name in ("triggers", "outputs"):
            shape = tuple(getattr(self, name).shape)
            require(shape == (B, self.triggers.shape[1]), name, shape, f"(B, K) with B = {B}, the same K for both")
        devices = {str(getattr(self, field.name).device) for field in fields(self)}
        require(len(devices) == 1, "tokens", f"devices {sorted(devices)}", "all tensors on one device")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def inputs(self) -> Int64[Tensor, "B T"]:
        """What the model reads, (B, T)."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Int64[Tensor, "B T"]:
        """The next token at each position, (B, T)."""
        return self.tokens[:, 1:]

    @property
    def absorbed(self) -> Bool[Tensor, " B"]:
        """Sequences that end in one repeated character: a trigger is its own output and occurs, (B,)."""
        own = (self.triggers == self.outputs)[:, None, :] & (self.inputs[:, :, None] == self.triggers[:, None, :])
        return own.flatten(1).any(1)

    def to(self, device: torch.device | str) -> "Sequences":
        """The same sequences on another device."""
        return Sequences(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, index: slice | Int64[Tensor, " b"] | Bool[Tensor, " B"]) -> "Sequences":
        """Some of the sequences: a slice, positions (b,) or a mask (B,)."""
        return Sequences(*(getattr(self, field.name)[index] for field in fields(self)))


def counted_positions(inputs: Int64[Tensor, "B T"], triggers: Int64[Tensor, "B K"]) -> Bool[Tensor, "B T"]:
    """Where a trigger stands for at least the second time, (B, T).

    >>> counted_positions(torch.tensor([[4, 7, 4, 4, 7]]), torch.tensor([[4]])).tolist()
    [[False, False, True, True, False]]
    """
    counts = torch.zeros_like(inputs, dtype=torch.bool)
    for trigger in triggers.unbind(1):
        here = inputs == trigger[:, None]
        counts |= here
        first = here.to(torch.uint8).max(1, keepdim=True).indices  # position 0 for a trigger that never comes
        counts.scatter_(1, first, False)
    counts[:, 0] = False
    return counts


@dataclass(frozen=True, eq=False)
class BigramTask:
    """The distribution of sequences.

    Parameters
    ----------
    bigram : (N, N) probability of token ``j`` after token ``i``; rows sum to 1
    unigram : (N,) probability of the first token, and of a random trigger
    triggers : (K,) the fixed triggers; ``None`` draws ``K`` for each sequence from the unigram, without repetition
    K : number of triggers; may be left out when they are fixed
    length : T, number of positions
    no_repeat : no output equals its trigger: outputs are uniform over the other ``N - 1`` tokens

    Raises
    ------
    ValueError
        For bad shapes, rows that do not sum to 1, repeated or unknown triggers, more random triggers than tokens
        that can occur.

    Examples
    --------
    >>> task = BigramTask.shakespeare(length=16)
    >>> batch = task.sample(3, torch.Generator().manual_seed(0))
    >>> batch.tokens.shape, batch.triggers.tolist()[0]
    (torch.Size([3, 17]), [1, 41, 56, 51, 37])
    """

    bigram: Float64[Tensor, "N N"]
    unigram: Float64[Tensor, " N"]
    triggers: Int64[Tensor, " K"] | None = None
    K: int | None = None
    length: int = 256
    no_repeat: bool = False

    def __post_init__(self) -> None:
        _require_probabilities("unigram", self.unigram, 1)
        _require_probabilities("bigram", self.bigram, 2)
        N, q = len(self.unigram), self.triggers
        require(tuple(self.bigram.shape) == (N, N), "bigram", tuple(self.bigram.shape), f"(N, N) with N = {N}")
        require_count("length", self.length)
        require(isinstance(self.no_repeat, bool), "no_repeat", repr(self.no_repeat), "True or False")
        if q is None:
            most = int((self.unigram > 0).sum())
            require(require_count("K", self.K) <= most, "K", self.K, f"at most the {most} tokens that occur")
            return
        whole = isinstance(q, Tensor) and q.dtype == torch.int64 and q.ndim == 1 and len(q) >= 1
        require(whole, "triggers", _kind(q), "None, or a torch.int64 tensor (K,) with K >= 1")
        known = bool(((q >= 0) & (q < N)).all()) and len(q.unique()) == len(q)
        require(known, "triggers", q.tolist(), f"different tokens from 0 to N-1 = {N - 1}")
        require(self.K in (None, len(q)), "K", self.K, f"None or {len(q)}, the number of triggers")
        object.__setattr__(self, "K", len(q))

    @classmethod
    def shakespeare(
        cls, K: int = 5, length: int = 256, *, no_repeat: bool = False, random_triggers: bool = False
    ) -> "BigramTask":
        """Characters of Shakespeare's plays; the ``K`` most frequent ones are triggers, or ``K`` random ones.

        >>> BigramTask.shakespeare(K=2, random_triggers=True).triggers is None
        True
        """
        table = load_shakespeare()
        require(require_count("K", K) <= len(table.p), "K", K, f"at most the {len(table.p)} characters")
        frequent = table.p.argsort(descending=True, stable=True)[:K]
        return cls(table.transition, table.p, None if random_triggers else frequent, K, length, no_repeat)

    @property
    def N(self) -> int:
        """Number of tokens."""
        return len(self.unigram)

    def sample(self, size: int, generator: torch.Generator, device: torch.device | str | None = None) -> Sequences:
        """A batch of independent sequences, all drawn at once, position by position.

        Parameters
        ----------
        size : B, number of sequences
        generator : source of randomness; the work is done on its device
        device : where the sequences go; ``None`` for the device of the generator

        Raises
        ------
        ValueError
            For a size below 1 or something else than a generator.
        """
        require_count("size", size)
        known = isinstance(generator, torch.Generator)
        require(known, "generator", type(generator).__name__, "a torch.Generator")
        triggers, outputs = self._rules(size, generator)
        tokens = torch.empty(size, self.length + 1, dtype=torch.int64, device=generator.device)
        counts = torch.empty(size, self.length, dtype=torch.bool, device=generator.device)
        few = SEQUENCES if generator.device.type == "cpu" else size
        for q, o, z, c in zip(*(x.split(few) for x in (triggers, outputs, tokens, counts)), strict=True):
            with torch.inference_mode():  # thousands of small operations: less bookkeeping for each
                walk = self._walk(q, o, generator)
            z.copy_(walk)
            c.copy_(counted_positions(z[:, :-1], q))
        batch = Sequences(tokens, triggers, outputs, counts)
        return batch if device is None else batch.to(device)

    def _rules(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Triggers and outputs of each sequence, (B, K) each."""
        place = generator.device
        if self.triggers is None:
            p = self.unigram.to(place).expand(size, self.N)
            triggers = torch.multinomial(p, self.K, generator=generator)
        else:
            triggers = self.triggers.to(place).expand(size, self.K).contiguous()
        last = self.N - self.no_repeat
        outputs = torch.randint(last, (size, self.K), generator=generator, device=place)
        return triggers, outputs + (outputs >= triggers) if self.no_repeat else outputs

    def _walk(self, triggers: Tensor, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Tokens (B, T + 1) of all sequences, one position after the other; not contiguous."""
        N, B, place = self.N, len(triggers), generator.device
        M = 1 << (N - 1).bit_length()  # a forced token z is kept as M + z
        cut, alias = (table.to(place) for table in self._tables)
        # forced[b, z]: M + output where z is a trigger of sequence b, otherwise 0
        forced = torch.zeros(B, 2 * M + 1, dtype=torch.int64, device=place)
        forced = forced.scatter_(1, triggers, outputs + M).scatter_(1, triggers + M, outputs + M).flatten()
        begin = torch.arange(B, device=place) * (2 * M + 1)
        states = torch.empty(self.length + 1, B, dtype=torch.int64, device=place)
        state = torch.full((B,), 2 * M, device=place)  # the row of the unigram
        for block in states.split(BLOCK):
            spots = torch.rand(block.shape, dtype=torch.float64, generator=generator, device=place).mul_(N)
            for x, column, new in zip(spots, spots.long(), block, strict=True):
                cell = torch.add(column, state, alpha=N)
                drawn = torch.where(x < cut.index_select(0, cell), column, alias.index_select(0, cell))
                state = torch.maximum(drawn, forced.index_select(0, begin + state), out=new)
        return states.bitwise_and_(M - 1).T

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor]:
        """``cut`` and ``alias``, flat: ``M`` rows after drawn tokens, ``M`` after forced ones, one for the unigram."""
        M = 1 << (self.N - 1).bit_length()
        rows = [_alias(row) for row in self.bigram.tolist()]
        unused = [rows[0]] * (M - self.N)
        rows = [*rows, *unused, *rows, *unused, _alias(self.unigram.tolist())]
        cut, alias = zip(*rows, strict=True)
        return torch.tensor(cut, dtype=torch.float64).flatten(), torch.tensor(alias).flatten()


def _alias(p: list[float]) -> tuple[list[float], list[int]]:
    """Tables of the alias method: with ``x`` uniform on ``[0, N)``, the token is ``k = int(x)`` or ``alias[k]``.

    It is ``k`` when ``x < cut[k]``. Walker (1977), in the order of Vose (1991).
    """
    N = len(p)
    mass = [N * q / sum(p) for q in p]
    cut, alias = [k + 1.0 for k in range(N)], list(range(N))
    order = sorted(range(N), key=mass.__getitem__, reverse=True)  # impossible tokens are settled first
    small, large = [k for k in order if mass[k] < 1], [k for k in order if mass[k] >= 1]
    while small and large:
        k, rich = small.pop(), large[-1]
        cut[k], alias[k] = k + mass[k], rich
        mass[rich] -= 1 - mass[k]
        if mass[rich] < 1:
            small.append(large.pop())
    return cut, alias


def _kind(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _require_matrix(name: str, value: object, dtype: torch.dtype) -> None:
    good = isinstance(value, Tensor) and value.dtype == dtype and value.ndim == 2
    require(good, name, _kind(value), f"a {dtype} tensor with two dimensions")


def _require_probabilities(name: str, value: object, ndim: int) -> None:
    """A double tensor whose last dimension (at least 2) sums to 1."""
    good = isinstance(value, Tensor) and value.dtype == torch.float64 and value.ndim == ndim and value.shape[-1] >= 2
    require(good, name, _kind(value), f"a torch.float64 tensor with {ndim} dimension{'s'[: ndim - 1]} and N >= 2")
    bad = value[~(value >= 0) | ~value.isfinite()].tolist()[:3]
    require(not bad, name, bad, "finite values >= 0")
    # N roundings of at most one unit in the last place each
    off = (value.sum(-1) - 1).abs().max().item()
    tolerance = 4 * value.shape[-1] * torch.finfo(torch.float64).eps
    require(off <= tolerance, name, f"sums that differ from 1 by up to {off:.3g}", "sums of 1")
