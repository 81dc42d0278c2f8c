"""Recorded runs: interrupted ones end as if they never stopped, and the files say what the chapters read."""

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from amem_core import AssociationProblem, loss, tightest_margin
from amem_core.dynamics import gradient_descent
from amem_core.files import npz_bytes, replace_files
from amem_core.landscape import separable

RECORDED = Path(__file__).resolve().parents[1] / "book" / "recorded"
SMALL = {"N": 120, "runs": [(16, 20.0, 1), (16, 400.0, 1), (24, 20.0, 1), (24, 400.0, 1)], "times": (0, 1, 2, 5, 8)}


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("many_tokens", RECORDED / "many_tokens.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def record():
    """The recorded arrays."""
    return dict(np.load(RECORDED / "many-tokens.npz"))


def small_run(script, folder):
    """A run of some milliseconds, without what a clock says and the digests, which name the code."""
    kept = script.record(**SMALL, device="cpu", folder=folder)
    assert (kept.pop("seconds") >= 0).all()
    assert len(set(kept.pop("digest").tolist())) == len(SMALL["runs"])
    return kept


def test_an_interrupted_run_ends_bit_for_bit_as_if_it_never_stopped(script, tmp_path, monkeypatch):
    whole = small_run(script, tmp_path / "whole")
    monkeypatch.setattr(script, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)  # after every step
    calls, step = [0], script.gradient_of

    def breaking(*arguments):
        calls[0] += 1
        if calls[0] % 5 == 0:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(script, "gradient_of", breaking)
    stops = 0
    while True:
        try:
            pieces = small_run(script, tmp_path / "pieces")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 5
    assert whole.keys() == pieces.keys()
    assert all(np.array_equal(whole[name], pieces[name]) for name in whole)


def test_the_record_is_what_the_package_computes(script, tmp_path):
    kept = small_run(script, tmp_path)
    problem = script.problem_of(120, 24, 1)
    W = gradient_descent(problem, rate=400.0, steps=8, space="embeddings").W[5]
    row, at = 3, 3  # d = 24, rate 400, step 5
    m = tightest_margin(W, problem)
    assert (kept["d"][row], kept["rate"][row], SMALL["times"][at]) == (24, 400.0, 5)
    assert kept["loss"][row, at] == pytest.approx(loss(W, problem).item(), rel=1e-5)  # float32
    assert np.array_equal(np.unpackbits(kept["recalled"][row, at])[:120], (m > 0).numpy())
    assert kept["band_medians"][row, at, 0] == pytest.approx(m[:10].median().item(), rel=1e-5)
    assert np.allclose(kept["quantiles"][row, at], np.quantile(m, script.QUANTILES), rtol=1e-4)


def test_what_other_settings_or_code_have_made_is_not_read(script, tmp_path, monkeypatch):
    small_run(script, tmp_path)
    files = set(tmp_path.iterdir())
    runs = SMALL["runs"][:1]
    for times in ((0, 1, 2, 4, 8), (0, 2, 3, 4, 8)):  # the same last step
        kept = script.record(120, runs, times, device="cpu", folder=tmp_path)
        fresh = script.record(120, runs, times, device="cpu", folder=tmp_path / "fresh")
        assert np.array_equal(kept["loss"], fresh["loss"])
    assert len(set(tmp_path.glob("*.npz")) - files) == 2
    old = script.measure
    monkeypatch.setattr(script, "measure", lambda w, problem: old(2 * w, problem))
    assert script.record(120, runs, SMALL["times"], device="cpu", folder=tmp_path)["loss"][0, 1] != kept["loss"][0, 1]
    assert len(set(tmp_path.glob("*.npz")) - files) == 3
    cells = [(2, 5, 20)]
    true = script.separability(cells, tmp_path)["separable"]
    monkeypatch.setattr(script, "separable", lambda problem: True)
    assert not np.array_equal(script.separability(cells, tmp_path)["separable"], true)


def test_a_writer_that_fails_leaves_the_old_file(script, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    replace_files({path: npz_bytes({"a": np.arange(3)})})

    def failing(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", failing)
    with pytest.raises(OSError, match="disk full"):
        replace_files({path: npz_bytes({"a": np.arange(4)})})
    assert np.load(path)["a"].tolist() == [0, 1, 2]


def test_ranks_by_decade(script):
    assert script.bands(5000) == [(0, 10), (10, 100), (100, 1000), (1000, 5000)]
    assert script.bands(100) == [(0, 10), (10, 100)]
    assert script.bands(7) == [(0, 7)]


def test_the_files_are_small_complete_and_agree(script, record):
    assert (RECORDED / "many-tokens.npz").stat().st_size < 300_000
    source = json.loads((RECORDED / "many-tokens.json").read_text(encoding="utf-8"))
    assert source["npz_sha256"] == hashlib.sha256((RECORDED / "many-tokens.npz").read_bytes()).hexdigest()
    assert len(source["script_sha256"]) == 64
    assert source["cells"]["d, N, draws"] == [" ".join(map(str, cell)) for cell in record["cells"].tolist()]
    assert source["settings"]["N"] == int(record["N"]) == script.N_TOKENS
    assert source["settings"]["steps"] == record["times"][-1]
    rows = list(zip(*(record[name].tolist() for name in ("d", "rate", "seed")), strict=True))
    assert rows == [(d, rate, seed) for d, seeds in script.SEEDS.items() for seed in seeds for rate in script.RATES]
    lines = source["runs"]["processor seconds in all, digest"]
    assert [line.split(":")[0] for line in lines] == [f"d = {d}, rate {rate:g}, seed {seed}" for d, rate, seed in rows]
    counts = np.unpackbits(record["recalled"], axis=-1)[..., :5000].sum(-1)
    both = [t for t in record["times"].tolist() if t in record["last_times"]]
    crowded = record["last_counts"][:, [record["last_times"].tolist().index(t) for t in both]]
    assert np.array_equal(crowded, counts[: len(crowded), [record["times"].tolist().index(t) for t in both]])
    p = script.problem_of(5000, 2, 0).p.double().numpy()
    accuracy = np.unpackbits(record["recalled"], axis=-1)[..., :5000] @ p
    assert np.abs(1 - accuracy - record["zero_one_loss"]).max() < 1e-6  # two orders of one sum
    assert np.allclose(record["loss"][:, 0], np.log(5000), rtol=1e-6)
    assert (np.diff(record["quantiles"], axis=-1) >= 0).all()


def test_recorded_separability_is_solved_again(record):
    for (d, N, draws), bits in zip(record["cells"].tolist(), record["separable"], strict=True):
        found = np.unpackbits(bits)[:draws].astype(bool)
        assert found.all() or N > d + 1  # up to d + 1 tokens always fit
        if N <= 16:
            again = [separable(AssociationProblem.spherical(N, N, d, seed=seed)) for seed in range(3)]
            assert again == found[:3].tolist()


def test_the_first_step_of_the_record_is_the_closed_form(script, record):
    problem = script.problem_of(5000, 64, 1)
    W = ((problem.U - problem.U.mean(0)) * problem.p[:, None]).T @ problem.E
    recalled = np.unpackbits(record["recalled"][0, 1])[:5000].astype(bool)
    assert int(((tightest_margin(W, problem) > 0).numpy() != recalled).sum()) <= 2  # margins near zero may round
    assert record["loss"][0, 1] == pytest.approx(loss(300.0 * W, problem).item(), rel=1e-4)


def test_a_gpu_is_used_where_there_is_one(script):
    problem = script.problem_of(20, 4, 0, "cuda" if torch.cuda.is_available() else "cpu")
    assert problem.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert problem.dtype == torch.float32


@pytest.mark.skipif("AMEM_RERUN" not in os.environ, reason="runs a recorded row again, 20 s: set AMEM_RERUN=1")
def test_a_recorded_row_is_run_again(script, record, tmp_path):
    """Bit for bit under the recorded versions and processor; else rounding may flip margins near zero."""
    kept = script.record(5000, [(64, 300.0, 1)], script.TIMES, device="cpu", folder=tmp_path)
    assert np.allclose(kept["loss"][0], record["loss"][0], rtol=1e-3)
    assert np.allclose(kept["zero_one_loss"][0], record["zero_one_loss"][0], atol=5e-3)
    assert np.allclose(kept["quantiles"][0], record["quantiles"][0], rtol=2e-2, atol=1e-3)
    bits = [np.unpackbits(rows["recalled"][0], axis=-1)[:, :5000].astype(int) for rows in (kept, record)]
    assert np.abs(bits[0] - bits[1]).sum(-1).max() <= 5
