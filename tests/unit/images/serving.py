"""Servers of the tests, over real HTTP: each answers in a thread of its own for as long as it is entered."""

import threading
from http.server import ThreadingHTTPServer
from typing import Self


class Serving:
    """A context manager."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.server = server
        host, port = server.server_address[:2]
        self.host = f"{host!s}:{port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
