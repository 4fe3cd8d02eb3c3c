"""The gate behind the costly step on tiny shards that are made here."""

import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from captioning.gates import InspectSettings, judge_shards, settle
from captioning.gates.reports import refusal, report

IDS = [f"photo-{number}" for number in range(36)]
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


def write_shard(
    path: Path, image_ids: list[str], seed: int, *, storage: str = "pixels", num_captions: int = 2
) -> None:
    """Write a shard of noisy gray pictures of 8 x 6 pixels with two captions each."""
    pixels = (
        np.random.default_rng(seed).normal(120, 50, (len(image_ids), 3, 8, 6)).clip(0, 255).astype(np.uint8)
    )
    captions = [[4, 5, 6, 7, 8], [4, 5, 6]][:num_captions] * len(image_ids)
    with h5py.File(path, "w") as file:
        if storage == "pixels":
            file["images"] = pixels
            stored = [image.tobytes() for image in pixels]
        else:
            stored = [as_jpeg(image) for image in pixels]
            file["encoded"] = np.frombuffer(b"".join(stored), np.uint8)
            file["encoded_offsets"] = np.cumsum([0, *map(len, stored)], dtype=np.int64)
        file["checksums"] = np.array([zlib.crc32(image) for image in stored], dtype=np.uint32)
        file["image_ids"] = np.array([name.encode() for name in image_ids], dtype="S")
        file["tokens"] = np.array([token for tokens in captions for token in tokens], dtype=np.int32)
        file["caption_offsets"] = np.cumsum([0, *map(len, captions)], dtype=np.int64)
        file["image_offsets"] = np.arange(len(image_ids) + 1, dtype=np.int64) * num_captions


def as_jpeg(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder of examples: two train shards, one val, one test, of three images each."""
    names = ["train-00000-of-00002", "train-00001-of-00002", "val-00000-of-00001", "test-00000-of-00001"]
    return write_examples(tmp_path, names, "pixels")


def write_examples(folder: Path, names: list[str], storage: str) -> Path:
    """Write shards of three images each with all that lies beside them."""
    index: dict[str, dict] = {split: {"shards": []} for split in ("train", "val", "test")}
    references = []
    for number, name in enumerate(names):
        ids, split = IDS[3 * number : 3 * number + 3], name.split("-")[0]
        write_shard(folder / f"{name}.h5", ids, seed=number, storage=storage)
        index[split]["shards"].append({"file": f"{name}.h5", "num_images": 3, "num_captions": 6})
        references += [{"image_id": each, "split": split, "position": 0, "caption": "a dog"} for each in ids]
    (folder / "index.json").write_text(json.dumps({"storage": storage, "splits": index}))
    (folder / "vocabulary.json").write_text(json.dumps({"words": WORDS}))
    (folder / "transform.json").write_text('{"height": 8, "width": 6}')
    pd.DataFrame(references).to_parquet(folder / "references.parquet", index=False)
    return folder


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
                if name == "images":  # as written by a writer who has it wrong, not damaged afterwards
                    file["checksums"][:] = [zlib.crc32(image.tobytes()) for image in changed]

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


def chunk_images(folder: Path) -> None:
    with h5py.File(folder / "train-00001-of-00002.h5", "r+") as file:
        pixels = file["images"][:]
        del file["images"]
        file.create_dataset("images", data=pixels, chunks=(1, 3, 8, 6))


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
        "val-00000-of-00001.h5:checksums (no such file instead of uint32 N)",
    ),
    "stray shard": (
        lambda folder: write_shard(folder / "val-00000-of-00009.h5", IDS[:3], 0),
        "1 of 25 datasets, for example val-00000-of-00009.h5 (not in index.json instead of in index.json)",
    ),
    "no val shards": (forget_val, "val shards (none instead of one or more)"),
    "chunked images": (
        chunk_images,
        ":images (uint8 N x 3 x 8 x 6, chunked instead of uint8 N x 3 x 8 x 6); expected the same as contract",
    ),
    "flipped bit": (
        rewrite("checksums", put(1, 1)),
        "as they were written; damaged are: not so for 1 of 4 shards, for example {shard} (1); expected 0",
    ),
    "fewer checksums": (
        rewrite("checksums", lambda t: t[:2]),
        "to the number of rows they index: not so for 1 of 4 shards, for example {shard} (1)",
    ),
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
        rewrite("image_ids", lambda ids: np.array([b"photo-11", *ids[1:]])),
        "in two shards or splits: not so for 2 of 12 images, for example photo-11 (2);",
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
    assert capfd.readouterr() == ("", "accepted: 24 expectations hold, 0 warnings\n")
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
    assert verdict == "accepted: 23 expectations hold, 1 warning"


def test_missing_index_says_which_stage_writes_it(examples: Path) -> None:
    (examples / "index.json").unlink()
    with pytest.raises(
        ValueError, match=r"index.json is missing or not readable .* `dvc repro --force preprocess`"
    ):
        inspect(examples)


def test_unknown_storage_is_refused_with_the_known_forms(examples: Path) -> None:
    index = json.loads((examples / "index.json").read_text())
    (examples / "index.json").write_text(json.dumps(index | {"storage": "webp"}))
    with pytest.raises(
        ValueError, match=r"index.json: storage is 'webp', expected pixels or jpeg; `dvc repro"
    ):
        inspect(examples)


@pytest.fixture
def jpeg_examples(tmp_path: Path) -> Path:
    return write_examples(
        tmp_path, ["train-00000-of-00001", "val-00000-of-00001", "test-00000-of-00001"], "jpeg"
    )


def test_good_shards_of_jpeg_files_are_accepted(
    jpeg_examples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inspect(jpeg_examples)
    assert capfd.readouterr().err == "accepted: 24 expectations hold, 0 warnings\n"


JPEG_FAULTS = {
    "pixels instead": (
        lambda folder: write_shard(folder / "val-00000-of-00001.h5", IDS[3:6], 1),
        "val-00000-of-00001.h5:encoded (absent instead of uint8 N)",
    ),
    "zeros": (
        rewrite("encoded", np.zeros_like, "val*"),
        "as they were written; damaged are: not so for 1 of 3 shards, for example val-00000-of-00001.h5 (3)",
    ),
    "swapped files": (
        rewrite("checksums", lambda t: t[::-1], "val*"),
        "as they were written; damaged are: not so for 1 of 3 shards, for example val-00000-of-00001.h5 (2)",
    ),
    "offsets beyond the end": (
        rewrite("encoded_offsets", put(-1, 10**6), "val*"),
        "to the number of rows they index: not so for 1 of 3 shards, for example val-00000-of-00001.h5 (1)",
    ),
    "falling offsets": (
        rewrite("encoded_offsets", put(1, 10**6), "val*"),
        "to the number of rows they index: not so for 1 of 3 shards, for example val-00000-of-00001.h5 (1)",
    ),
    "no offsets": (
        rewrite("encoded_offsets", lambda t: t[:0], "val*"),
        "every shard has as many images as the index says: not so for 1 of 3 shards",
    ),
    "another size": (
        lambda folder: (folder / "transform.json").write_text('{"height": 6, "width": 8}') and None,
        "as they were written; damaged are: not so for 3 of 3 shards, for example train-00000-of-00001.h5 (3)",
    ),
}


@pytest.mark.parametrize("fault", JPEG_FAULTS)
def test_faulty_shards_of_jpeg_files_are_refused(jpeg_examples: Path, fault: str) -> None:
    change, sentence = JPEG_FAULTS[fault]
    change(jpeg_examples)
    judgement = judge_shards(jpeg_examples, INSPECT)
    assert not judgement.is_accepted
    assert sentence in refusal(judgement, jpeg_examples)


def add_predict(folder: Path, image_ids: list[str]) -> None:
    """Add a shard of images without captions, which the references do not name."""
    write_shard(folder / "predict-00000-of-00001.h5", image_ids, seed=9, num_captions=0)
    index = json.loads((folder / "index.json").read_text())
    shard = {"file": "predict-00000-of-00001.h5", "num_images": len(image_ids), "num_captions": 0}
    index["splits"]["predict"] = {"shards": [shard]}
    (folder / "index.json").write_text(json.dumps(index))


def test_images_to_predict_need_no_captions_but_are_judged_otherwise(examples: Path) -> None:
    add_predict(examples, IDS[20:23])
    assert judge_shards(examples, INSPECT).is_accepted
    add_predict(examples, IDS[2:5])
    rewrite("checksums", put(0, 1), "predict*")(examples)
    refused = [(each.rule.column, each.num_unexpected) for each in judge_shards(examples, INSPECT).refusals]
    assert refused == [("num_rows_of_id", 6), ("num_damaged", 1)]


def test_test_split_may_be_empty_but_not_lost(examples: Path) -> None:
    (examples / "test-00000-of-00001.h5").unlink()
    index = json.loads((examples / "index.json").read_text())
    index["splits"]["test"]["shards"] = []
    (examples / "index.json").write_text(json.dumps(index))
    assert "only in one of them are: not so for 1 of 3 splits, for example test (3)" in refusal(
        judge_shards(examples, INSPECT), examples
    )
    references = pd.read_parquet(examples / "references.parquet")
    references[references["split"] != "test"].to_parquet(examples / "references.parquet", index=False)
    assert judge_shards(examples, INSPECT).is_accepted


def test_many_shards_are_judged_by_several_processes_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"train-{number:05d}-of-00007" for number in range(7)]
    write_examples(tmp_path, [*names, "val-00000-of-00001", "test-00000-of-00001"], "jpeg")
    rewrite("image_offsets", put(1, 0))(tmp_path)
    rewrite("image_ids", lambda ids: np.array([b"photo-0", *ids[1:]]), "test*")(tmp_path)
    together = report(judge_shards(tmp_path, INSPECT))
    assert together["num_refusals"] == 3
    monkeypatch.setattr("captioning.gates.shard_looks.FEW_SHARDS", 100)
    assert report(judge_shards(tmp_path, INSPECT)) == together


def test_shard_that_cannot_be_read_inside_is_named(examples: Path) -> None:
    rewrite("image_ids", lambda ids: np.array([b"\xff", *ids[1:]]), "val*")(examples)
    with pytest.raises(
        ValueError, match=r"val-00000-of-00001.h5 is damaged \('utf-8' codec .* `dvc repro --force"
    ):
        inspect(examples)


def test_missing_references_say_which_stage_writes_them(examples: Path) -> None:
    (examples / "references.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"references.parquet is missing or not readable .* `dvc repro --force"
    ):
        inspect(examples)
