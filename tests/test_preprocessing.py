"""Shards are made once each, on this machine or a cluster, and come out the same whatever happens on the way."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from captioning import params, shards, workers
from captioning.examples import Examples
from captioning.gates import InspectSettings, judge_shards
from captioning.images import PixelTransform, decode
from captioning.preprocessing import PreprocessSettings, examples, making, write_examples
from captioning.records import PREDICT
from captioning.vocabulary import UNK, Vocabulary


def settings(**changes: object) -> PreprocessSettings:
    values: dict[str, object] = {
        "image": PixelTransform(height=64, width=64),
        "storage": "pixels",
        "jpeg_quality": 95,
        "tokens": "words",
        "min_word_count": 1,
        "max_words": 24,
        "images_per_shard": 16,
    }
    return PreprocessSettings.model_validate(values | changes)


def write(tables: Path, folder: Path, **changes: object) -> Path:
    write_examples(tables / "raw", tables / "clean", tables / "splits", folder, settings(**changes))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tables(tiny_tables: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(tiny_tables, tmp_path / "tables", ignore=shutil.ignore_patterns("examples"))
    return tmp_path / "tables"


def test_vocabulary_never_sees_val_captions(tables: Path, tmp_path: Path):
    splits = pd.read_parquet(tables / "splits" / "images.parquet").set_index("image_id")["split"]
    captions = pd.read_parquet(tables / "clean" / "captions.parquet")
    is_val = captions["image_id"].map(splits) == "val"
    captions.loc[is_val, "caption"] = "a zeppelin"
    captions.to_parquet(tables / "clean" / "captions.parquet", index=False)
    folder = write(tables, tmp_path / "examples")
    assert "zeppelin" not in Vocabulary.load(folder / "vocabulary.json").words
    val = Examples(folder, "val")
    assert all(own[-1] == UNK for position in range(len(val)) for own in val.tokens(position))


def test_the_same_input_gives_the_same_bytes(tiny_tables: Path, tiny_examples: Path, tmp_path: Path):
    assert contents(write(tiny_tables, tmp_path / "examples")) == contents(tiny_examples)


def test_every_caption_is_a_reference_of_its_image(tiny_tables: Path, tiny_examples: Path):
    captions = pd.read_parquet(tiny_tables / "clean" / "captions.parquet")
    references = Examples(tiny_examples, "test").references()
    assert references
    for image_id, own in references.items():
        assert own == captions.loc[captions["image_id"] == image_id, "caption"].tolist()


def test_jpeg_shards_are_smaller_and_decode_to_nearly_the_same_pixels(
    tiny_tables: Path, tiny_examples: Path, tmp_path: Path
):
    folder = write(tiny_tables, tmp_path / "examples", storage="jpeg")
    packed, plain = Examples(folder, "val"), Examples(tiny_examples, "val")
    assert json.loads((folder / "index.json").read_text())["storage"] == "jpeg"
    difference = packed.images(range(len(packed))).astype(int) - plain.images(range(len(plain)))
    assert 0 < np.abs(difference).mean() < 6
    assert packed.image_ids == plain.image_ids
    assert sum(path.stat().st_size for path in folder.glob("*.h5")) < 0.5 * sum(
        path.stat().st_size for path in tiny_examples.glob("*.h5")
    )


@pytest.mark.parametrize("storage", ["pixels", "jpeg"])
def test_gray_examples_have_one_channel_that_is_inspected_and_read(
    storage: str, tiny_tables: Path, tmp_path: Path
):
    gray = PixelTransform(height=64, width=96, channels=1, fit="pad")
    folder = write(tiny_tables, tmp_path / "examples", image=gray, storage=storage)
    examples = Examples(folder, "val")
    assert examples.transform == gray
    pixels_BCHW = examples.images(range(len(examples)))
    assert pixels_BCHW.shape == (len(examples), 1, 64, 96)
    assert (pixels_BCHW[..., :12] > 240).all()  # white beside a square picture
    section = params.read(Path(__file__).parents[1] / "params.yaml")["inspect"]
    assert judge_shards(folder, InspectSettings.model_validate(section)).is_accepted
    black = section | {"pixel_mean": {"min": 0, "max": 10}}
    assert "val gray" in str(judge_shards(folder, InspectSettings.model_validate(black)).findings)


def test_pictures_to_be_captioned_get_shards_of_their_own_without_captions(tables: Path, tmp_path: Path):
    splits = pd.read_parquet(tables / "splits" / "images.parquet")
    captions = pd.read_parquet(tables / "clean" / "captions.parquet")
    silent = splits["image_id"].tail(5)
    splits.loc[silent.index, "split"] = PREDICT
    splits.to_parquet(tables / "splits" / "images.parquet", index=False)
    captions[~captions["image_id"].isin(silent)].to_parquet(
        tables / "clean" / "captions.parquet", index=False
    )
    predict = Examples(write(tables, tmp_path / "examples"), PREDICT)
    assert list(predict.image_ids) == silent.tolist()
    assert predict.tokens(0) == []
    assert predict.images([4]).std() > 10
    assert predict.references() == {}


def test_a_photograph_is_stored_as_the_shared_transform_makes_it(shared: Path, tables: Path, tmp_path: Path):
    photo = sorted((shared / "data/coco_cc_by/images").glob("*.jpg"))[0]
    rows = pd.read_parquet(tables / "clean" / "images.parquet")
    rows.loc[0, "archive"], rows.loc[0, "member"] = "", str(photo)
    rows.to_parquet(tables / "clean" / "images.parquet", index=False)
    split = pd.read_parquet(tables / "splits" / "images.parquet").loc[0, "split"]
    examples = Examples(write(tables, tmp_path / "examples"), split)
    pixels = examples.images([examples.image_ids.index(rows.loc[0, "image_id"])])[0]
    assert np.array_equal(pixels, PixelTransform(height=64, width=64)(decode(photo.read_bytes())))
    with Image.open(photo) as image:
        by_pillow = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(pixels.transpose(1, 2, 0).astype(int) - by_pillow).mean() < 0.5


def test_an_image_damaged_after_cleaning_is_named_and_what_is_finished_is_kept(
    tables: Path, tmp_path: Path, home: Path
):
    rows = pd.read_parquet(tables / "clean" / "images.parquet")
    splits = pd.read_parquet(tables / "splits" / "images.parquet")["split"]
    last = splits[splits == "test"].index[-1]
    rows.loc[last, "archive"], rows.loc[last, "member"] = "", "gone.jpg"
    rows.to_parquet(tables / "clean" / "images.parquet", index=False)
    with pytest.raises(
        ValueError, match=rf"{rows.loc[last, 'image_id']}.*gone\.jpg.*`dvc repro --force clean`"
    ):
        write(tables, tmp_path / "examples")
    assert not (tmp_path / "examples").exists()
    assert list(home.rglob("ledger/*.json"))


def test_tables_in_another_order_are_refused(tables: Path, tmp_path: Path):
    splits = pd.read_parquet(tables / "splits" / "images.parquet")
    splits.iloc[::-1].to_parquet(tables / "splits" / "images.parquet", index=False)
    with pytest.raises(ValueError, match=r"does not list the images of .* in their order.*--force split"):
        write(tables, tmp_path / "examples")


def test_captions_of_another_image_are_refused(tables: Path, tmp_path: Path):
    captions = pd.read_parquet(tables / "clean" / "captions.parquet")
    captions["image_id"] = captions["image_id"].replace(captions["image_id"].iloc[-1], "nobody")
    captions.to_parquet(tables / "clean" / "captions.parquet", index=False)
    with pytest.raises(ValueError, match=r"captions of 'nobody' do not stand in the order .*--force clean"):
        write(tables, tmp_path / "examples")


Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_cannot_hold_the_shards_is_refused_before_the_work(
    tiny_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 10, 100_000))
    with pytest.raises(
        ValueError, match=r"48 images take 0\.6 MB and .* has 0\.1 MB free: free some space, set CAPT"
    ):
        write(tiny_tables, tmp_path / "examples")
    assert not (tmp_path / "examples").exists()


def test_a_disk_that_fills_up_during_a_shard_leaves_nothing_half_written(
    tiny_tables: Path, tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
):
    def full(path: Path, *arguments: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(making, "write_shard", full)
    monkeypatch.setattr(workers, "run", lambda function, pieces, preload: map(function, pieces))
    with pytest.raises(
        ValueError, match=r"no space is left in .*train-00000-of-00003\.h5.*free some space and run"
    ):
        write(tiny_tables, tmp_path / "examples")
    assert not (tmp_path / "examples").exists()
    assert not list(home.rglob("*.h5*"))
    monkeypatch.undo()
    assert contents(write(tiny_tables, tmp_path / "examples")) == contents(tiny_examples)


SLOW = """
import sys, time
from pathlib import Path
from captioning import preprocessing, workers
from tests.test_preprocessing import settings

def one_by_one(function, pieces, preload):
    for number, piece in enumerate(pieces):
        print(f"shard {number}", flush=True)
        yield function(piece)
        time.sleep(0.2)

workers.run = one_by_one
tables, folder = map(Path, sys.argv[1:])
preprocessing.write_examples(tables / "raw", tables / "clean", tables / "splits", folder, settings())
"""


def test_killed_in_the_middle_it_continues_at_the_next_shard_and_ends_with_the_same_bytes(
    tiny_tables: Path, tiny_examples: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
):
    command = [sys.executable, "-c", SLOW, str(tiny_tables), str(tmp_path / "examples")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline() != "shard 2\n":
            pass
        child.kill()
    entered = {path.stem for path in home.rglob("ledger/*.json")}
    finished = {path: path.stat().st_mtime_ns for path in home.rglob("*.h5") if path.stem in entered}
    assert len(finished) >= 2
    assert not (tmp_path / "examples").exists()
    write(tiny_tables, tmp_path / "examples")
    assert f"{len(finished)} of 5 shards are there from an earlier run" in capsys.readouterr().err
    assert contents(tmp_path / "examples") == contents(tiny_examples)
    for path, written in finished.items():
        assert (tmp_path / "examples" / path.name).stat().st_mtime_ns == written
    assert not list(home.rglob("preprocess/*"))


def dask_program(*arguments: str) -> "subprocess.Popen[bytes]":
    program = (
        "from distributed.cli.dask_scheduler import main"
        if arguments[0] == "scheduler"
        else ("from distributed.cli.dask_worker import main")
    )
    return subprocess.Popen(
        [sys.executable, "-c", f"{program}; main()", *arguments[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Run a Dask scheduler and two workers, without their minders, each a real process."""
    where = tmp_path / "scheduler.json"
    local = ["--no-dashboard", "--host", "127.0.0.1"]
    processes = [dask_program("scheduler", "--scheduler-file", str(where), "--port", "0", *local)]
    for number in range(2):
        processes.append(
            dask_program(
                "worker",
                "--scheduler-file",
                str(where),
                "--no-nanny",
                "--nthreads",
                "1",
                "--local-directory",
                str(tmp_path / f"worker{number}"),
                *local,
            )
        )
    try:
        from distributed import Client
        from distributed.utils import json_load_robust

        address = json_load_robust(str(where), timeout=60)["address"]
        monkeypatch.setenv("CAPTIONING_CLUSTER", address)

        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_a_cluster_writes_the_same_bytes_also_when_it_loses_a_worker(
    cluster: list["subprocess.Popen[bytes]"],
    tiny_tables: Path,
    tiny_examples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def losing_one(rows: Iterator[None], **_: object) -> Iterator[None]:
        yield next(rows)
        cluster[1].kill()
        yield from rows

    monkeypatch.setattr(examples, "progress", losing_one)
    write(tiny_tables, tmp_path / "examples", images_per_shard=16)
    assert contents(tmp_path / "examples") == contents(tiny_examples)
    assert "2 workers, dashboard http://127.0.0.1:" in capsys.readouterr().err


def test_a_shard_read_past_its_end_is_an_error(tiny_examples: Path, tmp_path: Path):
    path = tmp_path / "short.h5"
    path.write_bytes((tiny_examples / "train-00000-of-00003.h5").read_bytes())
    shard = shards.Shard(path)
    os.truncate(path, 10_000)
    with pytest.raises(ValueError, match="a shard ends within its dataset 'images'"):
        shard.read_pixels(1, np.empty((3, 64, 64), np.uint8))


def test_a_chunked_shard_is_refused(tmp_path: Path):
    with h5py.File(tmp_path / "chunked.h5", "w") as file:
        file.create_dataset("images", (4, 3, 8, 8), np.uint8, chunks=(1, 3, 8, 8))
    with pytest.raises(ValueError, match="/images is chunked, expected contiguous"):
        shards.Shard(tmp_path / "chunked.h5")


def test_images_read_past_hdf5_equal_those_read_through_it(tiny_examples: Path):
    with h5py.File(tiny_examples / "train-00000-of-00003.h5") as file:
        examples = Examples(tiny_examples, "train")
        assert np.array_equal(examples.images(range(16)), file["images"][:])
        assert [examples.image_id(position).encode() for position in range(16)] == file["image_ids"][
            :
        ].tolist()
