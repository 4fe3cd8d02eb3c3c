"""What is kept, what is quarantined, and that nothing is lost between the two."""

import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from pydantic import ValidationError

from captioning import workers
from captioning.cleaning import CleanSettings, clean, measurements
from captioning.cleaning.captions import find_rows, is_foreign, normalise
from captioning.cleaning.images import measure_image

VALUES = {
    "min_side_pixels": 16,
    "max_side_pixels": 200,
    "max_aspect_ratio": 4.0,
    "min_pixel_deviation": 2.0,
    "keep_animated": False,
    "near_duplicates": {"by": "none", "max_distance": 4},
    "max_caption_words": 8,
    "script": "LATIN",
}


def settings(**changes: Any) -> CleanSettings:
    return CleanSettings.model_validate(VALUES | changes)


SETTINGS = settings()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, form, **options)
    return encoded.getvalue()


def noise(seed: int, width: int = 32, height: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels))


def clouds(seed: int, **options: Any) -> bytes:
    """Draw a soft picture, which compression changes little."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
    return encode(image, **{"form": "PNG"} | options)


def animation(form: str = "GIF", num_frames: int = 2) -> bytes:
    frames = [Image.open(io.BytesIO(noise(seed))) for seed in range(90, 90 + num_frames)]
    return encode(frames[0], form, save_all=True, append_images=frames[1:])


def bomb(width: int, height: int) -> bytes:
    """Make a PNG whose header states a size that its few bytes do not hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def raw_folder(
    folder: Path,
    images: dict[str, bytes | None],
    captions: dict[str, list[str]] | None = None,
    splits: dict[str, str] | None = None,
) -> Path:
    """Write raw data; an image of None failed to download, one not in `captions` has a good one."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for image_id, encoded in images.items():
            if encoded is not None:
                archive.writestr(f"{image_id}.png", encoded)
    rows = pd.DataFrame({"image_id": list(images)})
    rows["archive"], rows["member"] = "images.zip", rows["image_id"] + ".png"
    rows["url"] = rows["sha256"] = rows["license"] = ""
    rows["source"], rows["num_bytes"] = "scenes", 0
    rows["split"] = [(splits or {}).get(image_id, "train") for image_id in images]
    has_failed = [encoded is None for encoded in images.values()]
    rows["status"] = np.where(has_failed, "failed", "ok")
    rows["error"] = np.where(has_failed, "http-404: it answered 404", "")
    rows.to_parquet(folder / "rows.parquet", index=False)
    pairs = [
        {"image_id": image_id, "position": position, "caption": caption}
        for image_id in images
        for position, caption in enumerate((captions or {}).get(image_id, ["a good caption"]))
    ]
    pd.DataFrame(pairs, columns=["image_id", "position", "caption"]).astype(
        {"image_id": "str", "position": "int32", "caption": "str"}
    ).to_parquet(folder / "captions.parquet", index=False)
    return folder


def reasons(quarantine: pd.DataFrame) -> dict[tuple[str, int], str]:
    keys = zip(quarantine["image_id"], quarantine["position"], strict=True)
    return dict(zip(keys, quarantine["reason"], strict=True))


def all_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    images, captions, quarantine = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("images", "captions", "quarantine")
    )
    return images, captions, quarantine


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_reason_is_recorded_and_nothing_is_lost(tmp_path: Path) -> None:
    first = noise(1)
    images = {
        "good": first,
        "cut": noise(2)[:200],
        "page": b"<!DOCTYPE html><html>404</html>",
        "empty": b"",
        "absent": None,
        "tiny": noise(3, 15, 40),
        "long": noise(4, 100, 20),
        "wide": noise(7, 201, 100),
        "bomb": bomb(50_000, 50_000),
        "smaller bomb": bomb(11_000, 11_000),
        "blank": encode(Image.new("RGB", (32, 24), (200, 30, 30))),
        "moving": animation(),
        "twin": first,
        "silent": noise(5),
        "mute": noise(6),
    }
    captions = {
        "good": ["  A dog\t runs . ", "...", "one two three four five six seven eight nine", "собака бежит"],
        "silent": [],
        "mute": [" ", "!"],
    }
    raw = raw_folder(tmp_path / "raw", images, captions)
    counts = clean(raw, tmp_path / "clean", SETTINGS)
    kept, kept_captions, quarantine = all_tables(tmp_path / "clean")
    assert list(kept["image_id"]) == ["good"]
    assert kept_captions.to_dict("records") == [
        {"image_id": "good", "position": 0, "caption": "A dog runs .", "flag": ""},
        {"image_id": "good", "position": 3, "caption": "собака бежит", "flag": "foreign-looking"},
    ]
    image_reasons = {
        "cut": "undecodable",
        "page": "undecodable",
        "empty": "undecodable",
        "absent": "failed-download",
        "tiny": "too-small",
        "long": "too-elongated",
        "wide": "too-large",
        "bomb": "too-large",
        "smaller bomb": "too-large",
        "blank": "near-blank",
        "moving": "animated",
        "twin": "duplicate-image",
        "silent": "no-captions",
        "mute": "no-captions",
    }
    assert reasons(quarantine) == {
        **{(name, -1): reason for name, reason in image_reasons.items()},
        **{(name, 0): "image-quarantined" for name in image_reasons if name not in captions},
        ("good", 1): "empty-caption",
        ("good", 2): "caption-too-long",
        ("mute", 0): "empty-caption",
        ("mute", 1): "empty-caption",
    }
    assert (quarantine["detail"] != "").all()
    is_image = quarantine["position"] == -1
    assert sorted([*kept["image_id"], *quarantine.loc[is_image, "image_id"]]) == sorted(images)
    raw_captions = pd.read_parquet(raw / "captions.parquet")[["image_id", "position"]]
    accounted = pd.concat([kept_captions, quarantine[~is_image]])[["image_id", "position"]]
    keys = [set(table.itertuples(index=False, name=None)) for table in (raw_captions, accounted)]
    assert keys[0] == keys[1] and len(raw_captions) == len(accounted)
    assert (counts.num_images, counts.num_captions, counts.num_flagged) == (1, 2, 1)
    assert counts.image_reasons["undecodable"] == 3
    assert counts.caption_reasons["image-quarantined"] == 12


def test_details_say_what_was_found(tmp_path: Path) -> None:
    images = {
        "good": noise(1),
        "twin": noise(1),
        "tiny": noise(2, 10, 20),
        "wide": noise(3, 201, 100),
        "blank": encode(Image.new("L", (20, 20), 7)),
        "moving": animation("WEBP"),
        "bomb": bomb(50_000, 50_000),
        "page": b"<html>",
        "absent": None,
    }
    clean(raw_folder(tmp_path / "raw", images), tmp_path / "clean", SETTINGS)
    quarantine = pd.read_parquet(tmp_path / "clean" / "quarantine.parquet")
    images_only = quarantine[quarantine["position"] == -1]
    assert dict(zip(images_only["image_id"], images_only["detail"], strict=True)) == {
        "twin": "the same bytes as good",
        "tiny": "10 x 20 pixels; the shorter side needs 16",
        "wide": "201 x 100 pixels; the longer side may have 200",
        "blank": "pixels deviate by 0.000 of 255; at least 2 is asked for",
        "moving": "an animation in WEBP",
        "bomb": "more than 100,000,000 pixels",
        "page": "not a picture: it begins with b'<html>'",
        "absent": "http-404: it answered 404",
    }


def test_measurements_describe_the_picture_as_encoded_and_as_decoded(tmp_path: Path) -> None:
    gray = Image.new("L", (40, 20), 0)
    gray.paste(200, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.new("RGB", (40, 20), (90, 90, 90)), "JPEG", exif=exif)
    cmyk = encode(Image.new("CMYK", (40, 20), (0, 0, 0, 0)), "JPEG")
    raw = raw_folder(tmp_path / "raw", {"gray": encode(gray), "turned": turned, "cmyk": cmyk})
    clean(raw, tmp_path / "clean", settings(min_pixel_deviation=0.0))
    kept = pd.read_parquet(tmp_path / "clean" / "images.parquet").set_index("image_id")
    assert list(kept["mode"]) == ["L", "RGB", "CMYK"]
    assert kept.loc["turned", ["width", "height"]].tolist() == [20, 40]
    assert kept.loc["gray", ["pixel_mean", "pixel_deviation"]].tolist() == [100.0, 100.0]
    assert kept.loc["turned", "num_bytes"] == len(turned)
    assert {column: str(kept[column].dtype) for column in ("width", "height")} == {
        "width": "int32",
        "height": "int32",
    }


def test_brightness_equals_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = noise(7)
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    for block_pixels in (1 << 22, 100):
        monkeypatch.setattr("captioning.cleaning.images.BLOCK_PIXELS", block_pixels)
        measurement = measure_image(encoded, SETTINGS)
        assert measurement.pixel_mean == pytest.approx(pixels.mean())
        assert measurement.pixel_deviation == pytest.approx(pixels.var(axis=(0, 1)).mean() ** 0.5)


def test_a_picture_of_one_colour_is_blank_whatever_the_colour() -> None:
    red = encode(Image.new("RGB", (32, 24), (255, 0, 0)))
    assert measure_image(red, SETTINGS).reason == "near-blank"
    assert measure_image(red, settings(min_pixel_deviation=0.0)).reason == ""


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_kept_by_its_first_frame_where_that_is_asked_for(form: str) -> None:
    assert measure_image(animation(form), SETTINGS).reason == "animated"
    kept = measure_image(animation(form), settings(keep_animated=True))
    assert (kept.reason, kept.width, kept.height) == ("", 32, 24)
    assert measure_image(animation(form, num_frames=1), SETTINGS).reason == ""


def test_pages_and_previews_are_no_animation() -> None:
    assert measure_image(animation("TIFF"), SETTINGS).reason == ""
    assert measure_image(animation("MPO"), SETTINGS).reason == ""


def test_first_of_equal_images_that_is_otherwise_good_is_kept(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"silent": noise(1), "b": noise(1), "c": noise(1)}, {"silent": []})
    clean(raw, tmp_path / "clean", SETTINGS)
    assert list(pd.read_parquet(tmp_path / "clean" / "images.parquet")["image_id"]) == ["b"]


def test_images_to_be_captioned_need_no_captions_and_are_nobodys_duplicate(tmp_path: Path) -> None:
    images = {
        "new": clouds(1),
        "old": clouds(1),
        "new again": clouds(1),
        "blank": encode(Image.new("L", (20, 20))),
    }
    captions: dict[str, list[str]] = {"new": [], "new again": [], "blank": []}
    splits = dict.fromkeys(captions, "predict")
    raw = raw_folder(tmp_path / "raw", images, captions, splits)
    for by in ("phash", "caption"):
        clean(raw, tmp_path / "clean", settings(near_duplicates={"by": by, "max_distance": 4}))
        kept, _, quarantine = all_tables(tmp_path / "clean")
        assert list(kept["image_id"]) == ["new", "old", "new again"]
        assert set(kept["twin"]) == {""}
        assert reasons(quarantine) == {("blank", -1): "near-blank"}


# --- near-duplicates


def test_twins_by_perceptual_hash_name_the_earliest_of_their_group(tmp_path: Path) -> None:
    images = {
        "other": clouds(1),
        "first": clouds(2),
        "recompressed": clouds(2, form="JPEG", quality=60),
        "again": clouds(2, form="JPEG", quality=80),
        "same bytes": clouds(2),
        "third": clouds(3),
    }
    counts = clean(
        raw_folder(tmp_path / "raw", images),
        tmp_path / "clean",
        settings(near_duplicates={"by": "phash", "max_distance": 4}),
    )
    kept = pd.read_parquet(tmp_path / "clean" / "images.parquet")
    assert dict(zip(kept["image_id"], kept["twin"], strict=True)) == {
        "other": "",
        "first": "",
        "recompressed": "first",
        "again": "first",
        "third": "",
    }
    assert kept["phash"].str.fullmatch("[0-9a-f]{16}").all()
    assert counts.num_twins == 2
    assert counts.image_reasons == {"duplicate-image": 1}


def test_twins_by_caption_have_the_same_first_caption_once_normalised(tmp_path: Path) -> None:
    images = {name: noise(number) for number, name in enumerate(("a", "b", "c", "d"))}
    captions = {"a": ["!", "CC O"], "b": ["CCO"], "c": [" CC\tO", "N"], "d": ["N", "CCO"]}
    clean(
        raw_folder(tmp_path / "raw", images, captions),
        tmp_path / "clean",
        settings(near_duplicates={"by": "caption", "max_distance": 4}),
    )
    kept = pd.read_parquet(tmp_path / "clean" / "images.parquet")
    assert list(kept["twin"]) == ["", "", "a", ""]
    assert set(kept["phash"]) == {""}


def test_near_duplicates_that_are_not_looked_for_are_not_found(tmp_path: Path) -> None:
    images = {"a": clouds(1), "b": clouds(1, form="JPEG")}
    clean(raw_folder(tmp_path / "raw", images), tmp_path / "clean", SETTINGS)
    kept = pd.read_parquet(tmp_path / "clean" / "images.parquet")
    assert set(kept["twin"]) == set(kept["phash"]) == {""}


# --- tables


def test_damaged_archive_member_is_recorded_not_raised(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"good": noise(1), "bad": noise(2)})
    archive = raw / "images.zip"
    content = bytearray(archive.read_bytes())
    content[content.index(noise(2)) + 40] ^= 0xFF
    archive.write_bytes(content)
    clean(raw, tmp_path / "clean", SETTINGS)
    quarantine = pd.read_parquet(tmp_path / "clean" / "quarantine.parquet")
    assert reasons(quarantine)["bad", -1] == "unreadable"
    assert quarantine["detail"].iloc[0] == "bad.png in images.zip: BadZipFile"


def test_order_is_the_raw_order_however_many_processes_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More images than one process takes at a time, more than a part, in an order that is not sorted."""
    monkeypatch.setattr(measurements, "ROWS_PER_PART", 150)
    images: dict[str, bytes | None] = {f"image-{number * 37 % 200}": noise(number) for number in range(200)}
    images["image-7"] = None
    clean(raw_folder(tmp_path / "raw", images), tmp_path / "clean", SETTINGS)
    del images["image-7"]
    kept, captions, _ = all_tables(tmp_path / "clean")
    assert list(kept["image_id"]) == list(captions["image_id"]) == list(images)
    assert list(kept["num_bytes"]) == [len(encoded or b"") for encoded in images.values()]


def test_same_raw_data_give_the_same_bytes_and_replace_what_was_there(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"a": noise(1), "page": b"<html>"})
    written = []
    for _ in range(2):
        clean(raw, tmp_path / "clean", SETTINGS)
        written.append(content(tmp_path / "clean"))
        (tmp_path / "clean" / "stale").touch()
    assert written[0] == written[1]
    assert list(written[0]) == ["captions.parquet", "images.parquet", "quarantine.parquet"]
    assert list((tmp_path / "home" / ".work" / "clean").iterdir()) == []


def test_nothing_kept_is_refused_with_the_reasons(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"page": b"<html>", "absent": None})
    with pytest.raises(
        ValueError, match=r"no image of .*raw can be kept \(1 failed-download, 1 undecodable\)"
    ):
        clean(raw, tmp_path / "clean", SETTINGS)
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize("order", [["b", "a"], ["a", "x"], ["a", "b", "a"]])
def test_captions_that_do_not_stand_as_the_rows_do_are_refused(order: list[str], tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"a": noise(1), "b": noise(2)})
    captions = pd.DataFrame({"image_id": order, "position": np.int32(0), "caption": "a dog"})
    captions.to_parquet(raw / "captions.parquet", index=False)
    with pytest.raises(
        ValueError, match=r"captions.parquet: image '[ax]' is not in rows.parquet, or its capt"
    ):
        clean(raw, tmp_path / "clean", SETTINGS)


def test_rows_of_captions_are_found_across_batches() -> None:
    import pyarrow as pa

    known = [pa.array(batch) for batch in (["a", "b"], ["c"], ["d", "e", "f"], ["g"])]
    ids = [pa.array(batch) for batch in (["b", "b", "d"], ["d", "f"], [], ["g"])]
    assert [rows.tolist() for rows in find_rows(ids, iter(known))] == [[1, 1, 3], [3, 5], [], [6]]


# --- interrupted, and run twice at once

BLOCKED = """
import sys
from pathlib import Path
from captioning import cleaning
from captioning.cleaning import measurements
measurements.ROWS_PER_PART, measurements.IMAGES_PER_PIECE = 40, 10
cleaning.clean(Path(sys.argv[1]), Path(sys.argv[2]), cleaning.CleanSettings.model_validate_json(sys.argv[3]))
"""
NUM_IMAGES = 150
BLOCKING = 95


@pytest.fixture
def blocking_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Raw data in which one image is a pipe: who reads it waits until somebody writes."""
    monkeypatch.setattr(measurements, "ROWS_PER_PART", 40)
    monkeypatch.setattr(measurements, "IMAGES_PER_PIECE", 10)
    images: dict[str, bytes | None] = {f"image-{number}": noise(number) for number in range(NUM_IMAGES)}
    images["image-3"], images["image-4"] = None, noise(2)
    raw = raw_folder(tmp_path / "raw", images)
    rows = pd.read_parquet(raw / "rows.parquet")
    rows.loc[BLOCKING, ["archive", "member"]] = ["", "files/pipe.png"]
    rows.to_parquet(raw / "rows.parquet", index=False)
    (raw / "files").mkdir()
    os.mkfifo(raw / "files" / "pipe.png")
    return raw


@contextlib.contextmanager
def blocked_run(raw: Path, folder: Path) -> Iterator[None]:
    """Run clean in processes of its own until all parts before the pipe are there; kill them all in the end."""
    arguments = [sys.executable, "-c", BLOCKED, str(raw), str(folder), SETTINGS.model_dump_json()]
    with subprocess.Popen(arguments, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 120
            while (
                len(list((folder.parent / "home").glob(".work/clean/*/measured/*.parquet"))) < BLOCKING // 40
            ):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            below = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            # one that is still dying would take what the pipe has for the next run
            psutil.wait_procs(below, timeout=60)


def clean_with_pipe(raw: Path, folder: Path) -> None:
    feed = threading.Thread(
        target=(raw / "files" / "pipe.png").write_bytes, args=[noise(BLOCKING)], daemon=True
    )
    feed.start()
    clean(raw, folder, SETTINGS)
    feed.join()


def test_a_killed_run_is_continued_and_ends_with_the_same_bytes(
    blocking_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with blocked_run(blocking_raw, tmp_path / "clean"):
        pass
    assert not (tmp_path / "clean").exists()
    run, measured = workers.run, []

    def counting(function: Any, pieces: Iterator[Any], **options: Any) -> Iterator[Any]:
        for rows in run(function, pieces, **options):
            measured.extend(rows)
            yield rows

    monkeypatch.setattr(workers, "run", counting)
    clean_with_pipe(blocking_raw, tmp_path / "clean")
    assert "clean: 80 of 150 images were measured by an earlier run" in capfd.readouterr().err
    assert [row[0] for row in measured] == list(range(80, NUM_IMAGES))
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "another home"))
    clean_with_pipe(blocking_raw, tmp_path / "at once")
    assert content(tmp_path / "clean") == content(tmp_path / "at once")
    assert len(pd.read_parquet(tmp_path / "clean" / "images.parquet")) == NUM_IMAGES - 2


def test_a_second_run_at_the_same_time_is_refused(blocking_raw: Path, tmp_path: Path) -> None:
    with (
        blocked_run(blocking_raw, tmp_path / "clean"),
        pytest.raises(
            ValueError, match=r"clean is being written by another process.*wait until it has ended"
        ),
    ):
        clean(blocking_raw, tmp_path / "clean", SETTINGS)


def test_measurements_of_other_archives_are_not_used(
    blocking_raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with blocked_run(blocking_raw, tmp_path / "clean"):
        pass
    os.utime(blocking_raw / "images.zip", ns=(0, 0))
    clean_with_pipe(blocking_raw, tmp_path / "clean")
    assert "earlier run" not in capfd.readouterr().err


# --- captions


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("A dog .", "A dog ."),
        ("  two   spaces\tand\na line ", "two spaces and a line"),
        ("  only   spaces ", "only spaces"),
        ("ﬁve ½ cafe\u0301", "five 1⁄2 café"),
        ("\ufeffbell\x07 and\u200b zero", "bell and zero"),
        ("no\u00a0break\u2028here", "no break here"),
    ],
)
def test_captions_are_normalised(raw: str, normalised: str) -> None:
    assert normalise(raw) == normalised


@pytest.mark.parametrize(
    ("caption", "script", "expected"),
    [
        ("a dog runs", "LATIN", False),
        ("ein Hündchen läuft", "LATIN", False),
        ("собака бежит", "LATIN", True),
        ("die Hündin собака", "LATIN", False),
        ("犬が走っている dog", "LATIN", True),
        ("1 2 3", "LATIN", False),
        ("собака бежит", "CYRILLIC", False),
        ("a dog runs", "CYRILLIC", True),
        ("a собака", None, False),
        ("狗在跑", "CJK", False),
    ],
)
def test_a_caption_is_foreign_when_most_letters_are_of_another_script(
    caption: str, script: str | None, expected: bool
) -> None:
    assert is_foreign(caption, script) is expected


def test_a_script_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"no Unicode name begins with 'english'; expected LATIN"):
        settings(script="english")
