"""What is recorded for Part IV, and with which settings; :mod:`amem_core.induction.record` records it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from amem_core.induction.general import GeneralConfig
from amem_core.induction.model import TRAINED
from amem_core.induction.presets import RATES, TrainingConfig, preset
from amem_core.validation import require_count

EXAMPLE = 24  # positions of the example that maps of attention are of


@dataclass(frozen=True)
class Recording:
    """Runs that are recorded together.

    Parameters
    ----------
    what : a sentence
    runs : with the same steps recorded, tokens and length; all of one kind
    maps : attention on an example is kept (of the general transformer, at the steps that its configuration names)
    """

    what: str
    runs: tuple[TrainingConfig, ...] | tuple[GeneralConfig, ...]
    maps: bool = False


def _figure_7_top() -> Recording:
    return Recording("Figure 7, top: gradient descent on W_O2 alone, fixed sequences", _top())


def _figure_7_top_flat() -> Recording:
    return Recording("Figure 7, top, with attention that is flat: W_K1 and W_K2 are zero", _top(zero=("W_K1", "W_K2")))


def _top(**changes: object) -> tuple[TrainingConfig, ...]:
    each = itertools.product(RATES["output"], (0, 1, 2))
    return tuple(_seeded("output", "paper", seed, rate=rate, **changes) for rate, seed in each)


def _figure_7_bottom(d: int) -> Recording:
    steps = {64: 60, 128: 100}[d]  # what the time of a CPU allowed
    runs = tuple(preset("all", "paper", d=d, rate=rate, steps=steps, held_out=512) for rate in RATES["all"])
    return Recording(f"Figure 7, bottom, d = {d}: gradient descent on all three, fixed sequences", runs, maps=True)


def _fresh(seed: int, sequences: int, steps: int, **changes: object) -> TrainingConfig:
    """All three matrices, other sequences at every step: what a larger and larger set of sequences tends to."""
    return _seeded("all", "paper", seed, fresh=True, sequences=sequences, steps=steps, record_every=2, **changes)


def _figure_7_seeds() -> Recording:
    each = itertools.product((64, 128), RATES["all"], (0, 1, 2))
    runs = tuple(_fresh(seed, 512, 160, d=d, rate=rate) for d, rate, seed in each)
    return Recording("Figure 7, bottom, with other sequences at every step", runs)


def _scales() -> Recording:
    kinds = [{"zero": TRAINED}, {"scaled": False}, {"scheme": "unit"}]
    each = itertools.product(kinds, (5.0, 20.0), (0, 1, 2))
    runs = tuple(_fresh(seed, 256, 100, rate=rate, **kind) for kind, rate, seed in each)
    return Recording("other scales of the weights before the first step, d = 128", runs)


def _order() -> Recording:
    each = itertools.product((False, True), (0, 1, 2))
    runs = tuple(
        _seeded("mini-batch", "paper", seed, no_repeat=kind, held_out=256, record_every=10) for kind, seed in each
    )
    return Recording("mini-batches with momentum, all three matrices", runs, maps=True)


def _joint() -> Recording:
    each = itertools.product((True, False), (("W_O2",), TRAINED), (0, 1, 2))
    options = {"d": 128, "steps": 240, "held_out": 64, "record_every": 5}
    runs = tuple(
        _seeded("mini-batch", "notebook", seed, random_triggers=kind, trained=trained, **options)
        for kind, trained, seed in each
    )
    return Recording("W_O2 alone and all three matrices, triggers that change and that stay; 128 positions", runs)


def _seeded(experiment: str, scale: str, seed: int, **changes: object) -> TrainingConfig:
    """Other weights and other sequences for every seed."""
    seeds = {"seed": seed, "seed_data": 100 + seed, "seed_held_out": 200 + seed}
    return preset(experiment, scale, **seeds, **changes)


def _sequences() -> Recording:
    sizes = (128, 512, 2048)
    options = {"rate": 5.0, "steps": 100, "held_out": 256, "record_every": 4}
    runs = tuple(preset("all", "paper", sequences=sequences, **options) for sequences in sizes)
    return Recording("all three matrices, rate 5, with fewer and more fixed sequences, d = 128", runs)


def _layers() -> Recording:
    shared = {"maps_at": (0, 50, 100, 150, 200, 800)}
    each = [(False, False, s) for s in range(5)] + [(False, True, s) for s in range(5)]
    each += [(True, False, s) for s in range(3)]
    kinds = [{"layers": layers, "feed_forward": block, "no_repeat": no_repeat, "seed": seed}
             for block, no_repeat, seed in each for layers in (1, 2)]  # fmt: skip
    kinds += [{"layers": 1, "feed_forward": True, "heads": 4, "seed": seed} for seed in range(3)]
    runs = tuple(
        GeneralConfig(seed_data=100 + kind["seed"], shown=204 if kind.get("no_repeat") else 90, **kind, **shared)
        for kind in kinds
    )
    return Recording("the general transformer with one layer and with two, AdamW, fresh sequences", runs, maps=True)


RECORDINGS: dict[str, Callable[[], Recording]] = {
    "figure-7-top": _figure_7_top,
    "figure-7-top-flat": _figure_7_top_flat,
    "figure-7-bottom-64": lambda: _figure_7_bottom(64),
    "figure-7-bottom-128": lambda: _figure_7_bottom(128),
    "figure-7-seeds": _figure_7_seeds,
    "induction-joint": _joint,
    "induction-layers": _layers,
    "induction-order": _order,
    "induction-scales": _scales,
    "induction-sequences": _sequences,
}


def example(config: TrainingConfig, length: int = EXAMPLE) -> Int64[Tensor, " L"]:
    """The beginning of a sequence of the task in which many different triggers come again, and no pair often.

    Of 1,024 sequences, without those in which a trigger follows a trigger or a pair of neighbours comes more than
    three times here: the one with most different triggers at positions that count, then with most such positions.

    >>> example(preset("all", "notebook")).shape
    torch.Size([24])
    """
    require_count("length", length, 2)
    drawn = config.task.sample(1024, torch.Generator().manual_seed(3))
    read, counts = drawn.tokens[:, :length], drawn.counts[:, :length]
    pairs = config.task.N * read[:, :-1] + read[:, 1:]
    often = (pairs[:, :, None] == pairs[:, None]).sum(2).amax(1)
    again = torch.stack([((read == q) & counts).any(1) for q in config.task.triggers]).sum(0)
    plain = ~torch.isin(drawn.outputs, drawn.triggers).any(1) & (often <= 3)
    return read[((length * again + counts.sum(1)) * plain).argmax()]
