"""Networks that turn an image into a grid of features; `torchvision_network` serves every torchvision name.

Each module has `class Settings(params.Settings)` and `class Encoder(nn.Module)`:

- `feature_dim: int` (D) and `grid: tuple[int, int]` (rows x columns of cells, L in total), derived from the network and
  the size of the images;
- `forward(images_BCHW uint8) -> features_BLD float32`, cells in reading order. Pixel normalisation is its business.
"""
