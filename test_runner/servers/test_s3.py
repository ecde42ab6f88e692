"""The bucket against an S3 server that is not ours: moto, whose conditional puts are atomic.

It says nothing of authentication, durability or latency: moto keeps neither.
"""

import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
READY_SECONDS_MAX = 60


@pytest.fixture(scope="module")
def endpoint():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        make_bucket(server, url)
        yield url
    finally:
        server.kill()
        server.wait()


def make_bucket(server, url):
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            request = urllib.request.Request(f"{url}/test", method="PUT")
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            assert server.poll() is None, "the S3 server ended by itself"
            assert time.monotonic() < deadline, "the S3 server did not answer"
            time.sleep(0.2)


def test_the_bucket_keeps_its_rules_on_an_s3_server(endpoint):
    run = subprocess.run(
        ["cargo", "test", "--quiet", "--locked", "-p", "store", "--test", "s3", "--", "--ignored"],
        cwd=TOP,
        env=os.environ | {"REDOUBT_TEST_S3": endpoint, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout, run.stdout
