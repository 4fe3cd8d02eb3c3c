"""A web server on this machine that answers well and badly, and counts what it is asked."""

import contextlib
import fcntl
import hashlib
import re
import socket
import struct
import termios
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

JPEG = b"\xff\xd8\xff\xe0"


class Site:
    """What a server serves and saw. Paths are /KIND/NAME: see `Handler`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        """Served under /file/NAME, by byte range."""
        self.etag: str | None = '"first"'
        self.knows_ranges = True
        self.cuts: list[int] = []
        """The next answers of /file/ are reset after so many bytes; None after these."""
        self.stalls_at: int | None = None
        """Answers of /file/ send so many bytes, then nothing more until `go_on` is set."""
        self.go_on = threading.Event()
        self.requests: Counter[str] = Counter()
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.num_bytes_sent = 0
        self.num_slow = 0
        """Requests for /slow/ that are being answered."""
        self.most_slow = 0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers /KIND/NAME: `ok` with a picture, the others each in its own way."""

    site: Site

    def do_GET(self) -> None:
        kind, _, name = self.path.removeprefix("/").partition("/")
        with self.site.lock:
            self.site.requests[self.path] += 1
            self.site.times.append(time.monotonic())
            self.site.headers.append(dict(self.headers))
        with contextlib.suppress(ConnectionError):  # the other side did not wait
            getattr(self, f"answer_{kind}", self.answer_gone)(name)

    def send(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def answer_ok(self, name: str) -> None:
        self.send(JPEG + name.encode(), Content_Type="image/jpeg")

    def answer_text(self, name: str) -> None:
        self.send(unquote(name).encode(), Content_Type="text/plain")

    def answer_html(self, name: str) -> None:
        self.send(b"log in first", Content_Type="text/html; charset=utf-8")

    def answer_page(self, name: str) -> None:
        self.send(b"\n<!DOCTYPE html><html>log in first</html>", Content_Type="image/jpeg")

    def answer_gone(self, name: str) -> None:
        self.send(b"", 404)

    def answer_busy(self, name: str) -> None:
        self.send(b"", 503)

    def answer_flaky(self, name: str) -> None:
        if self.site.requests[self.path] <= 2:
            self.send(b"", 500)
        else:
            self.answer_ok(name)

    def answer_wait(self, name: str) -> None:
        """/wait/SECONDS/NAME: asks once to wait."""
        if self.site.requests[self.path] == 1:
            self.send(b"", 429, Retry_After=unquote(name.partition("/")[0]))
        else:
            self.answer_ok(name)

    def answer_short(self, name: str) -> None:
        self.send(JPEG, length=100)

    def answer_long(self, name: str) -> None:
        self.send(b"", length=int(name))

    def answer_silent(self, name: str) -> None:
        self.site.go_on.wait(30)

    def answer_slow(self, name: str) -> None:
        with self.site.lock:
            self.site.num_slow += 1
            self.site.most_slow = max(self.site.most_slow, self.site.num_slow)
        time.sleep(0.1)
        with self.site.lock:
            self.site.num_slow -= 1  # before the answer, upon which the next request may come
        self.answer_ok(name)

    def answer_held(self, name: str) -> None:
        self.site.go_on.wait(30)
        self.answer_ok(name)

    def answer_endless(self, name: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(JPEG * 10_000)

    def answer_drip(self, name: str) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.site.go_on.wait(0.02):
            self.wfile.write(JPEG[:1])

    def answer_dripping_head(self, name: str) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        while not self.site.go_on.wait(0.02):
            self.wfile.write(b"a")

    def answer_loop(self, name: str) -> None:
        self.send(b"", 302, Location=self.path)

    def answer_to(self, name: str) -> None:
        self.send(b"", 302, Location=unquote(name))

    def answer_reset(self, name: str) -> None:
        self.send(JPEG, length=100)
        self.reset()

    def answer_file(self, name: str) -> None:
        whole = self.site.files[name]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range", self.site.etag) == self.site.etag
        start = int(asked[1]) if asked and is_same and self.site.knows_ranges else 0
        tag = {"ETag": self.site.etag} if self.site.etag else {}
        if start >= len(whole) > 0:
            return self.send(b"", 416, Content_Range=f"bytes */{len(whole)}", **tag)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        for header, value in tag.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        self.send_part(whole[start:])
        return None

    def send_part(self, body: bytes) -> None:
        cut = self.site.cuts.pop(0) if self.site.cuts else None
        limit = self.site.stalls_at if cut is None else cut
        body, rest = (body, b"") if limit is None else (body[:limit], body[limit:])
        self.wfile.write(body)
        self.site.num_bytes_sent += len(body)
        if cut is not None:
            self.reset()
        elif rest:
            self.site.go_on.wait(60)

    def reset(self) -> None:
        """End the connection as a crashing server does."""
        self.wfile.flush()
        while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4)))[0]:
            time.sleep(0.01)  # until all that was sent has arrived
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *arguments: Any) -> None:
        pass


@contextmanager
def serve(address: str = "127.0.0.1", port: int = 0) -> Iterator[Site]:
    """Serve a site on a free port of `address` while the block runs."""
    handler = type("SiteHandler", (Handler,), {})
    with Server((address, port), handler) as server:
        handler.site = Site(f"http://{address}:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield handler.site
        finally:
            handler.site.go_on.set()
            server.shutdown()


def content(num_bytes: int, seed: str = "") -> bytes:
    """Return bytes of which no two stretches are equal."""
    blocks = (hashlib.sha256(f"{seed}{number}".encode()).digest() for number in range(num_bytes // 32 + 1))
    return b"".join(blocks)[:num_bytes]
