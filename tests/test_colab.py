"""What a reader on Colab meets: an environment that has torch and the rest, but not this repository.

The set-up cells run as they stand; git is told to find the book's URL in a local clone.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command and give its output; a failure shows what it said."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A fresh environment that sees the installed packages, but no amem_core; its kernel's specification."""
    home = tmp_path_factory.mktemp("colab")
    clone = home / "repository"
    tracked = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).split("\n")
    for name in filter(None, tracked):  # the tree as it stands, committed in a repository of its own
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    git = ("git", "-C", clone, "-c", "user.name=t", "-c", "user.email=t@example.org")
    run("git", "init", "-q", clone)
    run(*git, "add", "-A")
    run(*git, "commit", "-qm", "the book")
    run(*git, "tag", f"v{PROJECT['version']}")
    run(sys.executable, "-m", "venv", home / "env")
    python = home / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for old in [*site.glob("setuptools*"), site / "pkg_resources", site / "_distutils_hack"]:
        shutil.rmtree(old, ignore_errors=True)  # older than pyproject.toml asks for; pip would fetch a new one
    (site / "distutils-precedence.pth").unlink(missing_ok=True)
    # the packages of this environment, but not the .pth file in it that leads to this repository
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    kernel = home / "kernels" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "colab", "language": "python"}))
    settings = {
        "JUPYTER_PATH": str(home / "kernels"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{clone}.insteadOf",
        "GIT_CONFIG_VALUE_0": PROJECT["urls"]["Repository"],
        "PIP_NO_BUILD_ISOLATION": "false",  # pip's spelling of: build with what is installed
        "TQDM_DISABLE": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("PYTHONPATH", raising=False)
        patch.delenv("MPLBACKEND", raising=False)
        yield home


def execute(notebook: nbformat.NotebookNode, home: Path) -> None:
    """Execute in the fresh environment, away from the repository."""
    NotebookClient(notebook, kernel_name="colab", timeout=300, resources={"metadata": {"path": str(home)}}).execute(
        env=dict(os.environ)
    )


def lines(notebook: nbformat.NotebookNode) -> str:
    """All text that the cells printed."""
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_set_up_and_imports_work_and_torch_stays(chapter, colab):
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    # what is imported, and what pip would call torch, before and after
    ask = "import importlib.metadata as m, torch, {}; print(m.version('torch'), torch.__file__{})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(ask.format("sys", "")))
    notebook.cells.append(nbformat.v4.new_code_cell(ask.format("amem_core", ", amem_core.__file__")))
    execute(notebook, colab)
    before, *_, after = [line for line in lines(notebook).split("\n") if "torch" in line]
    version, torch_file, package = after.split()
    assert [version, torch_file] == before.split()
    assert Path(package).is_relative_to(colab / "env")


def test_a_whole_chapter_runs(colab):
    notebook = nbformat.read(CHAPTERS[0], as_version=4)
    execute(notebook, colab)
    claims = "application/vnd.amem.claim+json"
    assert any(claims in out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", []))


def test_recorded_runs_came_with_the_package(colab):
    notebook = nbformat.v4.new_notebook()
    code = "from amem_core import recorded\narrays, words = recorded.load('many-tokens')\n"
    code += "print(arrays['loss'].shape == (15, len(arrays['times'])), recorded.HOME.is_dir())"
    notebook.cells = [nbformat.read(CHAPTERS[0], as_version=4).cells[1], nbformat.v4.new_code_cell(code)]
    execute(notebook, colab)
    assert lines(notebook).split("\n")[-2] == "True False"  # whole, and no checkout beside it
