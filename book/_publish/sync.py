"""Write the repository's URL and the version, both from pyproject.toml, wherever they are repeated.

python book/_publish/sync.py          rewrites set-up cells, badge rows, _config.yml, CITATION.cff, README.md, ...
python book/_publish/sync.py --check  changes nothing, lists the files that differ, exits with 1 if there are any
"""

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
GITHUB = "https://github.com/"
COLAB = "https://colab.research.google.com/"
TEXT_FILES = ("README.md", "CITATION.cff", "_config.yml", "environment.yml", "Makefile", "amem_core/__init__.py")
TEXT_FOLDERS = ("book/*.md", "book/*.yml", "book/*.bib", "book/_static/*", ".github/workflows/*")
VERSION = r"[0-9][0-9A-Za-z.]*"

SETUP_CELL = """\
# On Colab this installs the package at the book's version; elsewhere it only imports it.
import importlib.util

if importlib.util.find_spec("amem_core") is None:
    %pip install -q git+{url}@v{version}"""
# Words, not the usual image: a page of the book asks nothing of another host.
BADGE = f"[Open in Colab]({COLAB}github/{{slug}}/blob/main/book/{{name}})"
COLAB_LINK = re.compile(rf"\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\]\({re.escape(COLAB)}github/[^)]*\)")


class Place(NamedTuple):
    """The repository and the version that the book names."""

    url: str
    version: str

    @property
    def slug(self) -> str:
        """Owner and name of the repository, as OWNER/NAME."""
        return self.url.removeprefix(GITHUB)

    @property
    def pages(self) -> str:
        """Where GitHub Pages publishes the repository, without the scheme."""
        owner, name = self.slug.split("/")
        return f"{owner}.github.io/{name}"


def wanted(root: Path) -> Place:
    """URL and version from pyproject.toml; ValueError when the URL is none of a GitHub repository."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = project["urls"]["Repository"].rstrip("/")
    if not re.fullmatch(re.escape(GITHUB) + r"[\w.-]+/[\w.-]+", url):
        raise ValueError(f"[project.urls] Repository is {url!r}; allowed is {GITHUB}OWNER/NAME")
    return Place(url, project["version"])


def written(root: Path) -> str:
    """The URL that _config.yml repeats: the one of the last sync."""
    text = (root / "_config.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  url: ({re.escape(GITHUB)}\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError("_config.yml: repository.url is absent; allowed is a GitHub URL")
    return found.group(1)


def moved(text: str, old: Place, new: Place) -> str:
    """The text with the old repository's name and pages replaced, and nothing that only begins like them."""
    for before, after in ((old.slug, new.slug), (old.pages, new.pages)):
        text = re.sub(rf"(?<![\w.-]){re.escape(before)}(?![\w-])", lambda _, name=after: name, text)
    return text


def versioned(text: str, new: Place) -> str:
    """The text with the version where it follows the package's URL, name or field."""
    text = re.sub(rf"({re.escape(new.url)}(?:\.git)?@v){VERSION}", rf"\g<1>{new.version}", text)
    text = re.sub(rf"^(version: ){VERSION}$", rf"\g<1>{new.version}", text, flags=re.MULTILINE)
    text = re.sub(rf"^(__version__ = \"){VERSION}\"", rf'\g<1>{new.version}"', text, flags=re.MULTILINE)
    return re.sub(rf"(extra_footer: 'amem ){VERSION}", rf"\g<1>{new.version}", text)


def source_lines(text: str) -> list[str]:
    """A cell's source as notebooks store it."""
    return text.splitlines(keepends=True)


def synced_notebook(text: str, name: str, old: Place, new: Place) -> str:
    """A chapter with its set-up cell, its badge and every other mention of the repository renewed."""
    notebook = json.loads(text)
    badge = BADGE.format(slug=new.slug, name=name)
    changed = False
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        after = versioned(moved(source, old, new), new)
        if cell["cell_type"] == "code" and '"amem_core") is None:' in source:
            after = SETUP_CELL.format(url=new.url, version=new.version)
        if cell["cell_type"] == "markdown":
            after = COLAB_LINK.sub(lambda _: badge, after)
        if after != source:
            cell["source"], changed = source_lines(after), True
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n" if changed else text


def texts(root: Path) -> list[Path]:
    """The text files that may name the repository or the version."""
    found = [root / name for name in TEXT_FILES] + [path for folder in TEXT_FOLDERS for path in root.glob(folder)]
    return sorted(path for path in found if path.is_file())


def differences(root: Path) -> dict[Path, str]:
    """For each file that does not follow pyproject.toml, the text that does."""
    new = wanted(root)
    old = Place(written(root), new.version)
    after = {path: versioned(moved(path.read_text(encoding="utf-8"), old, new), new) for path in texts(root)}
    for path in sorted((root / "book").glob("*.ipynb")):
        after[path] = synced_notebook(path.read_text(encoding="utf-8"), path.name, old, new)
    return {path: text for path, text in after.items() if text != path.read_text(encoding="utf-8")}


def main() -> int:
    """Rewrite, or only check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a file differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to work on")
    options = parser.parse_args()
    changes = differences(options.root)
    for path, text in changes.items():
        print(f"{'differs' if options.check else 'rewritten'}: {path.relative_to(options.root).as_posix()}")
        if not options.check:
            path.write_text(text, encoding="utf-8")
    return int(options.check and bool(changes))


if __name__ == "__main__":
    sys.exit(main())
