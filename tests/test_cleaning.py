"""What is kept, what is quarantined, and that nothing is lost between the two."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from captioning.cleaning import CleanSettings, clean, measure_image, normalise

SETTINGS = CleanSettings(min_side_pixels=16, max_aspect_ratio=4.0, max_caption_words=8)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, form, **options)
    return encoded.getvalue()


def noise(seed: int, width: int = 32, height: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels))


def raw_folder(
    folder: Path, images: dict[str, bytes | None], captions: dict[str, list[str]] | None = None
) -> Path:
    """Write raw data; an image of None failed to download, one not in `captions` has a good one."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for image_id, encoded in images.items():
            if encoded is not None:
                archive.writestr(f"{image_id}.jpg", encoded)
    rows = pd.DataFrame({"image_id": list(images)})
    rows["archive"], rows["member"] = "images.zip", rows["image_id"] + ".jpg"
    rows["url"] = rows["sha256"] = rows["license"] = ""
    rows["split"], rows["num_bytes"] = "train", 0
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
        "twin": first,
        "silent": noise(5),
        "mute": noise(6),
    }
    captions = {
        "good": ["  A dog\t runs . ", "...", "one two three four five six seven eight nine"],
        "silent": [],
        "mute": [" ", "!"],
    }
    raw = raw_folder(tmp_path / "raw", images, captions)
    counts = clean(raw, tmp_path / "clean", SETTINGS)
    kept = pd.read_parquet(tmp_path / "clean" / "images.parquet")
    kept_captions = pd.read_parquet(tmp_path / "clean" / "captions.parquet")
    quarantine = pd.read_parquet(tmp_path / "clean" / "quarantine.parquet")
    assert list(kept["image_id"]) == ["good"]
    assert kept_captions.to_dict("records") == [
        {"image_id": "good", "position": 0, "caption": "A dog runs ."}
    ]
    assert reasons(quarantine) == {
        ("cut", -1): "undecodable",
        ("page", -1): "undecodable",
        ("empty", -1): "undecodable",
        ("absent", -1): "failed-download",
        ("tiny", -1): "too-small",
        ("long", -1): "too-elongated",
        ("twin", -1): "duplicate-image",
        ("silent", -1): "no-captions",
        ("mute", -1): "no-captions",
        ("good", 1): "empty-caption",
        ("good", 2): "caption-too-long",
        **{
            (name, 0): "image-quarantined"
            for name in ("cut", "page", "empty", "absent", "tiny", "long", "twin")
        },
        ("mute", 0): "empty-caption",
        ("mute", 1): "empty-caption",
    }
    assert (quarantine["detail"] != "").all()
    is_image = quarantine["position"] == -1
    assert len(kept) + is_image.sum() == len(images)
    assert len(kept_captions) + (~is_image).sum() == len(pd.read_parquet(raw / "captions.parquet"))
    assert counts.num_images == counts.num_captions == 1
    assert counts.image_reasons["undecodable"] == 3
    assert counts.caption_reasons["image-quarantined"] == 7


def test_details_say_what_was_found(tmp_path: Path) -> None:
    images = {"good": noise(1), "twin": noise(1), "tiny": noise(2, 10, 20), "page": b"<html>", "absent": None}
    clean(raw_folder(tmp_path / "raw", images), tmp_path / "clean", SETTINGS)
    quarantine = pd.read_parquet(tmp_path / "clean" / "quarantine.parquet")
    details = dict(zip(quarantine["image_id"], quarantine["detail"], strict=True))
    images_only = quarantine[quarantine["position"] == -1]
    details = dict(zip(images_only["image_id"], images_only["detail"], strict=True))
    assert details == {
        "twin": "the same bytes as good",
        "tiny": "10 x 20 pixels; the shorter side needs 16",
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
    clean(
        raw_folder(tmp_path / "raw", {"gray": encode(gray), "turned": turned, "cmyk": cmyk}),
        tmp_path / "c",
        SETTINGS,
    )
    kept = pd.read_parquet(tmp_path / "c" / "images.parquet").set_index("image_id")
    assert list(kept["mode"]) == ["L", "RGB", "CMYK"]
    assert kept.loc["turned", ["width", "height"]].tolist() == [20, 40]
    assert kept.loc["gray", ["pixel_mean", "pixel_deviation"]].tolist() == [100.0, 100.0]
    assert kept.loc["turned", "num_bytes"] == len(turned)
    assert {column: str(kept[column].dtype) for column in ("width", "height")} == {
        "width": "int32",
        "height": "int32",
    }


def test_brightness_equals_numpys() -> None:
    encoded = noise(7)
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    measurement = measure_image(encoded, SETTINGS)
    assert measurement.pixel_mean == pytest.approx(pixels.mean())
    assert measurement.pixel_deviation == pytest.approx(pixels.std())


def test_first_of_equal_images_that_is_otherwise_good_is_kept(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"silent": noise(1), "b": noise(1), "c": noise(1)}, {"silent": []})
    clean(raw, tmp_path / "clean", SETTINGS)
    assert list(pd.read_parquet(tmp_path / "clean" / "images.parquet")["image_id"]) == ["b"]


def test_damaged_archive_member_is_recorded_not_raised(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"good": noise(1), "bad": noise(2)})
    archive = raw / "images.zip"
    content = bytearray(archive.read_bytes())
    content[content.index(noise(2)) + 40] ^= 0xFF
    archive.write_bytes(content)
    clean(raw, tmp_path / "clean", SETTINGS)
    quarantine = pd.read_parquet(tmp_path / "clean" / "quarantine.parquet")
    assert reasons(quarantine)["bad", -1] == "unreadable"
    assert quarantine["detail"].iloc[0] == "bad.jpg in images.zip: BadZipFile"


def test_order_is_the_raw_order_however_many_processes_look(tmp_path: Path) -> None:
    """More images than one process takes at a time, in an order that is not sorted."""
    images = {f"image-{number * 37 % 200}": noise(number) for number in range(200)}
    clean(raw_folder(tmp_path / "raw", images), tmp_path / "clean", SETTINGS)
    kept = pd.read_parquet(tmp_path / "clean" / "images.parquet")
    assert list(kept["image_id"]) == list(images)
    assert list(kept["num_bytes"]) == [len(encoded) for encoded in images.values()]


def test_same_raw_data_give_the_same_bytes_and_replace_what_was_there(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"a": noise(1), "page": b"<html>"})
    tables = []
    for _ in range(2):
        clean(raw, tmp_path / "clean", SETTINGS)
        tables.append({path.name: path.read_bytes() for path in sorted((tmp_path / "clean").iterdir())})
        (tmp_path / "clean" / "stale").touch()
    assert tables[0] == tables[1]
    assert list(tables[0]) == ["captions.parquet", "images.parquet", "quarantine.parquet"]


def test_nothing_kept_is_refused_with_the_reasons(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", {"page": b"<html>", "absent": None})
    with pytest.raises(
        ValueError, match=r"no image of .*raw can be kept \(1 failed-download, 1 undecodable\)"
    ):
        clean(raw, tmp_path / "clean", SETTINGS)
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("A dog .", "A dog ."),
        ("  two   spaces\tand\na line ", "two spaces and a line"),
        ("ﬁve ½ cafe\u0301", "five 1⁄2 café"),
        ("\ufeffbell\x07 and\u200b zero", "bell and zero"),
        ("no\u00a0break\u2028here", "no break here"),
    ],
)
def test_captions_are_normalised(raw: str, normalised: str) -> None:
    assert normalise(raw) == normalised
