"""The delay relay: what a receiver measures, both directions, and a link that is cut and restored."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from edge_cloud.relay import Relay, RelayHost

pytestmark = pytest.mark.clock


class Receiver:
    """A server that notes when each message of 8 bytes (its sending time) and a filling arrives, and answers it."""

    def __init__(self, size: int = 8) -> None:
        self.size, self.delays = size, []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = self._server.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            while message := receive(connection, self.size):
                self.delays.append(1000.0 * (time.monotonic() - struct.unpack("d", message[:8])[0]))
                connection.sendall(struct.pack("d", time.monotonic()))
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._server.close()


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


@pytest.fixture
def host():
    host = RelayHost()
    yield host
    host.close()


def talk(port: int, size: int, times: int) -> list[float]:
    """Sends messages one by one; gives the delays of the answers."""
    delays = []
    with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times):
            connection.sendall(struct.pack("d", time.monotonic()) + bytes(size - 8))
            (answered,) = struct.unpack("d", receive(connection, 8))
            delays.append(1000.0 * (time.monotonic() - answered))
    return delays


@pytest.mark.parametrize("size", [200, 150_000])
def test_a_weak_link_costs_20_ms_at_the_receiver(host, size):
    receiver = Receiver(size)
    port = host.add("S1", Relay(("127.0.0.1", 0), receiver.address, up_ms=20.0))
    answers = talk(port, size, 30)
    for _ in range(20):  # what else runs on the machine adds to many, and can't take away from any
        if min(receiver.delays) <= 24.0 and min(answers) < 20.0:
            break
        answers += talk(port, size, 10)
    receiver.close()
    assert 20.0 <= min(receiver.delays) <= 24.0
    assert min(answers) < 20.0


def test_only_what_the_weak_node_sends_is_delayed(host):
    receiver = Receiver()
    port = host.add("S1", Relay(("127.0.0.1", 0), receiver.address, down_ms=20.0))
    answers = talk(port, 8, 20)
    receiver.close()
    assert min(receiver.delays) < 20.0
    assert min(answers) >= 20.0


def test_a_delay_changes_while_a_connection_stands(host):
    receiver = Receiver()
    port = host.add("S1", Relay(("127.0.0.1", 0), receiver.address))
    with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
        for delay in (0.0, 30.0):
            host.set("S1", delay, 0.0, cut=False)
            time.sleep(0.1)
            for _ in range(5):
                connection.sendall(struct.pack("d", time.monotonic()))
                receive(connection, 8)
    receiver.close()
    assert min(receiver.delays[:5]) < 30.0
    assert min(receiver.delays[5:]) >= 30.0


def test_a_cut_link_is_silent_and_a_restored_one_carries_new_connections(host):
    receiver = Receiver()
    port = host.add("S1", Relay(("127.0.0.1", 0), receiver.address))
    before = socket.create_connection(("127.0.0.1", port), 10.0)
    before.sendall(struct.pack("d", time.monotonic()))
    assert receive(before, 8)
    host.set("S1", 0.0, 0.0, cut=True)
    time.sleep(0.1)
    before.settimeout(0.3)
    before.sendall(struct.pack("d", time.monotonic()))
    with pytest.raises(TimeoutError):
        before.recv(8)
    during = socket.create_connection(("127.0.0.1", port), 10.0)
    during.settimeout(0.3)
    during.sendall(struct.pack("d", time.monotonic()))
    with pytest.raises(TimeoutError):
        during.recv(8)
    assert len(receiver.delays) == 1
    host.set("S1", 0.0, 0.0, cut=False)
    for torn in (before, during):  # bytes were lost: no connection may go on as if they weren't
        torn.settimeout(10.0)
        with contextlib.suppress(ConnectionResetError):
            assert torn.recv(8) == b""
        torn.close()
    assert len(talk(port, 8, 3)) == 3
    receiver.close()


def test_an_end_is_passed_on(host):
    receiver = Receiver()
    port = host.add("S1", Relay(("127.0.0.1", 0), receiver.address, up_ms=20.0))
    talk(port, 8, 1)
    with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10.0)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    receiver.close()


def test_a_target_that_is_not_there_closes_the_connection(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    port = host.add("S1", Relay(("127.0.0.1", 0), nobody))
    with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
        connection.settimeout(10.0)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_an_address_that_is_taken_is_an_error(host):
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="in use"):
        host.add("S1", Relay(server.getsockname(), ("127.0.0.1", 1)))
