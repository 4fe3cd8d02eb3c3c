"""Several processes that train one model (torchrun's): which of them this is, and what they tell each other.

A process alone is the first of one; nothing here then communicates.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

from captioning import progress

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def num_processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_launched() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ


def is_first() -> bool:
    """Return whether this process speaks and writes for all."""
    return rank() == 0


def device() -> torch.device:
    """Return this process's accelerator where there is one, else the CPU; hardware is no part of an experiment."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started for as long as the block lasts; without torchrun do nothing.

    Tensors of a GPU travel by NCCL, those of the CPU by gloo.
    """
    if not is_launched() or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    progress.is_silent = int(os.environ["RANK"]) > 0
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    yield
    distributed.destroy_process_group()  # not after an error, when it would wait for processes that wait for this one


def add(numbers: Sequence[float]) -> list[float]:
    """Return the sums of `numbers` over all processes, exact to float64."""
    if num_processes() == 1:
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64)
    distributed.all_reduce(tensor)
    return [float(number) for number in tensor]


def gather(value: T) -> list[T]:
    """Return the picklable `value` of every process, in the order of their numbers."""
    if num_processes() == 1:
        return [value]
    values: list[T | None] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def first(value: T) -> T:
    """Return the first process's value."""
    if num_processes() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def share(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite the tensors of all processes with the first one's."""
    if num_processes() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)
