"""Chapters are executed once, again exactly when their inputs change, and the pages show those very outputs."""

import importlib.util
import json
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PUBLISH = ROOT / "book" / "_publish"


def load(name: str, monkeypatch):
    """One of the publishing scripts as a module, under its own name for the others to import."""
    spec = importlib.util.spec_from_file_location(name, PUBLISH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def execute(monkeypatch):
    return load("execute", monkeypatch)


@pytest.fixture
def build(execute, monkeypatch):
    return load("build", monkeypatch)


@pytest.fixture
def small(execute, monkeypatch, tmp_path):
    """A small book with two chapters, both stamped as executed."""
    for folder in ("amem_core", "book/recorded", "book/_publish", "build/executed"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "amem_core" / "memory.py").write_text("x = 1\n")
    (tmp_path / "constraints.txt").write_text("torch==1\n")
    (tmp_path / "book" / "recorded" / "run.npz").write_bytes(b"1")
    script = tmp_path / "book" / "_publish" / "execute.py"
    script.write_text("")
    places = {"ROOT": tmp_path, "BOOK": tmp_path / "book", "EXECUTED": tmp_path / "build" / "executed"}
    places |= {"STAMPS": places["EXECUTED"] / "stamps.json", "TIMINGS": places["EXECUTED"] / "timings.json"}
    for name, value in {**places, "__file__": str(script)}.items():
        monkeypatch.setattr(execute, name, value)
    for chapter in ("01-a.ipynb", "02-b.ipynb"):
        for folder in (execute.BOOK, execute.EXECUTED):
            (folder / chapter).write_text(chapter)
    keys = execute.keys()
    stamps = {name: {"key": keys[name], "output": execute.digest([execute.EXECUTED / name])} for name in keys}
    execute.write_json(execute.STAMPS, stamps)
    return execute


def stale(small) -> list[str]:
    """Names of the chapters that would run."""
    return [path.name for path in small.stale(small.keys())]


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("book/01-a.ipynb", ["01-a.ipynb"]),
        ("build/executed/02-b.ipynb", ["02-b.ipynb"]),
        ("amem_core/memory.py", ["01-a.ipynb", "02-b.ipynb"]),
        ("amem_core/new.py", ["01-a.ipynb", "02-b.ipynb"]),
        ("constraints.txt", ["01-a.ipynb", "02-b.ipynb"]),
        ("book/recorded/run.npz", ["01-a.ipynb", "02-b.ipynb"]),
        ("book/_publish/execute.py", ["01-a.ipynb", "02-b.ipynb"]),
        ("book/index.md", []),
        ("book/_publish/build.py", []),
        ("amem_core/__pycache__/memory.pyc", []),
    ],
)
def test_a_chapter_runs_again_exactly_when_its_inputs_changed(small, changed, again):
    assert stale(small) == []
    path = small.ROOT / changed
    path.parent.mkdir(exist_ok=True)
    path.write_text("changed\n")
    assert stale(small) == again


def test_a_lost_copy_a_cut_stamp_and_a_removed_chapter(small):
    (small.EXECUTED / "01-a.ipynb").unlink()
    assert stale(small) == ["01-a.ipynb"]
    small.STAMPS.write_text('{"02-b.ip')
    assert stale(small) == ["01-a.ipynb", "02-b.ipynb"]
    (small.BOOK / "02-b.ipynb").unlink()
    small.prepare([])
    assert not (small.EXECUTED / "02-b.ipynb").exists(), "the ledger must not see a chapter that is gone"


def test_only_a_chapter_that_passed_is_stamped(small):
    small.prepare(small.chapters())
    stamper = small.Stamper(small.keys())
    for name, outcome in (("01-a.ipynb", "passed"), ("02-b.ipynb", "failed")):
        where = (str(small.EXECUTED / name), 0, name)
        stamper.pytest_runtest_logreport(
            pytest.TestReport(name, where, {}, outcome, None, "call", duration=1.5, start=0.0, stop=1.5)
        )
    assert stale(small) == ["02-b.ipynb"]
    assert json.loads(small.TIMINGS.read_text()) == {"01-a.ipynb": 1.5}


@pytest.mark.parametrize(
    ("status", "log", "part"),
    [
        (1, "a.ipynb: Using cached notebook: ID=1", "exited with 1"),
        (0, "a.ipynb: Executing notebook using local CWD", "second time"),
        (0, "", "0 pages came from the cache"),
        (0, "Using cached notebook\nindex.md:3: WARNING: no such page", "no such page"),
        (0, "Using cached notebook\nx.py:1: DeprecationWarning: old", "old"),
    ],
)
def test_a_build_with_a_flaw_is_refused(build, status, log, part):
    assert any(part in line for line in build.complaints(status, log, 1))


def test_a_clean_build_is_accepted(build):
    assert build.complaints(0, "a.ipynb: Using cached notebook: ID=1 [mystnb]\nbuild succeeded.", 1) == []


# The book as it was built by `make book` or `make test`


def test_the_book_is_built_from_chapters_executed_once(build, execute):
    assert build.STAMP.is_file(), "the pages are built first: make test"
    assert execute.stale(execute.keys()) == []
    assert build.STAMP.read_text(encoding="utf-8") == build.sources_key(), "the pages are not of these sources"
    assert build.complaints(0, build.LOG.read_text(encoding="utf-8"), len(execute.chapters())) == []
    assert set(execute.read_json(execute.TIMINGS)) == {path.name for path in execute.chapters()}


def test_the_cache_holds_the_executed_outputs_and_no_times_of_day(build, execute):
    cache = build.get_cache(build.SITE / ".jupyter_cache")
    for path in execute.chapters():
        record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
        published = cache.get_cache_bundle(record.pk).nb
        done = nbformat.read(execute.executed_copy(path), as_version=4)
        ran = [cell.outputs for cell in done.cells if cell.cell_type == "code"]
        assert [cell.outputs for cell in published.cells] == ran, path.name
        assert "widgets" not in published.metadata
        assert all("execution" not in cell.metadata for cell in published.cells)
