"""The house stands: one environment told three times, one URL, clean notebooks, a wheel with the data."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SYNC = ROOT / "book" / "_publish" / "sync.py"
UNTRACKED = {".git", ".venv", "build", "dist", "__pycache__", ".ruff_cache", ".pytest_cache", ".hypothesis"}
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def tracked_files() -> list[Path]:
    """Files that git tracks or would track; without git, all but what the commands leave behind."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not UNTRACKED & set(path.relative_to(ROOT).parts)]
    return [path for path in found if path.is_file()]


def text_of(path: Path) -> str:
    """The text of a file; empty for a binary one."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def pins() -> dict[str, str]:
    """Name -> version from constraints.txt."""
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds exact pins only"
    return {canonicalize_name(name): version for name, version in pairs}


def declared() -> list[Requirement]:
    """What pyproject.toml asks for, extras and build system included."""
    extras = PROJECT["optional-dependencies"]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras["book"], *extras["test"]]]


def setup_source(notebook: Path) -> str:
    """The second cell of a chapter."""
    return "".join(json.loads(text_of(notebook))["cells"][1]["source"])


def sync(root: Path, *options: str) -> subprocess.CompletedProcess:
    """Run sync.py on a tree."""
    command = [sys.executable, str(SYNC), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True)


# One environment, told three times


def test_every_declared_package_is_pinned_within_its_bounds():
    pinned = pins()
    for wish in declared():
        name = canonicalize_name(wish.name)
        assert name in pinned, f"{name} has no pin in constraints.txt"
        assert wish.specifier.contains(pinned[name]), f"{wish} excludes the pin {pinned[name]}"


def test_the_pins_cover_all_that_is_installed_for_us():
    pinned, seen, queue = pins(), set(), declared()
    while queue:
        wish = queue.pop()
        name = canonicalize_name(wish.name)
        for extra in ["", *sorted(wish.extras)]:
            if (name, extra) in seen or (wish.marker and not wish.marker.evaluate({"extra": ""})):
                continue
            seen.add((name, extra))
            asked = [Requirement(line) for line in metadata.requires(name) or []]
            queue += [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
    installed = {name: metadata.version(name).split("+")[0] for name, _ in seen}
    # A torch with CUDA brings packages of its own; torch pins those itself, exactly.
    accelerator = ("nvidia-", "triton", "cuda-")
    assert {n: v for n, v in installed.items() if not n.startswith(accelerator) and pinned.get(n) != v} == {}


def test_wheel_dependencies_stay_loose():
    assert all(not Requirement(line).specifier for line in PROJECT["dependencies"])


def test_conda_environment_is_the_same():
    packages = yaml.safe_load(text_of(ROOT / "environment.yml"))["dependencies"]
    by_pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    by_conda = {entry.partition("=")[0]: entry.partition("=")[2] for entry in packages if isinstance(entry, str)}
    assert set(by_conda) == {"python", "pip", "make", "git"}, "everything else comes from constraints.txt"
    assert SpecifierSet(PROJECT["requires-python"]).contains(by_conda["python"])
    assert by_pip[0] == "-c constraints.txt"
    editable = re.fullmatch(r"-e \.\[([\w,]+)\]", by_pip[-1])
    assert editable and set(editable[1].split(",")) == set(PROJECT["optional-dependencies"])
    exact = dict(line.split("==") for line in by_pip[1:-1])
    assert exact == {"torch": pins()["torch"]}


def test_makefile_asks_for_the_pinned_torch():
    assert re.findall(r"torch==([\w.+]+)", text_of(ROOT / "Makefile")) == [pins()["torch"]]


# One place for URL and version


def test_everything_follows_the_url_and_version_of_pyproject():
    done = sync(ROOT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def tree(tmp_path):
    """A copy of the tracked files."""
    for path in tracked_files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return tmp_path


def test_a_new_url_and_version_reach_every_place(tree):
    url, version = PROJECT["urls"]["Repository"], PROJECT["version"]
    old = url.removeprefix("https://github.com/")
    old_names = (old, "{}.github.io/{}".format(*old.split("/")))
    owner, repository = "else-where", "other.book"
    new_names = (f"{owner}/{repository}", f"{owner}.github.io/{repository}")
    project = tree / "pyproject.toml"
    text = text_of(project).replace(old, new_names[0]).replace(f'version = "{version}"', 'version = "7.8.9"')
    places = naming(tree, old_names)
    project.write_text(text, encoding="utf-8")

    assert sync(tree, "--check").returncode == 1, "the check sees a change that was not written yet"
    assert sync(tree).returncode == 0
    assert sync(tree, "--check").returncode == 0
    assert naming(tree, old_names) == set(), "the old URL is nowhere"
    assert naming(tree, new_names) == places, "the new one is where the old one was"
    for name in ("README.md", *(f"book/{notebook.name}" for notebook in NOTEBOOKS)):
        assert f"git+https://github.com/{new_names[0]}@v7.8.9" in text_of(tree / name), name
        assert f"/github/{new_names[0]}/blob/main/book/" in text_of(tree / name), name
    for name in ("_config.yml", "CITATION.cff", "amem_core/__init__.py"):
        assert "7.8.9" in text_of(tree / name) and version not in text_of(tree / name), name
    assert {tree / "_config.yml", tree / "CITATION.cff"} <= places


def naming(root: Path, names: tuple[str, ...]) -> set[Path]:
    """The files below a folder that hold one of the names."""
    return {path for path in root.rglob("*") if path.is_file() and any(name in text_of(path) for name in names)}


def test_a_url_without_owner_and_name_is_refused(tree):
    project = tree / "pyproject.toml"
    project.write_text(text_of(project).replace(PROJECT["urls"]["Repository"], "https://github.com/alone"))
    done = sync(tree)
    assert done.returncode != 0 and "https://github.com/alone" in done.stderr and "OWNER/NAME" in done.stderr


# Chapters as they are committed


def test_every_chapter_is_in_the_table_of_contents():
    listed = {
        entry["file"] for part in yaml.safe_load(text_of(ROOT / "_toc.yml"))["parts"] for entry in part["chapters"]
    }
    assert {f"book/{notebook.stem}" for notebook in NOTEBOOKS} == {
        name for name in listed if re.search(r"/\d\d-", name)
    }


def test_chapters_are_committed_without_outputs():
    assert NOTEBOOKS
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", *map(str, NOTEBOOKS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_set_up_cell_is_the_same_everywhere():
    expected = (
        "# On Colab this installs the package at the book's version; elsewhere it only imports it.\n"
        "import importlib.util\n\n"
        'if importlib.util.find_spec("amem_core") is None:\n'
        f"    %pip install -q git+{PROJECT['urls']['Repository']}@v{PROJECT['version']}"
    )
    for notebook in NOTEBOOKS:
        assert setup_source(notebook) == expected, notebook.name
        cell = json.loads(text_of(notebook))["cells"][1]
        assert cell["cell_type"] == "code" and "hide-input" in cell["metadata"].get("tags", []), notebook.name


def test_every_chapter_opens_with_its_own_badge():
    for notebook in NOTEBOOKS:
        first = "".join(json.loads(text_of(notebook))["cells"][0]["source"])
        assert first.startswith("# ")
        assert re.findall(r"/blob/main/book/([\w.-]+)\)", first) == [notebook.name]


def test_no_chapter_imports_what_only_the_book_needs():
    for notebook in NOTEBOOKS:
        code = ["".join(c["source"]) for c in json.loads(text_of(notebook))["cells"] if c["cell_type"] == "code"]
        assert not re.search(r"^\s*(?:import|from)\s+(?:myst_nb|jupyter_book|sphinx|nbmake)\b", "\n".join(code), re.M)


# Files that travel


def test_no_package_registry_is_named():
    hosts = [("py", "pi.org"), ("python", "hosted.org"), ("ana", "conda.org"), ("download.py", "torch.org")]
    hosts += [("npm", "js.org"), ("npm", "js.com"), ("gh", "cr.io"), ("docker", ".io")]
    names = ["".join(parts) for parts in hosts]
    found = {(str(path.relative_to(ROOT)), name) for path in tracked_files() for name in names if name in text_of(path)}
    assert found == set()


def test_no_path_of_one_machine_is_named():
    machine = re.compile(r"(?<![\w.~$}])/(?:work|root|tmp|home|Users)/")
    assert [str(path.relative_to(ROOT)) for path in tracked_files() if machine.search(text_of(path))] == []


def test_the_wheel_holds_the_package_its_data_and_recorded_runs(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    assert wheel.name == f"amem_core-{PROJECT['version']}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    suffixes = {"data": {".json"}, "explorer": {".js", ".css"}}
    data = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.relative_to(ROOT).parts[:2] in {("amem_core", folder) for folder in suffixes}
        and path.suffix in suffixes[path.relative_to(ROOT).parts[1]]
    ]
    modules = [path.relative_to(ROOT).as_posix() for path in tracked_files() if path.match("amem_core/**/*.py")]
    assert set(data) | set(modules) <= set(names)
    stem = f"amem_core-{PROJECT['version']}"
    recorded = {path.name for path in tracked_files() if path.match("book/recorded/*") and path.suffix != ".py"}
    home = f"{stem}.data/data/share/amem/recorded/"
    assert {name for name in names if ".data/" in name} == {home + file for file in recorded}
    assert {name.split("/")[0] for name in names} == {"amem_core", f"{stem}.dist-info", f"{stem}.data"}
