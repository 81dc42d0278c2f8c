"""What chapter 10 reads: five thousand tokens under gradient descent, and which small problems are separable.

    python book/recorded/many_tokens.py            # about twelve minutes of processor time
    python book/recorded/many_tokens.py --help

Writes many-tokens.npz and, beside it, many-tokens.json with settings, versions, digests and durations. Interrupted,
it goes on where it stopped, and the results are the same bit for bit; checkpoints lie in build/recorded, under names
that end in a digest of settings, code and versions: what other settings or code have made is not read. Runs on a GPU
where there is one.

Letters: ``N`` tokens and as many classes, ``f*(x) = x``, ``d`` dimension, ``R`` runs (one a dimension, rate and
seed), ``T`` recorded steps, ``B`` bands of ranks, ``Q`` quantiles, ``C`` cells of the map of separability, ``A`` runs
and ``L`` last steps at which only the number of recalled tokens is kept.
"""

import argparse
import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy
import torch
from tqdm.auto import tqdm

from amem_core import AssociationProblem, recorded, zipf_frequencies
from amem_core.files import npz_bytes, replace_files
from amem_core.landscape import separable
from amem_core.memory import gradient_of, residuals, scores_of, tightest_of, token_losses

ROOT = Path(__file__).resolve().parents[2]
N_TOKENS, RATES = 5000, (300.0, 3000.0, 30000.0)
SEEDS = {64: (1, 2, 3), 256: (1,), 1024: (1,)}  # d: the seeds of its draws
TIMES = (*range(17), *range(20, 65, 4))  # the last is the number of steps
CROWDED, LAST = 64, range(45, 65)  # the dimension without room: counts at each of these steps too
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# d: the numbers of tokens N = M, and the draws (the seeds 0, 1, ...) at each
MAP = {2: (range(3, 8), 200), 3: (range(4, 11), 200), 4: (range(5, 15), 200), 5: (range(6, 18), 200),
       6: (range(7, 22), 200), 8: (range(9, 32, 2), 200), 10: (range(11, 48, 4), 60)}  # fmt: skip
FIGURE_6 = [(2, 5, 1000), (3, 5, 1000), (4, 5, 1000)]
SECONDS_BETWEEN_CHECKPOINTS = 20.0


def problem_of(N: int, d: int, seed: int, device: str = "cpu") -> AssociationProblem:
    """``N`` tokens and classes, embeddings uniform on the sphere, ``p(x)`` proportional to ``1/x``, float32."""
    exact = AssociationProblem.spherical(N, N, d, seed=seed, p=zipf_frequencies(N))
    return exact.to(torch.float32, device)


def bands(N: int) -> list[tuple[int, int]]:
    """Ranks by decade, from 0: ``(0, 10), (10, 100), ...``, the last one ending at ``N``."""
    ends = [10**k for k in range(1, len(str(N))) if 10**k < N] + [N]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def measure(w: torch.Tensor, problem: AssociationProblem) -> dict[str, np.ndarray]:
    """What is kept of the scores ``w`` (N, N) of one step: see ``main``. Sums in double precision."""
    m, p = tightest_of(w, problem.targets), problem.p.double()
    levels = torch.tensor(QUANTILES, dtype=m.dtype, device=m.device)
    row = {
        "loss": (p * token_losses(w, problem.targets).double()).sum(),
        "zero_one_loss": (p * (m <= 0)).sum(),
        "quantiles": torch.quantile(m, levels),
        "band_medians": torch.stack([m[a:b].median() for a, b in bands(problem.N)]),
    }
    row = {name: value.cpu().numpy() for name, value in row.items()}
    return row | {"recalled": np.packbits((m > 0).cpu().numpy())}


def digest(functions: Sequence[Callable], **settings: object) -> str:
    """SHA-256 of what the numbers follow from: settings, versions and the text of the code that computes them.

    Of this script the functions alone, of the package the files that they come from.
    """
    texts = [inspect.getsource(f) for f in functions if f.__module__ == __name__]
    files = sorted({str(inspect.getsourcefile(f)) for f in functions if f.__module__ != __name__})
    texts += [Path(file).read_text(encoding="utf-8") for file in files]
    words = json.dumps([settings, versions(), torch.get_num_threads(), texts], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages."""
    return {**recorded.versions(), "scipy": scipy.__version__}


def resume(checkpoint: Path) -> tuple[np.ndarray | None, int, float, list[dict[str, np.ndarray]]]:
    """Matrix, step, seconds spent and rows so far; the beginning where there is no checkpoint."""
    if not checkpoint.exists():
        return None, 0, 0.0, []
    with np.load(checkpoint) as old:
        names = [name for name in old.files if name not in ("W", "t", "seconds")]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*(old[n] for n in names), strict=True)]
        return old["W"], int(old["t"]), float(old["seconds"]), rows


def descend(
    problem: AssociationProblem, rate: float, times: Sequence[int], checkpoint: Path, bar: tqdm
) -> dict[str, np.ndarray]:
    """Descent from ``W = 0`` in embedding space, measured at ``times``; goes on from ``checkpoint`` if it exists.

    The state of a run is ``W`` and the step ``t``: whoever has them has the same future, bit for bit.
    """
    W, t, spent, rows = resume(checkpoint)
    W = torch.zeros(problem.d, problem.d) if W is None else torch.from_numpy(W)
    W, buffer = W.to(problem.p), torch.empty(problem.N, problem.M).to(problem.p)
    weights, begin, saved = (rate * problem.p)[:, None], time.process_time() - spent, time.monotonic()
    bar.update(t)

    def keep() -> dict[str, np.ndarray]:
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        arrays["seconds"] = np.array(time.process_time() - begin)
        replace_files({checkpoint: npz_bytes(arrays | {"W": W.cpu().numpy(), "t": np.array(t)})})
        return arrays

    while len(rows) < len(times):
        w = scores_of(W, problem.E, problem.U)
        if t == times[len(rows)]:
            rows.append(measure(w, problem))
        if t < times[-1]:
            R = residuals(w, problem.targets, out=buffer).mul_(weights)
            W.sub_(gradient_of(R, problem.E, problem.U))
            t += 1
            bar.update()
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            keep()
            saved = time.monotonic()
    return keep()


def run_digest(N: int, d: int, rate: float, seed: int, times: Sequence[int], device: str) -> str:
    """The digest of one run."""
    own = (problem_of, bands, measure, descend)
    package = (
        AssociationProblem.spherical,
        zipf_frequencies,
        gradient_of,
        residuals,
        scores_of,
        tightest_of,
        token_losses,
    )
    settings = {"N": N, "d": d, "rate": rate, "seed": seed, "times": list(times), "device": device}
    return digest((*own, *package), quantiles=QUANTILES, **settings)


def record(
    N: int, runs: Sequence[tuple[int, float, int]], times: Sequence[int], *, device: str, folder: Path
) -> dict[str, np.ndarray]:
    """Runs ``(d, rate, seed)``; checkpoints in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, digests, last, problem = [], [], None, None
    with tqdm(total=len(runs) * times[-1], desc="steps") as bar:
        for d, rate, seed in runs:
            if problem is None or (d, seed) != last:
                problem, last = problem_of(N, d, seed, device), (d, seed)
            digests.append(run_digest(N, d, rate, seed, times, device))
            name = f"{N}-{d}-{rate:g}-{seed}-{digests[-1][:16]}.npz"
            kept.append(descend(problem, rate, times, folder / name, bar))
    dims, etas, seeds = (np.array(values) for values in zip(*runs, strict=True))
    arrays = {name: np.stack([run[name] for run in kept]) for name in kept[0]}
    return arrays | {"d": dims, "rate": etas, "seed": seeds, "digest": np.array(digests)}


def all_runs(device: str, folder: Path) -> dict[str, np.ndarray]:
    """All recorded runs; the crowded ones also at each of the last steps."""
    runs = [(d, rate, seed) for d, seeds in SEEDS.items() for seed in seeds for rate in RATES]
    often = sorted({*TIMES, *LAST})
    crowded = record(N_TOKENS, [run for run in runs if run[0] == CROWDED], often, device=device, folder=folder)
    counts = np.unpackbits(crowded["recalled"], axis=-1)[..., :N_TOKENS].sum(-1)
    others = record(N_TOKENS, [run for run in runs if run[0] != CROWDED], TIMES, device=device, folder=folder)
    common = [often.index(t) for t in TIMES]
    timed = ("loss", "zero_one_loss", "quantiles", "band_medians", "recalled")
    kept = {n: np.concatenate([v[:, common] if n in timed else v, others[n]]) for n, v in crowded.items()}
    kept |= {"times": np.array(TIMES), "N": np.array(N_TOKENS), "last_times": np.array(LAST)}
    return kept | {"last_counts": counts[:, [often.index(t) for t in LAST]].astype(np.int16)}


def solve(d: int, N: int, draws: int) -> np.ndarray:
    """Which of the draws with seeds ``0, 1, ...`` are separable."""
    return np.array([separable(AssociationProblem.spherical(N, N, d, seed=seed)) for seed in range(draws)])


def separability(cells: Sequence[tuple[int, int, int]], folder: Path) -> dict[str, np.ndarray]:
    """Which draws are separable, for cells ``(d, N, draws)``: one bit a draw; a checkpoint a cell in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    bits = np.zeros((len(cells), max(n for *_, n in cells)), dtype=bool)
    made_by = digest((solve, separable, AssociationProblem.spherical))
    for row, (d, N, draws) in enumerate(tqdm(cells, desc="cells")):
        checkpoint = folder / f"separable-{d}-{N}-{draws}-{made_by[:16]}.npz"
        if not checkpoint.exists():
            replace_files({checkpoint: npz_bytes({"found": solve(d, N, draws)})})
        with np.load(checkpoint) as old:
            bits[row, :draws] = old["found"]
    return {"cells": np.array(cells), "separable": np.packbits(bits, axis=1), "cells_digest": np.array(made_by)}


def provenance(device: str, kept: dict[str, np.ndarray]) -> dict:
    """How the numbers came about."""
    columns = (kept[name].tolist() for name in ("d", "rate", "seed", "seconds", "digest"))
    rows = list(zip(*columns, strict=True))
    runs = [f"d = {d}, rate {rate:g}, seed {seed}: {taken:.1f} s, {word[:16]}" for d, rate, seed, taken, word in rows]
    spent = {f"d = {d}": round(float(kept["seconds"][kept["d"] == d].mean()) / TIMES[-1], 2) for d in SEEDS}
    return {
        "what": "gradient descent from W = 0 on N = M associations, f*(x) = x, in embedding space, float32",
        "also": "separability, by linear programme, of N = M tokens with random embeddings: seeds 0, 1, ... a cell",
        "made_by": "book/recorded/many_tokens.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "settings": {"N": N_TOKENS, "M": N_TOKENS, "d": list(SEEDS), "rates": list(RATES), "steps": TIMES[-1],
                     "frequencies": "p(x) proportional to 1/x", "embeddings": "independent, uniform on the sphere"},
        "runs": {"processor seconds in all, digest": runs},
        "processor_seconds_a_step": spent,
        "cells": {"d, N, draws": [" ".join(map(str, cell)) for cell in kept["cells"].tolist()],
                  "digest": str(kept["cells_digest"])[:16]},
        "digests": "of settings, code that computes, versions and threads: see digest in the script",
        "versions": versions(),
        "hardware": recorded.hardware(torch.device(device)),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Record and write.

    many-tokens.npz holds, with ``R`` runs: ``d``, ``rate``, ``seed`` (R,); ``times`` (T,); ``loss``, ``zero_one_loss``
    (R, T); ``quantiles`` (R, T, Q) of the tightest margins of all tokens; ``band_medians`` (R, T, B), their median
    in each decade of ranks; ``recalled`` (R, T, ceil(N/8)), one bit a token (``numpy.unpackbits``); ``N``;
    ``last_counts`` (A, L), recalled tokens of the first A runs (the crowded ones) at ``last_times`` (L,);
    ``cells`` (C, 3) of ``d``, ``N``, draws; ``separable`` (C, ceil(draws/8)), one bit a draw.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "recorded", help="folder of the result")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "build" / "recorded", help="folder of checkpoints")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number may change last bits")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    kept = all_runs(options.device, options.checkpoints)
    cells = FIGURE_6 + [(d, N, draws) for d, (sizes, draws) in MAP.items() for N in sizes]
    kept |= separability(cells, options.checkpoints)
    options.out.mkdir(parents=True, exist_ok=True)
    beside = ("seconds", "digest", "cells_digest")  # for the json: the npz shall be the same from run to run
    arrays = {name: v for name, v in kept.items() if name not in beside}
    recorded.save("many-tokens", arrays, provenance(options.device, kept), options.out)


if __name__ == "__main__":
    sys.exit(main())
