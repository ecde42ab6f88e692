#!/usr/bin/env python3
"""The guard in a stock PostgreSQL whose standby does not acknowledge, and then does.

The standby is a socket and no more: it streams, and says what it has when told to."""

import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

BIN = os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin")
PORT = 55998
AS = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
GUARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "redoubt_guard.so")


class Standby(threading.Thread):
    """Acknowledges all it has while `acks` is set."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.acks, self.got = True, 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f"{directory}/.s.PGSQL.{PORT}")
        body = struct.pack("!I", 196608) + b"".join(
            s.encode() + b"\0"
            for s in ("user", "postgres", "replication", "true", "application_name", "guarded", "")
        )
        self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self.buffer = b""
        self.until(b"Z")
        position = [f.decode() for f in self.query("IDENTIFY_SYSTEM")][2]
        self.got = sum(int(p, 16) << s for p, s in zip(position.split("/"), (32, 0)))
        self.send(b"Q", f"START_REPLICATION {position} TIMELINE 1".encode() + b"\0")
        self.until(b"W")
        self.ack()
        self.start()

    def send(self, tag, body):
        self.socket.sendall(tag + struct.pack("!I", len(body) + 4) + body)

    def message(self):
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack("!I", self.buffer[1:5])[0]:
            more = self.socket.recv(1 << 16)
            if not more:
                raise EOFError
            self.buffer += more
        end = 1 + struct.unpack("!I", self.buffer[1:5])[0]
        found, self.buffer = self.buffer[:end], self.buffer[end:]
        return found[:1], found[5:]

    def until(self, tag):
        while True:
            found, body = self.message()
            assert found != b"E", body
            if found == tag:
                return body

    def query(self, text):
        self.send(b"Q", text.encode() + b"\0")
        row, at, fields = self.until(b"D"), 2, []
        for _ in range(struct.unpack("!H", row[:2])[0]):
            (length,) = struct.unpack("!i", row[at : at + 4])
            at += 4
            fields.append(row[at : at + max(length, 0)])
            at += max(length, 0)
        self.until(b"Z")
        return fields

    def ack(self):
        got = self.got
        self.send(b"d", b"r" + struct.pack("!QQQQB", got, got, got, 0, 0))

    def run(self):
        try:
            while True:
                tag, body = self.message()
                if tag == b"d" and body[:1] == b"w":
                    self.got = struct.unpack("!Q", body[1:9])[0] + len(body) - 25
                if self.acks:
                    self.ack()
        except (EOFError, OSError):
            pass

    def answer(self, acks):
        self.acks = acks
        if acks:
            self.ack()


class Server:
    """A cluster under the guard."""

    def __init__(self, settings=""):
        self.directory = tempfile.mkdtemp(prefix="guard-")
        if os.getuid() == 0:
            os.chown(self.directory, pwd.getpwnam("postgres").pw_uid, -1)
        shutil.copy(GUARD, self.directory)
        os.chmod(f"{self.directory}/redoubt_guard.so", 0o755)
        self.data = f"{self.directory}/data"
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "--locale=C")
        self.options = (
            f"-p {PORT} -c unix_socket_directories={self.directory} -c listen_addresses= "
            f"-c fsync=off -c shared_preload_libraries={self.directory}/redoubt_guard.so "
            f"-c wal_level=logical -c max_prepared_transactions=5 -c autovacuum=off {settings}"
        )

    def run(self, name, *arguments, check=True):
        done = subprocess.run(
            [*AS, f"{BIN}/{name}", *arguments], cwd="/", text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def start(self, standby="guarded"):
        options = f"{self.options} -c synchronous_standby_names={standby}"
        self.run("pg_ctl", "-D", self.data, "-w", "-o", options, "-l", f"{self.directory}/log", "start")

    def psql(self, *commands, user="postgres", **more):
        flags = [x for c in commands for x in ("-c", c)]
        return subprocess.Popen(
            [*AS, f"{BIN}/psql", "-XAtq", "-h", self.directory, "-p", str(PORT), "-d", "postgres", "-U", user, *flags],
            cwd="/", text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, **more,
        )

    def sql(self, *commands):
        return self.psql(*commands).communicate(timeout=30)[0].strip()

    def rows(self):
        return self.sql("SELECT coalesce(string_agg(v::text, ',' ORDER BY v), '') FROM t")

    def waiting(self):
        """The pids that wait for the standby."""
        found = self.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return [int(p) for p in found.split()]

    def until_waiting(self):
        for _ in range(200):
            if pids := self.waiting():
                return pids[0]
            time.sleep(0.05)
        raise AssertionError("nobody waits")

    def remove(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def held(server, standby, commands, interrupt, value):
    """The row `value` must stay invisible until the standby acknowledges, whatever `interrupt` does."""
    before = server.rows()
    standby.answer(False)
    client = server.psql(*commands)
    pid = server.until_waiting()
    for _ in range(3):
        interrupt(pid)
        time.sleep(0.2)
    assert server.rows() == before, f"visible before the quorum has it: {server.rows()}"
    assert server.waiting() == [pid], "the wait has ended"
    assert client.poll() is None, client.stdout.read()
    standby.answer(True)
    said = client.communicate(timeout=30)[0]
    assert str(value) in server.rows().split(","), said
    return said


def test_interrupts(server, standby):
    cancel = lambda pid: server.sql(f"SELECT pg_cancel_backend({pid})")
    end = lambda pid: server.sql(f"SELECT pg_terminate_backend({pid})")
    nothing = lambda pid: None
    said = held(server, standby, ["INSERT INTO t VALUES (1)", "SELECT 'went on'"], cancel, 1)
    assert "went on" in said and "ERROR" not in said, said
    held(server, standby, ["INSERT INTO t VALUES (2)"], end, 2)
    held(server, standby, ["SET statement_timeout = '100ms'", "INSERT INTO t VALUES (3)"], nothing, 3)
    # Loud or silent logs make no difference.
    held(server, standby, ["SET log_min_messages = panic", "INSERT INTO t VALUES (4)"], cancel, 4)
    held(server, standby, ["SET log_min_messages = panic", "INSERT INTO t VALUES (5)"], end, 5)
    # In a procedure that commits, and in a transaction block.
    held(server, standby, ["DO $$ BEGIN INSERT INTO t VALUES (6); COMMIT; END $$"], cancel, 6)
    held(server, standby, ["BEGIN", "INSERT INTO t VALUES (7)", "COMMIT"], end, 7)


def test_prepared(server, standby):
    cancel = lambda pid: server.sql(f"SELECT pg_cancel_backend({pid})")
    end = lambda pid: server.sql(f"SELECT pg_terminate_backend({pid})")
    for value, interrupt in ((20, cancel), (21, end)):
        prepare = ["BEGIN", f"INSERT INTO t VALUES ({value})", "PREPARE TRANSACTION 'p'"]
        standby.answer(False)
        client = server.psql(*prepare)
        pid = server.until_waiting()
        interrupt(pid)
        time.sleep(0.3)
        assert server.waiting() == [pid], "the wait of PREPARE has ended"
        standby.answer(True)
        client.communicate(timeout=30)
        held(server, standby, ["COMMIT PREPARED 'p'"], interrupt, value)
    assert server.sql("SELECT count(*) FROM pg_prepared_xacts") == "0"


def test_asynchronous_commits(server, standby):
    nothing = lambda pid: None
    server.sql("CREATE FUNCTION f() RETURNS void LANGUAGE sql SET synchronous_commit = off AS $$ $$")
    server.sql("CREATE ROLE r SUPERUSER LOGIN", "ALTER ROLE r SET synchronous_commit = local")
    ways = [
        ["SET synchronous_commit = off"],
        ["SET synchronous_commit = local"],
        ["SET synchronous_commit = remote_write"],
        ["BEGIN", "SET LOCAL synchronous_commit = off"],
        ["BEGIN", "SELECT set_config('synchronous_commit', 'off', true)"],
        ["SELECT f()"],
        ["SET SESSION AUTHORIZATION r"],
    ]
    for value, way in enumerate(ways, 40):
        insert = [*way, f"INSERT INTO t VALUES ({value})", "COMMIT"]
        held(server, standby, insert, nothing, value)
    assert server.sql("SET synchronous_commit = off", "SHOW synchronous_commit").endswith("on")
    assert server.sql("SET synchronous_commit = remote_apply", "SHOW synchronous_commit") == "remote_apply"
    server.sql("ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()")
    time.sleep(0.5)
    assert server.sql("SHOW synchronous_commit") == "on"
    held(server, standby, ["INSERT INTO t VALUES (60)"], nothing, 60)


def test_interrupts_that_find_no_wait(server, standby):
    """Signals work as before everywhere else, and after a commit."""
    client = server.psql("SELECT pg_sleep(30)")
    time.sleep(0.5)
    server.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
    assert "canceling statement" in client.communicate(timeout=5)[0]
    for stop, says in (("cancel", "canceling statement"), ("terminate", "terminating")):
        client = server.psql("INSERT INTO t VALUES (70)", "SELECT pg_sleep(30)")
        time.sleep(0.7)
        server.sql(f"SELECT pg_{stop}_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
        assert says in client.communicate(timeout=5)[0]
    # An error while the commit is prepared gives the signals back.
    out = server.sql(
        "CREATE TABLE d (v int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "BEGIN", "INSERT INTO d VALUES (1), (1)", "COMMIT",
    )
    assert "duplicate key" in out, out
    assert "does not exist" in server.sql("COMMIT PREPARED 'none'")
    client = server.psql("COMMIT PREPARED 'none'", "SELECT pg_sleep(30)")
    time.sleep(0.5)
    server.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
    assert "canceling statement" in client.communicate(timeout=5)[0]


def test_messages_of_the_agent_are_marked(server, standby):
    """Its origin is one that `only-local` leaves out, and that nobody else can take."""
    emit = "SELECT pg_logical_emit_message(true, 'redoubt/file/x', '{}')"
    server.sql("CREATE ROLE redoubt_agent LOGIN", "CREATE ROLE other LOGIN")
    server.sql("SELECT pg_create_logical_replication_slot('s', 'test_decoding')")
    server.sql("SET SESSION AUTHORIZATION redoubt_agent", emit.format("session"))
    server.sql("SET ROLE redoubt_agent", emit.format("role"))
    server.psql(emit.format("other"), user="other").communicate(timeout=30)
    server.psql(emit.format("agent"), user="redoubt_agent").communicate(timeout=30)
    peek = "SELECT data FROM pg_logical_slot_peek_changes('s', NULL, NULL{})"
    every = server.sql(peek.format(""))
    others = server.sql(peek.format(", 'only-local', '1'"))
    for user, is_marked in (("session", False), ("role", False), ("other", False), ("agent", True)):
        assert f"content:{user}" in every, every
        assert (f"content:{user}" in others) != is_marked, others
    server.sql("SELECT pg_drop_replication_slot('s')")


def test_fast_stop_waits(server, standby):
    standby.answer(False)
    client = server.psql("INSERT INTO t VALUES (80)")
    server.until_waiting()
    stop = subprocess.Popen(
        [*AS, f"{BIN}/pg_ctl", "-D", server.data, "-w", "-m", "fast", "stop"],
        cwd="/", stdout=subprocess.DEVNULL,
    )
    time.sleep(1.5)
    assert client.poll() is None and stop.poll() is None, "the stop did not wait"
    standby.answer(True)
    assert stop.wait(30) == 0
    client.communicate(timeout=5)


def test_no_standby_configured(server):
    server.start(standby="")
    out = server.sql("INSERT INTO t VALUES (90)")
    assert "no commit is possible" in out, out
    assert server.sql("SELECT 1") == "1"
    assert "90" not in server.rows()
    server.run("pg_ctl", "-D", server.data, "-m", "fast", "-w", "stop")


def test_late_load(server):
    server.options = server.options.replace("shared_preload", "session_preload")
    server.start(standby="")
    out = server.sql("SELECT 1")
    assert "shared_preload_libraries" in out, out


def main():
    server = Server("-c synchronous_commit=off")
    try:
        server.start()
        standby = Standby(server.directory)
        server.sql("CREATE TABLE t (v int)")
        assert server.sql("SHOW synchronous_commit") == "on"
        for test in (
            test_interrupts, test_prepared, test_asynchronous_commits,
            test_interrupts_that_find_no_wait, test_messages_of_the_agent_are_marked,
            test_fast_stop_waits,
        ):
            test(server, standby)
            print(f"{test.__name__} ok", flush=True)
        for test in (test_no_standby_configured, test_late_load):
            test(server)
            print(f"{test.__name__} ok", flush=True)
    except BaseException:
        with open(f"{server.directory}/log", errors="replace") as log:
            sys.stderr.write("".join(log.readlines()[-30:]))
        raise
    finally:
        server.remove()


if __name__ == "__main__":
    signal.alarm(180)
    main()
