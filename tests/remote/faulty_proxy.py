"""An HTTP proxy before a real server, whose connections and bodies fail as they are told to."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL_SECONDS = 1.5


class FaultyProxy:
    """Listens on a free port of localhost. A context manager.

    Attributes:
        faults: What the next requests for shards meet with: a name of a method of `_Handler`.
        requests: Paths of the requests for shards, in order.
        url: To be used in place of the server's.
    """

    def __init__(self, host: str, port: int) -> None:
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.upstream = (host, port)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        status, headers, body = self._ask(proxy.upstream)
        fault = "send"
        if ".slc" in self.path:
            proxy.requests.append(self.path)
            fault = proxy.faults.pop(0) if proxy.faults else "send"
        send: Callable[..., None] = getattr(self, fault)
        send(status, headers, body)

    do_HEAD = do_GET

    def _ask(self, upstream: tuple[str, int]) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*upstream)
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        connection.request(self.command, self.path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
        kept = [(n, v) for n, v in response.getheaders() if n.lower() not in skipped]
        length = response.getheader("Content-Length") if self.command == "HEAD" else len(body)
        connection.close()
        return response.status, [*kept, ("Content-Length", str(length))], body

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """What the server says."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def wrong(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """As many other bytes; what the server says of their checksum does not get here."""
        kept = [(name, value) for name, value in headers if "checksum" not in name.lower()]
        self.send(status, kept, bytes(byte ^ 0x55 for byte in body))

    def unavailable(self, *_: Any) -> None:
        """503, as S3 says it."""
        said = b"<Message>Please reduce your request rate.</Message>"
        text = b"<Error><Code>SlowDown</Code>" + said + b"</Error>"
        self.send(503, [("Content-Length", str(len(text)))], text)

    def drop(self, *_: Any) -> None:
        """The connection is reset before there is an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def truncate(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """The connection ends in the middle of the body."""
        self.send(status, headers, body[: len(body) // 2])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def stall(self, *_: Any) -> None:
        """Nothing comes for longer than the client waits."""
        time.sleep(STALL_SECONDS)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def finish(self) -> None:
        with contextlib.suppress(OSError):  # of a connection that was dropped
            super().finish()
