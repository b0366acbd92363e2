"""Each step at a broker's door is told apart: address, TLS, certificate, mechanism, password."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.embedded.ports import free_port
from pipeline.config import Kafka
from pipeline.knock import knock

CLUSTER = Path(__file__).resolve().parents[3] / "shared" / "kafka" / "cluster.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """A real broker with a plain and a SASL_SSL listener."""

    plain: str
    sasl: str
    authority: Path

    def settings(self, **changed: Any) -> Kafka:
        """Return settings that the broker accepts, but for what is changed."""
        right = {
            "servers": self.sasl,
            "security": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "username": "weir",
            "password": "weir-secret",
            "ca_file": self.authority,
        }
        return Kafka.model_validate(right | changed)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Return a real broker with passwords and certificates."""
    if not (CLUSTER.exists() and shutil.which("java") and shutil.which("openssl")):
        pytest.skip("no secured Kafka: needs ../shared beside the checkout, Java and openssl")
    folder = tmp_path_factory.mktemp("secured") / "cluster"
    # Its controller and its secured listener take the two ports after it.
    port = free_port(following=2)
    owner = ("--port", str(port), "--secure", "--owner", str(os.getpid()))
    command = [sys.executable, str(CLUSTER)]
    subprocess.run([*command, "start", str(folder), *owner], check=True, capture_output=True)
    try:
        yield Secured(
            plain=f"localhost:{port}",
            sasl=f"localhost:{port + 2}",
            authority=folder / "tls" / "ca.pem",
        )
    finally:
        subprocess.run([*command, "kill", str(folder)], check=False, capture_output=True)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_the_right_password_is_let_in(secured: Secured, mechanism: str) -> None:
    """With everything right there is nothing to complain about."""
    assert knock(secured.settings(sasl_mechanism=mechanism)) is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"password": "wrong"}, "refuses the user weir"),
        ({"password": "wrong", "sasl_mechanism": "PLAIN"}, "refuses the user weir"),
        ({"username": "nobody"}, "refuses the user nobody"),
        ({"username": None}, "needs a mechanism, a user name and a password"),
        ({"ca_file": None}, "certificate is not trusted"),
        ({"ca_file": "/no/such/file.pem"}, "/no/such/file.pem does not exist"),
        ({"security": "SASL_PLAINTEXT"}, "hung up"),
        ({"security": "PLAINTEXT"}, "hung up"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_setting_is_named(secured: Secured, changed: dict[str, Any], says: str) -> None:
    """A broker that refuses us says at which step, and the remedy names the setting."""
    refused = knock(secured.settings(**changed))

    assert refused is not None
    assert says in refused.wrong
    assert "WEIR_KAFKA_" in refused.remedy


def test_a_plain_listener_is_no_tls_and_asks_for_no_password(secured: Secured) -> None:
    """Security settings that do not fit the listener are told apart from a wrong password."""
    over_tls = knock(secured.settings(servers=secured.plain))
    over_sasl = knock(secured.settings(servers=secured.plain, security="SASL_PLAINTEXT"))

    assert over_tls is not None
    assert "speaks no TLS" in over_tls.wrong
    assert over_sasl is not None
    assert "asks nobody who they are" in over_sasl.wrong


@pytest.mark.parametrize("servers", ["localhost", "localhost:", ":9092", "localhost:kafka"])
def test_an_address_without_a_port_is_named(servers: str) -> None:
    """What is no HOST:PORT is wrong before anybody is asked."""
    refused = knock(Kafka(servers=servers))

    assert refused is not None
    assert "not HOST:PORT" in refused.wrong


def test_nobody_there_is_said_so() -> None:
    """A closed port is not called a wrong password."""
    refused = knock(Kafka(servers=f"localhost:{free_port()}"))

    assert refused is not None
    assert "nobody answers" in refused.wrong


def test_one_server_that_lets_us_in_is_enough(secured: Secured) -> None:
    """Bootstrap servers stand in for each other: one that is away is no fault."""
    servers = f"localhost:{free_port()},{secured.sasl}"

    assert knock(secured.settings(servers=servers)) is None


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xff\xff\xff", b"\0\0\0\x08ab"],
    ids=["silence", "web", "nonsense", "half"],
)
def test_something_else_that_listens_there_is_no_broker(answer: bytes) -> None:
    """A web server, or any other, in the place of a broker is named, whatever it answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=speak, daemon=True).start()

        refused = knock(Kafka(servers=f"127.0.0.1:{server.getsockname()[1]}"))

    assert refused is not None
    assert "hung up" in refused.wrong
