"""Show, Attend and Tell as a popular tutorial has it: what our training and our decoding are compared with.

A ResNet101 whose grid is enlarged to 14 x 14, and an `LSTMCell` with the attention's keys, the gate and the output
layer inside the loop. Captions are decoded one image at a time, with the beams as the batch: each has the image's
features of its own, and their projection is computed again at each word.
"""

import torch
from torch import nn
from torchvision.models import resnet101

BOS, EOS = 1, 2


def tutorial_encoder() -> nn.Module:
    """Return a ResNet101 of random weights: pixels in [0, 1], B x 3 x H x W -> B x 2048 x 14 x 14."""
    network = resnet101(weights=None)
    return (
        nn.Sequential(*list(network.children())[:-2], nn.AdaptiveAvgPool2d(14)).requires_grad_(False).eval()
    )


class TutorialDecoder(nn.Module):
    """The decoder as the tutorial steps it."""

    def __init__(self, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.key, self.query = nn.Linear(2048, width), nn.Linear(width, width)
        self.energy = nn.Linear(width, 1)
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.cell = nn.LSTMCell(width + 2048, width)
        self.start_hidden, self.start_cell = nn.Linear(2048, width), nn.Linear(2048, width)
        self.gate, self.output = nn.Linear(width, 2048), nn.Linear(width, vocabulary_size)
        self.dropout = nn.Dropout(0.5)

    def start(self, features_NLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden state and cell before the first word."""
        mean = features_NLD.mean(dim=1)
        return self.start_hidden(mean), self.start_cell(mean)

    def step(
        self, features_NLD: torch.Tensor, embedded_NE: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Read one word; return scores of the next, attention and the next state."""
        hidden, cell = state
        energy = self.energy(torch.relu(self.key(features_NLD) + self.query(hidden).unsqueeze(1)))
        attention = torch.softmax(energy.squeeze(2), dim=1)
        context = (features_NLD * attention.unsqueeze(2)).sum(dim=1)
        context = torch.sigmoid(self.gate(hidden)) * context
        hidden, cell = self.cell(torch.cat([embedded_NE, context], dim=1), (hidden, cell))
        return self.output(self.dropout(hidden)), attention, (hidden, cell)

    def forward(
        self, features_NLD: torch.Tensor, tokens_NT: torch.Tensor, lengths_N: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing, the longest caption first; return scores N x T x V and attention N x T x L."""
        hidden, cell = self.start(features_NLD)
        embedded = self.embedding(tokens_NT)
        scores = torch.zeros(len(tokens_NT), max(lengths_N), self.output.out_features)
        attentions = torch.zeros(len(tokens_NT), max(lengths_N), features_NLD.shape[1])
        for t in range(max(lengths_N)):
            alive = sum(length > t for length in lengths_N)
            scores[:alive, t], attentions[:alive, t], (hidden, cell) = self.step(
                features_NLD[:alive], embedded[:alive, t], (hidden[:alive], cell[:alive])
            )
        return scores, attentions

    @torch.inference_mode()
    def caption(self, features_1LD: torch.Tensor, *, beam_width: int, num_words: int) -> list[int]:
        """Return the best caption of exactly so many words of one image."""
        features_KLD = features_1LD.expand(beam_width, -1, -1)
        words_KT = torch.full((beam_width, 1), BOS)
        best_K, state = torch.zeros(beam_width), self.start(features_KLD)
        for step in range(num_words):
            scores_KV, _, state = self.step(features_KLD, self.embedding(words_KT[:, -1]), state)
            scores_KV = torch.log_softmax(scores_KV, dim=1)
            scores_KV[:, EOS] = -torch.inf
            scores_KV = best_K.unsqueeze(1) + scores_KV
            candidates = scores_KV[0] if step == 0 else scores_KV.flatten()
            best_K, choice_K = candidates.topk(beam_width)
            beam_K, word_K = choice_K // scores_KV.shape[1], choice_K % scores_KV.shape[1]
            words_KT = torch.cat([words_KT[beam_K], word_K.unsqueeze(1)], dim=1)
            state = (state[0][beam_K], state[1][beam_K])
        return words_KT[0, 1:].tolist()
