"""A data set's archives and single images -> data/raw.

`raw.py` brings a data set; `fetching.py` one file or image, past `addresses.py`, which refuses private networks;
`connections.py` many at a time; `parts.py` packs images fetched one by one into archives, part by part.
"""

from captioning.downloads.parts import ROW_SCHEMA
from captioning.downloads.raw import CAPTION_SCHEMA, Counts, download, read_settings

__all__ = ["CAPTION_SCHEMA", "ROW_SCHEMA", "Counts", "download", "read_settings"]
