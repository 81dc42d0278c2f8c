"""Execute every chapter once: a copy in build/executed/, run by nbmake, run again only when its inputs changed.

A chapter's key hashes all that its outputs depend on: the notebook, amem_core, book/recorded, the pins, the
version of Python and this file. Times go to build/executed/timings.json. Exits with 1 when a chapter fails.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
EXECUTED = ROOT / "build" / "executed"
STAMPS = EXECUTED / "stamps.json"
TIMINGS = EXECUTED / "timings.json"
SECONDS_PER_CELL = 900


def files_under(*folders: Path) -> list[Path]:
    """Every file below the folders, in a fixed order, without what Python and Jupyter leave behind."""
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts))


def digest(paths: list[Path], *words: str) -> str:
    """SHA-256 of names and contents of files, and of some words."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        total.update(f"\0{path.relative_to(ROOT).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def chapters() -> list[Path]:
    """The notebooks of the book, in order."""
    return sorted(BOOK.glob("*.ipynb"))


def executed_copy(notebook: Path) -> Path:
    """Where the executed copy of a notebook lies."""
    return EXECUTED / notebook.name


def keys() -> dict[str, str]:
    """For each chapter, the hash of all that its outputs depend on."""
    shared = [*files_under(ROOT / "amem_core", BOOK / "recorded"), ROOT / "constraints.txt", Path(__file__).resolve()]
    common = digest(shared, platform.python_version())
    return {notebook.name: digest([notebook], common) for notebook in chapters()}


def read_json(path: Path) -> dict:
    """A JSON object from a file; empty when the file is absent or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_json(path: Path, value: dict) -> None:
    """Write a JSON object so that an interrupted run never leaves half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)


def stale(wanted: dict[str, str]) -> list[Path]:
    """The chapters whose stamp does not vouch for the executed copy that lies there."""
    stamps = read_json(STAMPS)

    def fresh(notebook: Path) -> bool:
        stamp, copy = stamps.get(notebook.name, {}), executed_copy(notebook)
        return stamp.get("key") == wanted[notebook.name] and copy.is_file() and stamp.get("output") == digest([copy])

    return [notebook for notebook in chapters() if not fresh(notebook)]


class Stamper:
    """pytest plugin: stamps a chapter, with its wall time, as soon as it has passed."""

    def __init__(self, wanted: dict[str, str]) -> None:
        self.wanted = wanted

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a chapter that ran to its end without an error."""
        if report.when != "call" or not report.passed:
            return
        copy = EXECUTED / Path(report.fspath).name
        stamp = {"key": self.wanted[copy.name], "output": digest([copy])}
        write_json(STAMPS, {**read_json(STAMPS), copy.name: stamp})
        write_json(TIMINGS, {**read_json(TIMINGS), copy.name: round(report.duration, 2)})


def isolate() -> None:
    """One setting for every machine: this environment's kernel, fixed threads and hash seed, nobody's profile."""
    for name in ("MPLBACKEND", "PYTHONPATH", "PYTHONWARNINGS", "PYTEST_ADDOPTS"):
        os.environ.pop(name, None)
    os.environ.update(
        JUPYTER_PATH=str(Path(sys.prefix) / "share" / "jupyter"),  # searched first: not a global kernel of that name
        JUPYTER_PREFER_ENV_PATH="1",
        IPYTHONDIR=str(ROOT / "build" / "ipython"),
        MPLCONFIGDIR=str(ROOT / "build" / "matplotlib"),
        OMP_NUM_THREADS="2",
        PYTHONHASHSEED="0",
        TQDM_DISABLE="1",
    )
    # Fill matplotlib's font cache here: doing so inside a chapter would write to its stderr.
    __import__("matplotlib.font_manager")


def prepare(notebooks: list[Path]) -> None:
    """Copy the chapters to run to build/executed; forget chapters that are gone."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    (EXECUTED / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for notebook in notebooks:
        shutil.copyfile(notebook, executed_copy(notebook))
    forget({copy.name for copy in EXECUTED.glob("*.ipynb")} - {notebook.name for notebook in chapters()})
    forget_stamps({notebook.name for notebook in notebooks})


def forget(names: set[str]) -> None:
    """Remove executed copies, with their stamps."""
    for name in names:
        (EXECUTED / name).unlink(missing_ok=True)
    forget_stamps(names)


def forget_stamps(names: set[str]) -> None:
    """Drop stamps and times of the named chapters."""
    for path in (STAMPS, TIMINGS):
        write_json(path, {name: value for name, value in read_json(path).items() if name not in names})


def installed_package() -> Path | None:
    """The folder of the amem_core that a chapter imports; None when there is none."""
    code = "from importlib.util import find_spec as f; s = f('amem_core'); print(s.origin if s else '')"
    done = subprocess.run([sys.executable, "-c", code], cwd=EXECUTED, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()).resolve().parent if done.stdout.strip() else None


def run(notebooks: list[Path], wanted: dict[str, str]) -> int:
    """Run the copies with nbmake, in one pytest; its exit status."""
    isolate()
    if installed_package() != ROOT / "amem_core":  # a set-up cell would fetch a published version instead
        print(f"This Python does not import {ROOT / 'amem_core'}: pip install -e . first", file=sys.stderr)
        return 1
    options = ["--disable-plugin-autoload", "-p", "nbmake.pytest_plugin", "-p", "no:cacheprovider", "-v"]
    options += ["-p", "xdist", "-n", str(min(4, os.cpu_count() or 1, len(notebooks)))]  # a chapter keeps to one thread
    options += [f"--rootdir={EXECUTED}", "-c", str(EXECUTED / "pytest.ini")]
    options += ["--nbmake", "--overwrite", "--nbmake-kernel=python3", f"--nbmake-timeout={SECONDS_PER_CELL}"]
    return pytest.main([*options, *(str(executed_copy(notebook)) for notebook in notebooks)], plugins=[Stamper(wanted)])


def main() -> int:
    """Execute what is stale."""
    wanted = keys()
    notebooks = stale(wanted)
    prepare(notebooks)
    if not notebooks:
        print(f"Chapters: {len(wanted)} executed already, nothing changed")
        return 0
    print(f"Chapters: executing {len(notebooks)} of {len(wanted)}", flush=True)
    status = run(notebooks, wanted)
    left = [notebook.name for notebook in stale(wanted)]
    if status or left:
        print(f"Failed chapters: {', '.join(left)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
