"""A branch shows what was there at an LSN or at a time, whatever the branch it began from does since."""

import time
from datetime import datetime, timezone

ROWS = [(number, "as it was") for number in range(1, 101)]


def test_branches_show_the_past_and_main_goes_on(cell):
    cell.sql("create table accidents as select g as n, 'as it was' as t from generate_series(1, 100) g")
    [(at,)] = cell.sql("select pg_current_wal_flush_lsn()::text")
    time.sleep(1)
    when = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    time.sleep(1.5)
    cell.sql("update accidents set t = 'changed' where n <= 50")
    cell.sql("delete from accidents where n > 90")
    cell.sql("create table later (n int)")

    for name, point in (("by-lsn", at), ("by-time", when)):
        cell.redoubt("branch", "create", name, "--at", point)
        assert cell.sql("select n, t from accidents order by n", name) == ROWS
        assert cell.sql("select to_regclass('later')::text", name) == [(None,)]
    changed = "select count(*), count(*) filter (where t = 'changed') from accidents"
    assert cell.sql(changed) == [(90, 50)]

    # Each goes on by itself, and a branch of a branch sees what that one has written.
    cell.sql("insert into accidents values (101, 'in the branch')", "by-lsn")
    cell.redoubt("branch", "create", "of-a-branch", "--from", "by-lsn")
    assert cell.sql("select count(*) from accidents", "of-a-branch") == [(101,)]
    assert cell.sql("select count(*) from accidents", "by-time") == [(100,)]
    assert cell.sql(changed) == [(90, 50)]

    # They are in the bucket like everything else: a pageserver that remembers nothing of what it
    # held in memory shows them all again.
    cell.redoubt("dev", "flush")
    cell.kill("pageserver-1")
    cell.start("pageserver-1")
    cell.kill("compute-by-lsn")
    cell.remove_compute("compute-by-lsn")
    cell.start("compute-by-lsn")
    cell.until_answers(60, "by-lsn")
    assert cell.sql("select count(*) from accidents", "by-lsn") == [(101,)]
    assert cell.sql("select to_regclass('later')::text", "by-lsn") == [(None,)]


def test_a_branch_point_that_is_none_is_refused_and_nothing_is_left_of_it(cell):
    for point, why in (
        ("0/1", "0/1"),
        ("FFFF/0", "beyond the end"),
        ("3 days ago", "before the first commit"),
        ("tomorrow", "neither an LSN"),
    ):
        refused = cell.redoubt("branch", "create", "nowhere", "--at", point, check=False)
        assert refused.returncode == 2, refused
        assert why in refused.stderr, refused
    listed = cell.redoubt("branch", "list").stdout
    assert "nowhere" not in listed, listed
