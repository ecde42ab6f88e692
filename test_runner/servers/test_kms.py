"""The keymanager against a KMS that is not ours: moto, made as strict as AWS about states of keys.

It says nothing of policies, throttling or latency: the stub in keymanager/tests/aws.rs has those.
"""

import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
READY_SECONDS_MAX = 60
TEST = "states_of_a_key_revoke_and_heal"


@pytest.fixture(scope="module")
def endpoint():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, HERE / "strict_kms.py", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(server, f"{url}/moto-api/")
        yield url
    finally:
        server.kill()
        server.wait()


def wait_for(server, url):
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert server.poll() is None, "the KMS ended by itself"
            assert time.monotonic() < deadline, "the KMS did not answer"
            time.sleep(0.2)


def test_the_states_of_a_key_revoke_and_heal(endpoint):
    run = subprocess.run(
        ["cargo", "test", "--quiet", "--locked", "-p", "keymanager", "--test", "aws", "--"]
        + ["--ignored", TEST],
        cwd=TOP,
        env=os.environ | {"REDOUBT_TEST_KMS": endpoint},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout, run.stdout
