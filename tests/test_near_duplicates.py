"""Pictures that look alike are found, all of them, and others are not."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning.cleaning.near_duplicates import close_pairs, group, perceptual_hash
from captioning.images import decode

MAX_DISTANCE = 4


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def near_and_far(num_hashes: int, seed: int = 0) -> np.ndarray:
    """Return random hashes of which a third have few bits of another one flipped."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 1 << 64, num_hashes, dtype=np.uint64)
    for position in range(0, num_hashes - 1, 3):
        bits = random.choice(64, random.integers(0, 9), replace=False)
        hashes[position + 1] = hashes[position] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0)
        )
    return np.unique(hashes)


@pytest.mark.parametrize("max_distance", [0, 1, 4, 7])
def test_every_pair_within_the_distance_is_found_and_no_other(max_distance: int) -> None:
    hashes = near_and_far(1500)
    found = {(min(pair), max(pair)) for pairs in close_pairs(hashes, max_distance) for pair in pairs.tolist()}
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = {(i, j) for i, j in np.argwhere(distances <= max_distance).tolist() if i < j}
    assert found == expected
    assert len(expected) > (40 if max_distance else -1)


def test_many_hashes_that_share_most_bits_are_compared_too() -> None:
    hashes = np.unique(np.random.default_rng(0).integers(0, 1 << 12, 1000, dtype=np.uint64))
    found = {tuple(sorted(pair)) for pairs in close_pairs(hashes, 2) for pair in pairs.tolist()}
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert found == {(i, j) for i, j in np.argwhere(distances <= 2).tolist() if i < j}


def test_pairs_are_found_across_the_blocks_that_bound_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = near_and_far(1500)
    whole = {tuple(pair) for pairs in close_pairs(hashes, 4) for pair in np.sort(pairs).tolist()}
    monkeypatch.setattr("captioning.cleaning.near_duplicates.BLOCK", 64)
    assert {tuple(pair) for pairs in close_pairs(hashes, 4) for pair in np.sort(pairs).tolist()} == whole


def test_a_chain_of_close_hashes_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [0b1, 0b11, 0b111, 0b1111, 0b11111]
    hashes = np.array([*chain, 0xFF << 40, 0x1FF << 40, 0xFFFF << 20], dtype=np.uint64)
    hashes.sort()
    expected = dict.fromkeys(chain[1:], 0b1) | {0x1FF << 40: 0xFF << 40}
    for max_links in (1 << 22, 1):
        monkeypatch.setattr("captioning.cleaning.near_duplicates.MAX_LINKS", max_links)
        members, smallest = group(hashes, 1)
        assert dict(zip(members.tolist(), smallest.tolist(), strict=True)) == expected


def test_no_hashes_make_no_groups() -> None:
    for hashes in ([], [5]):
        members, smallest = group(np.array(hashes, dtype=np.uint64), 4)
        assert len(members) == len(smallest) == 0


# --- real photographs


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Image.Image]:
    archive = zipfile.ZipFile(shared / "data" / "flickr8k" / "Flickr8k_Dataset.zip")
    members = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:400:8]
    return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in members]


def recompressed(photograph: Image.Image) -> Image.Image:
    encoded = io.BytesIO()
    photograph.save(encoded, "JPEG", quality=60)
    return Image.fromarray(decode(encoded.getvalue()))


def halved(photograph: Image.Image) -> Image.Image:
    return photograph.resize((photograph.width // 2, photograph.height // 2), Image.Resampling.BICUBIC)


def brightened(photograph: Image.Image) -> Image.Image:
    return photograph.point(lambda value: min(int(value * 1.1), 255))


COPIES = {"recompressed": recompressed, "halved": halved, "brightened": brightened}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_photographs_are_within_the_distance(kind: str, photographs: list[Image.Image]) -> None:
    for photograph in photographs:
        own = perceptual_hash(np.array(photograph))
        assert distance(own, perceptual_hash(np.array(COPIES[kind](photograph)))) <= MAX_DISTANCE


def test_most_slightly_cropped_photographs_are_within_the_distance(photographs: list[Image.Image]) -> None:
    num_found = 0
    for photograph in photographs:
        width, height = photograph.size
        cropped = photograph.crop((width // 100, height // 100, width - width // 100, height - height // 100))
        own, other = (perceptual_hash(np.array(image)) for image in (photograph, cropped))
        num_found += distance(own, other) <= MAX_DISTANCE
    assert num_found >= 0.85 * len(photographs)


def test_different_photographs_are_not_within_the_distance(photographs: list[Image.Image]) -> None:
    hashes = [perceptual_hash(np.array(photograph)) for photograph in photographs]
    assert len(hashes) == 50
    assert all(len(own) == 16 for own in hashes)
    closest = min(distance(one, other) for i, one in enumerate(hashes) for other in hashes[:i])
    assert closest > 2 * MAX_DISTANCE
