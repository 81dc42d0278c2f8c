"""Real text for the book: how often each character of Shakespeare's plays occurs, and after which.

The counts ship with the package; :mod:`amem_core.data.shakespeare` recomputes them from their
source. ``V`` is the number of distinct characters; characters are in codepoint order.
"""

import json
from dataclasses import dataclass
from importlib import resources

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from amem_core.validation import require

__all__ = ["CharacterTable", "load_shakespeare", "parse_table", "printable"]


@dataclass(frozen=True, eq=False)
class CharacterTable:
    """Unigram and bigram counts of a text.

    Parameters
    ----------
    characters : the ``V`` distinct characters of the text, in codepoint order
    unigram : (V,) how often each character occurs
    bigram : (V, V) how often character ``j`` comes directly after character ``i``
    provenance : where the text comes from, under which licence, how it was cleaned

    Raises
    ------
    ValueError
        When the characters are not distinct, single and sorted, a shape does not fit them, a
        count is negative, a character has no successor, or the bigrams are not those of a text
        with these unigrams.

    Examples
    --------
    The text "abab":

    >>> table = CharacterTable(("a", "b"), torch.tensor([2, 2]), torch.tensor([[0, 2], [1, 0]]), {})
    >>> table.p.tolist(), table.most_likely_next.tolist()
    ([0.5, 0.5], [1, 0])
    """

    characters: tuple[str, ...]
    unigram: Int64[Tensor, " V"]
    bigram: Int64[Tensor, " V V"]
    provenance: dict[str, object]

    def __post_init__(self) -> None:
        V = len(self.characters)
        sorted_once = list(self.characters) == sorted(set(self.characters))
        single = all(len(ch) == 1 for ch in self.characters)
        require(V >= 1 and sorted_once and single, "characters", self.characters, "distinct single characters, sorted")
        for name, shape in (("unigram", (V,)), ("bigram", (V, V))):
            counts = getattr(self, name)
            require(tuple(counts.shape) == shape, name, tuple(counts.shape), f"{shape}, one per character")
            require(counts.dtype == torch.int64, name, counts.dtype, "torch.int64")
            require(bool((counts >= 0).all()), name, f"a count of {int(counts.min())}", "counts >= 0")
        lonely = [ch for ch, row in zip(self.characters, self.bigram, strict=True) if not row.any()]
        require(not lonely, "bigram", f"no successor of {lonely}", "a successor of every character")
        # a text has one last character that nothing follows and one first that follows nothing
        for missing in (self.unigram - self.bigram.sum(1), self.unigram - self.bigram.sum(0)):
            fits = bool((missing >= 0).all()) and int(missing.sum()) == 1
            require(fits, "bigram", f"{int(self.bigram.sum())} pairs", "the pairs of one text with these unigrams")

    @property
    def length(self) -> int:
        """Number of characters of the text."""
        return int(self.unigram.sum())

    @property
    def p(self) -> Float64[Tensor, " V"]:
        """Probability of each character, (V,)."""
        return self.unigram.double() / self.length

    @property
    def transition(self) -> Float64[Tensor, " V V"]:
        """Probability of character ``j`` after character ``i``, (V, V); rows sum to 1."""
        return self.bigram.double() / self.bigram.sum(1, keepdim=True)

    @property
    def most_likely_next(self) -> Int64[Tensor, " V"]:
        """Index of the most frequent successor of each character, (V,); the first one of equals."""
        return self.bigram.argmax(1)

    def entropy(self) -> float:
        """Entropy of one character, in nats.

        >>> round(load_shakespeare().entropy(), 3)
        3.317
        """
        return float(torch.special.entr(self.p).sum())

    def conditional_entropy(self) -> float:
        """Entropy of a character when the one before is known, in nats.

        The mean of ``-log transition[i, j]`` over the pairs of the text: the lowest loss that a
        predictor can reach that sees one character.

        >>> round(load_shakespeare().conditional_entropy(), 3)
        2.454
        """
        first = self.bigram.sum(1).double() / self.bigram.sum()
        return float(first @ torch.special.entr(self.transition).sum(1))


def parse_table(text: str) -> CharacterTable:
    """The table that ``amem_core.data.shakespeare`` wrote as JSON.

    >>> parse_table('{"characters": ["a"], "unigram": [2], "bigram": [[1]], "provenance": {}}').length
    2
    """
    stored = json.loads(text)
    return CharacterTable(
        characters=tuple(stored["characters"]),
        unigram=torch.tensor(stored["unigram"], dtype=torch.int64),
        bigram=torch.tensor(stored["bigram"], dtype=torch.int64),
        provenance=stored["provenance"],
    )


def load_shakespeare() -> CharacterTable:
    """Character counts of nine plays by Shakespeare: 63 distinct, 1.19 million in all.

    The plays are those of the 1.1-million-character corpus that is usual for small language
    models; ``provenance`` lists them with source, licence and the rules of cleaning. Each call
    returns fresh tensors.

    >>> table = load_shakespeare()
    >>> len(table.characters), table.length
    (63, 1191515)
    >>> q = table.characters.index("q")
    >>> table.characters[int(table.most_likely_next[q])]
    'u'
    """
    return parse_table(resources.files(__name__).joinpath("shakespeare.json").read_text("ascii"))


def printable(ch: str) -> str:
    """A visible label of one character, for axes and tables.

    >>> printable(" "), printable(chr(10)), printable("e")
    ('␣', '⏎', 'e')
    """
    require(len(ch) == 1, "ch", repr(ch), "a single character")
    return {" ": "␣", "\n": "⏎"}.get(ch, ch)
