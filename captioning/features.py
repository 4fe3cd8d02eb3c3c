"""A frozen encoder's features, computed once per encoder weights and shards and reused by every epoch and run."""

import hashlib
import json
import os
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from captioning import distributed
from captioning.encoders.image_encoder import ImageEncoder
from captioning.examples import Examples
from captioning.outputs import alone_in, whole_file
from captioning.progress import progress

BATCH_SIZE = 32
BATCHES_BETWEEN_NOTES = 64
"""A run that was killed computes at most so many batches a process again."""


@torch.inference_mode()
def cached_features(
    encoder: ImageEncoder,
    examples: Examples,
    folder: Path,
    device: torch.device,
    *,
    view: int = 0,
    change: nn.Module | None = None,
) -> np.ndarray:
    """Return features float16, N x L x D, as a read-only memory map; computed and written to `folder` when absent.

    float16 halves the file; its rounding (relative 5e-4) is far below the features' own noise. Processes that work
    together share the computation.

    Args:
        encoder: frozen, on `device`.
        examples: of one split.
        folder: of the cache, seen by all processes.
        device: where the encoder runs.
        view: number of the changed version of the images, from 1; 0 are the images themselves.
        change: how `images_BCHW` of another view are changed, by random numbers that the view's number seeds.
    """
    path = distributed.first(folder / f"{examples.split}-{_key(encoder, examples, view, change)}.npy")
    with alone_in(folder) if distributed.is_first() else nullcontext():  # another training may want the same
        if distributed.first(not path.exists()):
            _compute(encoder, examples, path, device, view, change)
    distributed.gather(None)  # the file has its name
    if distributed.is_first():  # `captioning clean` goes by the last use, which no file system notes reliably
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return np.load(path, mmap_mode="r")


def _compute(
    encoder: ImageEncoder,
    examples: Examples,
    path: Path,
    device: torch.device,
    view: int,
    change: nn.Module | None,
) -> None:
    """Write the features to `path`, each process its share; what an earlier run had written before its end is kept."""
    encoder = encoder.folded().eval()
    starts = range(0, len(examples), BATCH_SIZE)
    aside, noted = path.with_suffix(".partial"), path.with_suffix(".done")
    if distributed.is_first() and not noted.exists():
        shape = (len(examples), encoder.grid[0] * encoder.grid[1], encoder.feature_dim)
        np.lib.format.open_memmap(aside, mode="w+", dtype=np.float16, shape=shape).flush()
        with whole_file(noted) as empty:
            empty.write_bytes(bytes(len(starts)))
    distributed.gather(None)  # both files are there
    features, is_done = np.load(aside, mmap_mode="r+"), np.memmap(noted, dtype=np.bool_, mode="r+")
    own = range(distributed.rank(), len(starts), distributed.num_processes())
    rest = [number for number in own if not is_done[number]]
    what = f"features of {examples.split}" + f", view {view}" * bool(view)
    written: list[int] = []
    for number in progress(rest, total=len(rest), what=what, unit="batches"):
        positions = range(starts[number], min(starts[number] + BATCH_SIZE, len(examples)))
        images = torch.from_numpy(examples.images(positions)).to(device)
        if change is not None:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(view * 1_000_003 + positions.start)
                images = change(images)
        stored = encoder(images).to(torch.float16)
        if not bool(torch.isfinite(stored).all()):
            noted.unlink(missing_ok=True)
            aside.unlink(missing_ok=True)
            raise ValueError(
                f"features of images {positions.start} to {positions.stop - 1} of {examples.split} are not finite in "
                "float16: the encoder's weights do not fit it, or name an earlier train.encoder.layer"
            )
        features[positions.start : positions.stop] = stored.cpu().numpy()
        written.append(number)
        if len(written) >= BATCHES_BETWEEN_NOTES or number == rest[-1]:
            features.flush()  # first: should the machine stop, too, what is noted is on the disk
            is_done[written] = True
            written.clear()
    distributed.gather(None)  # all have written their share
    if distributed.is_first():
        aside.replace(path)
        noted.unlink()


def _key(encoder: ImageEncoder, examples: Examples, view: int, change: nn.Module | None) -> str:
    """Return a fingerprint of the encoder's structure and weights, the shards and the view."""
    described: list[object] = [repr(encoder), list(encoder.grid), examples.digest]
    if view:
        described += [view, repr(change)]
    digest = hashlib.sha256(json.dumps(described).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
