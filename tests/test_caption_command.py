"""`captioning caption`: what a person names, how captions are made, and where they go."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from captioning import picture_sources, sidecars
from captioning.cli import main
from tests.local_site import serve
from tests.tiny_captioner import save_captioner


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_captioner(tmp_path_factory.mktemp("models") / "one", 1)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder with three pictures, one of them broken, a hidden one, and a text."""
    folder = tmp_path / "album"
    (folder / "inside").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "inside/c.jpg", ".hidden.png"]):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "a.jpg").write_bytes(b"<html>gone</html>")
    (folder / "notes.txt").write_text("no picture")
    return folder


def _run(*arguments: str | Path, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["caption", *map(str, arguments)])
    assert ended.value.code == code


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_stands_for_its_pictures_sorted_and_a_broken_one_is_a_row(
    album: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    _run(album, "--model", model, "--json", code=1)
    rows = _rows(capsys.readouterr().out)
    assert [row["image"] for row in rows] == [
        str(album / name) for name in ("a.jpg", "b.png", "inside/c.jpg")
    ]
    assert rows[0]["captions"] == []
    assert rows[0]["error"].startswith("not a picture: it begins with b'<html>gone")
    assert all(row["captions"][0]["text"] and row["error"] is None for row in rows[1:])


def test_patterns_and_a_list_on_standard_input_name_pictures(album: Path):
    assert picture_sources.expand([f"{album}/**/*.jpg"], []) == [
        str(album / "a.jpg"),
        str(album / "inside/c.jpg"),
    ]
    lines = ["  x.png \n", "\n", f"{album}/inside\n", "https://example.org/1.jpg\n"]
    assert picture_sources.expand(["y.png", "-"], lines) == [
        "y.png",
        "x.png",
        str(album / "inside/c.jpg"),
        "https://example.org/1.jpg",
    ]


def test_what_names_no_picture_is_refused(album: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no pictures: no file in it ends with one of \.avif, "):
        picture_sources.expand([str(tmp_path / "empty")], [])
    with pytest.raises(ValueError, match=r"nothing matches '.*\.gif'; check the pattern"):
        picture_sources.expand([f"{album}/*.gif"], [])


def test_addresses_are_fetched_and_answer_in_the_order_given(
    album: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    with serve() as site:
        site.files["b.png"] = (album / "b.png").read_bytes()
        addresses = [f"{site.url}/file/b.png", f"{site.url}/gone/x", str(album / "b.png")]
        _run(*addresses, "--model", model, "--json", "--allow-private-addresses", code=1)
        rows = _rows(capsys.readouterr().out)
        _run(addresses[0], "--model", model, "--json", code=1)
    assert [row["image"] for row in rows] == addresses
    assert rows[0]["captions"] == rows[2]["captions"]
    assert rows[1]["error"].startswith(f"{addresses[1]} answered 4")
    (refused,) = _rows(capsys.readouterr().out)
    assert "is refused" in refused["error"], "private networks are closed unless they are opened"


def test_a_table_has_a_column_for_each_caption_and_its_probability(
    album: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    _run(album, "--model", model, "--format", "csv", "--top", 2, code=1)
    table = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert [*table[0]] == ["image", "caption_1", "probability_1", "caption_2", "probability_2", "error"]
    assert table[0]["caption_1"] == "" and table[0]["error"].startswith("not a picture")
    assert float(table[1]["probability_1"]) >= float(table[1]["probability_2"]) > 0


def test_markdown_keeps_its_columns_whatever_a_file_is_called(
    album: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (album / "b.png").rename(album / "b|<i>.png")
    _run(album / "b|<i>.png", "--model", model, "--out", tmp_path / "captions.md")
    lines = (tmp_path / "captions.md").read_text().splitlines()
    assert lines[:2] == ["| picture | caption |", "|---|---|"]
    assert lines[2].startswith(f"| {album}/b\\|&lt;i>.png | ")


def test_a_name_that_is_no_text_is_written_all_the_same(
    album: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    odd = os.fsencode(album) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((album / "b.png").read_bytes())
    _run(os.fsdecode(odd), "--model", model, "--out", tmp_path / "captions.jsonl")
    (row,) = _rows((tmp_path / "captions.jsonl").read_text())
    assert row["image"] == f"{album}/caf\N{REPLACEMENT CHARACTER}.png"
    assert row["error"] is None


def test_settings_of_the_method_are_replaced_one_by_one(
    album: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    picture = album / "b.png"
    _run(picture, "--model", model, "--json", "--set", "min_words=6", "--max-words", 6)
    (row,) = _rows(capsys.readouterr().out)
    assert len(row["captions"][0]["text"].split()) == 6
    sample = ("--method", "sample", "--set", "top_p=0.9", "--set", "seed=3", "--top", 3)
    _run(picture, "--model", model, "--json", *sample)
    _run(album, "--model", model, "--json", *sample, code=1)
    first, *others = _rows(capsys.readouterr().out)
    alone, beside = first["captions"], others[1]["captions"]
    assert [own["text"] for own in alone] == [own["text"] for own in beside], (
        "whatever other pictures come along"
    )
    probabilities = [
        own["probability"] for own in beside
    ]  # rounded otherwise in a larger batch, on some processors
    assert [own["probability"] for own in alone] == pytest.approx(probabilities, rel=1e-5)
    _run(picture, "--model", model, "--set", "beam=4", code=1)
    assert "no beam in BeamSettings; it has min_words, max_words" in capsys.readouterr().err
    _run(picture, "--model", model, "--set", "beam_width", code=1)
    assert "--set beam_width: expected KEY=VALUE" in capsys.readouterr().err


def test_several_models_decide_together(
    album: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = save_captioner(tmp_path / "two", 2)
    _run(album / "b.png", "--model", model, "--model", model, "--json")
    _run(album / "b.png", "--model", model, "--json")
    _run(album / "b.png", "--model", model, "--model", other, "--json")
    twice, once, together = _rows(capsys.readouterr().out)
    assert twice["captions"][0]["text"] == once["captions"][0]["text"]
    assert twice["captions"][0]["probability"] == pytest.approx(once["captions"][0]["probability"])
    assert together["captions"] != once["captions"]
    _run(album / "b.png", "--model", model, "--model", other, "--attention", tmp_path / "looks", code=1)
    assert "--attention: several models look each at a grid of its own" in capsys.readouterr().err


def test_a_run_that_was_killed_goes_on_where_it_was(album: Path, model: Path, tmp_path: Path):
    pixels = np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for number in range(200):
        Image.fromarray(np.roll(pixels, number, axis=1)).save(album / f"x{number:03}.jpg")
    out, kept = tmp_path / "captions.jsonl", tmp_path / "captions.jsonl.captions.partial"
    arguments = [str(album), "--model", str(model), "--out", str(out)]
    command = [sys.executable, "-m", "captioning", "caption", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while not (kept.exists() and kept.read_bytes().count(b"\n") > 20):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not out.exists(), "a file appears whole"
    with kept.open("a") as file:
        file.write('{"image": "torn')
    before = {row["image"]: row for row in _rows(kept.read_text().rpartition("\n")[0])[1:]}
    (album / "a.jpg").write_bytes((album / "inside/c.jpg").read_bytes())  # mended: errors are tried again
    marked = next(row for row in before.values() if row["error"] is None)
    kept.write_text(kept.read_text().replace(marked["captions"][0]["text"], "was here before", 1))
    _run(*arguments)
    rows = _rows(out.read_text())
    assert [row["image"] for row in rows] == picture_sources.expand([str(album)], [])
    assert [row["captions"][0]["text"] for row in rows].count("was here before") == 1, "not captioned again"
    assert all(row["error"] is None for row in rows)
    assert not kept.exists()


def test_captions_of_two_models_are_never_mixed(
    album: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "captions.jsonl"
    head = json.dumps({"made_by": "captioning, training another"})
    (tmp_path / "captions.jsonl.captions.partial").write_text(head + "\n")
    _run(album, "--model", model, "--out", out, code=1)
    message = capsys.readouterr().err
    assert (
        "has 0 captions made by captioning, training another, and now it is captioning, training 11111111"
        in message
    )
    assert "remove it to begin anew, or name another --out" in message


def test_a_file_whose_name_does_not_say_what_to_write_is_refused(
    album: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _run(album, "--model", model, "--out", tmp_path / "captions", code=1)
    assert "does not say what to write: end it with .jsonl, .csv or .md" in capsys.readouterr().err


def test_sidecars_describe_pictures_and_keep_what_people_wrote(
    album: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    mine = album / "b.png.xmp"
    mine.write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Mine</dc:title>'
        '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">By hand</rdf:li></rdf:Alt></dc:description>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    by_hand = mine.read_text()
    _run(album, "--model", model, "--format", "xmp", code=1)
    ended = capsys.readouterr()
    assert "1 pictures have a description already; --overwrite replaces them" in ended.err
    assert f"{album / 'a.jpg'}: not a picture" in ended.err
    assert mine.read_text() == by_hand
    assert not (album / "a.jpg.xmp").exists()
    assert sidecars.is_described(album / "inside/c.jpg")

    _run(album / "b.png", "--model", model, "--format", "xmp", "--overwrite")
    root = ElementTree.parse(mine).getroot()
    texts = {element.tag.rpartition("}")[2]: element for element in root.iter()}
    assert texts["title"].text == "Mine"
    (description,) = [own.text for own in texts["description"].iter() if own.tag.endswith("}li")]
    (alternative,) = [own.text for own in texts["AltTextAccessibility"].iter() if own.tag.endswith("}li")]
    assert description == alternative
    assert description != "By hand"
    assert texts["CaptionWriter"].text.startswith("captioning, training 11111111")


def test_a_sidecar_that_is_no_xmp_is_left_alone_and_named(
    album: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    (album / "b.png.xmp").write_text("not XML")
    _run(album / "b.png", "--model", model, "--format", "xmp", code=1)
    assert "b.png.xmp is no XMP: syntax error" in capsys.readouterr().err
    assert (album / "b.png.xmp").read_text() == "not XML"
    _run("https://example.org/x.jpg", "--model", model, "--format", "xmp", code=1)
    assert (
        "writes a sidecar beside each file, so it takes no https://example.org/x.jpg"
        in capsys.readouterr().err
    )


def test_pictures_fetched_ahead_that_nobody_asks_for_keep_no_process_from_its_end(tmp_path: Path) -> None:
    program = """
import sys, time
from captioning import picture_sources
next(picture_sources.read([sys.argv[1]] * 100, allow_private_addresses=True))
print("asks for no more", flush=True)
"""
    with serve() as site:
        site.files["a"] = b"a picture"
        url = f"{site.url}/file/a"
        command = [sys.executable, "-c", program, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
            assert asking.stdout is not None and asking.stdout.read() == b"asks for no more\n"
            assert asking.wait(60) == 0
        assert site.requests["/file/a"] < 100
