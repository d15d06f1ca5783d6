"""Clients that ask one server and cost next to nothing: sockets that are kept, requests that are written beforehand."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack


def post(port: int, body: dict[str, object]) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def requests_a_second(port: int, asked: Sequence[bytes], clients: int, tokens: int) -> float:
    """Ask all of them, so many at a time. Raises RuntimeError for an answer that is not one of so many tokens."""
    turns = [asked[number::clients] for number in range(clients)]
    failed: list[BaseException] = []
    ready = threading.Barrier(clients + 1)

    def client(mine: Sequence[bytes], connection: socket.socket) -> None:
        ready.wait()
        try:
            for request in mine:
                connection.sendall(request)
                _check(_answer(connection), tokens)
        except BaseException as error:  # told where it is waited for
            failed.append(error)

    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(clients)]
        for connection in sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threads = [threading.Thread(target=client, args=pair) for pair in zip(turns, sockets, strict=True)]
        for thread in threads:
            thread.start()
        ready.wait()
        begun = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begun
    if failed:
        raise failed[0]
    return len(asked) / seconds


def _answer(connection: socket.socket) -> bytes:
    """The body of one answer."""
    raw = bytearray()
    while (end := raw.find(b"\r\n\r\n")) < 0:
        raw += _more(connection)
    head, body = raw[:end].lower(), raw[end + 4 :]
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"the server answered {bytes(raw[:300])!r}")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += _more(connection)
    return bytes(body)


def _more(connection: socket.socket) -> bytes:
    if not (part := connection.recv(65536)):
        raise RuntimeError("the server has hung up")
    return part


def _check(body: bytes, tokens: int) -> None:
    made = json.loads(body)["usage"]["completion_tokens"]
    if made != tokens:
        raise RuntimeError(f"an answer has {made} tokens, {tokens} were asked for")


def up(port: int, path: str) -> bool:
    """Whether the server answers 200 there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
