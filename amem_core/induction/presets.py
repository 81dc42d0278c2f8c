"""What a training run is: one configuration, and those of Figure 7 of [CSB24] at three sizes.

On a CPU ``"notebook"`` takes seconds, ``"laptop"`` minutes at most; ``"paper"`` is the size in print, for a GPU.
Figure 7: 16,384 fixed sequences of 256 characters, gradient descent without momentum. Mini-batches: [BCBJB23].
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import torch

from amem_core.induction.model import SCHEMES, TRAINED, Weights
from amem_core.induction.task import BigramTask
from amem_core.validation import require, require_count, require_positive

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SCALES = ("notebook", "laptop", "paper")
RATES = {"output": (20.0, 50.0, 100.0, 200.0), "all": (2.0, 5.0, 10.0, 20.0)}  # of Figure 7, top and bottom


@dataclass(frozen=True)
class TrainingConfig:
    """A training run: everything that its numbers depend on.

    Parameters
    ----------
    d, scheme, scaled, zero, dtype : the weights, as in ``Weights.draw``; dtype by name
    K, length, no_repeat, random_triggers : the task, as in ``BigramTask.shakespeare``
    sequences : B, number of sequences of each step
    fresh : other sequences at every step, instead of the same ones
    held_out : number of other sequences for loss and accuracy at recorded steps, or 0
    trained : names of the trained matrices
    rate, momentum, weight_decay : of the descent: ``v <- momentum v + gradient + weight_decay W``, ``W <- W - rate v``
    steps : number of steps
    record_every : steps between records; the last step is recorded too
    seed, seed_data, seed_held_out : of the weights, of the sequences and of those held out; the last two differ
    tf32 : products of matrices in TF32 where a GPU has it

    Raises
    ------
    ValueError
        For a value outside what is allowed.

    Examples
    --------
    >>> config = TrainingConfig(d=16, length=32, sequences=8, rate=1.0, steps=10)
    >>> config.task.N, config.weights().d, config.digest == TrainingConfig(**vars(config)).digest
    (63, 16, True)
    """

    d: int
    rate: float
    steps: int
    sequences: int
    length: int = 256
    K: int = 5
    no_repeat: bool = False
    random_triggers: bool = False
    fresh: bool = False
    held_out: int = 0
    trained: tuple[str, ...] = TRAINED
    momentum: float = 0.0
    weight_decay: float = 0.0
    record_every: int = 1
    scheme: str = "code"
    scaled: bool = True
    zero: tuple[str, ...] = ()
    dtype: str = "float32"
    tf32: bool = False
    seed: int = 0
    seed_data: int = 1
    seed_held_out: int = 2

    def __post_init__(self) -> None:
        for name in ("d", "K", "sequences", "record_every", "steps"):
            require_count(name, getattr(self, name))
        require_count("length", self.length, 2)
        for name in ("held_out", "seed", "seed_data", "seed_held_out"):
            value = require_count(name, getattr(self, name), 0)
            require(value < 2**63, name, value, "a whole number below 2**63")
        for name in ("rate", "weight_decay", "momentum"):
            object.__setattr__(self, name, require_positive(name, getattr(self, name), zero=True))
        require(self.momentum < 1, "momentum", self.momentum, "0 <= momentum < 1")
        for name in ("no_repeat", "random_triggers", "fresh", "scaled", "tf32"):
            require(isinstance(getattr(self, name), bool), name, repr(getattr(self, name)), "True or False")
        for name, least in (("trained", 1), ("zero", 0)):
            value = getattr(self, name)
            known = isinstance(value, tuple) and all(entry in TRAINED for entry in value)
            known = known and len(set(value)) == len(value) >= least
            require(known, name, repr(value), f"a tuple of {least} or more different names from {TRAINED}")
        for name, allowed in (("scheme", SCHEMES), ("dtype", tuple(DTYPES))):
            require(getattr(self, name) in allowed, name, repr(getattr(self, name)), f"one of {allowed}")
        same = self.seed_data == self.seed_held_out
        require(not same, "seed_held_out", self.seed_held_out, "another number than seed_data")
        require(self.K <= self.task.N, "K", self.K, f"at most N = {self.task.N}")

    @property
    def task(self) -> BigramTask:
        """The distribution of sequences."""
        return BigramTask.shakespeare(
            self.K, self.length, no_repeat=self.no_repeat, random_triggers=self.random_triggers
        )

    def weights(self, device: torch.device | str | None = None) -> Weights:
        """The weights before the first step."""
        kind = {"scheme": self.scheme, "zero": self.zero, "scaled": self.scaled, "dtype": DTYPES[self.dtype]}
        return Weights.draw(self.task.N, self.length, self.d, self.seed, **kind, device=device)

    @property
    def digest(self) -> str:
        """SHA-256 of all values, by which a checkpoint knows its run."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


# rates: of those of the figure, ones that descend
_OUTPUT = TrainingConfig(d=64, rate=100.0, steps=50, sequences=16_384, trained=("W_O2",))
_ALL = TrainingConfig(d=128, rate=5.0, steps=300, sequences=16_384)
_BATCHES = replace(
    _ALL, rate=0.2, steps=540, sequences=128, fresh=True, held_out=512, momentum=0.9, weight_decay=1e-4, record_every=20
)
_PRESETS = {
    "output": {
        "notebook": replace(_OUTPUT, sequences=256, length=128),
        "laptop": replace(_OUTPUT, sequences=2_048),
        "paper": _OUTPUT,
    },
    "all": {
        "notebook": replace(_ALL, d=64, sequences=64, length=128, steps=100),
        "laptop": replace(_ALL, sequences=512),
        "paper": _ALL,
    },
    "mini-batch": {
        "notebook": replace(_BATCHES, d=64, sequences=64, length=128, steps=100, held_out=64),
        "laptop": replace(_BATCHES, held_out=256),
        "paper": _BATCHES,
    },
}


def preset(experiment: str, scale: str = "notebook", **changes: object) -> TrainingConfig:
    """A run of the paper at one of three sizes.

    Parameters
    ----------
    experiment : ``"output"``: Figure 7, top, ``W_O2`` alone; ``"all"``: Figure 7, bottom, all three matrices;
        ``"mini-batch"``: fresh sequences at each step, with momentum and weight decay
    scale : ``"notebook"``, ``"laptop"`` or ``"paper"``
    changes : fields of the configuration with other values; the rates of Figure 7 are in ``RATES``

    Raises
    ------
    ValueError
        For an unknown experiment, scale or field, or a value outside what is allowed.

    Examples
    --------
    >>> preset("output", "paper", rate=20.0).sequences
    16384
    """
    require(experiment in tuple(_PRESETS), "experiment", repr(experiment), f"one of {tuple(_PRESETS)}")
    require(scale in SCALES, "scale", repr(scale), f"one of {SCALES}")
    unknown = sorted(set(changes) - set(TrainingConfig.__dataclass_fields__))
    require(not unknown, "changes", unknown, "fields of TrainingConfig")
    return replace(_PRESETS[experiment][scale], **changes)
