"""The server, and the real client in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import WRITE_TOKEN, HubServer

HERE = Path(__file__).parent


class Client:
    """A process with the real client; every call starts from an empty cache unless told otherwise."""

    def __init__(self, url, home, *, token=WRITE_TOKEN, offline=False):
        self.home = home
        environment = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(HERE.parents[1]),
        }
        environment |= {"HF_TOKEN": token} if token else {}
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "client.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code, **names):
        """Runs code in which `value` is what to give back; names are put before it."""
        given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        self.process.stdin.write(json.dumps({"code": given + code}) + "\n")
        self.process.stdin.flush()
        return SimpleNamespace(
            **(
                {"value": None, "error": None, "text": "", "trace": ""}
                | json.loads(self.process.stdout.readline())
            )
        )

    def value(self, code, **names):
        answer = self.run(code, **names)
        assert answer.error is None, answer.trace
        return answer.value

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """The server."""
    server = HubServer(tmp_path_factory.mktemp("hub") / "store")
    yield server
    server.close()


@pytest.fixture(scope="session")
def session_client(hub, tmp_path_factory):
    client = Client(hub.url, tmp_path_factory.mktemp("home"))
    client.value("import lora_rec, lora_rec.hub.client as c\nc.WAIT_SECONDS = 0.02")
    yield client
    client.close()


@pytest.fixture
def client(hub, session_client, tmp_path):
    """The client with write access, with an empty cache; the server has no faults and no past."""
    hub.faults.clear()
    hub.requests.clear()
    session_client.cache = tmp_path / "hub-cache"
    session_client.value(
        "import os, huggingface_hub.constants as k\nk.HF_HUB_CACHE = cache\nos.environ['HF_TOKEN'] = token",
        cache=str(session_client.cache),
        token=WRITE_TOKEN,
    )
    return session_client


@pytest.fixture
def new_client(hub, tmp_path):
    """Starts further processes: with another token, or offline."""
    started = []

    def start(**options):
        started.append(Client(hub.url, options.pop("home", tmp_path / f"home{len(started)}"), **options))
        return started[-1]

    yield start
    for client in started:
        client.close()
