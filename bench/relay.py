"""What goes over the wire between a client and a server: a relay of TCP that counts it, headers and all."""

import asyncio
import threading
from typing import Self


class Relay:
    """Listens on a port of its own and passes everything on to another port of this machine; a context manager."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.sent = self.received = 0
        """Bytes from the client to the server, and back."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._pass, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        mine = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, out = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await asyncio.gather(self._flow(reader, out, "sent"), self._flow(back, writer, "received"))
        except asyncio.CancelledError:
            pass  # the end, while a client kept its connection
        finally:
            writer.close()
            out.close()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: str) -> None:
        try:
            while data := await reader.read(1 << 16):
                setattr(self, count, getattr(self, count) + len(data))
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.close()
