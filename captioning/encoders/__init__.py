"""Networks that turn an image into a grid of features; one module a kind, `torchvision_network` for any torchvision name.

Each module has `class Settings(params.Settings)` and `class Encoder(nn.Module)`:

- `Encoder(settings..., weights_file)`, keyword-only;
- `feature_dim: int` (D) and `grid: tuple[int, int]` (height x width cells, L in total) for the image size it was built for;
- `forward(images_BCHW uint8) -> features_BLD float32`, cells in reading order. Pixel normalisation is its own business.
"""
