"""Files -> pixels, in processes of their own, so that none stops the service: bounded in pixels, memory and time."""

import asyncio
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

import numpy as np

from captioning.serving.decoding_process import ANSWER, NOT_A_PICTURE, PIXELS, QUESTION, TOO_LARGE
from captioning.serving.problems import Problem

PROGRAM = "captioning.serving.decoding_process"
NEEDED_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "HOME")
"""Of the environment; keys and passwords are none of its business."""
START_SECONDS = 60.0
"""Python and its libraries, on a busy machine."""
ADVICE = "send a JPEG, PNG, GIF, WebP, BMP, TIFF or AVIF file"


class Decoders:
    """Some processes that decode one picture each at a time; one that takes too long is killed.

    Args:
        num_processes: pictures decoded at the same time.
        max_pixels: of a picture, width times height.
        max_seconds: after which a picture is given up.
    """

    def __init__(self, *, num_processes: int, max_pixels: int, max_seconds: float) -> None:
        self._max_pixels, self._max_seconds = max_pixels, max_seconds
        self._places = asyncio.Semaphore(num_processes)
        self._idle: list[_Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop().end()

    async def decode(self, encoded: bytes) -> np.ndarray:
        """Return the picture, uint8, H x W x 3, upright.

        Raises:
            Problem: 415 it is no picture that can be read, 413 it is too large or takes too long.
        """
        if not encoded:
            raise Problem(415, f"the file is empty; {ADVICE}", title="Not a picture")
        async with self._places:
            process = self._living() or await self._start()
            try:
                async with asyncio.timeout(self._max_seconds):
                    pixels = await process.ask(encoded)
            except Problem:
                self._idle.append(process)
                raise
            except TimeoutError:
                process.end()
                seconds = f"{self._max_seconds:g} seconds"
                sentence = f"the picture was not decoded after {seconds}; save it anew as JPEG or PNG"
                raise Problem(413, sentence, title="Too large") from None
            except (ConnectionError, EOFError):
                process.end()
                sentence = f"the picture cannot be decoded: its decoder ended; {ADVICE}"
                raise Problem(415, sentence, title="Not a picture") from None
            except BaseException:  # cancelled: its answer would be taken for the next picture's
                process.end()
                raise
            self._idle.append(process)
            return pixels

    def _living(self) -> "_Process | None":
        """Return an idle process; one may have been killed meanwhile, where memory is short."""
        while self._idle:
            process = self._idle.pop()
            if process.is_alive():
                return process
            process.end()
        return None

    async def _start(self) -> "_Process":
        process = _Process(self._max_pixels)
        try:
            async with asyncio.timeout(START_SECONDS):
                await process.is_ready()
        except BaseException:
            process.end()
            raise
        return process


class _Process:
    """One process, and the socket to it."""

    def __init__(self, max_pixels: int) -> None:
        self._socket, other = socket.socketpair()
        self._socket.setblocking(False)
        environment = {name: os.environ[name] for name in NEEDED_VARIABLES if name in os.environ}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(other.fileno()), str(max_pixels)],
                pass_fds=[other.fileno()],
                env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries complain there of each damaged file
            )

    def is_alive(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    async def is_ready(self) -> None:
        """Return when it answers, so that its start is not taken for the time of a picture."""
        try:
            await self.ask(b" ")
        except Problem:
            return

    async def ask(self, encoded: bytes) -> np.ndarray:
        """Return what it decodes.

        Raises:
            Problem: it refuses.
            ConnectionError, EOFError: it has ended.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, QUESTION.pack(len(encoded)))
        await loop.sock_sendall(self._socket, encoded)
        outcome, height, width = ANSWER.unpack(await self._receive_bytes(ANSWER.size))
        if outcome == PIXELS:
            return await self._receive(np.empty((height, width, 3), np.uint8))
        reason = (await self._receive_bytes(height)).decode()
        if outcome == TOO_LARGE:
            raise Problem(413, f"{reason}; send a smaller picture", title="Too large")
        assert outcome == NOT_A_PICTURE
        raise Problem(415, f"{reason}; {ADVICE}", title="Not a picture")

    async def _receive_bytes(self, num_bytes: int) -> bytes:
        return (await self._receive(np.empty(num_bytes, np.uint8))).tobytes()

    async def _receive(self, target: np.ndarray) -> np.ndarray:
        """Fill an array with what comes."""
        loop = asyncio.get_running_loop()
        rest = target.data.cast("B")
        while rest:
            if not (num_received := await loop.sock_recv_into(self._socket, rest)):
                raise EOFError("the decoding process has ended")
            rest = rest[num_received:]
        return target

    def end(self) -> None:
        """End it at once."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
