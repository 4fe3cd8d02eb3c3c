from pathlib import Path

import numpy as np
import pandas as pd

from captioning.batches import Batches
from captioning.examples import Examples
from captioning.images import ImageFolder, PixelTransform, decode
from captioning.vocabulary import BOS, EOS, PAD, UNK, Vocabulary


def test_every_image_is_in_the_shards_of_its_split_once(tiny_tables: Path, tiny_examples: Path):
    splits = pd.read_parquet(tiny_tables / "splits" / "images.parquet")
    for split, rows in splits.groupby("split"):
        assert list(Examples(tiny_examples, str(split)).image_ids) == list(rows["image_id"])
    assert len(list(tiny_examples.glob("train-*-of-*.h5"))) > 1


def test_pixels_are_those_of_the_shared_transform(tiny_tables: Path, tiny_examples: Path):
    rows = pd.read_parquet(tiny_tables / "clean" / "images.parquet").set_index("image_id")
    examples, source = Examples(tiny_examples, "train"), ImageFolder(tiny_tables / "raw")
    position = len(examples) - 1
    row = rows.loc[examples.image_ids[position]]
    expected = PixelTransform(height=64, width=64)(decode(source.read(row["archive"], row["member"])))
    assert np.array_equal(examples.images([position])[0], expected)
    assert expected.std() > 10


def test_random_positions_come_back_in_the_order_asked_for(tiny_examples: Path):
    examples = Examples(tiny_examples, "train")
    positions = [len(examples) - 1, 0, 17]
    for image, position in zip(examples.images(positions), positions, strict=True):
        assert np.array_equal(image, examples.images([position])[0])


def test_tokens_decode_to_the_normalised_captions(tiny_examples: Path):
    examples, vocabulary = Examples(tiny_examples, "val"), Vocabulary.load(tiny_examples / "vocabulary.json")
    references = examples.references()
    for position, image_id in enumerate(examples.image_ids):
        known = [own for own in examples.tokens(position) if UNK not in own]
        texts = {" ".join(vocabulary.words[token] for token in own) for own in known}
        assert texts <= {
            " ".join(vocabulary.decode(vocabulary.encode(own)).split()) for own in references[image_id]
        }
        assert len(examples.tokens(position)) == len(references[image_id]) == 5


def _batches(folder: Path, seed: int | None) -> Batches:
    import torch

    examples = Examples(folder, "train")
    return Batches(
        examples, lambda positions: torch.from_numpy(examples.images(positions)), batch_size=8, seed=seed
    )


def test_an_epoch_has_every_image_once_in_an_order_of_seed_and_epoch_alone(tiny_examples: Path):
    def order(seed: int, epoch: int) -> list[str]:
        return [
            image_id for batch in _batches(tiny_examples, seed).epoch(epoch) for image_id in batch.image_ids
        ]

    assert sorted(order(0, 0)) == sorted(Examples(tiny_examples, "train").image_ids)
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_an_epoch_continues_at_any_step(tiny_examples: Path):
    whole = list(_batches(tiny_examples, 0).epoch(3))
    rest = list(_batches(tiny_examples, 0).epoch(3, first_step=2))
    assert [batch.image_ids for batch in rest] == [batch.image_ids for batch in whole[2:]]


def test_rows_of_a_batch_belong_to_their_images_longest_first(tiny_examples: Path):
    examples = Examples(tiny_examples, "train")
    batch = next(iter(_batches(tiny_examples, 0).epoch(0)))
    rows_per_image = len(batch.tokens_NT) // len(batch.image_ids)
    longest = batch.lengths_N.view(-1, rows_per_image).amax(dim=1).tolist()
    assert longest == sorted(longest, reverse=True)
    for image, image_id in enumerate(batch.image_ids):
        position = examples.image_ids.index(image_id)
        assert np.array_equal(batch.inputs[image].numpy(), examples.images([position])[0])
        for row, tokens in enumerate(examples.tokens(position), start=image * rows_per_image):
            length = int(batch.lengths_N[row])
            assert batch.tokens_NT[row, :length].tolist() == [BOS, *tokens]
            assert batch.targets_NT[row, :length].tolist() == [*tokens, EOS]
            assert set(batch.targets_NT[row, length:].tolist()) <= {PAD}
