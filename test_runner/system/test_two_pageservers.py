"""Two pageservers attach one timeline; the older, let loose again, does no harm (D1, D2)."""

import base64
import json
import shutil
import subprocess
import time
import tomllib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import storage
from cell import PROFILE, SAFEKEEPERS, TARGET
from proxy import Way


class Second:
    """A pageserver beside the one of the cell, over the same bucket."""

    def __init__(self, cell, keymanager=None):
        self.cell = cell
        first = cell.directory / "config" / "pageserver-1.toml"
        self.directory = cell.directory / "pageserver-2"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        processes = cell.processes()
        old = processes["pageserver-1"]
        self.http = old["http"] + 50
        text = first.read_text()
        text = text.replace(f'127.0.0.1:{old["libpq"]}"', f'127.0.0.1:{old["libpq"] + 50}"')
        text = text.replace(f'127.0.0.1:{old["http"]}"', f'127.0.0.1:{self.http}"')
        text = text.replace(
            f'data_directory = "{cell.directory}/pageserver-1"', f'data_directory = "{self.directory}"'
        )
        node = int(f"90{tomllib.loads(text)['node_id']}")
        text = text.replace("node_id = ", "node_id = 90", 1)
        token = token_of_its_own(cell, node)
        text = text.replace(str(cell.directory / "tokens" / "pageserver-1.jwt"), str(token))
        # Nothing reaches the bucket unless it is asked for.
        text = "flush_interval_ms = 60000\n" + text
        if keymanager:
            own = processes["keymanager-1"]["http"]
            text = text.replace(f"https://127.0.0.1:{own}", f"https://127.0.0.1:{keymanager}")
        self.libpq = old["libpq"] + 50
        config = cell.directory / "config" / "pageserver-2.toml"
        config.write_text(text)
        log = open(cell.directory / "logs" / "pageserver-2.log", "w")
        self.process = subprocess.Popen(
            [TARGET / PROFILE / "pageserver", "--config", config], stdout=log, stderr=log
        )

    def attach(self, safekeepers=None):
        safekeepers = safekeepers or compute_safekeepers(self.cell)
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.cell.http("PUT", self.http, path(self.cell), {"safekeepers": safekeepers})
            except OSError:
                assert time.monotonic() < deadline, self.cell.ends_of_logs()
                time.sleep(0.2)

    def status(self):
        return self.cell.http("GET", self.http, path(self.cell))

    def stop(self):
        self.process.kill()
        self.process.wait()


def path(cell):
    status = cell.status()
    [main] = [branch for branch in status["branches"] if branch["name"] == "main"]
    return f"/v1/tenants/{status['tenant']}/timelines/{main['timeline']}"


def compute_safekeepers(cell):
    return tomllib.loads((cell.directory / "config" / "compute-main.toml").read_text())["safekeepers"]


def token_of_its_own(cell, node):
    """The file of a token that places `node` (K4), signed as those of the cell are."""
    tokens = cell.directory / "tokens"
    lines = (tokens / "private.pem").read_text().splitlines()
    der = base64.b64decode("".join(line for line in lines if "-" not in line))
    # RFC 8410: the seed is an octet string in an octet string. What reads PEM here refuses the
    # public key that may follow it (RFC 5958).
    seed = der.split(bytes.fromhex("04220420"))[1][:32]
    key = Ed25519PrivateKey.from_private_bytes(seed)
    head, body, _ = (tokens / "pageserver-1.jwt").read_text().strip().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["placement"]["node"] = node
    body = encoded(json.dumps(claims).encode())
    signature = encoded(key.sign(f"{head}.{body}".encode()))
    own = tokens / "pageserver-2.jwt"
    own.write_text(f"{head}.{body}.{signature}")
    own.chmod(0o600)
    return own


def encoded(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@pytest.fixture
def second(cell):
    second = Second(cell)
    yield second
    second.stop()


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        result = what()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def objects(cell):
    """All but beginnings of WAL segments, which safekeepers replace by longer ones (D8)."""
    bucket = cell.directory / "bucket"
    files = (p for p in bucket.rglob("*") if p.is_file())
    return {str(p.relative_to(bucket)) for p in files if not (p.parent.name == "wal" and "." in p.name)}


def test_the_older_one_stops_serving_deleting_and_reporting(cell, second):
    cell.sql("create table kept as select g as n from generate_series(1, 10000) g")
    cell.redoubt("dev", "flush")
    port = cell.processes()["pageserver-1"]["http"]
    code, before = cell.http("GET", port, path(cell))
    assert code == 200, before

    # Cut off from everything: it neither sees the newer attachment nor ends by itself.
    cell.kill("pageserver-1", "STOP")
    code, attached = second.attach()
    assert code == 200, attached
    assert attached["generation"] > before["generation"]
    cell.sql("insert into kept select g from generate_series(10001, 20000) g")
    until(lambda: second.status()[1]["last_record_lsn"] != attached["last_record_lsn"])
    code, flushed = cell.http("POST", second.http, path(cell) + "/flush")
    assert code == 200, flushed
    while_it_was_away = objects(cell)

    # Let loose: whatever it had in hand, it has lost its put and knows it at the next one.
    cell.kill("pageserver-1", "CONT")
    until(lambda: cell.http("GET", port, path(cell))[0] != 200)
    code, refusal = cell.http("GET", port, path(cell))
    assert "attached elsewhere" in json.dumps(refusal), refusal
    code, refusal = cell.http("POST", port, path(cell) + "/flush")
    assert code != 200, refusal
    assert while_it_was_away <= objects(cell), "the older one deleted objects"
    code, after = second.status()
    assert code == 200 and after["generation"] == attached["generation"]

    # Nothing is lost: the newer one serves a compute all of it. The cell's own pageserver is
    # attached again, newer still, and starts from what the second one has put.
    second.stop()
    cell.kill("compute-main")
    cell.remove_compute()
    cell.kill("pageserver-1")
    cell.up()
    assert cell.sql("select count(*), sum(n) from kept") == [(20000, 20000 * 20001 // 2)]


@pytest.fixture
def ways(cell):
    """Safekeepers by name, and the keymanager, each over a way that can be cut."""
    processes = cell.processes()
    ports = {name: processes[name]["libpq"] for name in SAFEKEEPERS}
    ways = {name: Way(port) for name, port in ports.items()}
    ways["keymanager-1"] = Way(processes["keymanager-1"]["http"])
    yield ways
    for way in ways.values():
        way.close()


@pytest.fixture
def older(cell, ways):
    older = Second(cell, ways["keymanager-1"].port)
    yield older
    older.stop()


def test_cut_off_from_everything_but_the_bucket_it_loses_its_put(cell, older, ways):
    """It runs on, with WAL in memory that the newer one has too: its next manifest is not taken."""
    cell.sql("create table torn as select g as n from generate_series(1, 10000) g")
    port = cell.processes()["pageserver-1"]["http"]
    safekeepers = compute_safekeepers(cell)
    reached = json.loads(json.dumps(safekeepers))
    for member in reached["members"]:
        member["libpq"] = f"127.0.0.1:{ways[SAFEKEEPERS[member['node'] - 1]].port}"
    code, attached = older.attach(reached)
    assert code == 200, attached
    caught_up(cell, lambda: older.status()[1])
    cell.sql("update torn set n = n + 1")
    caught_up(cell, lambda: older.status()[1])

    for way in ways.values():
        way.is_open = False
    # The first one does not know yet that it was replaced: to be asked again is to attach anew.
    code, newer = cell.http("PUT", port, path(cell), {"safekeepers": safekeepers})
    assert code == 200, newer
    assert newer["generation"] > attached["generation"]
    cell.sql("update torn set n = n + 1")
    caught_up(cell, lambda: cell.http("GET", port, path(cell))[1])
    code, flushed = cell.http("POST", port, path(cell) + "/flush")
    assert code == 200, flushed
    manifests = {name for name in objects(cell) if "manifest-" in name}
    while_it_was_away = objects(cell)

    # D1: what it has in memory does not become a manifest, and it knows at once.
    code, refusal = cell.http("POST", older.http, path(cell) + "/flush")
    assert code != 200 and "attached elsewhere" in json.dumps(refusal), refusal
    assert cell.http("GET", older.http, path(cell))[0] != 200
    # Had it put one, the newer one would lose its own next put.
    cell.sql("update torn set n = n")
    caught_up(cell, lambda: cell.http("GET", port, path(cell))[1])
    code, flushed = cell.http("POST", port, path(cell) + "/flush")
    assert code == 200 and flushed["generation"] == newer["generation"], flushed
    # D2: and it deletes nothing that the newer one needs.
    assert while_it_was_away <= objects(cell)

    # Let loose: it does not come back to the safekeepers, with progress or without.
    sent = {name: ways[name].sent for name in SAFEKEEPERS}
    for way in ways.values():
        way.is_open = True
    time.sleep(5)
    held_back = 4096
    for name in SAFEKEEPERS:
        assert ways[name].sent - sent[name] <= held_back, f"it still speaks to {name}"
    settled = {name: ways[name].sent for name in SAFEKEEPERS}
    time.sleep(3)
    assert {name: ways[name].sent for name in SAFEKEEPERS} == settled
    with pytest.raises(storage.Refused) as refused:
        storage.PageStream(cell, storage.timeline_of(cell), port=older.libpq)
    assert refused.value.sqlstate == "58R04"
    assert {name for name in objects(cell) if "manifest-" in name} >= manifests
    assert while_it_was_away <= objects(cell)

    # Nothing is lost: the newer one goes on, and a compute finds all of it.
    code, after = cell.http("GET", port, path(cell))
    assert code == 200 and after["generation"] == newer["generation"], after
    cell.kill("compute-main")
    cell.remove_compute()
    cell.up()
    assert cell.sql("select count(*), sum(n) from torn") == [(10000, 10000 * 10005 // 2)]


def caught_up(cell, status):
    [(end,)] = cell.sql("select pg_current_wal_flush_lsn()::text")
    until(lambda: storage.lsn(status()["last_record_lsn"]) >= storage.lsn(end))
