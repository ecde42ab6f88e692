"""What PostgreSQL does not log survives all the same: settings of ALTER SYSTEM, and logical slots."""

import time

from storage import full_backup, members, timeline_of

SLOTS = "select slot_name from pg_replication_slots where slot_type = 'logical' order by 1"
CHANGES = "select data from pg_logical_slot_get_changes('orders', null, null)"


def start_over(cell, kind="KILL"):
    """Nothing of a compute is left, as on another machine."""
    cell.kill("compute-main", kind)
    cell.remove_compute()
    cell.start("compute-main")
    cell.until_answers(90)


def until_kept(cell, path, content):
    deadline = time.monotonic() + 30
    while content not in members(full_backup(cell, timeline_of(cell))).get(path, b""):
        assert time.monotonic() < deadline, f"{path} is not kept\n{cell.ends_of_logs()}"
        time.sleep(0.2)


def alter_system(cell, *settings):
    for setting in settings:
        cell.sql(f"alter system set {setting}")


def show(cell, name, branch="main"):
    [(value,)] = cell.sql(f"show {name}", branch)
    return value


def status(cell):
    code, said = cell.http("GET", cell.processes()["compute-main"]["http"], "/v1/status")
    assert code == 200
    return said


def test_settings_and_slots_survive_and_a_branch_from_before_has_none(cell):
    cell.sql("create table orders (n int)")
    [(before,)] = cell.sql("select pg_current_wal_flush_lsn()::text")
    alter_system(cell, "work_mem = '77MB'", "max_connections = 57", "wal_level = 'logical'")
    # What the agent forces wins, now and later.
    alter_system(cell, "synchronous_commit = 'off'", "fsync = 'on'", "archive_command = 'false'")
    until_kept(cell, "postgresql.auto.conf", b"archive_command")
    start_over(cell)
    assert show(cell, "work_mem") == "77MB"
    assert show(cell, "max_connections") == "57"
    assert show(cell, "wal_level") == "logical"
    assert show(cell, "synchronous_commit") == "on"
    assert show(cell, "fsync") == "off"
    assert show(cell, "archive_command") in ("", "(disabled)")

    # An application's message with the agent's prefix says nothing.
    cell.sql(
        "select pg_logical_emit_message(true, 'redoubt/file/postgresql.auto.conf', 'work_mem = 64')"
    )
    cell.sql("select pg_create_logical_replication_slot('orders', 'test_decoding')")
    cell.sql("select pg_create_physical_replication_slot('physical', true)")
    cell.sql("insert into orders values (4711)")
    until_kept(cell, "pg_replslot/orders/state", b"orders")
    start_over(cell)
    assert show(cell, "work_mem") == "77MB"
    assert cell.sql(SLOTS) == [("orders",)]
    # Its WAL is there too: what was written before the end is decoded, and what follows.
    cell.sql("insert into orders values (4712)")
    data = "\n".join(row for (row,) in cell.sql(CHANGES))
    assert "4711" in data and "4712" in data, data
    assert data.index("4711") < data.index("4712")

    cell.redoubt("branch", "create", "before", "--at", before)
    assert show(cell, "work_mem", "before") == "4MB"
    assert cell.sql(SLOTS, "before") == []
    cell.redoubt("branch", "create", "later")
    assert show(cell, "work_mem", "later") == "77MB"
    assert cell.sql(SLOTS, "later") == [], "a slot is of one branch"

    # Dropped is dropped, also where the stop is orderly and follows at once.
    cell.sql("select pg_drop_replication_slot('orders')")
    cell.sql("alter system set work_mem = '78MB'")
    start_over(cell, "TERM")
    assert cell.sql(SLOTS) == []
    assert show(cell, "work_mem") == "78MB"


def test_settings_that_prevent_a_start_are_set_aside(cell):
    alter_system(cell, "work_mem = '79MB'", "shared_buffers = '8000GB'")
    until_kept(cell, "postgresql.auto.conf", b"8000GB")
    start_over(cell)
    assert show(cell, "work_mem") == "4MB"
    assert any("without them" in said for said in status(cell)["not_as_left"])
    # The next word of the user's counts.
    cell.sql("alter system set work_mem = '80MB'")
    until_kept(cell, "postgresql.auto.conf", b"80MB")
    start_over(cell)
    assert show(cell, "work_mem") == "80MB"
    assert status(cell)["not_as_left"] == []
