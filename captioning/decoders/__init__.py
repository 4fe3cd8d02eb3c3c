"""Networks that turn grid features into captions; one module a choice, named by `train.decoder.name`.

Each module has `class Settings(params.Settings)` and `class Decoder(nn.Module)`:

- `Decoder(feature_dim=D, vocabulary_size=V, <keys of Settings except name>)`, keyword-only;
- `prepare(features_BLD) -> Memory`: everything that is constant per image, computed once;
- `forward(memory_N, tokens_NT, lengths_N) -> (hidden_NTH, attention_NTL | None)`: teacher forcing. `tokens_NT`
  begin with `<bos>`; position t has read tokens 0..t. Positions at or beyond `lengths_N` hold zeros;
- `logits(hidden) -> ...V`: scores of the next word;
- `start(memory_N) -> State` and `step(memory_N, state, tokens_N) -> (hidden_NH, state, attention_NL | None)`: one
  word further for every row. Step by step equals teacher forcing.

Memory and State are `dict[str, Tensor]` whose tensors all have the rows as first axis, so that a caller selects,
repeats and reorders rows with `index_select` alone.
"""
