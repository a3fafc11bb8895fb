"""A static host that can lose its network, and tells what it was asked."""

import contextlib
import functools
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Host:
    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Paths, each with the range that was asked for."""
    cut: dict[str, int] = field(default_factory=dict)
    """Files after whose first so many bytes the connection breaks; anything asked after that gets no answer."""
    lost: bool = False
    _server: ThreadingHTTPServer | None = None

    def stop(self) -> None:
        """From now on nobody answers at its address."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextlib.contextmanager
def hosted(folder: Path) -> Iterator[Host]:
    host = Host(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, host, directory=str(folder)))
    host.url, host._server = f"http://127.0.0.1:{server.server_address[1]}/", server
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield host
    finally:
        host.stop()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, host: Host, *args: Any, **kwargs: Any) -> None:
        self.host = host
        super().__init__(*args, **kwargs)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name, asked = self.path.lstrip("/").partition("?")[0], self.headers.get("range")
        self.host.asked.append(f"{name} {asked}" if asked else name)
        if self.host.lost:
            return self.close_connection_now()
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
        if not asked and name not in self.host.cut:
            return super().do_GET()
        content = (self.host.folder / name).read_bytes()
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = self.host.cut.pop(name, None)
        self.wfile.write(content[first:end])
        if end is not None:
            self.host.lost = True
            time.sleep(1)  # so that what was sent arrives before the end does
            self.close_connection_now()

    def close_connection_now(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(2)
        self.close_connection = True
