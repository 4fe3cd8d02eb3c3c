"""Which of this machine's accelerators each of several processes has that run at the same time."""

import os
from collections.abc import Sequence
from itertools import pairwise, takewhile

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """Return the devices that a process started here may use, as CUDA_VISIBLE_DEVICES names them.

    They are those of the variable up to an empty word or -1, where CUDA stops reading, and all where it is not set.
    """
    stated = os.environ.get(VARIABLE)
    if stated is not None:
        words = (word.strip() for word in stated.split(","))
        return list(takewhile(lambda word: word not in {"", "-1"}, words))
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def divided(devices: Sequence[str], num_shares: int) -> list[list[str]]:
    """Return the devices in shares of neighbours, which differ by one device at most.

    Each share has at least one: where there are fewer devices than shares, some have the same; where there are none,
    the shares are empty.
    """
    if len(devices) < num_shares:
        return [[devices[number % len(devices)]] if devices else [] for number in range(num_shares)]
    ends = [len(devices) * number // num_shares for number in range(num_shares + 1)]
    return [list(devices[begin:end]) for begin, end in pairwise(ends)]
