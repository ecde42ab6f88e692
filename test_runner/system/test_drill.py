"""Revocation: what DESIGN.md promises, with default timings once and with fast ones often.

Outages beside it, of the KMS, of the keymanager and of the agent: none of them is a revocation, none
of them lets anything live longer than its lease.
"""

import json
import re
import time

import psycopg
import pytest
from psycopg import pq

# As `dev up --fast-keys` sets them.
LEASE = 10
# Longer than a lease, so that what is served at its end is served on renewals.
GRACE = 18
# From the decision that something ends to its end: a turn of the keymanager, the push, the drain.
END = 5
# DESIGN.md, part 1.
BACK_WITHIN = 30


@pytest.fixture(scope="module")
def fast(new_cell):
    return new_cell("--fast-keys", "--key-grace", GRACE)


@pytest.fixture(autouse=True)
def open_before(request):
    """What an earlier test left behind is no fault of the next one."""
    if "fast" in request.fixturenames:
        request.getfixturevalue("fast").until_answers(60)


# Drills: `redoubt drill` measures, and judges by the promises.


def drill(cell, timeout=400):
    report = cell.directory / "drill"
    run = cell.redoubt("drill", "revoke", "--report", report, check=False, timeout=timeout)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr + cell.ends_of_logs()
    assert "58R01" in (report / "report.md").read_text()
    return json.loads((report / "report.json").read_text())


def test_with_default_timings(new_cell):
    cell = new_cell()
    report = drill(cell)
    assert report["passed"] is True, report
    cell.down()  # the tests that follow need the machine more


@pytest.mark.parametrize("turn", range(5))
def test_with_fast_timings(fast, turn):
    report = drill(fast)
    assert report["passed"] is True, report
    # What is known at the next probe, each second, need not wait for the end of a lease.
    for what in ("compute_gone", "storage_closed"):
        assert report["measured"][what] < LEASE, report


# Outages.


@pytest.fixture
def key(fast):
    """Sets state and fault of the master key; a test that fails leaves it in order."""

    def change(**changes):
        fast.redoubt("dev", "key", *[f"--{name}={value}" for name, value in changes.items()])

    yield change
    change(state="enabled", fault="none")


@pytest.fixture(scope="module")
def storage(fast):
    return Storage(fast)


class Storage:
    """Asks storage nodes whether they give anything away, as somebody who is let in."""

    def __init__(self, cell):
        self.cell = cell
        status = cell.status()
        [main] = [branch for branch in status["branches"] if branch["name"] == "main"]
        self.tenant, self.timeline = status["tenant"], main["timeline"]
        self.nodes = {
            process["name"]: process
            for process in status["processes"]
            if process["name"].startswith(("pageserver", "safekeeper"))
        }
        self.token = (cell.directory / "tokens" / "admin.jwt").read_text().strip()

    def gives_content(self):
        """(whether the pageserver sends a base backup, what it says instead)."""
        connection = pq.PGconn.connect(
            f"host=127.0.0.1 port={self.nodes['pageserver-1']['libpq']} user=test dbname=postgres"
            f" password={self.token} sslmode=disable gssencmode=disable connect_timeout=5"
            f" options='-c tenant_id={self.tenant} -c timeline_id={self.timeline}'".encode()
        )
        try:
            if connection.status != pq.ConnStatus.OK:
                return False, connection.error_message.decode()
            result = connection.exec_(f"basebackup {self.tenant} {self.timeline}".encode())
            return result.status == pq.ExecStatus.COPY_OUT, result.error_message.decode()
        finally:
            connection.finish()

    def keys_held(self):
        pages = {name: self.cell.metrics(node["http"]) for name, node in self.nodes.items()}
        gauge = re.compile(r"^redoubt_deks_held (\S+)$", re.MULTILINE)
        return {name: float(gauge.search(page)[1]) for name, page in pages.items()}

    def until_closed(self, seconds):
        """What the pageserver says once no storage node holds a key."""
        end = time.monotonic() + seconds
        while True:
            held, (gives, said) = self.keys_held(), self.gives_content()
            if not gives and not any(held.values()):
                return said
            assert time.monotonic() < end, (held, gives, said)
            time.sleep(0.1)


def serve_until(connection, end):
    while time.monotonic() < end:
        connection.execute("insert into served values (1)")
        time.sleep(0.1)


def until_told(cell, text, seconds):
    """Until a client that connects hears `text`; whatever it hears before is shown."""
    end, url, heard = time.monotonic() + seconds, cell.url(), []
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            heard.append("let in")
        except psycopg.Error as error:
            heard.append(str(error))
        if text in heard[-1]:
            assert not any("revoked" in said for said in heard), heard
            return
        assert time.monotonic() < end, heard
        time.sleep(0.1)


def until_gone(cell, seconds):
    """How long a Postgres of the compute still ran."""
    start = time.monotonic()
    while cell.redoubt("dev", "postgres", "--running", check=False).returncode == 0:
        assert time.monotonic() - start < seconds, f"Postgres lives after {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - start


@pytest.mark.parametrize("fault", ["error", "timeout"])
def test_a_kms_that_cannot_be_asked_is_no_revocation(fast, key, storage, fault):
    """K3: one and the same session goes on, on renewals, and past the outage."""
    fast.sql("create table if not exists served (n int)")
    with fast.connect(autocommit=True) as connection:
        key(fault=fault)
        serve_until(connection, time.monotonic() + LEASE + 2)
        assert storage.gives_content()[0]
        key(fault="none")
        serve_until(connection, time.monotonic() + 2)


def test_an_outage_of_the_kms_beyond_its_grace_closes_everything(fast, key, storage):
    """K3: served towards the end of the grace, then closed, and nobody says that the key is revoked."""
    fast.sql("create table if not exists served (n int)")
    with fast.connect(autocommit=True) as connection:
        key(fault="timeout")
        start = time.monotonic()
        # The KMS answered last up to a probe before, and the watchdog acts before the lease is over.
        serve_until(connection, start + GRACE - 4)
    until_told(fast, "the key service cannot be asked", 4 + END)
    until_gone(fast, END)
    said = storage.until_closed(END)
    print(f"closed {time.monotonic() - start:.1f} s into an outage with a grace of {GRACE} s")
    assert "the key service cannot be asked" in said, said
    key(fault="none")
    print(f"back after {fast.until_answers(BACK_WITHIN):.1f} s")


@pytest.mark.parametrize("state", ["enabled", "disabled"])
def test_a_stopped_agent_loses_its_postgres(fast, key, storage, state):
    """K2, K6: Postgres dies by its watchdog, which needs neither agent nor fence."""
    with fast.connect(autocommit=True) as connection:
        connection.execute("select 1")
        fast.kill("compute-main", "STOP")
        try:
            key(state=state)
            print(f"gone {until_gone(fast, LEASE + END):.1f} s after the agent was stopped")
            if state == "disabled":
                assert "revoked" in storage.until_closed(END)
        finally:
            key(state="enabled")
            fast.kill("compute-main", "CONT")
        with pytest.raises(psycopg.Error):
            connection.execute("select 1")
    print(f"back after {fast.until_answers(BACK_WITHIN):.1f} s")


def test_a_dead_keymanager_closes_everything_and_its_return_opens_it(fast, storage):
    """K2, K3: within the lease, and by no revocation."""
    assert storage.gives_content()[0]
    fast.kill("keymanager-1")
    start = time.monotonic()
    until_told(fast, "no keymanager can be reached", LEASE + END)
    until_gone(fast, END)
    said = storage.until_closed(END)
    print(f"closed {time.monotonic() - start:.1f} s after the keymanager died")
    assert "no keymanager can be reached" in said, said
    fast.start("keymanager-1")
    print(f"back after {fast.until_answers(BACK_WITHIN):.1f} s")
    assert storage.gives_content()[0]
