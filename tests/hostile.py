"""Input that somebody sends who means the service no good: each a name, and what is sent."""

import base64
import io
import json
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from PIL import Image

LIMIT_SECONDS = 120.0
"""For one answer, on a busy machine."""
JSON_TYPE = {"Content-Type": "application/json"}
Sent = Callable[[str], int]
"""Sends something to the service of an address, and returns the status of the answer; 0 where there is none."""


def picture(form: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, "red").save(encoded, form, **options)
    return encoded.getvalue()


def png(width: int, height: int, *chunks: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff_of_large_tiles(side: int) -> bytes:
    """Return a TIFF of 16 x 16 pixels, stored in one tile of side x side."""
    tile = zlib.compress(bytes(side * side * 3), 9)
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 2), (277, 3), (322, side), (323, side)]
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(tile))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tile


def rle_bitmap(side: int, num_runs: int) -> bytes:
    """Return a BMP that Pillow decodes in Python, run after run of one pixel."""
    runs = b"\1\1" * num_runs
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + head + bytes(1024) + runs


def many_passes(num: int) -> bytes:
    """Return a progressive JPEG that passes over its pixels again and again."""
    encoded = picture("JPEG", (1600, 1600), progressive=True)
    last = encoded[encoded.rindex(b"\xff\xda") : -2]
    return encoded[:-2] + last * num + encoded[-2:]


def huge_gif() -> bytes:
    return picture("GIF").replace(struct.pack("<HH", 40, 30), struct.pack("<HH", 65_000, 65_000))


def huge_webp() -> bytes:
    size = (16_383 - 1).to_bytes(3, "little")
    head = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size * 2
    return b"RIFF" + struct.pack("<I", 4 + len(head)) + b"WEBP" + head


def huge_jpeg() -> bytes:
    encoded = picture("JPEG")
    start = encoded.index(b"\xff\xc0") + 5
    return encoded[:start] + struct.pack(">HH", 65_500, 65_500) + encoded[start + 4 :]


def huge_bmp() -> bytes:
    encoded = bytearray(picture("BMP"))
    encoded[18:26] = struct.pack("<ii", 60_000, 60_000)
    return bytes(encoded)


def huge_tiff() -> bytes:
    encoded = picture("TIFF")
    sides = {256: 60_000, 257: 60_000}
    out = bytearray(encoded)
    start = struct.unpack_from("<I", encoded, 4)[0]
    for number in range(struct.unpack_from("<H", encoded, start)[0]):
        place = start + 2 + 12 * number
        tag = struct.unpack_from("<H", encoded, place)[0]
        if tag in sides:
            struct.pack_into("<HHII", out, place, tag, 4, 1, sides[tag])
    return bytes(out)


MUCH = zlib.compress(bytes(64 * 2**20), 9)
SVG = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"><text>&b;&x;</text></svg>'
)
FILES: dict[str, bytes] = {
    "nothing": b"",
    "web page": b"<!doctype html><html>log in first</html>",
    "web page after a JPEG's beginning": b"\xff\xd8\xff\xe0<html><script>alert(1)</script></html>",
    "GIF that is a script": b"GIF89a/*" + b"\0" * 64 + b"*/=1;alert(1)",
    "SVG with entities": SVG,
    "EPS, which Ghostscript would run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n",
    "FLI": b"\x0c\0\0\0\x12\xaf\x01\0" + bytes(256),
    "pickle": b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    "zip": b"PK\x03\x04" + bytes(64),
    "gzip of much": zlib.compress(MUCH, 9),
    "JPEG cut short in its head": picture("JPEG")[:150],
    "PNG cut short": picture("PNG", (300, 300))[:60],
    "WebP cut short": picture("WEBP", (300, 300))[:30],
    "TIFF without an end to its directories": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "PNG of 900 million pixels": png(30_000, 30_000),
    "PNG of negative width": png(0x80000001, 1),
    "PNG of no width": png(0, 0),
    "PNG that inflates for ever": png(9_000, 9_000, chunk(b"IDAT", MUCH)),
    "PNG whose data ends": png(1_000, 1_000, chunk(b"IDAT", zlib.compress(b"\0"))),
    "PNG with a wrong checksum": png(8, 8).replace(b"IHDR", b"IHDS"),
    "GIF of 4 billion pixels": huge_gif(),
    "WebP of 268 million pixels": huge_webp(),
    "JPEG of 4 billion pixels": huge_jpeg(),
    "BMP of 3.6 billion pixels": huge_bmp(),
    "TIFF of 3.6 billion pixels": huge_tiff(),
    "TIFF of one huge tile": tiff_of_large_tiles(5_000),
    "BMP of a million runs": rle_bitmap(1_999, 900_000),
    "JPEG of 400 passes": many_passes(400),
    "file of too many bytes": bytes(2_100_000),
}
"""Sent as the only picture of a form, named .jpg."""


def addresses(public: str, private: str) -> dict[str, str]:
    """Return addresses that must not be asked, or answer badly: `public` may be asked, `private` not."""
    port = urlsplit(private).port

    def through(goal: str) -> str:
        return f"{public}/to/{quote(goal, safe='')}"

    return {
        "this machine": f"{private}/ok/a",
        "this machine by name": f"http://localhost:{port}/ok/a",
        "this machine in IPv6": f"http://[::1]:{port}/ok/a",
        "this machine mapped into IPv6": f"http://[::ffff:127.0.0.1]:{port}/ok/a",
        "this machine in NAT64": f"http://[64:ff9b::7f00:1]:{port}/ok/a",
        "this machine as a number": f"http://2130706433:{port}/ok/a",
        "this machine in octal": f"http://0177.0.0.1:{port}/ok/a",
        "this machine in hexadecimal": f"http://0x7f000001:{port}/ok/a",
        "this machine in short": f"http://127.1:{port}/ok/a",
        "any address": f"http://0.0.0.0:{port}/ok/a",
        "a cloud's metadata": "http://169.254.169.254/latest/meta-data/",
        "a private network": "http://192.168.0.1/",
        "a private network in IPv6": "http://[fd00::1]/",
        "full-width digits": f"http://１２７.0.0.1:{port}/ok/a",
        "a file": "file:///etc/passwd",
        "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
        "ftp": "ftp://example.com/a.jpg",
        "a chained address": "simplecache::file:///etc/passwd",
        "storage that is not allowed": "s3://bucket/photo.jpg",
        "a path": "../../../../etc/passwd",
        "a login": "http://user:secret@example.com/a.jpg",
        "a login that looks like a host": f"http://example.com@127.0.0.1:{port}/ok/a",
        "a backslash": f"http://example.com\\@127.0.0.1:{port}/ok/a",
        "line ends": f"{private}/ok/a HTTP/1.1\r\nX-Evil: 1\r\n",
        "a NUL": "http://example.com\0.evil/a",
        "a port of another service": "http://127.0.0.5:22/",
        "a port out of range": "http://example.com:99999/",
        "an unknown name": "http://no-such-name.invalid/a.jpg",
        "redirect to this machine": through(f"{private}/ok/a"),
        "redirect to a file": through("file:///etc/passwd"),
        "redirect to metadata": through("http://169.254.169.254/"),
        "redirect without end": f"{public}/loop/a",
        "a web page": f"{public}/html/a",
        "endless bytes": f"{public}/endless/a",
        "a drip": f"{public}/drip/a",
        "a head that does not end": f"{public}/dripping_head/a",
        "silence": f"{public}/silent/a",
        "a body cut short": f"{public}/short/a",
        "no picture there": f"{public}/gone/a",
    }


def file(content: bytes) -> Sent:
    """Return what sends a file in a form."""

    def send(url: str) -> int:
        files = [("images", ("photo.jpg", content, "image/jpeg"))]
        return httpx.post(f"{url}/captions", files=files, timeout=LIMIT_SECONDS).status_code

    return send


def body(
    content: bytes | str, kind: str = "application/json", path: str = "/captions", **headers: str
) -> Sent:
    """Return what posts a body."""

    def send(url: str) -> int:
        sent = {"Content-Type": kind, **headers}
        encoded = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        return httpx.post(f"{url}{path}", content=encoded, headers=sent, timeout=LIMIT_SECONDS).status_code

    return send


def address(stated: str) -> Sent:
    """Return what asks for the picture behind an address."""
    return body(json.dumps({"images": [{"url": stated}]}))


def raw(*pieces: bytes, end: bool = False) -> Sent:
    """Return what writes bytes to a connection, and reads the status of the answer.

    Args:
        pieces: written one after the other, as far as the service reads.
        end: close the sending half afterwards.
    """

    def send(url: str) -> int:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=LIMIT_SECONDS) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if end:
                    connection.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass  # it has answered and closed
            try:
                head = connection.recv(65536)
            except ConnectionError:
                return 0
        return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0

    return send


def form(*fields: tuple[str, str], content: bytes = b"1", boundary: str = "x") -> bytes:
    """Return a multipart body; a field is its disposition's parameters, and anything further of its head."""
    parts = [
        f"--{boundary}\r\nContent-Disposition: form-data; {named}\r\n{more}\r\n".encode() + content + b"\r\n"
        for named, more in fields
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


GOOD = base64.b64encode(picture()).decode()
MULTIPART = "multipart/form-data; boundary=x"
HEAD = b"POST /captions HTTP/1.1\r\nHost: localhost\r\n"
JSON_HEAD = HEAD + b"Content-Type: application/json\r\n"
REQUESTS: dict[str, Sent] = {
    "empty body": body(""),
    "no JSON": body("images"),
    "JSON cut short": body('{"images": [{"base64": "'),
    "JSON of 100,000 levels": body("[" * 100_000),
    "objects of 100,000 levels": body('{"a":' * 100_000),
    "a number of 100,000 digits": body(f'{{"images": [{{"base64": "{GOOD}"}}], "top": {"9" * 100_000}}}'),
    "NaN captions": body(f'{{"images": [{{"base64": "{GOOD}"}}], "top": NaN}}'),
    "infinite captions": body(f'{{"images": [{{"base64": "{GOOD}"}}], "top": 1e999}}'),
    "minus one caption": body(json.dumps({"images": [{"base64": GOOD}], "top": -1})),
    "a million captions": body(json.dumps({"images": [{"base64": GOOD}], "top": 1_000_000})),
    "captions that are a list": body(json.dumps({"images": [{"base64": GOOD}], "top": [1]})),
    "an unknown key": body(json.dumps({"images": [{"base64": GOOD}], "__proto__": {"admin": True}})),
    "no pictures": body('{"images": []}'),
    "a thousand pictures": body(json.dumps({"images": [{"base64": GOOD}] * 1_000})),
    "a picture twice over": body(json.dumps({"images": [{"base64": GOOD, "url": "http://example.com"}]})),
    "a picture that is null": body('{"images": [null]}'),
    "base64 that is none": body('{"images": [{"base64": "../../etc/passwd"}]}'),
    "base64 of half a surrogate": body('{"images": [{"base64": "\\ud800"}]}'),
    "a body that is no UTF-8": body(b'{"images": "\xff\xfe"}'),
    "UTF-16": body(json.dumps({"images": []}).encode("utf-16")),
    "a model of another name": body(
        json.dumps({"images": [{"base64": GOOD}], "models": ["../../etc/passwd"]})
    ),
    "a million models": body(json.dumps({"images": [{"base64": GOOD}], "models": ["champion"] * 100_000})),
    "two million lists": body('{"images": [' + "[]," * 1_900_000 + "[]]}"),
    "an address of a million letters": body(json.dumps({"images": [{"url": "http://a/" + "a" * 1_000_000}]})),
    "XML": body(SVG, "application/xml"),
    "JSON called text": body(json.dumps({"images": [{"base64": GOOD}]}), "text/plain"),
    "a compressed body": body(zlib.compress(b"{}"), **{"Content-Encoding": "deflate"}),
    "a form without a boundary": body(form(('name="top"', "")), "multipart/form-data"),
    "a boundary of 10,000 letters": body(
        form(('name="top"', "")), f"multipart/form-data; boundary={'x' * 10_000}"
    ),
    "a boundary of signs": body(b"--\0\r\n", 'multipart/form-data; boundary="\\;=,"; charset=none'),
    "another boundary": body(form(('name="top"', "")), "multipart/form-data; boundary=y"),
    "a form of 10,000 fields": body(form(*[('name="top"', "")] * 10_000), MULTIPART),
    "a form of 10,000 files": body(form(*[('name="images"; filename="a"', "")] * 10_000), MULTIPART),
    "a field without a name": body(form(("", "")), MULTIPART),
    "the same field twice": body(
        form(('name="top"', ""), ('name="top"', ""), ('name="urls"', "")), MULTIPART
    ),
    "an unknown field": body(form(('name="admin"', "")), MULTIPART),
    "a text for a file": body(form(('name="images"', "")), MULTIPART),
    "a file for a text": body(form(('name="top"; filename="a"', "")), MULTIPART),
    "a part's head of a megabyte": body(form(('name="top"', f"X: {'a' * 1_000_000}\r\n")), MULTIPART),
    "a file called as a path": body(form(('name="images"; filename="../../../etc/passwd"', "")), MULTIPART),
    "a file with a NUL in its name": body(form(('name="images"; filename="a.jpg\0.sh"', "")), MULTIPART),
    "a form cut short": body(form(('name="top"', ""))[:40], MULTIPART),
    "a nested form": body(
        form(('name="images"', f"Content-Type: {MULTIPART}\r\n"), content=form(("", ""))), MULTIPART
    ),
    "10 MB where 6 are allowed": body(b'{"images": "' + b"a" * 10_000_000 + b'"}'),
    "a path out of the page": lambda url: httpx.get(f"{url}/..%2f..%2f..%2fetc/passwd").status_code,
    "a path with a NUL": lambda url: httpx.get(f"{url}/%00index.html").status_code,
    "a thumbnail that is a path": lambda url: (
        httpx.get(f"{url}/search/thumbnails/..%2f..%2fetc%2fpasswd").status_code
    ),
    "a method that is none": raw(b"EVIL /captions HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "no HTTP": raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n"),
    "another host": raw(b"GET /models HTTP/1.1\r\nHost: evil.example.com\r\n\r\n"),
    "two hosts": raw(b"GET /models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n"),
    "no host": raw(b"GET /models HTTP/1.1\r\n\r\n"),
    "two lengths": raw(JSON_HEAD + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}"),
    "a length and chunks": raw(
        JSON_HEAD + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a negative length": raw(JSON_HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "a chunk of no number": raw(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "a header of a megabyte": raw(
        b"GET /models HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n"
    ),
    "100,000 headers": raw(b"GET /models HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 100_000 + b"\r\n"),
    "a line end in a header": raw(b"GET /models HTTP/1.1\r\nHost: localhost\r\nX: a\nY\0: b\r\n\r\n"),
    "a head that does not end": raw(b"POST /captions HTTP/1.1\r\nHost: loc"),
    "a connection without a word": raw(),
    "a body that does not come": raw(JSON_HEAD + b"Content-Length: 100\r\n\r\n{"),
    "a form that does not come": raw(
        HEAD
        + f"Content-Type: {MULTIPART}\r\nContent-Length: 100\r\n\r\n".encode()
        + form(('name="top"', ""))[:50]
    ),
    "chunks without end": raw(
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 400
    ),
    "a page of another site": raw(
        JSON_HEAD + b"Origin: https://evil.example.com\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "our own request": raw(JSON_HEAD + b"CDN-Loop: captioning-serve\r\nContent-Length: 2\r\n\r\n{}"),
}
