"""Standard InChI: what `captioning.inchi` allows lexeme by lexeme, in the words of a vocabulary.

Words are lexemes (`preprocess.tokens: inchi`) or characters, of which numbers, elements and names of layers are made.
What the vocabulary lacks is never begun: an atom whose locant cannot be written, a second component without `;`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from captioning.inchi.formula import Limits
from captioning.inchi.molecule import LAYERS, PUNCTUATION, Molecule
from captioning.inchi.states import REMEMBERED, Lexeme, bits, members
from captioning.inchi.valences import ELEMENTS
from captioning.tokens import module_of
from captioning.vocabulary import EOS, MARKERS, Vocabulary

PREFIX = "InChI=1S/"
MOST_NUMBER = 299
SYMBOLS = LAYERS | PUNCTUATION | ELEMENTS | frozenset("HDT01")
NECESSARY = frozenset({"/c", "/h", "-", "(", ")", ",", "H"})
MOST_LEXEMES_MORE = 8
"""By so many the lexemes to the end can grow with one lexeme behind the formula."""
MOST_COMPONENTS = 30


@cache
def _beginning_with(digits: str) -> int:
    """Return the numbers whose first digits these are, as bits."""
    return bits(number for number in range(MOST_NUMBER + 1) if str(number).startswith(digits))


@dataclass(frozen=True, eq=False)
class Place:
    """A molecule, and the part of a lexeme that may yet grow."""

    molecule: Molecule
    part: str = ""
    prefix: str = ""
    """What is still to be written of the prefix."""

    @cached_property
    def closed(self) -> Molecule | None:
        """Return the molecule with the part as its last lexeme; None where it is none yet."""
        if not self.part:
            return self.molecule
        lexeme = _lexeme(self.molecule, self.part)
        return None if lexeme is None else self.molecule.after(lexeme)

    @cached_property
    def pieces(self) -> dict[tuple[int, frozenset[str], str], None]:
        """Return what may come next, as (numbers, symbols, part of them that is there)."""
        found: dict[tuple[int, frozenset[str], str], None] = {}
        if self.part:
            found[self.molecule.numbers, self.molecule.symbols, self.part] = None
        if self.closed is not None:
            found[self.closed.numbers, self.closed.symbols, ""] = None
        return found

    @property
    def is_complete(self) -> bool:
        """Tell whether the InChI may end here."""
        return not self.prefix and self.closed is not None and self.closed.is_complete


def _lexeme(molecule: Molecule, text: str) -> Lexeme | None:
    """Return a text as a lexeme that may come next, None where it is none."""
    if text in molecule.symbols:
        return text
    if text.isdecimal() and text == str(int(text)) and molecule.numbers >> int(text) & 1:
        return int(text)
    return None


def _begins(numbers: int, symbols: frozenset[str], text: str) -> bool:
    """Tell whether a text begins, or is, one of these."""
    return any(symbol.startswith(text) for symbol in symbols) or (
        text.isdecimal() and numbers & _beginning_with(text) != 0
    )


class Grammar:
    """See `captioning.grammars`.

    Raises:
        ValueError: the tokens are not the parts of InChI one after the other, or some that are necessary are missing.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_words: int) -> None:
        tokens = module_of(vocabulary.tokens)
        written = tokens.join([])
        if not tokens.IS_SPELLED or not PREFIX.startswith(written):
            raise ValueError(
                f"the grammar inchi cannot follow preprocess.tokens: {vocabulary.tokens}, whose words are no parts of "
                "InChI; it takes inchi or characters, or set generation.grammar: none"
            )
        self._words = vocabulary.words
        texts = {word: number for number, word in enumerate(self._words) if number >= len(MARKERS)}
        self._is_whole = any(len(text) > 1 and text.isdecimal() for text in texts)
        self._words_of_lexeme = 1 if self._is_whole else 2
        limits = self._limits(frozenset(texts))
        self._numbers = [text for text in texts if text.isdecimal() and int(text) <= MOST_NUMBER]
        self._number_ids = np.array([texts[text] for text in self._numbers], dtype=np.int64)
        self._number_values = np.array([int(text) for text in self._numbers], dtype=np.int64)
        self._others = {text: number for text, number in texts.items() if text not in {*self._numbers}}
        self._ids = texts
        self._allowed: dict[object, np.ndarray] = {}
        self.start = Place(Molecule.begin(limits), prefix=PREFIX[len(written) :])

    def _limits(self, texts: frozenset[str]) -> Limits:
        def can_write(text: str) -> bool:
            return text in texts or (not self._is_whole and set(text) <= texts)

        symbols = frozenset(symbol for symbol in SYMBOLS if can_write(symbol))
        missing = sorted(NECESSARY - symbols)
        missing += [] if can_write("1") else ["1"]
        missing += [] if symbols & ELEMENTS else ["any element"]
        if missing:
            raise ValueError(
                f"the vocabulary of {len(texts)} words cannot write InChI, as it lacks {', '.join(missing)}: build it "
                "from captions that are InChI, or set generation.grammar: none"
            )
        locants = itertools.takewhile(lambda number: can_write(str(number)), range(1, MOST_NUMBER))
        num_atoms = max(locants)
        has_several = {".", ";"} <= symbols
        return Limits(num_atoms, MOST_COMPONENTS if has_several else 1, symbols)

    def advance(self, state: Place, word: int) -> Place:
        """Return the place after one word more."""
        text = self._words[word]
        if state.prefix:
            return Place(state.molecule, prefix=state.prefix.removeprefix(text))
        if self._is_whole:
            lexeme = _lexeme(state.molecule, text)
            assert lexeme is not None, f"{text!r} was not allowed"
            return Place(state.molecule.after(lexeme))
        molecule = state.molecule
        if state.part and _begins(molecule.numbers, molecule.symbols, state.part + text):
            return Place(molecule, state.part + text)
        assert state.closed is not None, f"{text!r} was not allowed"
        return Place(state.closed, text)

    def allowed(self, state: Place, num_words_left: int) -> np.ndarray:
        """Return which words may come next."""
        if state.prefix:
            return self._only(next(text for text in self._ids if state.prefix.startswith(text)))
        molecule = state.closed or state.molecule
        needed = self._words_of_lexeme * (molecule.most_lexemes + 2) + 1
        is_formula = molecule.layer == ""
        more = 0 if is_formula else self._words_of_lexeme * MOST_LEXEMES_MORE
        if not is_formula and needed + more > num_words_left:
            return self._on_the_shortest_way(state)
        if len(self._allowed) > REMEMBERED:
            self._allowed.clear()
        key = (tuple(state.pieces), state.is_complete)
        if (found := self._allowed.get(key)) is None:
            found = self._allowed[key] = self._mask(state)
        if is_formula:
            found = self._affordable(state, found, num_words_left)
        return found

    def _mask(self, state: Place) -> np.ndarray:
        mask = np.zeros(len(self._words), dtype=bool)
        for numbers, symbols, part in state.pieces:
            if self._is_whole:
                bytes_ = np.frombuffer(numbers.to_bytes(40, "little"), dtype=np.uint8)
                is_number = np.unpackbits(bytes_, bitorder="little")
                mask[self._number_ids] |= is_number[self._number_values].astype(bool)
                for symbol in symbols & self._ids.keys():
                    mask[self._ids[symbol]] = True
                continue
            for text, number in self._ids.items():
                mask[number] |= _begins(numbers, symbols, part + text)
        mask[EOS] = state.is_complete
        return mask

    def _affordable(self, state: Place, mask: np.ndarray, num_words_left: int) -> np.ndarray:
        """Return the words of a formula without those that ask for more than the words that are left."""
        key = (state.molecule.inner, state.part, num_words_left)
        if (found := self._allowed.get(key)) is None:
            found = self._allowed[key] = self._affordable_now(state, mask, num_words_left)
        return found

    def _affordable_now(self, state: Place, mask: np.ndarray, num_words_left: int) -> np.ndarray:
        found = mask.copy()
        for word in np.flatnonzero(mask):
            if word == EOS:
                continue
            molecule = self._closed_by(self.advance(state, int(word)))
            found[word] = self._words_of_lexeme * (molecule.most_lexemes + 2) + 2 <= num_words_left
        return found if found.any() else self._on_the_shortest_way(state)

    @staticmethod
    def _closed_by(place: Place) -> Molecule:
        return place.closed or place.molecule

    def _on_the_shortest_way(self, state: Place) -> np.ndarray:
        if state.is_complete:
            return self._only(self._words[EOS])
        return self._only(next(self._texts(state)))

    def _texts(self, state: Place) -> Iterator[str]:
        """Yield words on the shortest way: the next one is all that counts."""
        if state.part:
            text = _shortest_text(state)
            if text is not None:
                yield text if self._is_whole else text[0]
                return
        molecule = state.closed
        assert molecule is not None
        lexeme = molecule.shortest()
        assert lexeme is not None
        text = str(lexeme)
        yield text if self._is_whole else text[0]

    def _only(self, text: str) -> np.ndarray:
        mask = np.zeros(len(self._words), dtype=bool)
        mask[EOS if text == self._words[EOS] else self._ids[text]] = True
        return mask


def _shortest_text(state: Place) -> str | None:
    """Return what a part of a lexeme still lacks, None where it is whole."""
    if state.closed is not None:
        return None
    molecule = state.molecule
    whole = [symbol for symbol in sorted(molecule.symbols) if symbol.startswith(state.part)]
    if state.part.isdecimal():
        whole += map(str, members(molecule.numbers & _beginning_with(state.part)))
    return whole[0][len(state.part) :]
