"""An object store in the test process, over real HTTP: objects, their list in pages, signatures, and faults."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import httpx

from slmkit.sources.s3 import Account, signed
from tests.unit.images.serving import Serving


class Store(Serving):
    """A server with one bucket, which checks signatures with the keys that it knows."""

    def __init__(self, objects: dict[str, bytes], place: tuple[str, int] = ("127.0.0.1", 0), page: int = 1000) -> None:
        self.objects, self.page = objects, page
        self.account: Account | None = None
        self.requests: list[str] = []
        self.list_body: bytes | None = None
        self.status = 200
        self.headers: dict[str, str] = {}
        super().__init__(ThreadingHTTPServer(place, type("Bound", (_Handler,), {"store": self})))

    def knows(self, key: str, secret: str, region: str = "us-east-1") -> None:
        """From now on only this one is let in."""
        self.account = Account(key, secret, region=region)

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        url = httpx.URL(f"http://{self.host}{path}")
        if self.account is not None:
            stamp = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            if signed(self.account, "GET", url, stamp).get("authorization") != headers.get("authorization"):
                return 403, b"SignatureDoesNotMatch"
        parts = urlsplit(path)
        if parts.path == "/bucket":
            return 200, self.list_body or self._list(parse_qs(parts.query, keep_blank_values=True))
        key = unquote(parts.path.removeprefix("/bucket/"))
        return (200, self.objects[key]) if key in self.objects else (404, b"NoSuchKey")

    def _list(self, query: dict[str, list[str]]) -> bytes:
        keys = sorted(key for key in self.objects if key.startswith(query["prefix"][0]))
        begin = int(query.get("continuation-token", ["0"])[0])
        shown, more = keys[begin : begin + self.page], begin + self.page < len(keys)
        body = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in shown)
        body += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        body += f"<NextContinuationToken>{begin + self.page}</NextContinuationToken>" if more else ""
        return f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3/">{body}</ListBucketResult>'.encode()


class _Handler(BaseHTTPRequestHandler):
    store: Store

    def do_GET(self) -> None:
        self.store.requests.append(self.path)
        status, body = self.store.answer(self.path, self.headers)
        self.send_response(self.store.status if self.store.status != 200 else status)
        for name, value in self.store.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
