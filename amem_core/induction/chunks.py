"""Sequences cut into chunks that stay in the cache, and chunks shared among threads.

Letters: ``B`` sequences, ``c`` of them in a chunk, ``T`` positions, ``P`` loss positions of the one with most of them.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from amem_core.induction.task import Sequences

R, S = TypeVar("R"), TypeVar("S")

GROUPS = 24  # partial sums: the order of additions depends on nothing else
QUERY_BLOCKS = 2  # of the loss positions of a chunk
ATTENTION = {"cpu": 2**19}  # elements of the attention of a chunk: 8 sequences of 256 positions
ATTENTION_ELSEWHERE = 2**26


@dataclass(frozen=True)
class Chunk:
    """Sequences that are worked on together.

    Loss positions ("queries") are sorted by position and cut into blocks; the rows of a block, (c, P_k) flattened,
    stand after those of the block before.
    """

    tokens: Tensor  # (c, T) up to the last loss position
    queries: Tensor  # (c P,) positions; the last one repeated where a sequence has fewer
    rows: Tensor  # (c P,) the same among all positions of the chunk, flattened (c, T)
    targets: Tensor  # (c P,)
    weight: Tensor  # (c P,) 1 / number of loss positions of all chunks; 0 where repeated
    blocks: list[tuple[int, int]]  # P_k, and how many positions its queries see


class Plan:
    """The sequences that have loss positions, those with most of them first, in chunks of ``size``."""

    def __init__(self, sequences: Sequences, size: int, dtype: torch.dtype) -> None:
        n, order = sequences.counts.sum(1).sort(descending=True, stable=True)
        B = int((n > 0).sum())
        self.sequences, self.size, self.dtype = sequences, size, dtype
        self.n, self.order = n[:B], order[:B]
        # of all loss positions, sequence after sequence, and where each sequence begins
        self.position = sequences.counts[self.order].nonzero()[:, 1]
        self.begin = self.n.cumsum(0) - self.n
        # slots up to which the blocks of each chunk reach, and how far their queries see
        longest = self.n[::size].repeat_interleave(size)[:B, None]
        share = torch.arange(1, QUERY_BLOCKS + 1, device=n.device)
        reach = (longest * share + QUERY_BLOCKS - 1) // QUERY_BLOCKS
        sees = self.position[self.begin[:, None] + torch.minimum(reach, self.n[:, None]) - 1] + 1
        sees = torch.nn.functional.pad(sees, (0, 0, 0, -B % size)).view(-(-B // size), size, QUERY_BLOCKS).amax(1)
        self.reach, self.sees = reach[::size].tolist(), sees.tolist()

    def __len__(self) -> int:
        return len(self.reach)

    def __getitem__(self, k: int) -> Chunk:
        """Chunk ``k``."""
        here, place = slice(k * self.size, (k + 1) * self.size), self.order.device
        tokens, first, number = self.sequences.tokens[self.order[here]], self.begin[here, None], self.n[here, None]
        slots = [torch.arange(a, b, device=place) for a, b in pairwise([0, *self.reach[k]])]
        queries = [self.position[first + torch.minimum(slot, number - 1)] for slot in slots]
        T = self.sees[k][-1]
        row = T * torch.arange(len(tokens), device=place)[:, None]
        weight = torch.cat([(slot < number).flatten() for slot in slots])
        return Chunk(
            tokens=tokens[:, :T],
            queries=torch.cat([q.flatten() for q in queries]),
            rows=torch.cat([(row + q).flatten() for q in queries]),
            targets=torch.cat([tokens.gather(1, q + 1).flatten() for q in queries]),
            weight=weight.to(self.dtype) / len(self.position),
            blocks=[(len(slot), sees) for slot, sees in zip(slots, self.sees[k], strict=True) if len(slot)],
        )


def chunk_size(T: int, device: torch.device) -> int:
    """Sequences of ``T`` positions whose attention fits: 8 of 256 on a CPU, 1,024 on a GPU.

    >>> chunk_size(256, torch.device("cpu")), chunk_size(10_000, torch.device("cpu"))
    (8, 1)
    """
    return max(1, ATTENTION.get(device.type, ATTENTION_ELSEWHERE) // T**2)


def share_out(
    work: Callable[[range, S], R], count: int, device: torch.device, begin: Callable[[], S] = lambda: None
) -> list[R]:
    """Results of ``work(group, state)`` for groups of the numbers below ``count``, in the order of the groups.

    On a CPU each thread that torch may use takes a share of the groups and works without threads of its own: products
    of matrices that fit the cache are too short to be split. ``begin`` makes the state of a thread. Group ``g`` holds
    the numbers ``g, g + GROUPS, ...``, whatever the number of threads.

    >>> share_out(lambda group, state: sum(group), 26, torch.device("cpu"))[:3]
    [24, 26, 2]
    """
    groups = [range(g, count, GROUPS) for g in range(min(GROUPS, count))]
    allowed = torch.get_num_threads()
    threads = min(allowed, len(groups)) if device.type == "cpu" else 1

    def run(share: list[range]) -> list[R]:
        state = begin()
        with torch.no_grad():  # a setting of each thread
            return [work(group, state) for group in share]

    if threads <= 1:
        return run(groups)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            shares = list(pool.map(run, [groups[w::threads] for w in range(threads)]))
    finally:
        torch.set_num_threads(allowed)  # threads begun later take over what was set last
    return [shares[g % threads][g // threads] for g in range(len(groups))]


class Memory:
    """Memory by name, used again: what is taken overwrites what was taken before under its name."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.held = like, {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor of this shape."""
        size = math.prod(shape)
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = self.like.new_empty(size)
        return self.held[name][:size].view(shape)
