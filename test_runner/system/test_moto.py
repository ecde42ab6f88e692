"""The same system over S3 and KMS servers that are not ours: moto, with the states of keys enforced.

It says nothing of authentication, throttling or latency: moto has none.
"""

import json
import shlex
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import pytest

from cell import PROFILE, TARGET, TOP

SERVERS = TOP / "test_runner" / "servers"
REGION = "eu-central-1"
READY_SECONDS_MAX = 60
# What the tour writes, and what nobody must find.
MARKER = b"the-row-that-nobody-must-find"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Server:
    """A program of `servers`, from its first answer on."""

    def __init__(self, program):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, SERVERS / program, str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, f"{program} ended by itself"
                assert time.monotonic() < deadline, f"{program} does not answer"
                time.sleep(0.1)

    def client(self, service):
        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def make_bucket(self, name):
        self.client("s3").create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        return f"s3://{name}"

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module", autouse=True)
def credentials():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def moto(credentials):
    server = Server("strict_kms.py")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def key(moto):
    return moto.client("kms").create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def cell(moto, key, new_cell):
    cell = new_cell(
        *("--bucket", moto.make_bucket("sealed"), "--endpoint", moto.url),
        *("--kms", "aws", "--key", key, "--kms-endpoint", moto.url, "--fast-keys"),
    )
    yield cell
    # While its bucket and its KMS are still there.
    cell.down()


def test_the_tour(cell, moto):
    tour = cell.redoubt("dev", "tour")
    print(tour.stdout)
    assert "every step did what it says" in tour.stdout

    # The tour searches files; the objects are the server's.
    s3 = moto.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="sealed")
    names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    for kind in ("/keys/kek-", "/manifest-", "/layers/"):
        assert any(kind in name for name in names), f"no object is like {kind}: {names}"
    hits = [
        name for name in names if MARKER in s3.get_object(Bucket="sealed", Key=name)["Body"].read()
    ]
    assert hits == []


def test_the_drill(cell, moto, key):
    def command(verb):
        words = [sys.executable, SERVERS / "key_state.py", moto.url, key, verb]
        return shlex.join(map(str, words))

    report = cell.directory / "drill"
    run = cell.redoubt(
        *("drill", "revoke", "--report", report),
        *("--disable-command", command("disable"), "--enable-command", command("enable")),
    )
    print(run.stdout)
    assert json.loads((report / "report.json").read_text())["passed"] is True
    assert "58R01" in (report / "report.md").read_text()


@pytest.fixture(scope="module")
def careless(credentials):
    server = Server("careless_s3.py")
    yield server
    server.stop()


@pytest.mark.parametrize("program", ["keymanager", "safekeeper", "pageserver"])
def test_a_bucket_that_ignores_conditions_is_refused_at_start(careless, program, tmp_path):
    """D4: over such a bucket two writers would overwrite each other."""
    config = tmp_path / f"{program}.toml"
    bucket = careless.make_bucket(f"careless-{program}")
    where = f'[bucket]\nurl = "{bucket}"\nendpoint = "{careless.url}"\n'
    config.write_text(settings(program, tmp_path) + where)
    run = subprocess.run(
        [TARGET / PROFILE / program, "--config", config], capture_output=True, text=True, timeout=60
    )
    said = run.stdout + run.stderr
    assert run.returncode != 0, said
    assert "does not keep If-None-Match" in said, said


def settings(program, directory):
    if program == "keymanager":
        return (
            f'cell = "dev"\nledger = "{directory}/ledger"\nlisten = {{ addr = "127.0.0.1:0" }}\n'
        )
    return (
        f'node_id = 1\nlisten = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\ncell = "dev"\n'
        f'data_directory = "{directory}/data"\ndevelopment_kek = "{"07" * 32}"\n'
    )
