"""`captioning index` and `captioning search`: pictures found by words."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.cli import main
from captioning.collection import CLOSE, OPEN, Collection
from tests.tiny_captioner import save_captioner

CAPTIONS = {
    "/a/bench.jpg": ["a person sitting on a bench holding an instrument", "a man plays the guitar"],
    "/a/dogs.jpg": ["two dogs run through snow"],
    "/b/beach.jpg": ["a dog on the beach"],
    "/b/hydrant.jpg": ["a yellow fire hydrant"],
    "/b/fire.jpg": ["a fire beside a red hydrant"],
}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection(tmp_path / "collection")
    made.update(_rows(CAPTIONS), dict.fromkeys(CAPTIONS, "1 1"), "m")
    return made


def _rows(captions: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "image": path,
            "captions": [{"text": text, "probability": 0.1} for text in texts],
            "error": None if texts else "gone",
        }
        for path, texts in captions.items()
    ]


def _found(collection: Collection, query: str, top: int = 10) -> list[str]:
    return [own.path for own in collection.search(query, top=top)]


def test_words_are_found_in_any_form_and_the_best_match_comes_first(collection: Collection):
    assert _found(collection, "person sits on benches, holding instruments")[0] == "/a/bench.jpg"
    assert set(_found(collection, "dog")) == {"/a/dogs.jpg", "/b/beach.jpg"}
    assert _found(collection, "DÓG at a beach") == ["/b/beach.jpg", "/a/dogs.jpg"]
    assert _found(collection, "dog", top=1) == _found(collection, "dog")[:1]


def test_words_in_quotes_stand_together_and_a_minus_excludes(collection: Collection):
    assert _found(collection, '"fire hydrant"') == ["/b/hydrant.jpg"]
    assert set(_found(collection, "fire hydrant")) == {"/b/hydrant.jpg", "/b/fire.jpg"}
    assert _found(collection, "fire hydrant -yellow") == ["/b/fire.jpg"]


def test_the_caption_shown_is_the_one_that_matches_with_its_words_marked(collection: Collection):
    (guitar,) = collection.search("guitars", top=10)
    assert guitar.caption == f"a man plays the {OPEN}guitar{CLOSE}"


@pytest.mark.parametrize("query", ["", "the", "AND ( OR", 'path:x ^~* "', "-dog", "\x00", "x" * 5000])
def test_no_query_is_an_error(collection: Collection, query: str):
    assert isinstance(collection.search(query, top=3), list)


def test_captions_are_replaced_and_forgotten(collection: Collection):
    collection.update(_rows({"/b/beach.jpg": ["a cat"]}), {"/b/beach.jpg": "2 2"}, "n", gone=["/a/dogs.jpg"])
    assert _found(collection, "dog") == []
    assert _found(collection, "cat") == ["/b/beach.jpg"]
    assert len(collection) == 4
    assert collection.states("/b")["/b/beach.jpg"] == ("2 2", "n")
    assert set(collection.states("/a")) == {"/a/bench.jpg"}


def test_one_process_writes_at_a_time_and_others_search_meanwhile(collection: Collection, tmp_path: Path):
    writer = collection._index.writer()
    other = Collection(tmp_path / "collection")
    with pytest.raises(ValueError, match=r"collection cannot be written: .*[Ll]ock"):
        other.update(_rows({"/x.jpg": ["a cat"]}), {"/x.jpg": ""}, "m")
    assert _found(other, "hydrant")
    del writer


def test_what_is_no_collection_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["search", "dog", "--collection", str(tmp_path / "none")])
    assert ended.value.code == 1
    assert "none has no captions; `captioning index FOLDER` makes them" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file cannot be opened as a collection of captions"):
        Collection(tmp_path / "file")


def _picture(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)


def test_an_index_follows_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))
    model, album = save_captioner(tmp_path / "model", 1), tmp_path / "album"
    album.mkdir()
    for seed, name in enumerate(["a.png", "b.png"]):
        _picture(album / name, seed)
    (album / "c.jpg").write_bytes(b"no picture")

    def index(*more: str, code: int = 0) -> list[str]:
        with pytest.raises(SystemExit) as ended:
            main(["index", str(album), "--model", str(model), *more])
        assert ended.value.code == code
        return [line.rpartition("collection: ")[2] for line in capsys.readouterr().err.splitlines()]

    broken = f"{album}/c.jpg: not a picture: it begins with b'no picture'"
    assert index(code=1) == [broken, "3 pictures captioned, 1 of them broken, 0 gone, 3 in all"]
    assert index(code=1) == [broken, "1 pictures captioned, 1 of them broken, 0 gone, 3 in all"]
    _picture(album / "c.jpg", 5)
    (album / "a.png").unlink()
    _picture(album / "d.png", 6)
    assert index() == ["2 pictures captioned, 0 of them broken, 1 gone, 3 in all"]
    shutil.rmtree(model)
    save_captioner(model, 2)
    assert index() == [
        "0 pictures captioned, 0 of them broken, 0 gone, 3 in all",
        "3 have captions of another model; --again makes them anew",
    ]
    assert index("--again") == ["3 pictures captioned, 0 of them broken, 0 gone, 3 in all"]

    with pytest.raises(SystemExit) as ended:
        main(["search", "red", "dogs", "run", "far", "--json", "--top", "2"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ended.value.code == 0
    assert len(rows) == 2 and all(row["image"].startswith(str(album)) for row in rows)
    assert rows[0]["score"] >= rows[1]["score"] > 0
    assert OPEN not in rows[0]["caption"] + rows[1]["caption"]
