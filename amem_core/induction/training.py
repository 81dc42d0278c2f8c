"""Gradient descent on the simplified transformer, recorded, and safe against being stopped.

Letters: ``R`` recorded steps, ``N`` tokens, ``T`` positions. Step ``s`` computes loss and gradients at the weights
after ``s`` updates; the records of step ``s`` are of these weights, those of the last step after all updates.

A checkpoint (:mod:`amem_core.induction.checkpoint`) holds weights, momenta, the generator's state and all records; a
run that goes on from it on a CPU, with as many processes and the same chunk, ends bit for bit as if it had never been
stopped.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm.auto import tqdm

from amem_core.induction.checkpoint import Records, checkpoint_path, read_checkpoint, write_checkpoint
from amem_core.induction.distributed import Sums, Team, team
from amem_core.induction.fast import loss_and_gradients
from amem_core.induction.features import features_loss_and_gradient, fixed_features
from amem_core.induction.model import TRAINED, Weights
from amem_core.induction.presets import TrainingConfig
from amem_core.induction.probes import margins, recall_probes
from amem_core.induction.task import Sequences
from amem_core.validation import finite, require, require_count


@dataclass(frozen=True, eq=False)
class Run:
    """A training run that has come to its end.

    Parameters
    ----------
    config : what was run
    weights : those after the last step
    steps : (R,) recorded steps
    history : by name, one row for each recorded step: ``"loss"``, ``"accuracy"``, with sequences held out
        ``"held-out loss"``, ``"held-out accuracy"``; ``"probe NAME"`` as in ``recall_probes``; ``"margin W_O2"`` and
        ``"margin W_K2"`` (R, N), ``"margin W_K1"`` (R, T - 1)
    """

    config: TrainingConfig
    weights: Weights
    steps: Int64[Tensor, " R"]
    history: dict[str, Float[Tensor, "R ..."]]


@dataclass
class State(Records):
    """All that changes during a run: what a checkpoint holds."""

    weights: Weights
    momenta: dict[str, Tensor]
    generator: torch.Generator

    @classmethod
    def at_the_start(cls, config: TrainingConfig, device: torch.device) -> "State":
        """Nothing learned, nothing recorded."""
        weights = config.weights(device)
        momenta = {name: torch.zeros_like(getattr(weights, name)) for name in TRAINED if name in config.trained}
        return cls(weights, momenta, torch.Generator().manual_seed(config.seed_data))

    def update(self, config: TrainingConfig, gradients: dict[str, Tensor]) -> None:
        """One step of descent."""
        changed = {}
        for name, momentum in self.momenta.items():
            W = getattr(self.weights, name)
            momentum.mul_(config.momentum).add_(gradients[name]).add_(W, alpha=config.weight_decay)
            changed[name] = finite(name, W - config.rate * momentum)
        self.weights = self.weights.replace(**changed)


def train(
    config: TrainingConfig,
    *,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 50,
    chunk: int | None = None,
    progress: bool = True,
    observe: Callable[[Weights], dict[str, Tensor]] | None = None,
) -> Run:
    """Train the simplified transformer; under ``torchrun``, on all processes together.

    Parameters
    ----------
    config : the run
    device : ``None`` for a GPU where there is one
    checkpoint : file to go on from, if it is there, and to write; all processes must see it. ``None`` for none
    checkpoint_every : steps between two checkpoints; the end is written too
    chunk : sequences that are worked on together, as in ``loss_and_gradients``
    progress : show a bar
    observe : more tensors by name to be recorded, as a function of the weights

    Raises
    ------
    ValueError
        For a checkpoint that is damaged, of another run or no checkpoint at all (it stays as it is), a folder that
        does not exist, fewer sequences than processes, processes that see different checkpoints, a run that goes on
        with other things observed.
    OverflowError
        When loss, a gradient or a weight leaves the range of the dtype; the step is named.

    Examples
    --------
    >>> config = TrainingConfig(d=8, length=16, sequences=8, rate=1.0, steps=4, record_every=2)
    >>> run = train(config, device="cpu")
    >>> run.steps.tolist(), run.history["loss"].shape, run.history["margin W_K1"].shape
    ([0, 2, 4], torch.Size([3]), torch.Size([3, 15]))
    """
    require(isinstance(config, TrainingConfig), "config", type(config).__name__, "a TrainingConfig")
    for name, count in (("checkpoint_every", checkpoint_every), ("chunk", 1 if chunk is None else chunk)):
        require_count(name, count)
    require(observe is None or callable(observe), "observe", repr(observe), "a function of the weights, or None")
    path = checkpoint_path(checkpoint)
    held = _read(path, config) if path is not None and path.exists() else None
    us, place = team(device)
    for name in ("sequences", "held_out"):
        count = getattr(config, name)
        require(count == 0 or count >= us.size, name, count, f"at least one for each of {us.size} processes")
    state = State.at_the_start(config, place)
    if held is not None:
        _restore(state, held, place)
    us.require_agreement("checkpoint", state.step, place)
    _descend(config, state, us, place, path, checkpoint_every, chunk, progress, observe)
    us.wait()  # for the last checkpoint
    history = {name: torch.stack(rows) for name, rows in state.history.items()}
    return Run(config, state.weights, torch.tensor(state.steps), history)


def _descend(
    config: TrainingConfig,
    state: State,
    us: Team,
    place: torch.device,
    path: Path | None,
    checkpoint_every: int,
    chunk: int | None,
    progress: bool,
    observe: Callable[[Weights], dict[str, Tensor]] | None,
) -> None:
    """From the state's step to the end, the last record included."""
    task, options = config.task, {"chunk": chunk, "tf32": config.tf32}
    held_out = None
    if config.held_out:
        apart = torch.Generator().manual_seed(config.seed_held_out)
        held_out = us.share(task.sample(config.held_out, apart)).to(place)
    evaluate = None
    if state.step <= config.steps and not config.fresh:
        same = us.share(task.sample(config.sequences, torch.Generator().manual_seed(config.seed_data))).to(place)
        evaluate = _on_fixed(config, state.weights, same, options)
    hidden = not (progress and us.leads)
    with tqdm(initial=state.step, total=config.steps + 1, disable=hidden, delay=5, leave=False) as bar:
        while state.step <= config.steps:
            if config.fresh:
                batch = us.share(task.sample(config.sequences, state.generator)).to(place)
                evaluate = _on_fixed(config, state.weights, batch, options, once=True)
            last = state.step == config.steps
            try:
                found = us.mean(*evaluate(state.weights))
                if last or state.step % config.record_every == 0:
                    more = {} if observe is None else observe(state.weights)
                    state.record(_observe(config, state.weights, found, held_out, us, options) | more)
                if not last:
                    state.update(config, found[1])
            except OverflowError as error:
                raise OverflowError(f"step {state.step}: {error}") from error
            state.step += 1
            if path is not None and us.leads and (last or state.step % checkpoint_every == 0):
                _write(path, config, state)
            bar.update()


def _on_fixed(
    config: TrainingConfig, weights: Weights, sequences: Sequences, options: dict, once: bool = False
) -> Callable[[Weights], tuple[Sums, int]]:
    """Loss, gradients and accuracy on some sequences as a function of the weights, and their loss positions."""
    positions = int(sequences.counts.sum())
    if config.trained != ("W_O2",) or once:
        return lambda now: (loss_and_gradients(now, sequences, trained=config.trained, **options), positions)
    features = fixed_features(weights, sequences, chunk=options["chunk"])

    def convex(now: Weights) -> tuple[Sums, int]:
        loss, gradient, accuracy = features_loss_and_gradient(now.W_O2, features)
        return (loss, {"W_O2": gradient}, accuracy), positions

    return convex


def _observe(
    config: TrainingConfig, weights: Weights, found: Sums, held_out: Sequences | None, us: Team, options: dict
) -> dict[str, Tensor]:
    """What is recorded of a step."""
    values = {"loss": found[0], "accuracy": found[2]}
    if held_out is not None:
        here = loss_and_gradients(weights, held_out, trained=(), **options)
        values["held-out loss"], _, values["held-out accuracy"] = us.mean(here, int(held_out.counts.sum()))
    triggers = config.task.triggers
    triggers = None if triggers is None or config.K < 2 else triggers.to(weights.p.device)
    for name, value in recall_probes(weights, triggers).items():
        values[f"probe {name}"] = torch.tensor(value, dtype=torch.float64)
    return values | {f"margin {name}": margins(weights, name) for name in TRAINED}


def _write(path: Path, config: TrainingConfig, state: State) -> None:
    """The state as a checkpoint."""
    content = {
        "step": state.step,
        "weights": {name: getattr(state.weights, name).cpu() for name in state.momenta},
        "momenta": {name: momentum.cpu() for name, momentum in state.momenta.items()},
        "generator": state.generator.get_state(),
        "steps": torch.tensor(state.steps, dtype=torch.int64),
        "history": {name: torch.stack(rows) for name, rows in state.history.items()},
    }
    write_checkpoint(path, config.digest, content)


def _read(path: Path, config: TrainingConfig) -> dict:
    """What a checkpoint of this run holds, or ``ValueError``; the file stays as it is."""
    return read_checkpoint(path, config.digest)


def _restore(state: State, held: dict, device: torch.device) -> None:
    """Set the state to what a checkpoint holds."""
    state.step = held["step"]
    state.weights = state.weights.replace(**{name: W.to(device) for name, W in held["weights"].items()})
    state.momenta = {name: momentum.to(device) for name, momentum in held["momenta"].items()}
    state.generator.set_state(held["generator"])
    state.steps = held["steps"].tolist()
    state.history = {name: list(rows) for name, rows in held["history"].items()}
