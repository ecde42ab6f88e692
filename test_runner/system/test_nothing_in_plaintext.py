"""What a thief of every disk finds: no row, no name of a table or of a column."""

import os
import signal
import time

import psycopg
import pytest

import storage

ROWS = 1000
MARKER = "quetzalcoatlus-northropi"
TABLE = "plesiosaur_sightings"
COLUMN = "hadrosaur_weight"
UNKNOWN = "ichthyosaur_typo"
STORED = [text.encode() for text in (MARKER, TABLE, COLUMN)]
NEEDLES = [*STORED, UNKNOWN.encode()]

# What Postgres would like to log, each with text of the user in it: in the message, in its detail,
# its context, its hint, or as the statement.
FAILING = {
    f"select {UNKNOWN} from {TABLE}": psycopg.errors.UndefinedColumn,
    f"select 1 from {TABLE} where seen = '{MARKER}-1' and 1 / (length(seen) - length(seen)) = 1":
        psycopg.errors.DivisionByZero,
    f"insert into {TABLE} ({COLUMN}) values ('{MARKER}')": psycopg.errors.InvalidTextRepresentation,
    f"insert into {TABLE} values (1, '{MARKER}-1')": psycopg.errors.UniqueViolation,
    f"select {MARKER}": psycopg.errors.UndefinedColumn,
    f"do $$ begin raise warning '{MARKER}'; raise exception '{MARKER}' using hint = '{MARKER}';"
    " end $$": psycopg.errors.RaiseException,
    f"set statement_timeout = 50; select pg_sleep(60), '{MARKER}'": psycopg.errors.QueryCanceled,
    f"create table {TABLE} ()": psycopg.errors.DuplicateTable,
}


@pytest.fixture(scope="module")
def written(cell):
    # Also on the way: sorts that spill, tables that are not logged, tables that live for a session.
    cell.sql(f"create table {TABLE} ({COLUMN} int, seen text unique)")
    cell.sql(f"insert into {TABLE} select g, '{MARKER}-' || g from generate_series(1, {ROWS}) g")
    cell.sql(f"create unlogged table {TABLE}_unlogged as select * from {TABLE}")
    with cell.connect(autocommit=True) as connection:
        connection.execute(f"create temp table {TABLE}_temporary as select * from {TABLE}")
        connection.execute("set work_mem = '64kB'")
        plan = connection.execute(
            f"explain analyze select seen || n from {TABLE}, generate_series(1, 20) n order by 1"
        ).fetchall()
        assert any("external merge" in line for (line,) in plan), "nothing has spilled"
    for statement, error in FAILING.items():
        with pytest.raises(error):
            cell.sql(statement)
    a_backend_dies(cell)
    # A whole segment of WAL goes to the bucket.
    cell.sql("select pg_switch_wal()")
    cell.sql(f"update {TABLE} set {COLUMN} = {COLUMN} + 1")
    cell.sql("checkpoint")
    cell.redoubt("dev", "flush")
    until(lambda: any("/wal/" in str(path) for path in (cell.directory / "bucket").rglob("*-*")))
    return cell


def a_backend_dies(cell):
    """Postgres would log what the backend was at: "Failed process was running"."""
    connection = cell.connect(autocommit=True)
    [inside] = connection.execute("select pg_backend_pid()").fetchone()
    running = cell.redoubt("dev", "postgres").stdout.split()
    [pid] = [pid for pid in running if innermost(pid) == inside]
    connection.pgconn.send_query(f"select pg_sleep(60), '{MARKER}' from {TABLE}".encode())
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    until(lambda: cell.sql(asleep) == [(1,)])
    os.kill(int(pid), signal.SIGSEGV)
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    connection.pgconn.finish()
    # Nothing of that Postgres is used again: the agent begins anew, with a base backup.
    until(lambda: set(running).isdisjoint(pids(cell)) and pids(cell))
    cell.until_answers(60)


def pids(cell):
    return cell.redoubt("dev", "postgres", check=False).stdout.split()


def length(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # trimmed since it was listed: it is in the bucket, and in layers


def innermost(pid):
    """The process's id as it knows it itself."""
    with open(f"/proc/{pid}/status") as status:
        [ids] = [line.split()[1:] for line in status if line.startswith("NSpid:")]
    return int(ids[-1])


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def test_no_file_holds_the_marker(written):
    names = [str(path.relative_to(written.directory)) for path in written.files()]
    for process in ("safekeeper-1", "safekeeper-2", "safekeeper-3"):
        assert any(name.startswith(f"{process}/wal/") for name in names), names
    assert any(name.startswith("bucket/") and "/layers/" in name for name in names), names
    assert any(name.startswith("bucket/") and "/wal/" in name for name in names), names
    assert any(name.startswith("pageserver-1/layers/") for name in names), names
    assert any(name.startswith("compute-main/cipher/") for name in names), names
    assert "logs/compute-main.log" in names
    assert written.find(NEEDLES) == []
    # Names of files are written to disks too.
    assert [name for name in names for needle in NEEDLES if needle.decode() in name] == []


def test_errors_are_in_the_log_without_their_text(written):
    """The search above has found nothing in a log in which something was written."""
    log = (written.directory / "logs" / "compute-main.log").read_text()
    for statement, error in FAILING.items():
        assert f'"sqlstate":"{error.sqlstate}","severity":"ERROR"' in log, statement


def test_the_same_search_finds_them_where_nothing_is_sealed(written):
    """The same WAL and the same pages, as their owners open them, beside the sealed ones: the
    search hits each of them, so what it searched through was there to be found."""
    timeline = storage.timeline_of(written)
    [(end,)] = written.sql("select pg_current_wal_flush_lsn()::text")
    start, end = first_lsn(written), storage.lsn(end)
    sealed = [path for path in written.files() if "/wal/" in str(path) or "/layers/" in str(path)]
    sealed = sum(map(length, sealed))
    wal = written.directory / "safekeeper-1" / "wal" / "plain"
    pages = written.directory / "pageserver-1" / "layers" / "plain"
    page = written.directory / "bucket" / "plain"
    try:
        wal.write_bytes(storage.read_wal(written, timeline, start, end))
        assert wal.read_bytes().count(STORED[0]) >= 2 * ROWS, "in the heap, and in its index"
        pages.write_bytes(storage.full_backup(written, timeline))
        with storage.PageStream(written, timeline) as stream:
            table = storage.relation(written, TABLE)
            blocks = stream.blocks(table, since=end)
            page.write_bytes(b"".join(stream.pages(table, blocks)))
        assert page.read_bytes().count(STORED[0]) >= ROWS
        found = written.find(NEEDLES)
        assert {hit for hit in found if hit[0] == wal} == {(wal, needle) for needle in STORED}
        assert {hit for hit in found if hit[0] == pages} == {(pages, needle) for needle in STORED}
        assert (page, STORED[0]) in found
        assert {path for path, _ in found} == {wal, pages, page}
        # What was searched holds as much as the plain copies do, and does not hold it plainly.
        assert sealed > wal.stat().st_size
    finally:
        for plain in (wal, pages, page):
            plain.unlink(missing_ok=True)


def first_lsn(cell):
    """Where the timeline begins: what `initdb` wrote was imported, and is no WAL of it."""
    log = (cell.directory / "logs" / "compute-main.log").read_text()
    [line] = [line for line in log.splitlines() if line.startswith('{"pg_major"')]
    return storage.lsn(line.split('"start_lsn":"')[1].split('"')[0])
