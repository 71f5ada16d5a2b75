"""As much of a hub as reading one data set from it takes, after the public HTTP API."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

REPOSITORY = "datasets/someone/teacher"


class StubHub:
    """Serves the files of a directory as folder `c` of a data set. A context manager.

    Attributes:
        url: The endpoint.
        requests: Method and path of each request.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> StubHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub: StubHub = self.server.hub  # type: ignore[attr-defined]
        path = urlsplit(self.path).path
        hub.requests.append(f"{self.command} {path}")
        if path in (f"/api/{REPOSITORY}", f"/api/{REPOSITORY}/revision/main"):
            self._json({"id": "someone/teacher", "sha": "0" * 40, "siblings": [], "tags": []})
        elif path.startswith(f"/api/{REPOSITORY}/tree/main/c"):
            self._json([_described(file) for file in sorted(hub.directory.iterdir())])
        elif path.startswith(f"/{REPOSITORY}/resolve/main/c/"):
            self._file(hub.directory / path.rsplit("/", 1)[1])
        else:
            self._answer(404, b"{}", [("X-Error-Code", "RepoNotFound")])

    do_HEAD = do_GET

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._answer(404, b"", [("X-Error-Code", "EntryNotFound")])
            return
        data = path.read_bytes()
        start, end = self.headers["Range"].removeprefix("bytes=").split("-")
        self._answer(206, data[int(start) : int(end) + 1], [])

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), [("Content-Type", "application/json")])

    def _answer(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _described(file: Path) -> dict[str, Any]:
    return {"type": "file", "oid": "0" * 40, "size": file.stat().st_size, "path": f"c/{file.name}"}
