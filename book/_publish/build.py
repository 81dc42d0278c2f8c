"""Publish the executed chapters: fill the jupyter-cache from build/executed/, build the pages, execute nothing.

Exits with 1 when the log holds a warning, says that a notebook was executed, or a chapter is not from the cache.
The pages are built anew, all of them, whenever a source or an executed chapter changed: an incremental build would
not repeat a warning of a page it skips.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from execute import BOOK, EXECUTED, ROOT, TIMINGS, chapters, digest, executed_copy, files_under, keys, read_json, stale
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

OUT = ROOT / "build"
SITE = OUT / "_build"
STAMP = OUT / "pages.key"
LOG = OUT / "build.log"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def sources_key() -> str:
    """Hash of everything the pages are made from."""
    single = [ROOT / name for name in ("_config.yml", "_toc.yml", "constraints.txt", "pyproject.toml")]
    return digest([*files_under(BOOK, ROOT / "amem_core"), *single, *map(executed_copy, chapters())], sys.version)


def published_notebook(notebook: Path) -> nbformat.NotebookNode:
    """The chapter with the outputs of its executed copy, without widget state and times of day."""
    source = nbformat.read(notebook, as_version=4)
    done = nbformat.read(executed_copy(notebook), as_version=4)
    source.metadata.pop("widgets", None)
    source.metadata["language_info"] = done.metadata["language_info"]  # the kernel's word, for the highlighter
    for cell, ran in zip(source.cells, done.cells, strict=True):
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return source


def fill_cache() -> None:
    """A new cache that holds the executed chapters and nothing older: its key would not see amem_core change."""
    cache = get_cache(SITE / ".jupyter_cache")
    seconds = read_json(TIMINGS)
    for notebook in chapters():
        bundle = CacheBundleIn(
            published_notebook(notebook), str(notebook), data={"execution_seconds": seconds.get(notebook.name, 0.0)}
        )
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def jupyter_book() -> tuple[int, str]:
    """Run Jupyter Book on the whole book; its exit status and its log without colours."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT)]
    command += ["--path-output", str(OUT), "--all", "-W", "-n", "--keep-going"]
    setting = {"NO_COLOR": "1", "PYTHONHASHSEED": "0", "MPLCONFIGDIR": str(OUT / "matplotlib")}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **setting}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, ANSI.sub("", done.stdout)


def complaints(status: int, log: str, notebooks: int) -> list[str]:
    """What is wrong with a build, from its exit status and its log."""
    found = [f"Jupyter Book exited with {status}"] if status else []
    found += [line for line in log.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL|\w*Warning)\b:?", line)]
    if "Executing notebook" in log or "Executed notebook" in log:
        found.append("a notebook was executed a second time")
    cached = log.count("Using cached notebook")
    if cached != notebooks:
        found.append(f"{cached} pages came from the cache, {notebooks} chapters were executed")
    return found


def main() -> int:
    """Build the pages when something changed."""
    left = stale(keys())
    if left:
        print(f"Not executed yet: {', '.join(path.name for path in left)}. Run execute.py first.", file=sys.stderr)
        return 1
    key = sources_key()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == key and (SITE / "html" / "index.html").is_file():
        print("Pages: built already, nothing changed")
        return 0
    STAMP.unlink(missing_ok=True)
    shutil.rmtree(SITE, ignore_errors=True)
    fill_cache()
    print("Pages: building", flush=True)
    status, log = jupyter_book()
    LOG.write_text(log, encoding="utf-8")
    found = complaints(status, log, len(chapters()))
    if found:
        print(log, *("The pages were not published:", *found), sep="\n", file=sys.stderr)
        return 1
    STAMP.write_text(key, encoding="utf-8")
    print(
        f"Pages: built from {len(chapters())} executed chapters in {EXECUTED.relative_to(ROOT)}, log in build/build.log"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
