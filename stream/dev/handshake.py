"""Asks an address whether a Kafka broker is ready there: a few bytes over a socket, no client.

Not a client: it speaks plaintext only, so a listener that asks for TLS or SASL never "answers" here.
"""

import socket
import struct
from contextlib import suppress

API_VERSIONS, METADATA = 18, 3
CLIENT = b"eddyline"


def answers(address: str, timeout: float = 2.0) -> bool:
    """Whether a broker that takes requests listens at one of `address` ("host:port", or several with commas).

    True only after a whole exchange: ApiVersions without an error, then Metadata that names at least one live
    broker (one that is still registering names none). `timeout` is in seconds, for each step of the exchange.
    """
    return any(_answers(host, port, timeout) for host, port in split_addresses(address))


def split_addresses(address: str) -> list[tuple[str, int]]:
    """("host", port) of each part of "host:port,[::1]:port"; raises `ValueError` where a part has no port."""
    parts = [part.strip() for part in address.split(",") if part.strip()]
    pairs = []
    for part in parts:
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"{part!r} is not host:port")
        pairs.append((host.strip("[]"), int(port)))
    return pairs


def _answers(host: str, port: int, timeout: float) -> bool:
    with suppress(OSError, struct.error), socket.create_connection((host, port), timeout) as connection:
        versions = _exchange(connection, API_VERSIONS, 0, b"", 1)
        error, apis = struct.unpack_from(">hi", versions)
        if error or len(versions) != 6 + 6 * apis:
            return False
        metadata = _exchange(connection, METADATA, 1, struct.pack(">i", 0), 2)
        return struct.unpack_from(">i", metadata)[0] >= 1
    return False


def _exchange(connection: socket.socket, api: int, version: int, body: bytes, correlation: int) -> bytes:
    """Send one request (header version 1); returns its response's body, `OSError` where it is not Kafka's."""
    header = struct.pack(">hhih", api, version, correlation, len(CLIENT)) + CLIENT
    connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
    size, echoed = struct.unpack(">ii", _read(connection, 8))
    if echoed != correlation or not 4 <= size <= 1 << 20:
        raise ConnectionError("not a Kafka response")
    return _read(connection, size - 4)


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise ConnectionError("closed")
        data += chunk
    return bytes(data)
