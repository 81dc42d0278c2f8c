"""The recorded runs of Part IV: what chapters 11 and 13 plot besides what they run.

    python -m amem_core.induction.record NAME ...
    python -m amem_core.induction.record --help
    torchrun --nproc-per-node 2 -m amem_core.induction.record figure-7-top figure-7-bottom-128

Writes NAME.npz and NAME.json into ``book/recorded``; the names and settings are in
:mod:`amem_core.induction.recordings`. Each run of a recording has a checkpoint of its own, in a folder under a name
that ends in a digest of its configuration and of the code that computes: interrupted, the command goes on where it
stopped, and what other settings or code have made is not read. Runs on a GPU where there is one.

Letters: ``R`` runs, ``S`` recorded steps, ``N`` tokens, ``A`` steps with maps of attention, ``L`` positions of the
example that they are of, ``H`` sequences held out.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amem_core import recorded
from amem_core.induction import chunks, fast, features, general, general_training, model, probes, task
from amem_core.induction.distributed import team
from amem_core.induction.general import GeneralConfig
from amem_core.induction.general_training import GeneralRun, train_general
from amem_core.induction.model import SimplifiedTransformer, Weights
from amem_core.induction.presets import TrainingConfig
from amem_core.induction.recordings import RECORDINGS, Recording, example
from amem_core.induction.training import Run, train
from amem_core.validation import require

MAPS = 12  # A, of the simplified transformer
SHOWN = (1, 41, 56, 51, 37, 0, 39, 15, 10, 27)  # tokens of rank 0-4 (the triggers), 10, 20, 30, 45, 60 by frequency
SHOWN_LENGTH = 80  # L, of the general transformer
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COMPUTES = {
    TrainingConfig: (task, model, fast, chunks, features, probes),
    GeneralConfig: (task, general, general_training),
}


def observer(config: TrainingConfig | GeneralConfig, maps: bool) -> Callable[..., dict[str, Tensor]]:
    """What is recorded besides: seconds of the clock and of processors since the last record; maps of attention."""
    clocks, maps = [[time.monotonic(), time.process_time()]], maps and isinstance(config, TrainingConfig)
    tokens = example(config)[None] if maps else None

    def observe(weights: Weights | torch.nn.Module) -> dict[str, Tensor]:
        now = [time.monotonic(), time.process_time()]
        values = {"seconds": torch.tensor([b - a for a, b in zip(clocks[-1], now, strict=True)])}
        clocks[:] = [now]
        if maps:
            with torch.no_grad():
                _, *found = SimplifiedTransformer(weights)(tokens.to(weights.p.device), maps=True)
            values["maps"] = torch.cat(found).mul(255).round().to(torch.uint8)
        return values

    return observe


def arrays_of(run: Run | GeneralRun) -> dict[str, np.ndarray]:
    """What is kept of a run.

    Of the general transformer its losses and accuracies (S,), and ``"held-out right"``, ``"held-out counted"`` (H,):
    positions that are right after the last step, and that count. Of the simplified one every history of one number a
    step, and ``"margins W_O2"`` and ``"margins W_K2"`` (S, 10) of the tokens in ``SHOWN``, ``"margin quantiles NAME"``
    (S, 5) over all tokens or positions, ``"maps"`` (A, 2, L, L) in units of 1/255 at ``"map steps"`` (A,).
    """
    kept = {"steps": run.steps.numpy()}
    if isinstance(run, GeneralRun):
        values = {name: run.history[name].numpy() for name in ("loss", "held-out loss", "held-out accuracy")}
        right = {"held-out right": run.history["held-out right"][-1].numpy().astype(np.int16)}
        return kept | values | right | {"held-out counted": run.counted.numpy().astype(np.int16)}
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    for name, values in run.history.items():
        if name.startswith("margin "):
            short = name.removeprefix("margin ")
            quantiles = torch.quantile(values.double(), levels, dim=1).mT
            kept[f"margin quantiles {short}"] = quantiles.float().numpy()
            if short != "W_K1":
                kept[f"margins {short}"] = values[:, list(SHOWN)].float().numpy()
        elif name == "maps":
            at = np.unique(np.geomspace(1, len(run.steps), MAPS).round().astype(int)) - 1
            kept |= {"map steps": run.steps.numpy()[at], "maps": values.numpy()[at]}
        elif name != "seconds":
            kept[name] = values.numpy().astype(np.float32)
    return kept


def attention_of(runs: Sequence[GeneralRun]) -> dict[str, np.ndarray]:
    """Of the first run with one layer and the first with two: attention of the first head, what is said, what is read.

    ``"maps one"`` (A, 1, L, L), ``"maps two"`` (A, 2, L, L) in units of 1/255 at ``"map steps"`` (A,);
    ``"predicted one"``, ``"predicted two"`` (A, L); ``"maps tokens"`` (L + 1,), one more than are read.
    """
    kept = {}
    for layers, word in ((1, "one"), (2, "two")):
        run = next(run for run in runs if run.config.layers == layers)
        here = slice(0, SHOWN_LENGTH)
        maps = run.maps[:, :, 0, here, here].mul(255).round().to(torch.uint8)
        kept |= {f"maps {word}": maps.numpy(), f"predicted {word}": run.predicted[:, here].numpy().astype(np.int16)}
        kept |= {"maps tokens": run.tokens[: SHOWN_LENGTH + 1].numpy(), "map steps": run.map_steps.numpy()}
    return kept


def code_digest(kind: type) -> str:
    """SHA-256 of the modules that compute runs of this kind."""
    texts = [Path(module.__file__).read_bytes() for module in COMPUTES[kind]]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def record(
    name: str,
    recording: Recording,
    *,
    checkpoints: Path,
    out: Path,
    device: str | None = None,
    progress: bool = True,
    every: int = 10,
) -> None:
    """Run what is not yet run, and write both files.

    Parameters
    ----------
    name, recording : what to record, and under which name
    checkpoints : folder of the checkpoints
    out : folder of the two files
    device : ``None`` for a GPU where there is one
    every : steps between two checkpoints
    """
    us, place = team(device)
    checkpoints.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    kind = type(recording.runs[0])
    code, runs, described, work = code_digest(kind), [], [], train if kind is TrainingConfig else train_general
    for number, config in enumerate(recording.runs):
        path = checkpoints / f"{name}-{number}-{config.digest[:12]}-{code[:12]}.ckpt"
        options = {"checkpoint": path, "checkpoint_every": every, "device": device, "progress": progress}
        runs.append(work(config, **options, observe=observer(config, recording.maps)))
        wall, processors = runs[-1].history["seconds"].sum(0).tolist()
        seconds = {"wall_seconds": round(wall, 1), "processor_seconds": round(processors, 1)}
        described.append({**asdict(config), "digest": config.digest, **seconds})
        if us.leads:
            print(f"{name}: run {number + 1} of {len(recording.runs)}, {wall:.0f} s", flush=True)
    if not us.leads:
        return
    arrays = _stacked([arrays_of(run) for run in runs]) | _settings(recording.runs)
    if recording.maps:
        more = {"example": example(recording.runs[0]).numpy()} if kind is TrainingConfig else attention_of(runs)
        arrays |= more
    words = {
        "what": recording.what,
        "made_by": f"python -m amem_core.induction.record {name}",
        "hardware": recorded.hardware(place) + (f", {us.size} processes" if us.size > 1 else ""),
        "code_sha256": code,
        "runs": described,
    }
    recorded.save(name, arrays, words, out)


def _stacked(kept: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One row a run; what all runs share, once."""
    shared = ("steps", "map steps")
    for key in shared:
        same = all(np.array_equal(rows.get(key), kept[0].get(key)) for rows in kept)
        require(same, "runs", f"different {key}", "the same steps recorded in all of them")
    arrays = {key: np.stack([rows[key] for rows in kept]) for key in kept[0] if key not in shared}
    return arrays | {key: kept[0][key] for key in shared if key in kept[0]}


def _settings(runs: Sequence[TrainingConfig | GeneralConfig]) -> dict[str, np.ndarray]:
    """What differs from run to run, (R,) each; matrices that start at zero, as words."""
    columns = {key: [asdict(config)[key] for config in runs] for key in asdict(runs[0])}
    columns = {
        key: [" ".join(map(str, v)) if isinstance(v, tuple) else v for v in column] for key, column in columns.items()
    }
    always = ("d", "rate", "seed", "sequences")
    return {key: np.array(column) for key, column in columns.items() if key in always or len(set(column)) > 1}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m amem_core.induction.record", description=__doc__.split("\n")[0])
    names = sorted(RECORDINGS)
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--out", type=Path, default=recorded.HOME, help="folder of the result")
    parser.add_argument("--checkpoints", type=Path, default=recorded.HOME.parents[1] / "build" / "recorded")
    parser.add_argument("--device", default=None, help="a GPU where there is one")
    parser.add_argument("--sequences", type=int, default=None, help="other than the paper's 16,384")
    options = parser.parse_args(arguments)
    places = {"checkpoints": options.checkpoints, "out": options.out, "device": options.device}
    for name in options.names:
        recording = RECORDINGS[name]()
        if options.sequences is not None:
            runs = tuple(replace(config, sequences=options.sequences) for config in recording.runs)
            recording = replace(recording, runs=runs)
        record(name, recording, **places, progress=sys.stderr.isatty())


if __name__ == "__main__":
    sys.exit(main())
