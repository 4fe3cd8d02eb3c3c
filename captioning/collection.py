"""Captioned pictures that are found by words: a folder with a full-text index (Tantivy).

Words are stemmed (English), and articles, prepositions and the like left out. A query finds the pictures with any of
its words, ranked by BM25; "words in quotes" must stand together, and -word must not occur.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tantivy

from captioning.caption_files import Row

ANALYZER = "captions"
NAMES = ("id", "path", "state", "made_by", "error")
"""Fields with a value for programs, besides the captions."""
OTHER_THAN_WORDS = re.compile(r"[^\w\s\"'-]")
"""What a query has besides words, quotes and minus: Tantivy would read fields, ranges and weights in it."""
OPEN, CLOSE = "\x02", "\x03"
"""Around a word that was found."""
MAX_CHARACTERS = 10_000
"""Of a caption, in which words are marked."""
OLD = "; where an earlier release made it, remove it and run `captioning index FOLDER` again"
WRITER_BYTES = 50_000_000
"""Of memory, while pictures are added."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture that a query found."""

    path: str
    caption: str
    """With `OPEN` and `CLOSE` around the words that were found."""
    score: float
    """BM25; higher is better."""
    id: str
    """Names the picture to those who need not know its path: the same as long as the path is."""


class Collection:
    """Captions of pictures by path.

    Args:
        folder: of the index; made if absent.

    Raises:
        ValueError: it cannot be opened, or is something else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        schema = tantivy.SchemaBuilder()
        for name in NAMES:
            schema.add_text_field(name, stored=True, tokenizer_name="raw")
        schema.add_text_field("caption", stored=True, tokenizer_name=ANALYZER)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(schema.build(), path=str(folder))
        except (OSError, ValueError) as error:
            hint = OLD if "schema" in str(error).lower() else ""
            raise ValueError(
                f"{folder} cannot be opened as a collection of captions: {error}{hint}"
            ) from None
        self._index.register_tokenizer(ANALYZER, _analyzer())

    def __len__(self) -> int:
        return int(self._index.searcher().num_docs)

    def reload(self) -> None:
        """See what another process has written since."""
        self._index.reload()

    def states(self, folder: str) -> dict[str, tuple[str, str]]:
        """Return state and `made_by` of each picture below a folder, by path; one with an error has no state."""
        return {
            own["path"]: ("" if own["error"] else own["state"], own["made_by"])
            for own in self._rows(tantivy.Query.all_query(), max(1, len(self)))
            if own["path"].startswith(f"{folder}/")
        }

    def update(
        self, rows: Iterable[Row], states: Mapping[str, str], made_by: str, *, gone: Iterable[str] = ()
    ) -> None:
        """Keep the rows of some pictures, in place of earlier ones, and forget those that are gone: all or nothing.

        Raises:
            ValueError: another process writes, or the disk refuses.
        """
        try:
            writer = self._index.writer(WRITER_BYTES, num_threads=1)
            for path in gone:
                writer.delete_documents_by_term("path", path)
            for row in rows:
                writer.delete_documents_by_term("path", row["image"])
                writer.add_document(
                    tantivy.Document(
                        id=[picture_id(row["image"])],
                        path=[row["image"]],
                        state=[states[row["image"]]],
                        made_by=[made_by],
                        error=[row["error"] or ""],
                        caption=[own["text"] for own in row["captions"]],
                    )
                )
            writer.commit()
            writer.wait_merging_threads()
        except ValueError as error:
            raise ValueError(f"{self._folder} cannot be written: {error}") from None
        self._index.reload()

    def search(self, query: str, *, top: int) -> list[Found]:
        """Return up to `top` pictures, the best first."""
        words = OTHER_THAN_WORDS.sub(" ", query).lower()  # in capitals AND, OR and NOT are operators
        parsed, _ = self._index.parse_query_lenient(words, ["caption"])
        searcher = self._index.searcher()
        snippets = tantivy.SnippetGenerator.create(searcher, parsed, self._index.schema, "caption")
        snippets.set_max_num_chars(MAX_CHARACTERS)
        found = []
        for score, address in searcher.search(parsed, top).hits:
            document = searcher.doc(address)
            captions = [_marked(snippets, text) for text in document["caption"]]
            best = max(captions, key=lambda caption: caption.count(OPEN))
            path, own_id = str(document["path"][0]), str(document["id"][0])
            found.append(Found(path=path, caption=best, score=float(score), id=own_id))
        return found

    def find(self, picture_id: str) -> tuple[str, str] | None:
        """Return path and state of the picture with an id; None if there is none."""
        query = tantivy.Query.term_query(self._index.schema, "id", picture_id)
        return next(((own["path"], own["state"]) for own in self._rows(query, 1)), None)

    def _rows(self, query: tantivy.Query, limit: int) -> Iterator[dict[str, str]]:
        """Yield what is known of pictures."""
        searcher = self._index.searcher()
        for _, address in searcher.search(query, limit).hits:
            document = searcher.doc(address)
            yield {name: str(document[name][0]) for name in NAMES}


def picture_id(path: str) -> str:
    """Return what names the picture at a path."""
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def _analyzer() -> tantivy.TextAnalyzer:
    """Return what makes the terms of captions and queries: lower case, without accents, stemmed."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.stopword("english"))
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )


def _marked(snippets: tantivy.SnippetGenerator, caption: str) -> str:
    """Return a caption with marks around the words that were found."""
    snippet = snippets.snippet_from_doc(tantivy.Document(caption=[caption]))
    encoded, marked, end = snippet.fragment().encode(), b"", 0
    if not encoded:
        return caption
    for place in snippet.highlighted():
        marked += (
            encoded[end : place.start] + OPEN.encode() + encoded[place.start : place.end] + CLOSE.encode()
        )
        end = place.end
    return (marked + encoded[end:]).decode()


def open_for_search(folder: Path) -> Collection:
    """Open a collection that is there.

    Raises:
        ValueError: it is not.
    """
    if not (folder / "meta.json").exists():
        raise ValueError(f"{folder} has no captions; `captioning index FOLDER` makes them")
    return Collection(folder)
