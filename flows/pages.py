"""What stages write as HTML, kept for each run and served to the links of Prefect's pages.

A run's Data Docs and report are linked, not copied byte by byte, into `CAPTIONING_HOME/.work/pages/RUN`, so that the
next run does not change what an old link shows. The schedule serves that folder on the loopback address;
CAPTIONING_PAGES_URL names another server of it. Without either a link is a path.
"""

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from captioning import home
from flows.servers import HOST, free_port

URL_VARIABLE = "CAPTIONING_PAGES_URL"
PORT = 4280
INDEX = "index.html"
NUM_RUNS_KEPT = 30


def keep(outs: Sequence[Path], run_name: str) -> dict[Path, str]:
    """Keep the pages among a stage's outputs for a run, and return where each is read.

    A page is an `.html` file or a folder with `index.html`.
    """
    for page in _pages(outs):
        whole = page.parent if page.name == INDEX else page
        if (
            whole.is_absolute() or ".." in whole.parts
        ):  # outside of the project, so outside of the folder of runs
            continue
        with suppress(OSError):  # a full disk must not cost the stage
            _copy(whole, home.work("pages") / run_name / whole)
    _forget_old_runs(run_name)
    return addresses(outs, run_name)


def addresses(outs: Sequence[Path], run_name: str) -> dict[Path, str]:
    """Return where each page among the outputs is read: the address or path of what was kept, or its own path."""
    return {page: _address(page, run_name) for page in _pages(outs)}


def _address(page: Path, run_name: str) -> str:
    kept = home.work("pages") / run_name / page
    if not kept.exists() or page.is_absolute():
        return str(page.absolute())
    if url := os.environ.get(URL_VARIABLE):
        return f"{url.rstrip('/')}/{quote(f'{run_name}/{page.as_posix()}')}"
    return str(kept)


def _pages(outs: Sequence[Path]) -> list[Path]:
    pages = [out / INDEX if out.is_dir() else out for out in outs]
    return [page for page in pages if page.suffix == ".html" and page.is_file()]


def _forget_old_runs(run_name: str) -> None:
    """Keep this run and the newest of the others, which seem newer than it after the clock was put back."""
    others = [run for run in home.work("pages").iterdir() if run.name != run_name]
    others.sort(key=lambda run: run.stat().st_mtime, reverse=True)
    for run in others[NUM_RUNS_KEPT - 1 :]:
        shutil.rmtree(run, ignore_errors=True)


@contextmanager
def served() -> Iterator[str]:
    """Serve the kept pages during the block, and tell the runs started in it where; return the address.

    Where CAPTIONING_PAGES_URL is set somebody else does.
    """
    if url := os.environ.get(URL_VARIABLE):
        yield url
        return
    handler = partial(_Quiet, directory=str(home.work("pages")))
    with ThreadingHTTPServer((HOST, free_port(PORT)), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ[URL_VARIABLE] = url = f"http://{HOST}:{server.server_port}"
        try:
            yield url
        finally:
            del os.environ[URL_VARIABLE]
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, copy_function=_link)
    else:
        target.unlink(missing_ok=True)
        _link(source, target)


def _link(source: str | Path, target: str | Path) -> None:
    with suppress(OSError):  # another file system
        os.link(source, target)
        return
    shutil.copyfile(source, target)
