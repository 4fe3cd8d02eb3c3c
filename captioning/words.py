"""A decoder's two ends: word ids -> embeddings, and the output layer's input -> scores of the next word."""

import torch
from torch import nn


class Words(nn.Module):
    """The embedding of each word and the output layer.

    Args:
        vocabulary_size: V.
        embedding_width: of a word's embedding.
        output_width: E, of the output layer's input.
        tied: one matrix for both (Press and Wolf, 2017; Inan et al., 2017); the output layer keeps a bias of its own.

    Raises:
        ValueError: tied, and the two widths differ.
    """

    def __init__(self, *, vocabulary_size: int, embedding_width: int, output_width: int, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        if tied and output_width != embedding_width:
            raise ValueError(
                f"tied_embeddings needs an embedding_width ({embedding_width}) equal to the width of the output "
                f"layer's input ({output_width}): change one of them, or set tied_embeddings: false"
            )
        layer = nn.Linear(output_width, vocabulary_size)
        self.output_weight = None if tied else layer.weight
        self.output_bias = layer.bias

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of word ids of any shape."""
        embedded: torch.Tensor = self.embedding(tokens)
        return embedded

    def logits(self, output_E: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next word, ...V, before the softmax."""
        weight = self.embedding.weight if self.output_weight is None else self.output_weight
        return nn.functional.linear(output_E, weight, self.output_bias)
