"""Servers that go away and come back: a line to one that can be cut, and one that is killed with all it started."""

import socket
import subprocess
import threading
from contextlib import suppress

import psutil

from flows.servers import HOST, free_port


class Line:
    """A TCP line to a port of this machine, whose own port stays the same while it is cut."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._lost: list[bytes] = []
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.mend()

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def is_losing(self) -> bool:
        """An answer is still to be lost."""
        return bool(self._lost)

    def lose_the_answer_to(self, *requests: bytes) -> None:
        """Let the next request in which each of these stands reach the server, but not its answer the client."""
        self._lost += requests

    def cut(self) -> None:
        """Refuse new connections, and break those that are open."""
        listener, self._listener = self._listener, None
        for end in [*([listener] if listener else []), *self._open]:
            _close(end)

    def mend(self) -> None:
        """Take connections again."""
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection((HOST, self._target))
                except OSError:
                    _close(client)
                    continue
                self._open |= {client, server}
                is_lost = threading.Event()
                for source, target in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._carry, args=(source, target, is_lost, source is client), daemon=True
                    ).start()

    def _carry(
        self, source: socket.socket, target: socket.socket, is_lost: threading.Event, is_request: bool
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if is_request and (found := [request for request in self._lost if request in piece]):
                    self._lost.remove(found[0])
                    is_lost.set()
                elif not is_request and is_lost.is_set():
                    break
                target.sendall(piece)
        for end in (source, target):
            self._open.discard(end)
            _close(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """Kill everything below a process, as by the end of the memory; the process itself is left to notice."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
