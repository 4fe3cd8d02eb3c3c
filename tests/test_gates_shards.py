"""The gate behind the costly step on tiny shards that are made here."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from captioning.gates import InspectSettings, judge_shards, settle
from captioning.gates.reports import refusal

SPLIT_OF = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
IDS = [f"photo-{number}" for number in range(12)]
WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "dog", "runs", "on", "grass"]
TABLES = ("datasets", "shards", "images", "splits", "channels", "totals")

INSPECT = InspectSettings.model_validate(
    {
        "images_sampled_per_shard": 4,
        "pixel_mean": {"min": 60, "max": 200},
        "pixel_deviation": {"min": 20, "max": 110},
        "max_pixel_distance": 25,
        "max_flat_image_share": 0.0,
        "caption_tokens": {"min": 2, "max": 6},
        "mean_caption_tokens": {"min": 3, "max": 6},
        "max_unknown_share": 0.2,
        "min_vocabulary_words": 6,
    }
)


def write_shard(path: Path, image_ids: list[str], seed: int) -> None:
    """Write a shard of noisy gray pictures of 8 x 6 pixels with two captions each."""
    pixels = (
        np.random.default_rng(seed).normal(120, 50, (len(image_ids), 3, 8, 6)).clip(0, 255).astype(np.uint8)
    )
    captions = [[4, 5, 6, 7, 8], [4, 5, 6]] * len(image_ids)
    with h5py.File(path, "w") as file:
        file["images"] = pixels
        file["image_ids"] = np.array([name.encode() for name in image_ids], dtype=object)
        file["tokens"] = np.concatenate(captions).astype(np.int32)
        file["caption_offsets"] = np.cumsum([0, *map(len, captions)], dtype=np.int64)
        file["image_offsets"] = np.arange(0, 2 * len(image_ids) + 1, 2, dtype=np.int64)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder of examples: two train shards, one val, one test, of three images each."""
    index: dict[str, dict] = {split: {"shards": []} for split in ("train", "val", "test")}
    for number, name in enumerate(
        ["train-00000-of-00002", "train-00001-of-00002", "val-00000-of-00001", "test-00000-of-00001"]
    ):
        write_shard(tmp_path / f"{name}.h5", IDS[3 * number : 3 * number + 3], seed=number)
        index[name.split("-")[0]]["shards"].append({"file": f"{name}.h5", "num_images": 3, "num_captions": 6})
    (tmp_path / "index.json").write_text(json.dumps({"splits": index}))
    (tmp_path / "vocabulary.json").write_text(json.dumps({"words": WORDS}))
    (tmp_path / "transform.json").write_text('{"height": 8, "width": 6}')
    references = pd.DataFrame({"image_id": IDS, "split": SPLIT_OF, "position": 0, "caption": "a dog"})
    references.to_parquet(tmp_path / "references.parquet", index=False)
    return tmp_path


def inspect(folder: Path) -> None:
    settle(judge_shards(folder, INSPECT), folder / "reports")


def rewrite(
    name: str, change: Callable[[np.ndarray], np.ndarray], shards: str = "train-00001*"
) -> Callable[[Path], None]:
    """Return a fault: one dataset of the shards that match is changed."""

    def apply(folder: Path) -> None:
        for path in folder.glob(f"{shards}.h5"):
            with h5py.File(path, "r+") as file:
                changed = change(file[name][:])
                del file[name]
                file[name] = changed

    return apply


def put(position: int, value: object) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[position] = value
        return values

    return change


def vocabulary(words: list[str]) -> Callable[[Path], None]:
    return lambda folder: (folder / "vocabulary.json").write_text(json.dumps({"words": words})) and None


def cut_short(folder: Path) -> None:
    path = folder / "val-00000-of-00001.h5"
    path.write_bytes(path.read_bytes()[:1000])


def forget_val(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["val"]["shards"] = []
    (folder / "index.json").write_text(json.dumps(index))


def as_floats(images: np.ndarray) -> np.ndarray:
    """Return what a reader of [0, 1] floats leaves in a uint8 dataset."""
    return (images / 255.0).astype(np.uint8)


def drop_last_image(folder: Path) -> None:
    write_shard(folder / "train-00001-of-00002.h5", IDS[3:5], seed=1)


SHARD_FAULTS = {
    "black images": (
        rewrite("images", as_floats, "*"),
        "no split is black or washed out: pixel means are usual: not so for 9 of 9 channels",
    ),
    "flat images": (
        rewrite("images", lambda t: np.full_like(t, 120), "*"),
        "pixel deviations are usual: not so for 9 of 9 channels, for example train red (0), train green",
    ),
    "white images": (
        rewrite("images", lambda t: t // 4 + 190, "*"),
        "pixel means are usual: not so for 9 of 9 channels",
    ),
    "no blue": (
        rewrite("images", lambda t: t * np.array([1, 1, 0], np.uint8)[:, None, None], "*"),
        "3 of 9 channels, for example train blue (0), val blue (0), test blue (0); expected 60 to 200",
    ),
    "one black shard": (
        rewrite("images", as_floats),
        "of one flat colour: not so for 1 of 3 splits, for example train (0.5); expected at most 0",
    ),
    "darker test split": (
        rewrite("images", lambda t: t // 4 * 3, "test*"),
        "the splits agree in the mean of their pixels: ",
    ),
    "flatter test split": (
        rewrite("images", lambda t: t // 4 + 90, "test*"),
        "the splits agree in the deviation of their pixels: ",
    ),
    "float images": (
        rewrite("images", lambda t: t / np.float32(255)),
        ":images (float32 N x 3 x 8 x 6 instead of uint8 N x 3 x 8 x 6)",
    ),
    "channels last": (
        rewrite("images", lambda t: t.transpose(0, 2, 3, 1)),
        "(uint8 N x 8 x 6 x 3 instead of uint8 N x 3 x 8 x 6); expected the same as contract",
    ),
    "cut short": (cut_short, "val-00000-of-00001.h5:images (not a readable HDF5 file instead of"),
    "absent shard": (
        lambda folder: (folder / "val-00000-of-00001.h5").unlink(),
        "val-00000-of-00001.h5:tokens (no such file instead of int32 N)",
    ),
    "stray shard": (
        lambda folder: write_shard(folder / "val-00000-of-00009.h5", IDS[:3], 0),
        "1 of 21 datasets, for example val-00000-of-00009.h5 (not in index.json instead of in index.json)",
    ),
    "no val shards": (forget_val, "val shards (none instead of one or more)"),
    "fewer images": (
        drop_last_image,
        "as many images as the index says: not so for 1 of 4 shards, for example {shard} (2 instead of 3)",
    ),
    "fewer captions": (
        drop_last_image,
        "as many captions as the index says: not so for 1 of 4 shards, for example {shard} (4 instead of 6)",
    ),
    "unreferenced image": (
        drop_last_image,
        "only in one of them are: not so for 1 of 3 splits, for example train (1)",
    ),
    "offsets beyond the end": (
        rewrite("caption_offsets", put(-1, 99)),
        "to the number of rows they index: not so for 1 of 4 shards",
    ),
    "falling offsets": (
        rewrite("image_offsets", put(1, 5)),
        "to the number of rows they index: not so for 1 of 4 shards",
    ),
    "image in two splits": (
        rewrite("image_ids", put(0, b"photo-11")),
        "in two shards or splits: not so for 2 of 12 images, for example photo-11;",
    ),
    "image without captions": (
        rewrite("image_offsets", put(1, 0)),
        "every image has a caption: not so for 1 of 12 images, for example photo-3 (0)",
    ),
    "padding stored": (
        rewrite("tokens", put(0, 0)),
        "<pad>, <bos> or <eos>: not so for 1 of 4 shards, for example {shard} (0); expected at least 3",
    ),
    "token beyond the vocabulary": (
        rewrite("tokens", put(0, 9)),
        "in the vocabulary: not so for 1 of 4 shards, for example {shard} (9); expected at most 8",
    ),
    "empty caption": (
        rewrite("caption_offsets", put(1, 0)),
        "too few tokens: not so for 1 of 4 shards, for example {shard} (0); expected at least 2",
    ),
    "long caption": (
        rewrite("caption_offsets", put(1, 7)),
        "too many tokens: not so for 1 of 4 shards, for example {shard} (7); expected at most 6",
    ),
    "many unknown words": (
        rewrite("tokens", put(slice(None), 3), "val*"),
        "are <unk>: not so for 1 of 3 splits, for example val (1); expected at most 0.2",
    ),
    "small vocabulary": (vocabulary(WORDS[:5]), "the vocabulary has enough words: 5; expected at least 6"),
    "word twice": (
        vocabulary([*WORDS, "dog"]),
        "no word of the vocabulary is repeated; repeated are: 1; expected 0",
    ),
    "markers displaced": (
        vocabulary(["a", *WORDS[1:4], "<pad>", *WORDS[5:]]),
        "begins with <pad>, <bos>, <eos>, <unk>; displaced are: 1; expected 0",
    ),
}


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_faulty_shards_are_refused_by_name_value_threshold_and_example(examples: Path, fault: str) -> None:
    change, sentence = SHARD_FAULTS[fault]
    change(examples)
    judgement = judge_shards(examples, INSPECT)
    assert not judgement.is_accepted
    assert sentence.format(shard="train-00001-of-00002.h5") in refusal(judgement, examples)


def test_captions_of_unusual_mean_length_are_refused(examples: Path) -> None:
    settings = INSPECT.model_copy(
        update={"mean_caption_tokens": INSPECT.mean_caption_tokens.model_copy(update={"min": 5})}
    )
    with pytest.raises(
        ValueError, match=r"number of tokens on average: not so for 3 of 3 splits, for example train \(4\)"
    ):
        settle(judge_shards(examples, settings), examples / "reports")


def test_good_shards_are_accepted_in_one_line(examples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inspect(examples)
    assert capfd.readouterr() == ("", "accepted: 23 expectations hold, 0 warnings\n")
    pages = [path.name for path in (examples / "reports/data_docs").iterdir()]
    assert sorted(pages) == sorted(f"{table}.html" for table in ("index", *TABLES))


def test_black_images_refusal_says_where_they_come_from(examples: Path) -> None:
    rewrite("images", as_floats, "*")(examples)
    with pytest.raises(ValueError, match=r"\[0, 1\] floats stored as uint8 come out black"):
        inspect(examples)


def test_unusual_pixels_of_one_shard_only_warn(examples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rewrite("images", lambda images: images // 4 * 3 + 63)(examples)
    rewrite("images", lambda images: images // 4 * 3, "train-00000*")(examples)
    settings = INSPECT.model_copy(update={"pixel_mean": INSPECT.pixel_mean.model_copy(update={"max": 135})})
    settle(judge_shards(examples, settings), examples / "reports")
    warning, verdict = capfd.readouterr().err.splitlines()
    assert warning.startswith(
        "warning: the pixel mean of each shard is usual: not so for 1 of 4 shards, for example train-00001"
    )
    assert verdict == "accepted: 22 expectations hold, 1 warning"


def test_missing_index_says_which_stage_writes_it(examples: Path) -> None:
    (examples / "index.json").unlink()
    with pytest.raises(
        ValueError, match=r"index.json is missing or not readable .* `dvc repro --force preprocess`"
    ):
        inspect(examples)
