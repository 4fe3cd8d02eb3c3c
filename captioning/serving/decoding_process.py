"""A process that does nothing but decode pictures: what a hostile file can spoil is this process alone.

`python -m captioning.serving.decoding_process SOCKET MAX_PIXELS`; see decoding.py, which starts it. It is asked with
the number of bytes and the bytes of a file, and answers with a head and pixels, or a head and the reason why not. It
ends when the other side does.
"""

import contextlib
import io
import resource
import socket
import struct
import sys

import numpy as np
from PIL import Image

from captioning.images import COMMON_FORMATS, JPEG_BEGINS, BadImage, TooManyPixels, decode

QUESTION = struct.Struct("!Q")
"""Bytes of the file."""
ANSWER = struct.Struct("!BII")
"""One of the outcomes; height and width, or the bytes of the reason and 0."""
PIXELS, NOT_A_PICTURE, TOO_LARGE = range(3)

START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 200
"""A progressive JPEG passes over all its pixels once a scan: ten of them are usual, and a few bytes each are enough for
a million. Metadata may hold a few of these two bytes by chance."""
TIFF_BEGINS = {b"II", b"MM"}
TILE_WIDTH, TILE_LENGTH = 322, 323
"""Tags of TIFF."""
BYTES_PER_PIXEL = 40
"""Of memory: 16-bit values as floating point, beside the result, are the most."""
SPARE_BYTES = 256 * 2**20


def main(descriptor: int, max_pixels: int) -> None:
    """Answer until the other side hangs up."""
    _limit_itself(max_pixels)
    with socket.socket(fileno=descriptor) as asked, contextlib.suppress(ConnectionError):
        while head := _receive(asked, QUESTION.size):
            (num_bytes,) = QUESTION.unpack(head)
            outcome, height, width, content = _answer(_receive(asked, num_bytes), max_pixels)
            asked.sendall(ANSWER.pack(outcome, height, width))
            asked.sendall(content)


def _limit_itself(max_pixels: int) -> None:
    """Bound the memory of this process, and let it write no file."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    most = used + SPARE_BYTES + BYTES_PER_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _receive(asked: socket.socket, num_bytes: int) -> bytes:
    """Return so many bytes, or none where the other side has hung up."""
    content = bytearray(num_bytes)
    rest = memoryview(content)
    while rest:
        if not (num_received := asked.recv_into(rest)):
            return b""
        rest = rest[num_received:]
    return bytes(content)


def _answer(encoded: bytes, max_pixels: int) -> tuple[int, int, int, memoryview]:
    try:
        _refuse_many_scans(encoded)
        _refuse_large_tiles(encoded, max_pixels)
        pixels = np.ascontiguousarray(decode(encoded, max_pixels=max_pixels, formats=COMMON_FORMATS))
    except TooManyPixels as error:
        return _refusal(TOO_LARGE, str(error))
    except BadImage as error:
        return _refusal(NOT_A_PICTURE, str(error))
    except MemoryError:
        return _refusal(TOO_LARGE, "decoding the picture takes more memory than a picture of its size should")
    height, width, _ = pixels.shape
    return PIXELS, height, width, pixels.data.cast("B")


def _refuse_many_scans(encoded: bytes) -> None:
    if encoded.startswith(JPEG_BEGINS) and (num_scans := encoded.count(START_OF_SCAN)) > MAX_SCANS:
        raise TooManyPixels(f"the picture is stored in {num_scans:,} passes, more than {MAX_SCANS}")


def _refuse_large_tiles(encoded: bytes, max_pixels: int) -> None:
    """Refuse a TIFF whose tiles are larger than any picture: its few pixels cost the memory of a whole tile."""
    if encoded[:2] not in TIFF_BEGINS:
        return
    width = height = 0
    with contextlib.suppress(Exception):  # damaged: decoding says how
        tags = Image.open(io.BytesIO(encoded), formats=["TIFF"]).getexif()
        width, height = int(tags.get(TILE_WIDTH, 0)), int(tags.get(TILE_LENGTH, 0))
    if width * height > max_pixels:
        raise TooManyPixels(f"the picture is stored in tiles of {width} x {height} pixels")


def _refusal(outcome: int, why: str) -> tuple[int, int, int, memoryview]:
    reason = why.encode(errors="replace")
    return outcome, len(reason), 0, memoryview(reason)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
