"""A client that writes rows and logs, on a disk of its own, each one whose commit was acknowledged."""

import threading
import time

import psycopg


class Writer(threading.Thread):
    """Inserts (writer, n) with growing n; each n that a COMMIT returned for is in `acknowledged`."""

    def __init__(self, cell, number, batch=1):
        super().__init__(daemon=True)
        self.cell, self.number, self.batch = cell, number, batch
        self.acknowledged = []
        self.errors = []
        self.stopping = threading.Event()

    def run(self):
        n = 0
        url = self.cell.url()
        while not self.stopping.is_set():
            try:
                with psycopg.connect(url, connect_timeout=5) as connection:
                    while not self.stopping.is_set():
                        rows = [(self.number, n + i) for i in range(self.batch)]
                        n += self.batch
                        connection.cursor().executemany(
                            "insert into acknowledged (writer, n) values (%s, %s)", rows
                        )
                        connection.commit()
                        self.acknowledged += [row[1] for row in rows]
            except psycopg.Error as error:
                # A commit that was under way is in doubt: neither claimed nor denied.
                self.errors.append(str(error))
                time.sleep(0.2)

    def stop(self):
        self.stopping.set()
        self.join(timeout=30)


def create_table(cell):
    cell.sql("create table acknowledged (writer int, n bigint, primary key (writer, n))")


def until_each_has_some(writers, seconds=60):
    deadline = time.monotonic() + seconds
    while not all(writer.acknowledged for writer in writers):
        assert time.monotonic() < deadline, [writer.errors for writer in writers]
        time.sleep(0.1)


def missing(cell, writers):
    """Acknowledged rows that are not there; more than one of a kind is refused by the key."""
    there = set(map(tuple, cell.sql("select writer, n from acknowledged")))
    return [(w.number, n) for w in writers for n in w.acknowledged if (w.number, n) not in there]
