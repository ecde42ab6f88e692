"""The main job: commits survive kill -9 of safekeepers, and of everything at once."""

import subprocess
import threading
import time

import acknowledged
from cell import PG_BIN

PGBENCH_SECONDS = 60


def test_pgbench_does_not_notice_a_safekeeper_that_dies_twice(cell):
    cell.pgbench("-i", "-q", "-s", 10)
    run = subprocess.Popen(
        [PG_BIN / "pgbench", "-n", "-c", "4", "-j", "2", "-T", str(PGBENCH_SECONDS), cell.url()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for victim in ("safekeeper-1", "safekeeper-2"):
        time.sleep(PGBENCH_SECONDS / 5)
        cell.kill(victim)
        time.sleep(PGBENCH_SECONDS / 10)
        cell.start(victim)
    output, _ = run.communicate(timeout=PGBENCH_SECONDS * 3)
    assert run.returncode == 0, output + cell.ends_of_logs()
    assert "number of failed transactions: 0 " in output, output
    print(output)
    [(accounts, tellers, branches, history)] = cell.sql(
        "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from"
        " pgbench_tellers), (select sum(bbalance) from pgbench_branches),"
        " (select sum(delta) from pgbench_history)"
    )
    assert accounts == tellers == branches == history
    assert history is not None


def everything_dies_and_comes_back(cell, after_seconds, beside=None):
    writers = [acknowledged.Writer(cell, number) for number in range(4)]
    offset = max((n for (n,) in cell.sql("select n from acknowledged")), default=-1) + 1
    for writer in writers:
        writer.number += 10 * offset + 10
        writer.start()
    busy = threading.Thread(target=beside, daemon=True) if beside else None
    if busy:
        busy.start()
    time.sleep(after_seconds)
    acknowledged.until_each_has_some(writers)
    cell.kill_everything()
    for writer in writers:
        writer.stop()
    cell.remove_compute()
    cell.up()
    cell.until_answers(60)
    assert acknowledged.missing(cell, writers) == []


def test_every_acknowledged_commit_survives_the_death_of_everything(cell):
    acknowledged.create_table(cell)
    everything_dies_and_comes_back(cell, 5)


def quietly(cell, statement):
    """Runs a statement that is expected to be killed."""
    run = ["psql", "-X", "-q", cell.url(), "-c", statement]
    return lambda: subprocess.run(run, capture_output=True, check=False)


def test_they_survive_with_a_copy_under_way(cell):
    cell.sql("create table copied as select g as n, repeat('x', 200) as t from generate_series(1, 10) g")
    everything_dies_and_comes_back(
        cell,
        4,
        quietly(cell, "copy copied from program 'seq -f \"%.0f\txxxxxxxxxxxxxxxxxxxx\" 1 30000000'"),
    )
    assert cell.sql("select count(*) from copied") == [(10,)]


def test_they_survive_with_an_index_under_way(cell):
    cell.sql("create table indexed as select g as n, md5(g::text) as t from generate_series(1, 50000) g")
    # One after the other, so that the kill meets one whenever it comes.
    again_and_again = (
        "do $$ begin for i in 1..1000 loop create index busy on indexed (t, n); drop index busy;"
        " end loop; end $$"
    )
    everything_dies_and_comes_back(cell, 3, quietly(cell, again_and_again))
    cell.sql("create index after on indexed (t, n)")
    assert cell.sql("select count(*) from indexed") == [(50000,)]
    cell.sql("create extension if not exists amcheck")
    cell.sql(
        "select bt_index_check(c.oid, true) from pg_class c join pg_am a on a.oid = c.relam"
        " where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'"
    )
