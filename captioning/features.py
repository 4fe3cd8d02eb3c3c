"""A frozen encoder's features, computed once per encoder weights and shards and reused by every epoch and run."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from captioning.encoders.torchvision_network import Encoder
from captioning.examples import Examples
from captioning.outputs import whole_file
from captioning.progress import progress

BATCH_SIZE = 32


@torch.inference_mode()
def cached_features(encoder: Encoder, examples: Examples, folder: Path, device: torch.device) -> np.ndarray:
    """Return features float16, N x L x D, as a read-only memory map; computed and written to `folder` when absent.

    float16 halves the file; its rounding (relative 5e-4) is far below the features' own noise.
    """
    path = folder / f"{examples.split}-{_key(encoder, examples)}.npy"
    if not path.exists():
        with whole_file(path) as aside:
            _compute(encoder, examples, aside, device)
    return np.load(path, mmap_mode="r")


def _compute(encoder: Encoder, examples: Examples, path: Path, device: torch.device) -> None:
    encoder.eval()
    shape = (len(examples), encoder.grid[0] * encoder.grid[1], encoder.feature_dim)
    features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    starts = range(0, len(examples), BATCH_SIZE)
    what = f"features of {examples.split}"
    for start in progress(starts, total=len(starts), what=what, unit="batches"):
        positions = range(start, min(start + BATCH_SIZE, len(examples)))
        images = torch.from_numpy(examples.images(positions)).to(device)
        features[start : positions.stop] = encoder(images).to(torch.float16).cpu().numpy()
    features.flush()


def _key(encoder: Encoder, examples: Examples) -> str:
    """Return a fingerprint of the encoder's structure, weights and the shards."""
    digest = hashlib.sha256(json.dumps([repr(encoder), list(encoder.grid), examples.digest]).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
