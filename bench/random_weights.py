"""Networks with random weights whose activations stay in range, as those of trained ones do."""

import torch
from torch import nn


@torch.no_grad()
def calibrate(network: nn.Module, images: torch.Tensor) -> None:
    """Set the statistics of all batch normalisations to those of `images`, the network's input.

    Without, each residual block doubles the variance, and the features of a deep network overflow.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    network(images)
    for norm in norms:
        norm.eval()
