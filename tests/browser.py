"""A real browser, driven without a driver: chromium's own debugging protocol over one web socket."""

import asyncio
import base64
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LIMIT_SECONDS = 120.0

LOOK = """
(async () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
  const wide = document.documentElement.clientWidth;
  const hidden = (element) => element.closest(".scroll, .hidden") !== null;
  return {
    width: innerWidth,
    page_width: document.documentElement.scrollWidth,
    images: [...document.images].map((image) => ({
      natural_width: image.naturalWidth, width: image.width, alt: image.getAttribute("alt"),
    })),
    overflowing: [...document.body.querySelectorAll("*")]
      .filter((element) => !hidden(element) && element.getBoundingClientRect().right > wide + 1)
      .map((element) => element.outerHTML.slice(0, 200)),
    clipped: [...document.querySelectorAll("h1, h2, h3, p, td, th, dd, li")]
      .filter((element) => !hidden(element) && element.scrollWidth > element.clientWidth + 1)
      .map((element) => element.outerHTML.slice(0, 200)),
    headings: [...document.querySelectorAll("h1, h2, h3, h4")].map((own) => Number(own.tagName[1])),
    addresses: performance.getEntriesByType("resource").map((own) => own.name)
      .filter((name) => !name.startsWith("data:")),
    text: document.body.innerText,
  };
})()
"""


@dataclass(frozen=True, kw_only=True)
class View:
    """A page as it looks at one width."""

    found: dict[str, Any]
    """What `LOOK` returns."""
    complaints: list[str]
    """Errors and warnings of the console, of the network and of scripts."""
    screenshot: Path


def program() -> str | None:
    """Return the browser of this machine, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def look(page: Path, folder: Path, *, widths: tuple[int, ...], height: int = 844) -> list[View]:
    """Open a page at several widths, in CSS pixels, and keep a screenshot of all of it in `folder`."""
    return asyncio.run(asyncio.wait_for(_look(page, folder, widths, height), LIMIT_SECONDS))


async def _look(page: Path, folder: Path, widths: tuple[int, ...], height: int) -> list[View]:
    browser = program()
    assert browser is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            address = ""
            while "ws://" not in address:
                address = (await process.stderr.readline()).decode()
                assert address, "the browser ended before it could be spoken to"
            drained = asyncio.create_task(process.stderr.read())
            socket = address[address.index("ws://") :].strip()
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(socket, max_msg_size=0) as connection,
            ):
                tab = _Tab(connection)
                await tab.open()
                views = [await _view(tab, page, folder, width, height) for width in widths]
        finally:
            process.kill()
            await process.wait()
        drained.cancel()
        return views


async def _view(tab: "_Tab", page: Path, folder: Path, width: int, height: int) -> View:
    tab.complaints.clear()
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    await tab.call("Emulation.setDeviceMetricsOverride", **metrics)
    await tab.call("Page.navigate", url=page.resolve().as_uri())
    await tab.until("Page.loadEventFired")
    answer = await tab.call("Runtime.evaluate", expression=LOOK, awaitPromise=True, returnByValue=True)
    assert "exceptionDetails" not in answer, answer
    drawn = await tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    path = folder / f"{page.stem}-{width}.png"
    path.write_bytes(base64.b64decode(drawn["data"]))
    return View(found=answer["result"]["value"], complaints=list(tab.complaints), screenshot=path)


class _Tab:
    """One tab: calls and their answers, and what it complains of meanwhile."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._number = 0
        self._session = ""
        self.complaints: list[str] = []

    async def open(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        await self._connection.send_json(message | ({"sessionId": self._session} if self._session else {}))
        while True:
            answer = await self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def until(self, event: str) -> None:
        while (await self._receive()).get("method") != event:
            pass

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._connection.receive()).data)
        match message:
            case {"method": "Runtime.exceptionThrown" | "Network.loadingFailed", "params": parameters}:
                self.complaints.append(json.dumps(parameters))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error" | "warning"} as entry}}:
                self.complaints.append(json.dumps(entry))
            case {
                "method": "Runtime.consoleAPICalled",
                "params": {"type": "error" | "warning"} as parameters,
            }:
                self.complaints.append(json.dumps(parameters))
        return message
