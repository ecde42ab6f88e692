"""D8: what is committed reaches the bucket within a minute, whatever the pageserver does."""

import subprocess
import time

from cell import PROFILE, SAFEKEEPERS, TARGET


def test_the_tail_of_an_idle_timeline_reaches_the_bucket_without_a_pageserver(cell):
    cell.sql("create table t as select 'the tail' as t from generate_series(1, 100)")
    cell.kill("pageserver-1")
    cell.sql("insert into t select 'more of it' from generate_series(1, 100)")
    begin = time.monotonic()
    while any("exposed_since" in status for status in statuses(cell)):
        assert time.monotonic() - begin < 60, statuses(cell)
        time.sleep(0.5)
    for status in statuses(cell):
        assert lsn(status["partial_lsn"]) >= lsn(status["commit_lsn"]) > 0, status
    # One for all, or a few where they were at it at the same time.
    beginnings = list(cell.directory.glob("bucket/cells/*/tenants/*/timelines/*/wal/*.*-*"))
    assert 1 <= len(beginnings) <= 3, beginnings
    inspect = [TARGET / PROFILE / "redoubt", "sealed", "inspect", beginnings[0]]
    shown = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
    assert "partial WAL segment" in shown, shown
    for name in SAFEKEEPERS:
        log = (cell.directory / "logs" / f"{name}.log").read_text()
        assert "is not in the bucket after a minute" not in log
    cell.start("pageserver-1")
    assert cell.sql("select count(*) from t") == [(200,)]


def statuses(cell):
    """What each safekeeper says of the main branch."""
    system = cell.status()
    [main] = [branch for branch in system["branches"] if branch["name"] == "main"]
    path = f"/v1/tenants/{system['tenant']}/timelines/{main['timeline']}"
    found = []
    for name in SAFEKEEPERS:
        port = cell.processes()[name]["http"]
        code, status = cell.http("GET", port, path)
        assert code == 200, status
        found.append(status)
    return found


def lsn(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)
