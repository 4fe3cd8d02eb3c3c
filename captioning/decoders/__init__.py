"""Networks that turn image features into captions; one module a choice, named by `train.decoder.name`.

Each module has `class Settings(params.Settings)` and `class Decoder(nn.Module)`:

- `Decoder(settings, feature_dim=D, vocabulary_size=V)`;
- `has_full_attention` and `is_drawing`, of the class: whether teacher forcing returns attention that adds up to 1 over
  the cells, and whether it returns a loss of what it drew at random on the way;
- `words: captioning.words.Words`: the embeddings, and the scores of the next word;
- `prepare(features_BLD) -> Memory`: everything that is constant per image, computed once;
- `forward(memory, tokens_NT, lengths_N) -> captioning.recurrence.Forced`: teacher forcing. `tokens_NT` begin with
  `<bos>`; position t has read tokens 0..t; `lengths_N` is on the CPU. What is returned has one row for each of the W
  positions below their length, row after row, so that no work is spent on padding;
- `start(memory, num_rows) -> State` and `step(memory, state, tokens_N) -> (output_NE, state, attention_NL | None)`: one
  word further for every row. Step by step equals teacher forcing, in evaluation mode.

`words.logits` makes scores of the outputs of both. Attention weights are those of the cells; where a decoder may look
away from the image they add up to less than 1, and the rest is what it gave to the words (adaptive attention).

The N rows are captions (in training) or beams (in search) of B images, N / B consecutive rows an image, so nothing of
an image is ever copied per row. Memory is a `dict[str, Tensor]` with the images as first axis; State is one with the
rows as first axis, so that a search reorders it with `index_select` alone. In training images come with the longest
caption first.
"""
