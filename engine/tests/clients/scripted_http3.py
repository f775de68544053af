"""Scripted HTTP/3 clients on aioquic, an implementation independent of the engine's.

usage: scripted_http3.py SCENARIO HOST PORT PATH [--output FILE] [--count N]

Each scenario prints one JSON object that says what the client saw; judging it is the caller's work.

get        one GET, the body written to --output
migrate    one GET during which the client moves to a new port --count times, changing its connection id each time
vanish     --count clients ask for PATH, read a little and disappear without a word
half-open  --count client Initials, no handshake is ever finished
malformed  one broken HTTP/3 connection after another; says which error code the server closed each with
version    an Initial of an unknown version; says which versions the server offers
reset      short-header datagrams for a connection that is no more; says what came back
slow       one GET that reads with long pauses and a small flow-control window
rapid      --count requests, each reset at once
"""

import argparse
import json
import os
import select
import socket
import ssl
import sys
import time

from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    StreamReset,
)


class Client:
    """One QUIC connection with HTTP/3 on top, driven by hand over a blocking loop."""

    def __init__(self, host: str, port: int, **settings: object) -> None:
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=H3_ALPN,
            verify_mode=ssl.CERT_NONE,
            server_name="localhost",
            **settings,
        )
        self.peer = (host, port)
        self.quic = QuicConnection(configuration=configuration)
        self.http = H3Connection(self.quic)
        self.socket = self._socket()
        self.terminated: ConnectionTerminated | None = None
        self.connected = False
        self.retried = False
        self.headers: dict[int, list[list[str]]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self.quic.connect(self.peer, now=time.monotonic())
        self.flush()

    def _socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind(("127.0.0.1", 0))
        made.setblocking(False)
        return made

    def move(self) -> None:
        """Goes on from a new port, with a new connection id, as a phone that changes networks does."""
        old = self.socket
        self.socket = self._socket()
        old.close()
        self.quic.change_connection_id()
        self.flush()

    def flush(self) -> None:
        for data, address in self.quic.datagrams_to_send(now=time.monotonic()):
            try:
                self.socket.sendto(data, address)
            except BlockingIOError:
                pass

    def step(self, wait_s: float = 0.2) -> None:
        """Receives what is there, runs due timers, sends what is to be sent."""
        timer = self.quic.get_timer()
        if timer is not None:
            wait_s = max(0.0, min(wait_s, timer - time.monotonic()))
        readable, _, _ = select.select([self.socket], [], [], wait_s)
        if readable:
            for _ in range(64):
                try:
                    data = self.socket.recv(65536)
                except (BlockingIOError, ConnectionRefusedError):
                    break
                # A Retry is a long header (0x80) of type 3 (RFC 9000, section 17.2.5).
                self.retried |= data[0] & 0xF0 == 0xF0 and data[1:5] == b"\0\0\0\1"
                self.quic.receive_datagram(data, self.peer, now=time.monotonic())
        timer = self.quic.get_timer()
        if timer is not None and timer <= time.monotonic():
            self.quic.handle_timer(now=time.monotonic())
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.connected = True
            elif isinstance(event, ConnectionTerminated):
                self.terminated = event
            elif isinstance(event, StreamReset):
                self.reset[event.stream_id] = event.error_code
            for http_event in self.http.handle_event(event):
                if isinstance(http_event, HeadersReceived):
                    self.headers[http_event.stream_id] = [
                        [name.decode("latin-1"), value.decode("latin-1")] for name, value in http_event.headers
                    ]
                elif isinstance(http_event, DataReceived):
                    self.bodies.setdefault(http_event.stream_id, bytearray()).extend(http_event.data)
                if getattr(http_event, "stream_ended", False):
                    self.ended.add(http_event.stream_id)
        self.flush()

    def until(self, condition, timeout_s: float = 30.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and self.terminated is None and time.monotonic() < deadline:
            self.step()
        return condition()

    def request(self, path: str, method: str = "GET", extra: list[tuple[bytes, bytes]] = (), end: bool = True) -> int:
        stream = self.quic.get_next_available_stream_id()
        self.http.send_headers(
            stream,
            [
                (b":method", method.encode()),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", path.encode()),
                *extra,
            ],
            end_stream=end,
        )
        self.flush()
        return stream

    def status(self, stream: int) -> int | None:
        return next((int(value) for name, value in self.headers.get(stream, []) if name == ":status"), None)

    def closed_with(self) -> int | None:
        return self.terminated.error_code if self.terminated else None


def get(arguments) -> dict:
    client = Client(arguments.host, arguments.port, max_data=1 << 24, max_stream_data=1 << 24)
    client.until(lambda: client.connected)
    stream = client.request(arguments.path)
    done = client.until(lambda: stream in client.ended, 120)
    if arguments.output:
        with open(arguments.output, "wb") as output:
            output.write(client.bodies.get(stream, b""))
    return {
        "done": done,
        "retried": client.retried,
        "status": client.status(stream),
        "headers": client.headers.get(stream),
        "bytes": len(client.bodies.get(stream, b"")),
        "closed_with": client.closed_with(),
    }


def migrate(arguments) -> dict:
    client = Client(arguments.host, arguments.port, max_data=1 << 22, max_stream_data=1 << 22)
    client.until(lambda: client.connected)
    # Connection ids to move to arrive after the handshake.
    client.until(lambda: len(client.quic._peer_cid_available) > 0, 5)
    stream = client.request(arguments.path)
    moves = 0
    step_bytes = 1 << 20
    deadline = time.monotonic() + 120
    while stream not in client.ended and client.terminated is None and time.monotonic() < deadline:
        client.step()
        received = len(client.bodies.get(stream, b""))
        if moves < arguments.count and received >= (moves + 1) * step_bytes and client.quic._peer_cid_available:
            client.move()
            moves += 1
    with open(arguments.output, "wb") as output:
        output.write(client.bodies.get(stream, b""))
    return {
        "done": stream in client.ended,
        "moves": moves,
        "status": client.status(stream),
        "bytes": len(client.bodies.get(stream, b"")),
        "closed_with": client.closed_with(),
    }


def vanish(arguments) -> dict:
    asked = 0
    for _ in range(arguments.count):
        client = Client(arguments.host, arguments.port)
        if client.until(lambda: client.connected, 10):
            stream = client.request(arguments.path)
            client.until(lambda: len(client.bodies.get(stream, b"")) > 0, 10)
            asked += 1
        client.socket.close()
    return {"asked": asked}


def half_open(arguments) -> dict:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sender.bind(("127.0.0.1", 0))
    sender.setblocking(False)
    sent_bytes = received_bytes = retries = 0

    def drain() -> None:
        nonlocal received_bytes, retries
        while True:
            try:
                data = sender.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            received_bytes += len(data)
            retries += data[0] & 0xF0 == 0xF0

    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name="localhost"
    )
    for index in range(arguments.count):
        quic = QuicConnection(configuration=configuration)
        quic.connect((arguments.host, arguments.port), now=0.0)
        for data, _ in quic.datagrams_to_send(now=0.0):
            while True:
                try:
                    sender.sendto(data, (arguments.host, arguments.port))
                    break
                except BlockingIOError:
                    select.select([], [sender], [], 0.1)
            sent_bytes += len(data)
        if index % 16 == 0:
            drain()
    time.sleep(0.5)
    drain()
    return {"sent_bytes": sent_bytes, "received_bytes": received_bytes, "retries": retries}


def malformed(arguments) -> dict:
    """RFC 9114: which connection error each violation is to be answered with (section 8.1 names the codes)."""

    def on_request_stream(frames: bytes):
        def act(client: Client) -> None:
            stream = client.quic.get_next_available_stream_id()
            client.quic.send_stream_data(stream, frames, end_stream=True)

        return act

    def on_new_uni_stream(data: bytes):
        def act(client: Client) -> None:
            stream = client.quic.get_next_available_stream_id(is_unidirectional=True)
            client.quic.send_stream_data(stream, data)

        return act

    violations = {
        # DATA before HEADERS: H3_FRAME_UNEXPECTED.
        "data-first": on_request_stream(encode_frame(FrameType.DATA, b"x")),
        # SETTINGS on a request stream: H3_FRAME_UNEXPECTED.
        "settings-on-request": on_request_stream(encode_frame(FrameType.SETTINGS, b"")),
        # A second control stream: H3_STREAM_CREATION_ERROR.
        "second-control-stream": on_new_uni_stream(encode_uint_var(0) + encode_frame(FrameType.SETTINGS, b"")),
        # A field section that no QPACK decoder can read: QPACK_DECOMPRESSION_FAILED.
        "qpack-garbage": on_request_stream(encode_frame(FrameType.HEADERS, b"\xff\xff\xff\xff\xff\xff\xff\xff")),
        # A frame that ends in the middle: H3_FRAME_ERROR or H3_REQUEST_INCOMPLETE.
        "truncated-frame": on_request_stream(encode_uint_var(1) + encode_uint_var(100) + b"abc"),
        # Garbage where a push would be: a server refuses push streams with H3_STREAM_CREATION_ERROR.
        "push-stream": on_new_uni_stream(encode_uint_var(1) + encode_uint_var(0)),
    }
    outcome = {}
    for name, act in violations.items():
        client = Client(arguments.host, arguments.port)
        client.until(lambda: client.connected, 10)
        act(client)
        client.flush()
        client.until(lambda: bool(client.reset) or bool(client.headers), 3)
        outcome[name] = {
            "closed_with": client.closed_with(),
            "reset_with": next(iter(client.reset.values()), None),
            "status": next((client.status(stream) for stream in client.headers), None),
        }
        client.quic.close()
        client.flush()
    return outcome


def version(arguments) -> dict:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.settimeout(3)
    destination_id, source_id = os.urandom(8), os.urandom(8)
    header = b"\xc0" + bytes.fromhex("1a2a3a4a") + bytes([8]) + destination_id + bytes([8]) + source_id
    sender.sendto(header.ljust(1200, b"\0"), (arguments.host, arguments.port))
    answer = sender.recv(65536)
    buffer = Buffer(data=answer)
    buffer.pull_uint8()
    zero = buffer.pull_uint32()
    echoed_destination = buffer.pull_bytes(buffer.pull_uint8())
    echoed_source = buffer.pull_bytes(buffer.pull_uint8())
    versions = []
    while not buffer.eof():
        versions.append(buffer.pull_uint32())
    # A datagram too small for an Initial must not be answered at all.
    sender.settimeout(0.5)
    sender.sendto(header.ljust(600, b"\0"), (arguments.host, arguments.port))
    try:
        sender.recv(65536)
        small_answered = True
    except TimeoutError:
        small_answered = False
    return {
        "version_field": zero,
        "ids_echoed": echoed_destination == source_id and echoed_source == destination_id,
        "versions": versions,
        "answer_bytes": len(answer),
        "small_answered": small_answered,
    }


def reset(arguments) -> dict:
    """A connection that the server has forgotten, though it made the connection's id (RFC 9000, section 10.3)."""
    client = Client(arguments.host, arguments.port)
    client.until(lambda: client.connected, 10)
    # An answer shows that the server has confirmed the handshake.
    stream = client.request("/healthz")
    client.until(lambda: stream in client.ended, 10)
    connection_id, token = client.quic._peer_cid.cid, client.quic._peer_cid.stateless_reset_token
    client.quic.close()
    client.flush()
    # The server forgets a closed connection after three probe time-outs, and is asked until it has.
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.settimeout(1)

    def ask(destination: bytes, length: int) -> list:
        datagram = b"\x40" + destination
        datagram += os.urandom(length - len(datagram))
        sender.sendto(datagram, (arguments.host, arguments.port))
        try:
            answer = sender.recv(65536)
            return [length, len(answer), answer[-16:] == token]
        except TimeoutError:
            return [length, 0, False]

    deadline = time.monotonic() + 20
    while ask(connection_id, 100)[1] == 0 and time.monotonic() < deadline:
        pass
    return {
        "known": [ask(connection_id, length) for length in (25, 42, 43, 100, 1200)],
        "unknown": [ask(os.urandom(len(connection_id)), length) for length in (42, 100, 1200)],
    }


def slow(arguments) -> dict:
    client = Client(arguments.host, arguments.port, max_data=65536, max_stream_data=65536)
    client.until(lambda: client.connected)
    stream = client.request(arguments.path)
    until = time.monotonic() + 4
    while time.monotonic() < until and client.terminated is None:
        client.step(0.05)
        time.sleep(0.2)
    early = len(client.bodies.get(stream, b""))
    return {"status": client.status(stream), "bytes": early, "closed_with": client.closed_with()}


def rapid(arguments) -> dict:
    client = Client(arguments.host, arguments.port)
    client.until(lambda: client.connected)
    sent = 0
    while sent < arguments.count and client.terminated is None:
        if client.quic._remote_max_streams_bidi <= client.quic._local_next_stream_id_bidi // 4:
            client.step(0.05)
            continue
        stream = client.request(arguments.path)
        client.quic.reset_stream(stream, 0x10C)
        client.quic.stop_stream(stream, 0x10C)
        sent += 1
        client.step(0.0)
    return {"sent": sent, "closed_with": client.closed_with()}


SCENARIOS = {
    "get": get,
    "migrate": migrate,
    "vanish": vanish,
    "half-open": half_open,
    "malformed": malformed,
    "version": version,
    "reset": reset,
    "slow": slow,
    "rapid": rapid,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--output")
    parser.add_argument("--count", type=int, default=1)
    arguments = parser.parse_args()
    json.dump(SCENARIOS[arguments.scenario](arguments), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
