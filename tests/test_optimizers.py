"""Every optimiser learns, with a learning rate of its own for the encoder."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from captioning.training import optimizers

PARSER: TypeAdapter[Any] = TypeAdapter(optimizers.OptimizerSettings)
SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {"betas": [0.9, 0.98], "weight_decay": 0.0},
    "adamw": {"betas": [0.9, 0.999], "weight_decay": 0.1},
    "sgd": {"momentum": 0.9, "weight_decay": 0.0},
    "rmsprop": {"smoothing": 0.99, "momentum": 0.5, "weight_decay": 0.0},
    "adagrad": {"weight_decay": 0.0},
}


@pytest.mark.parametrize("name", sorted(optimizers.CLASSES))
def test_each_lowers_a_loss_and_moves_the_encoder_at_its_own_rate(name: str):
    settings = PARSER.validate_python({"name": name, "learning_rate": 0.05, **SETTINGS[name]})
    decoder, encoder = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = optimizers.build(settings, [decoder, frozen], [encoder], encoder_learning_rate=1e-5)
    assert [group["peak"] for group in optimizer.param_groups] == [0.05, 1e-5]
    for _ in range(20):
        optimizer.zero_grad()
        (decoder.square().sum() + encoder.square().sum()).backward()
        optimizer.step()
    assert (decoder < 0.9).all()
    assert ((encoder < 1) & (encoder > 0.99)).all()
    assert torch.equal(frozen, torch.ones(3))


def test_a_frozen_encoder_is_no_group_of_its_own():
    settings = PARSER.validate_python({"name": "sgd", "learning_rate": 0.1, **SETTINGS["sgd"]})
    frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = optimizers.build(
        settings, [torch.nn.Parameter(torch.ones(3))], [frozen], encoder_learning_rate=1.0
    )
    assert len(optimizer.param_groups) == 1
