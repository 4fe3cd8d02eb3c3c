"""A data set's archives and single images -> data/raw.

`raw.py` brings a data set; `fetching.py` one file of any size; `pictures.py` one picture, `connections.py` many at a
time, which `parts.py` packs into archives. `answers.py` asks servers, `addresses.py` refuses private networks.
"""

from captioning.downloads.parts import ROW_SCHEMA
from captioning.downloads.raw import CAPTION_SCHEMA, Counts, download, read_settings

__all__ = ["CAPTION_SCHEMA", "ROW_SCHEMA", "Counts", "download", "read_settings"]
