"""AdamW on the general transformer: fresh sequences at every step, recorded, and safe against being stopped.

Letters: ``R`` recorded steps, ``H`` sequences held out, ``A`` steps with maps of attention, ``L`` layers, ``T``
positions. Step ``s`` computes the loss at the weights after ``s`` updates; the records of step ``s`` are of these
weights. A run that goes on from a checkpoint (:mod:`amem_core.induction.checkpoint`) on a CPU with as many threads ends
bit for bit as if it had never been stopped.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from amem_core.induction.checkpoint import Records, checkpoint_path, read_checkpoint, write_checkpoint
from amem_core.induction.distributed import team
from amem_core.induction.general import GeneralConfig, GeneralTransformer
from amem_core.induction.task import Sequences
from amem_core.validation import finite, make_generator, require, require_count

BETAS = (0.9, 0.99)  # of AdamW: its two averages forget after about 10 and 100 steps
CHUNK = 32  # sequences that are evaluated together


@dataclass(frozen=True, eq=False)
class GeneralRun:
    """A training run of the general transformer that has come to its end.

    Parameters
    ----------
    config : what was run
    model : the transformer after the last step
    steps : (R,) recorded steps
    history : by name, one row for each recorded step: ``"loss"`` (of the step's own sequences), ``"held-out loss"``,
        ``"held-out accuracy"`` over all positions that count, and ``"held-out right"`` (R, H), the number of those
        positions of each sequence that were right; what ``observe`` gives
    counted : (H,) number of positions that count in each sequence held out
    tokens : (T,) the sequence that the maps are of
    map_steps : (A,) steps at which attention was kept
    maps : (A, L, heads, T, T) the attention on that sequence
    predicted : (A, T) the most probable next token at each of its positions
    """

    config: GeneralConfig
    model: GeneralTransformer
    steps: Int64[Tensor, " R"]
    history: dict[str, Tensor]
    counted: Int64[Tensor, " H"]
    tokens: Int64[Tensor, " T"]
    map_steps: Int64[Tensor, " A"]
    maps: Float[Tensor, "A L heads T T"]
    predicted: Int64[Tensor, "A T"]


def positions_right(
    model: torch.nn.Module, sequences: Sequences, chunk: int = CHUNK
) -> tuple[Bool[Tensor, "B T"], Float[Tensor, ""]]:
    """Where the largest logit is that of the next token, (B, T), and the mean loss over the positions that count.

    The mean is 0 when no position counts.

    >>> task = GeneralConfig(length=16).task
    >>> batch = task.sample(4, torch.Generator().manual_seed(0))
    >>> right, loss = positions_right(GeneralTransformer(63, 16, 8), batch)
    >>> right.shape, loss.item() > 0
    (torch.Size([4, 16]), True)
    """
    require_count("chunk", chunk)
    right, total = [], 0.0
    with torch.no_grad():
        for begin in range(0, len(sequences), chunk):
            part = sequences[begin : begin + chunk]
            logits = model(part.inputs)
            right.append(logits.argmax(-1) == part.targets)
            total = total + cross_entropy(logits[part.counts], part.targets[part.counts], reduction="sum")
    return torch.cat(right), total / sequences.counts.sum().clamp(min=1)


def accuracy_interval(
    right: Int64[Tensor, " B"], counted: Int64[Tensor, " B"], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Accuracy over the positions that count, with the ends of its bootstrap interval over sequences.

    Positions of one sequence are not independent, so whole sequences are drawn again, with replacement.

    Parameters
    ----------
    right, counted : (B,) of each sequence, positions that are right and positions that count
    level : probability of the interval
    draws : number of bootstrap samples

    Raises
    ------
    ValueError
        Where no position counts, more are right than count, or the level is not between 0 and 1.

    Examples
    --------
    >>> accuracy_interval(torch.tensor([0, 10]), torch.tensor([10, 10]))
    (0.5, 0.0, 1.0)
    """
    for name, value in (("right", right), ("counted", counted)):
        whole = isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 1 and len(value) >= 1
        require(whole and len(value) == len(right), name, getattr(value, "shape", value), "integers (B,), B of right")
    require(bool(((right >= 0) & (right <= counted)).all()), "right", right.tolist()[:5], "0 to counted")
    require(int(counted.sum()) > 0, "counted", "a sum of 0", "at least one position that counts")
    require(0 < level < 1, "level", level, "0 < level < 1")
    picks = torch.randint(len(right), (require_count("draws", draws), len(right)), generator=make_generator(seed))
    again = right.cpu()[picks].sum(1).double() / counted.cpu()[picks].sum(1)  # 0 / 0 where nothing that counts is drawn
    ends = torch.nanquantile(again, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return (right.sum() / counted.sum()).item(), *ends.tolist()


@dataclass
class _State(Records):
    """All that changes during a run: what a checkpoint holds."""

    model: GeneralTransformer
    optimiser: torch.optim.AdamW
    generator: torch.Generator
    maps: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)

    @classmethod
    def at_the_start(cls, config: GeneralConfig, device: torch.device) -> "_State":
        model = config.model().to(device)
        options = {"lr": config.rate, "betas": BETAS, "weight_decay": config.weight_decay}
        optimiser = torch.optim.AdamW(model.parameters(), **options)
        return cls(model, optimiser, torch.Generator().manual_seed(config.seed_data))

    def update(self, config: GeneralConfig, loss: Tensor) -> None:
        """One step of AdamW."""
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate_at(self.step)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def write(self, path: Path, config: GeneralConfig) -> None:
        """A checkpoint."""
        content = {"step": self.step, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        content |= {"generator": self.generator.get_state(), "steps": self.steps, "history": self.history}
        write_checkpoint(path, config.digest, content | {"maps": self.maps, "predicted": self.predicted})

    def restore(self, held: dict) -> None:
        """What a checkpoint holds."""
        self.model.load_state_dict(held["model"])
        self.optimiser.load_state_dict(held["optimiser"])
        self.generator.set_state(held["generator"])
        for name in ("step", "steps", "history", "maps", "predicted"):
            setattr(self, name, held[name])


def train_general(
    config: GeneralConfig,
    *,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
    observe: Callable[[GeneralTransformer], dict[str, Tensor]] | None = None,
) -> GeneralRun:
    """Train the general transformer on fresh sequences.

    Parameters
    ----------
    config : the run
    device : ``None`` for a GPU where there is one
    checkpoint : file to go on from, if it is there, and to write; ``None`` for none
    checkpoint_every : steps between two checkpoints; the end is written too
    progress : show a bar
    observe : more tensors by name to be recorded, as a function of the model

    Raises
    ------
    ValueError
        For a checkpoint that is damaged, of another run or no checkpoint at all (it stays as it is), a folder that
        does not exist, a run that goes on with other things observed.
    OverflowError
        When the loss leaves the range of float32; the step is named.

    Examples
    --------
    >>> from dataclasses import replace
    >>> config = GeneralConfig(d=8, length=16, sequences=8, held_out=5, warm_up=1, steps=4, record_every=2)
    >>> run = train_general(replace(config, maps_at=(4,)), device="cpu")
    >>> run.steps.tolist(), run.history["held-out right"].shape, run.maps.shape
    ([0, 2, 4], torch.Size([3, 5]), torch.Size([1, 2, 1, 16, 16]))
    """
    require(isinstance(config, GeneralConfig), "config", type(config).__name__, "a GeneralConfig")
    require_count("checkpoint_every", checkpoint_every)
    require(observe is None or callable(observe), "observe", repr(observe), "a function of the model, or None")
    path = checkpoint_path(checkpoint)
    held = read_checkpoint(path, config.digest) if path is not None and path.exists() else None
    us, place = team(device)
    require(us.size == 1, "WORLD_SIZE", us.size, "1: this model trains in one process")
    state = _State.at_the_start(config, place)
    if held is not None:
        state.restore(held)
    held_out = config.task.sample(config.held_out, torch.Generator().manual_seed(config.seed_held_out)).to(place)
    with tqdm(initial=state.step, total=config.steps + 1, disable=not progress, delay=5, leave=False) as bar:
        while state.step <= config.steps:
            _advance(config, state, held_out, observe)
            if path is not None and (state.step > config.steps or state.step % checkpoint_every == 0):
                state.write(path, config)
            bar.update()
    history = {name: torch.stack(rows) for name, rows in state.history.items()}
    shown, shape = held_out.inputs[config.shown].cpu(), (config.layers, config.heads, config.length, config.length)
    maps = torch.stack(state.maps) if state.maps else torch.empty(0, *shape)
    predicted = torch.stack(state.predicted) if state.predicted else torch.empty(0, config.length, dtype=torch.int64)
    counted, steps = held_out.counts.sum(1).cpu(), torch.tensor(state.steps)
    at = torch.tensor(config.maps_at, dtype=torch.int64)
    return GeneralRun(config, state.model, steps, history, counted, shown, at, maps, predicted)


def _advance(
    config: GeneralConfig, state: _State, held_out: Sequences, observe: Callable[..., dict[str, Tensor]] | None
) -> None:
    """The records of a step, and its update."""
    model, step = state.model, state.step
    batch = config.task.sample(config.sequences, state.generator, held_out.tokens.device)
    where = torch.ones_like(batch.counts) if config.everywhere else batch.counts
    total = cross_entropy(model(batch.inputs)[where], batch.targets[where], reduction="sum")
    try:
        loss = finite("loss", total / where.sum().clamp(min=1))
    except OverflowError as error:
        raise OverflowError(f"step {step}: {error}") from error
    if step % config.record_every == 0 or step == config.steps:
        right, apart = positions_right(model, held_out)
        right = (right & held_out.counts).sum(1)
        values = {"loss": loss, "held-out loss": apart, "held-out right": right}
        values["held-out accuracy"] = right.sum() / held_out.counts.sum().clamp(min=1)
        state.record(values | ({} if observe is None else observe(model)))
    if step in config.maps_at:
        with torch.no_grad():
            logits, maps = model(held_out.inputs[config.shown][None], maps=True)
        state.maps.append(maps[0].cpu())
        state.predicted.append(logits[0].argmax(-1).cpu())
    if step < config.steps:
        state.update(config, loss)
    state.step += 1
