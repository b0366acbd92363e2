"""Knocks at a Kafka broker step by step (TCP, TLS, SASL), and says which step was refused and why.

The client library answers a wrong password, an unknown certificate and a broker that is not there with
the same words. These few requests of Kafka's own protocol tell them apart.
"""

import base64
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Final

from pipeline.config import Kafka

_TIMEOUT_S: Final = 5.0
_HANDSHAKE: Final = 17
_VERSIONS: Final = 18
_AUTHENTICATE: Final = 36
_WRONG_MECHANISM: Final = 33
_NO_SASL_HERE: Final = 34
#: An answer repeats the number of its request; none of a broker to these requests is longer.
_MIN_ANSWER_BYTES: Final = 4
_MAX_ANSWER_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What a broker refused, and what to do about it."""

    server: str
    wrong: str
    remedy: str


def knock(settings: Kafka) -> Refused | None:
    """Return None if any of the servers lets us in, or what the first one refused."""
    refused = [_try(server.strip(), settings) for server in settings.servers.split(",")]
    return None if None in refused else refused[0]


def _try(server: str, settings: Kafka) -> Refused | None:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        return Refused(
            server=server,
            wrong="this is not HOST:PORT",
            remedy="write WEIR_KAFKA_SERVERS as host:port, several with commas between",
        )
    try:
        connection: socket.socket = socket.create_connection((host, int(port)), _TIMEOUT_S)
    except OSError as error:
        return Refused(
            server=server,
            wrong=f"nobody answers: {error}",
            remedy="start Kafka, or mend WEIR_KAFKA_SERVERS",
        )
    with connection:
        try:
            if settings.security.endswith("SSL"):
                connection = _over_tls(connection, host, settings)
            # Every broker answers this, before anybody says who they are.
            _ask(connection, _VERSIONS, 0, b"")
            if settings.security.startswith("SASL"):
                return _authenticate(connection, server, settings)
        except ssl.SSLCertVerificationError as error:
            return Refused(
                server=server,
                wrong=f"its certificate is not trusted: {error.verify_message}",
                remedy="name the authority that signed it in WEIR_KAFKA_CA_FILE",
            )
        except ssl.SSLError as error:
            return Refused(
                server=server,
                wrong=f"it speaks no TLS here: {error.reason}",
                remedy="use the port of its TLS listener, or a WEIR_KAFKA_SECURITY without SSL",
            )
        except FileNotFoundError:
            return Refused(
                server=server,
                wrong=f"{settings.ca_file} does not exist",
                remedy="mend WEIR_KAFKA_CA_FILE",
            )
        except (OSError, EOFError) as error:
            return Refused(
                server=server,
                wrong=f"it hung up: {error or 'no reason given'}",
                remedy="compare WEIR_KAFKA_SECURITY with the broker's listener",
            )
    return None


def _over_tls(connection: socket.socket, host: str, settings: Kafka) -> ssl.SSLSocket:
    trusted = ssl.create_default_context(
        cafile=str(settings.ca_file) if settings.ca_file is not None else None
    )
    return trusted.wrap_socket(connection, server_hostname=host)


def _authenticate(connection: socket.socket, server: str, settings: Kafka) -> Refused | None:
    mechanism = settings.sasl_mechanism
    if mechanism is None or settings.username is None or settings.password is None:
        return Refused(
            server=server,
            wrong=f"{settings.security} needs a mechanism, a user name and a password",
            remedy="set WEIR_KAFKA_SASL_MECHANISM, _USERNAME and _PASSWORD",
        )
    answer = _ask(connection, _HANDSHAKE, 1, _string(mechanism))
    (code,) = struct.unpack_from(">h", answer)
    if code == _WRONG_MECHANISM:
        return Refused(
            server=server,
            wrong=f"it does not offer {mechanism}, but {', '.join(_strings(answer, 2))}",
            remedy="mend WEIR_KAFKA_SASL_MECHANISM",
        )
    if code == _NO_SASL_HERE:
        return Refused(
            server=server,
            wrong="this listener asks nobody who they are",
            remedy="use the port of its SASL listener, or a WEIR_KAFKA_SECURITY without SASL",
        )
    password = settings.password.get_secret_value()
    if mechanism == "PLAIN":
        message = f"\0{settings.username}\0{password}".encode()
        refused = _exchange(connection, message)[0]
    else:
        refused = _scram(connection, mechanism, settings.username, password)
    if refused is None:
        return None
    return Refused(
        server=server,
        wrong=f"it refuses the user {settings.username} with this password: {refused}",
        remedy="mend WEIR_KAFKA_USERNAME and WEIR_KAFKA_PASSWORD",
    )


def _scram(connection: socket.socket, mechanism: str, user: str, password: str) -> str | None:
    """Go through RFC 5802 and return why we were refused, or None."""
    algorithm = mechanism.removeprefix("SCRAM-").replace("-", "").lower()
    name = user.replace("=", "=3D").replace(",", "=2C")
    first = f"n={name},r={secrets.token_urlsafe(18)}"
    refused, answer = _exchange(connection, f"n,,{first}".encode())
    if refused is not None:
        return refused
    challenge = answer.decode()
    given = dict(part.split("=", 1) for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac(
        algorithm, password.encode(), base64.b64decode(given["s"]), int(given["i"])
    )
    key = hmac.digest(salted, b"Client Key", algorithm)
    without_proof = f"c=biws,r={given['r']}"
    signed = f"{first},{challenge},{without_proof}".encode()
    signature = hmac.digest(hashlib.new(algorithm, key).digest(), signed, algorithm)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    last = f"{without_proof},p={base64.b64encode(proof).decode()}"
    return _exchange(connection, last.encode())[0]


def _exchange(connection: socket.socket, message: bytes) -> tuple[str | None, bytes]:
    """Send one SASL message and return why it was refused, or None with the answer."""
    answer = _ask(connection, _AUTHENTICATE, 0, struct.pack(">i", len(message)) + message)
    code, length = struct.unpack_from(">hh", answer)
    at = 4 + max(0, length)
    said = answer[4:at].decode(errors="replace")
    if code:
        return said or f"error {code}", b""
    (size,) = struct.unpack_from(">i", answer, at)
    return None, answer[at + 4 : at + 4 + size]


def _ask(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    request = struct.pack(">hhi", api, version, 1) + _string("weir-doctor") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (length,) = struct.unpack(">i", _read(connection, 4))
    if not _MIN_ANSWER_BYTES <= length <= _MAX_ANSWER_BYTES:
        raise EOFError("this is not Kafka's protocol")
    return _read(connection, length)[_MIN_ANSWER_BYTES:]


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError("connection closed")
        data += part
    return data


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _strings(data: bytes, at: int) -> list[str]:
    (count,) = struct.unpack_from(">i", data, at)
    found, at = [], at + 4
    for _ in range(count):
        (length,) = struct.unpack_from(">h", data, at)
        found.append(data[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return found
