"""Weak links without root: a TCP relay that holds what a node sends for 20 ms, and can be cut.

One relay stands on each link of the tree (device to edge, edge to cloud). Bytes going up wait as long as the lower
node's link is weak, bytes going down as long as the upper one's is. A cut link swallows what is sent over it; once it
is restored, connections that lost bytes are reset and made anew by who uses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 64 * 1024
MOST_CHUNKS = 256  # under way in one direction of one connection; further bytes wait at the sender


@dataclasses.dataclass
class _Direction:
    delay_s: float = 0.0


class Relay:
    """One link. All methods run on the event loop.

    Args:
      listen: (host, port) where the lower node dials.
      target: (host, port) of the upper node.
      up_ms: delay of what the lower node sends.
      down_ms: delay of what the upper node sends.
    """

    def __init__(
        self, listen: tuple[str, int], target: tuple[str, int], up_ms: float = 0.0, down_ms: float = 0.0
    ) -> None:
        self._listen, self._target = listen, target
        self._up, self._down = _Direction(up_ms / 1000.0), _Direction(down_ms / 1000.0)
        self._cut = False
        self._restored = asyncio.Event()
        self._torn: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens.

        Raises:
          OSError: if the address isn't free.
        """
        self._server = await asyncio.start_server(self._serve, *self._listen)
        self.port = self._server.sockets[0].getsockname()[1]

    def set(self, up_ms: float, down_ms: float, cut: bool) -> None:
        """Changes the delays, cuts the link or restores it."""
        self._up.delay_s, self._down.delay_s = up_ms / 1000.0, down_ms / 1000.0
        if self._cut and not cut:
            for writer in self._torn:
                writer.transport.abort()
            self._torn.clear()
            self._restored.set()
            self._restored = asyncio.Event()
        self._cut = cut

    async def close(self) -> None:
        """Stops listening and drops the connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            if self._cut:
                await self._restored.wait()  # kept open and unanswered, as over a dead link
                return
            upper_reader, upper_writer = await asyncio.open_connection(*self._target)
            writers.append(upper_writer)
            # One direction's end ends the connection: gRPC never half-closes one.
            pumps = [
                asyncio.ensure_future(self._pump(reader, upper_writer, self._up, writer)),
                asyncio.ensure_future(self._pump(upper_reader, writer, self._down, upper_writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in writers:
                self._torn.discard(each)
                each.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: _Direction,
        back: asyncio.StreamWriter,
    ) -> None:
        """Carries one direction; ends at the end of the stream, or when a connection breaks."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_CHUNKS)

        async def read() -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    await chunks.put((loop.time() + direction.delay_s, data))
            await chunks.put((loop.time() + direction.delay_s, b""))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                due, data = await chunks.get()
                if (wait := due - loop.time()) > 0.0:
                    await asyncio.sleep(wait)
                if self._cut:
                    self._torn |= {writer, back}
                elif data == b"":
                    return
                elif writer not in self._torn:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class RelayHost:
    """Runs relays on an event loop of its own thread, for a process that does other things too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="relays")
        self._thread.start()
        self._relays: dict[str, Relay] = {}

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def add(self, name: str, relay: Relay) -> int:
        """Starts a relay under a name, and gives the port it listens at.

        Raises:
          OSError: if the address isn't free.
        """
        self._run(relay.start())
        self._relays[name] = relay
        return relay.port

    def set(self, name: str, up_ms: float, down_ms: float, cut: bool) -> None:
        """Changes a relay's delays, cuts its link or restores it.

        Raises:
          KeyError: if there is no relay of that name.
        """
        self._loop.call_soon_threadsafe(self._relays[name].set, up_ms, down_ms, cut)

    def close(self) -> None:
        """Stops everything."""
        for relay in self._relays.values():
            self._run(relay.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()
