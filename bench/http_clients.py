"""Clients of `captioning serve`, in a process of their own: good and bad requests, what came of each, how long.

`python -m bench.http_clients URL NUM_CLIENTS SECONDS FOLDER` asks an address of this machine and prints a JSON object.
"""

import asyncio
import base64
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

MOST_REQUESTS = 100_000
ANSWER_SECONDS = 120.0
REFUSALS = {400, 413, 415, 422}
NUM_PHOTOGRAPHS = 24


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request, and how many pictures of it are to be captioned; with none it is to be refused."""

    body: bytes
    content_type: str
    num_pictures: int


@dataclass
class Came:
    """What came of all requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    num_captioned: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of requests whose pictures were captioned."""


def asks(folder: Path) -> list[Ask]:
    """Return the mix: of ten requests eight are good, one is half good and one is bad."""
    files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:NUM_PHOTOGRAPHS]]
    bad = [
        Ask(body=b"{", content_type="application/json", num_pictures=0),
        _json([b"<html>no picture</html>"], 0),
        _json([files[0][:2000]], 0),
        _json([files[0]], 0, top=1_000),
        Ask(body=b"hello", content_type="text/plain", num_pictures=0),
        _json([files[0]] * 40, 0),
    ]
    mix = []
    for number, file in enumerate(files):
        mix += [_form(file), _json([file], 1), _form(file), _json([file], 1, top=3)] * 2
        mix += [_json([file, b"<html>"], 1), bad[number % len(bad)]]
    return mix


def _json(files: list[bytes], num_pictures: int, **more: Any) -> Ask:
    images = [{"base64": base64.b64encode(file).decode()} for file in files]
    body = json.dumps({"images": images} | more).encode()
    return Ask(body=body, content_type="application/json", num_pictures=num_pictures)


def _form(file: bytes) -> Ask:
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
    body = head + file + b"\r\n--b--\r\n"
    return Ask(body=body, content_type="multipart/form-data; boundary=b", num_pictures=1)


async def ask_all(url: str, num_clients: int, seconds: float, mix: list[Ask]) -> Came:
    """Let clients ask again and again, each one request at a time, until the time is over; all answers are awaited."""
    came, end = Came(), time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    connector = aiohttp.TCPConnector(limit=num_clients)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def client(number: int) -> None:
            choose = random.Random(number)
            while time.monotonic() < end and sum(came.statuses.values()) < MOST_REQUESTS:
                await _ask(session, url, choose.choice(mix), came)

        await asyncio.gather(*(client(number) for number in range(num_clients)))
    return came


async def _ask(session: aiohttp.ClientSession, url: str, ask: Ask, came: Came) -> None:
    began = time.perf_counter()
    try:
        async with session.post(
            f"{url}/captions", data=ask.body, headers={"Content-Type": ask.content_type}
        ) as answer:
            body = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        came.lost.append(repr(error))
        return
    came.statuses[answer.status] += 1
    if answer.status == 503 and "Retry-After" in answer.headers:
        await asyncio.sleep(int(answer.headers["Retry-After"]))
    elif answer.status == 200:
        num = sum(own["error"] is None and bool(own["answers"][0]["captions"]) for own in body["images"])
        came.num_captioned += num
        came.seconds.append(time.perf_counter() - began)
        if num != ask.num_pictures:
            came.wrong.append(f"{num} of {ask.num_pictures} pictures were captioned")
    elif ask.num_pictures or answer.status not in REFUSALS:
        came.wrong.append(f"{answer.status}: {body}"[:300])


def main(url: str, num_clients: str, seconds: str, folder: str) -> None:
    """Ask, and print what came."""
    assert urlsplit(url).hostname == "127.0.0.1", f"{url} is not of this machine"
    came = asyncio.run(ask_all(url, int(num_clients), float(seconds), asks(Path(folder))))
    print(json.dumps({**vars(came), "statuses": dict(came.statuses)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
