"""Two pageservers attach one timeline; the older, let loose again, does no harm (D1, D2)."""

import json
import subprocess
import time

import pytest

from cell import PROFILE, TARGET


class Second:
    """A pageserver beside the one of the cell, over the same bucket."""

    def __init__(self, cell):
        self.cell = cell
        first = cell.directory / "config" / "pageserver-1.toml"
        self.directory = cell.directory / "pageserver-2"
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
        text = text.replace("node_id = ", "node_id = 90", 1)
        config = cell.directory / "config" / "pageserver-2.toml"
        config.write_text(text)
        log = open(cell.directory / "logs" / "pageserver-2.log", "w")
        self.process = subprocess.Popen(
            [TARGET / PROFILE / "pageserver", "--config", config], stdout=log, stderr=log
        )

    def attach(self):
        safekeepers = compute_safekeepers(self.cell)
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
    import tomllib

    return tomllib.loads((cell.directory / "config" / "compute-main.toml").read_text())["safekeepers"]


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
    bucket = cell.directory / "bucket"
    return {str(p.relative_to(bucket)) for p in bucket.rglob("*") if p.is_file()}


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
