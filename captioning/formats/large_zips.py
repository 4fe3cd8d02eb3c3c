"""Zip archives of millions of members: their directory is read an entry at a time, where zipfile would hold it all.

After APPNOTE.TXT, section 4.3; sizes and places beyond 4 GiB and more than 65,535 members are read (zip64).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

END = struct.Struct("<4s4H2LH")
END_64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR_64 = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
STORED, DEFLATED = 0, 8
ENCRYPTED = 1
BEYOND = 0xFFFFFFFF
"""Stands for a number that is in the extra field."""


PIECE_BYTES = 1 << 16
"""Of an archive, read at a time; deflate makes at most a thousand times as many of them."""


class DamagedMember(ValueError):
    """A member whose bytes are not those that the archive's directory promises; the message is its name."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where a file lies in an archive; sizes and offset in bytes."""

    name: str
    offset: int
    method: int
    stored_size: int
    size: int
    crc: int


def read_directory(path: Path) -> Iterator[Member]:
    """Yield the members of an archive in the order of its directory.

    Raises:
        ValueError: the directory is damaged, or members are encrypted.
    """
    with path.open("rb", buffering=1 << 20) as file:
        offset, num_members = _find_directory(file, path)
        file.seek(offset)
        for _ in range(num_members):
            signature, _, _, flags, method, _, _, *values = ENTRY.unpack(_read(file, ENTRY.size, path))
            crc, stored_size, size, name_size, extra_size, comment_size, *_, offset = values
            if signature != b"PK\x01\x02":
                raise _damage(path, "its directory is not where its end says")
            name = _read(file, name_size, path).decode("utf-8", "replace")
            size, stored_size, offset = _full_numbers(
                _read(file, extra_size, path), size, stored_size, offset
            )
            file.seek(comment_size, os.SEEK_CUR)
            if flags & ENCRYPTED:
                raise ValueError(f"{path.name}: {name} is encrypted; make an archive without a password")
            yield Member(name=name, offset=offset, method=method, stored_size=stored_size, size=size, crc=crc)


def read_pieces(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """Yield the bytes of a member of the archive that is open as `file`, in pieces.

    Not more than `member.size` bytes and one piece are expanded, whatever the archive holds.

    Raises:
        DamagedMember: they are not what the directory says; known for sure only after the last piece.
    """
    file.seek(member.offset)
    header = file.read(LOCAL.size)
    if (
        len(header) < LOCAL.size
        or not header.startswith(b"PK\x03\x04")
        or member.method not in {STORED, DEFLATED}
    ):
        raise DamagedMember(member.name)
    *_, name_size, extra_size = LOCAL.unpack(header)
    file.seek(name_size + extra_size, os.SEEK_CUR)
    expand = zlib.decompressobj(-zlib.MAX_WBITS).decompress if member.method == DEFLATED else bytes
    size = crc = 0
    for position in range(0, member.stored_size, PIECE_BYTES):
        try:
            piece = expand(file.read(min(PIECE_BYTES, member.stored_size - position)))
        except zlib.error:
            raise DamagedMember(member.name) from None
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        if size > member.size:
            raise DamagedMember(member.name)
        yield piece
    if (size, crc) != (member.size, member.crc):
        raise DamagedMember(member.name)


def _find_directory(file: BinaryIO, path: Path) -> tuple[int, int]:
    """Return where the directory begins and how many members it names."""
    file_size = file.seek(0, os.SEEK_END)
    start = max(file_size - 0xFFFF - END.size, 0)
    file.seek(start)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < END.size:
        raise _damage(path, "it has no end of a directory")
    *_, num_members, _, offset, _ = END.unpack_from(tail, end)
    locator = start + end - LOCATOR_64.size
    if locator >= 0 and (num_members == 0xFFFF or offset == BEYOND):
        file.seek(locator)
        signature, _, end_64, _ = LOCATOR_64.unpack(file.read(LOCATOR_64.size))
        if signature == b"PK\x06\x07":
            file.seek(end_64)
            *_, num_members, _, offset = END_64.unpack(_read(file, END_64.size, path))
    return offset, num_members


def _full_numbers(extra: bytes, *numbers: int) -> list[int]:
    """Return `numbers`, those beyond 32 bits taken from the extra field with the id 1, in order."""
    full = b""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            full = extra[4 : 4 + size]
        extra = extra[4 + size :]
    rest = iter([number for (number,) in struct.iter_unpack("<Q", full[: len(full) // 8 * 8])])
    return [next(rest, number) if number == BEYOND else number for number in numbers]


def _read(file: BinaryIO, size: int, path: Path) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise _damage(path, "it is cut short")
    return content


def _damage(path: Path, what: str) -> ValueError:
    return ValueError(f"{path.name} is a damaged zip file: {what}; fetch it again")
