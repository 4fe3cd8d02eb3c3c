"""Pictures of every kind become upright 8-bit RGB, or a named failure."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from captioning import images
from captioning.images import BadImage, ImageFolder, PixelTransform, decode


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, form, **options)
    return encoded.getvalue()


def halves(left: Any, right: Any, mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def pixel(pixels: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(int(value) for value in pixels[y, x])


def near(value: tuple[int, ...], expected: tuple[int, ...], most: int = 6) -> bool:
    return all(abs(a - b) <= most for a, b in zip(value, expected, strict=True))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_rgb_picture_keeps_its_colours(form: str) -> None:
    image = decode(encode(halves((200, 30, 40), (20, 60, 220)), form))
    assert (image.dtype, image.shape) == (np.uint8, (20, 40, 3))
    assert near(pixel(image, 5, 10), (200, 30, 40), 12)
    assert near(pixel(image, 35, 10), (20, 60, 220), 12)


def test_gray_picture_becomes_three_equal_channels() -> None:
    image = decode(encode(halves(30, 220, "L")))
    assert pixel(image, 5, 5) == (30, 30, 30)
    assert pixel(image, 35, 5) == (220, 220, 220)


def test_cmyk_jpeg_is_not_inverted() -> None:
    image = decode(encode(halves((0, 255, 255, 0), (0, 0, 0, 0), "CMYK"), "JPEG", quality=95))
    assert near(pixel(image, 5, 10), (255, 0, 0), 40)
    assert near(pixel(image, 35, 10), (255, 255, 255), 40)


def test_palette_picture_shows_its_palette_colours() -> None:
    image = decode(encode(halves((255, 0, 0), (0, 0, 255)).convert("P", palette=Image.Palette.ADAPTIVE)))
    assert near(pixel(image, 5, 10), (255, 0, 0))
    assert near(pixel(image, 35, 10), (0, 0, 255))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    transparent = halves((0, 0, 0, 0), (10, 10, 10, 255), "RGBA")
    encoded = (
        encode(transparent.quantize(4), transparency=None)
        if mode == "P"
        else encode(transparent.convert(mode))
    )
    image = decode(encoded)
    assert near(pixel(image, 5, 10), (255, 255, 255))
    assert near(pixel(image, 35, 10), (10, 10, 10))


def test_half_transparent_black_is_middle_gray() -> None:
    assert near(pixel(decode(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)))), 4, 4), (127, 127, 127))


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(16, axis=0)
    image = decode(encode(Image.fromarray(values)))
    gray = image[0, :, 0]
    assert np.abs(gray.astype(int) - np.arange(256)).max() <= 1


def test_animation_shows_its_first_frame() -> None:
    first, second = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    animation = encode(first, "GIF", save_all=True, append_images=[second], duration=100)
    assert near(pixel(decode(animation), 8, 8), (255, 0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_orientation_is_applied_as_pillow_does(orientation: int) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1))
    encoded = encode(stored, "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    assert np.array_equal(decode(encoded), np.asarray(upright))
    assert decode(encoded).shape[:2] == ((48, 80) if orientation < 5 else (80, 48))


def test_photographs_decode_to_the_pixels_of_pillow(shared: Path) -> None:
    for photo in sorted((shared / "data/coco_cc_by/images").glob("*.jpg"))[:20]:
        with Image.open(photo) as image:
            assert np.array_equal(decode(photo.read_bytes()), np.asarray(image.convert("RGB"))), photo.name


def test_damaged_exif_does_not_cost_the_picture() -> None:
    encoded = encode(
        Image.new("RGB", (16, 16), (255, 0, 0)), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\xff"
    )
    assert near(pixel(decode(encoded), 8, 8), (255, 0, 0))


def test_truncated_picture_is_a_named_failure() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for form in ("JPEG", "PNG"):
        encoded = encode(Image.fromarray(noise), form)
        with pytest.raises(BadImage, match="not a readable picture"):
            decode(encoded[: len(encoded) // 2])


def test_web_page_named_jpg_is_a_named_failure() -> None:
    with pytest.raises(BadImage, match="not a picture: it begins with b'<!DOCTYPE html><'"):
        decode(b"<!DOCTYPE html><html><body>404</body></html>")


def test_empty_file_is_a_named_failure() -> None:
    with pytest.raises(BadImage, match="the file is empty"):
        decode(b"")


def test_picture_with_too_many_pixels_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(BadImage, match="20 x 10 pixels are more than 100"):
        decode(encode(Image.new("RGB", (20, 10))))


def test_transform_gives_channels_rows_columns_of_uint8() -> None:
    pixels = PixelTransform(height=8, width=12)(np.array(halves((200, 30, 40), (20, 60, 220))))
    assert (pixels.shape, pixels.dtype) == ((3, 8, 12), np.uint8)
    assert pixels[:, 4, 1].tolist() == [200, 30, 40]
    assert pixels[:, 4, 10].tolist() == [20, 60, 220]


def test_folder_reads_archives_and_files_also_after_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "single.jpg").write_bytes(b"one")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("member.jpg", b"two")
    folder = ImageFolder(tmp_path)
    assert folder.read("some.zip", "member.jpg") == b"two"
    copy = pickle.loads(pickle.dumps(folder))
    assert (copy.read("some.zip", "member.jpg"), copy.read("", "single.jpg")) == (b"two", b"one")


def test_missing_member_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w"):
        pass
    with pytest.raises(KeyError):
        ImageFolder(tmp_path).read("some.zip", "absent.jpg")


@pytest.mark.parametrize("num_bytes", [2_000_000, images.MAX_BYTES + 1])
def test_member_that_expands_like_a_bomb_is_not_unpacked(num_bytes: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bmp", bytes(num_bytes))
    with pytest.raises(BadImage, match=rf"bomb.bmp of some.zip unpacks from [\d,]+ to {num_bytes:,} bytes"):
        ImageFolder(tmp_path).read("some.zip", "bomb.bmp")


def test_member_that_holds_more_than_it_states_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("liar.bmp", bytes(100_000))
    encoded = (tmp_path / "some.zip").read_bytes()
    (tmp_path / "some.zip").write_bytes(
        encoded.replace((100_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    )
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        ImageFolder(tmp_path).read("some.zip", "liar.bmp")


# --- the steps for drawings

PLAIN = {"height": 64, "width": 128}


def drawing(height: int, width: int, *ink: tuple[int, int, int, int]) -> np.ndarray:
    """White with black rectangles (top, left, bottom, right)."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    for top, left, bottom, right in ink:
        pixels[top:bottom, left:right] = 0
    return pixels


def test_a_transform_that_states_no_steps_is_the_one_of_earlier_folders() -> None:
    transform = PixelTransform.model_validate_json('{"height":64,"width":128}')
    assert transform == PixelTransform(
        **PLAIN, channels=3, max_speck_pixels=0, crop="none", turn="none", fit="stretch"
    )
    assert transform.model_dump_json(exclude_defaults=True) == '{"height":64,"width":128}'
    photo = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    stretched = ImageOps.fit(Image.fromarray(photo), (128, 64), Image.Resampling.BILINEAR)
    assert transform(photo).shape == (3, *stretched.size[::-1])


def test_padding_keeps_proportions_and_centres_on_white() -> None:
    transform = PixelTransform(**PLAIN, fit="pad")
    black = transform(drawing(30, 30, (0, 0, 30, 30)))
    assert (black[:, :, 32:96] == 0).all()
    assert (black[:, :, :32] == 255).all() and (black[:, :, 96:] == 255).all()
    wide = transform(drawing(10, 80, (0, 0, 10, 80)))
    assert (wide[:, 24:40] == 0).all() and (wide[:, :24] == 255).all() and (wide[:, 40:] == 255).all()


def test_cropping_cuts_to_the_ink_wherever_it_lies() -> None:
    transform = PixelTransform(**PLAIN, crop="content", fit="pad")
    corner, middle = drawing(200, 200, (150, 150, 170, 190)), drawing(50, 60, (10, 12, 30, 52))
    assert np.array_equal(transform(corner), transform(middle))
    assert (transform(corner)[:, 32, 8:-8] == 0).all()


def test_a_blank_picture_is_not_cropped() -> None:
    blank = PixelTransform(**PLAIN, crop="content", max_speck_pixels=2)(drawing(20, 20))
    assert blank.shape == (3, 64, 128) and (blank == 255).all()


def test_specks_go_and_lines_stay() -> None:
    line, dot, pair = (5, 5, 6, 30), (20, 10, 21, 11), (20, 40, 22, 41)
    for most, gone, stays in ((1, [dot], [line, pair]), (2, [dot, pair], [line])):
        cleaned = PixelTransform(height=40, width=60, max_speck_pixels=most)(drawing(40, 60, line, dot, pair))
        assert np.array_equal(cleaned.transpose(1, 2, 0), drawing(40, 60, *stays)), gone


def test_pixels_that_touch_at_a_corner_are_one_line() -> None:
    diagonal = drawing(40, 60, *((n, n, n + 1, n + 1) for n in range(5, 15)))
    assert np.array_equal(
        PixelTransform(height=40, width=60, max_speck_pixels=5)(diagonal).transpose(1, 2, 0), diagonal
    )


def test_specks_are_gone_before_the_content_is_cut_out() -> None:
    transform = PixelTransform(**PLAIN, max_speck_pixels=1, crop="content", fit="pad")
    ink = (40, 40, 60, 80)
    assert np.array_equal(transform(drawing(100, 120, ink, (2, 2, 3, 3))), transform(drawing(100, 120, ink)))


def test_tall_pictures_are_turned_to_the_left_and_wide_ones_are_not() -> None:
    transform = PixelTransform(**PLAIN, turn="landscape")
    wide = drawing(64, 128, (0, 0, 10, 128))  # ink at the top
    as_scanned = np.rot90(wide, -1)  # to the right
    assert np.array_equal(transform(as_scanned), transform(wide))


def test_one_channel_is_the_gray_of_all_three() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    gray = PixelTransform(**PLAIN, channels=1)(photo)
    assert gray.shape == (1, 64, 128)
    assert np.array_equal(gray[0], np.asarray(Image.fromarray(photo).convert("L")))


def test_a_gray_jpeg_has_one_channel_and_comes_back() -> None:
    gray = np.linspace(0, 255, 128, dtype=np.uint8)[None, None].repeat(64, axis=1)
    decoded = decode(images.encode_jpeg(gray, 95).tobytes())
    assert np.abs(decoded[..., 0].astype(int) - gray[0]).max() <= 3
    assert Image.open(io.BytesIO(images.encode_jpeg(gray, 95).tobytes())).mode == "L"
