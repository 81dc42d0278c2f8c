"""The linters pass on everything that git tracks, notebooks included."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMMANDS = {
    "ruff check": ["ruff", "check", "--no-cache", "--output-format=concise", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "."],
    "codespell": ["codespell"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_linter_has_no_complaint(name):
    program, *options = COMMANDS[name]
    found = shutil.which(program, path=str(SCRIPTS))
    assert found, f"{program} is not installed beside {sys.executable}"
    done = subprocess.run([found, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_reads_the_chapters():
    files = subprocess.run(
        [SCRIPTS / "ruff", "check", "--show-files", "."], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    missing = [path.name for path in (ROOT / "book").glob("*.ipynb") if str(path) not in files]
    assert missing == []
