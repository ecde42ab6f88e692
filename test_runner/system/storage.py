"""Speaks to storage nodes over libpq as computes and as pageservers do: what they answer is plain."""

import io
import struct
import tarfile

from psycopg import pq

LATEST = 2**64 - 1
BLOCK = 8192
SEGMENT = 16 << 20
FORKS = {"": 0, "_fsm": 1, "_vm": 2, "_init": 3}


class Refused(Exception):
    """A request that was answered by an error: its SQLSTATE and its message."""

    def __init__(self, sqlstate, message):
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate


class Connection:
    """A connection of one timeline, with the token that its kind of client has."""

    def __init__(self, cell, process, timeline, token, replication=False, port=None):
        self.tenant, self.timeline = cell.status()["tenant"], timeline
        secret = (cell.directory / "tokens" / f"{token}.jwt").read_text().strip()
        port = port or cell.processes()[process]["libpq"]
        conninfo = (
            f"host=127.0.0.1 port={port} user=storage dbname=storage"
            f" sslmode=disable password={secret} connect_timeout=10"
            f" options='-c tenant_id={self.tenant} -c timeline_id={timeline}'"
        )
        if replication:
            conninfo += " replication=true"
        self.libpq = pq.PGconn.connect(conninfo.encode())
        if self.libpq.status != pq.ConnStatus.OK:
            raise self.refusal(self.libpq.error_message)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.libpq.finish()

    def begin(self, command, expected):
        """Sends a command that is answered by a stream."""
        self.libpq.send_query(command.encode())
        result = self.libpq.get_result()
        if result is None or result.status != expected:
            raise self.result_refusal(result)

    def pieces(self):
        """CopyData by CopyData, to the end of the stream."""
        while True:
            length, piece = self.libpq.get_copy_data(0)
            if length < 0:
                break
            yield bytes(piece)
        result = self.libpq.get_result()
        if result is None or result.status == pq.ExecStatus.FATAL_ERROR or length == -2:
            raise self.result_refusal(result)

    def result_refusal(self, result):
        if result is None:
            return self.refusal(self.libpq.error_message)
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        return self.refusal(result.error_message, state)

    @staticmethod
    def refusal(message, state=None):
        return Refused((state or b"").decode(), message.decode(errors="replace").strip())


class PageStream(Connection):
    """`pagestream_v3`: every answer must repeat its request."""

    def __init__(self, cell, timeline, port=None):
        super().__init__(cell, "pageserver-1", timeline, "compute-main", port=port)
        command = f"pagestream_v3 {self.tenant} {timeline}"
        self.begin(command, pq.ExecStatus.COPY_BOTH)
        self.number = 0

    def send(self, tag, body, at, since):
        self.number += 1
        header = struct.pack(">QQQ", self.number, at, since)
        self.libpq.put_copy_data(bytes([tag]) + header + body)
        self.libpq.flush()
        return tag, header, body

    def answer(self, sent):
        tag, header, body = sent
        length, answer = self.libpq.get_copy_data(0)
        if length < 0:
            raise self.result_refusal(self.libpq.get_result())
        kind, answer = answer[0], bytes(answer[1:])
        assert answer.startswith(header), "the answer to another request"
        answer = answer[len(header) :]
        if kind == 103:
            sqlstate, _, message = answer.rstrip(b"\0").decode().partition(" ")
            raise Refused(sqlstate, message)
        assert kind == 100 + tag and answer.startswith(body), "the answer to another request"
        return answer[len(body) :]

    def blocks(self, relation, at=LATEST, since=1):
        sent = self.send(1, relation_bytes(relation), at, since)
        return struct.unpack(">I", self.answer(sent))[0]

    def pages(self, relation, blocks, at=LATEST, since=1):
        """A page or a refusal for each of the first blocks; they are asked for all at once."""
        body = relation_bytes(relation)
        asked = [self.send(2, body + struct.pack(">I", n), at, since) for n in range(blocks)]
        return [self.page_or_refusal(sent) for sent in asked]

    def page_or_refusal(self, sent):
        try:
            page = self.answer(sent)
        except Refused as refusal:
            return refusal
        assert len(page) == BLOCK
        return page


def relation_bytes(relation):
    space, database, number, fork = relation
    return struct.pack(">IIIB", space, database, number, fork)


def relation(cell, table, fork="", branch="main"):
    """(tablespace, database, file, fork) of a table in the default tablespace."""
    [(path,)] = cell.sql(f"select pg_relation_filepath('{table}')", branch)
    _, database, number = path.split("/")
    return 1663, int(database), int(number), FORKS[fork]


def full_backup(cell, timeline, at=None, process="pageserver-1"):
    """The archive of every file as of an LSN."""
    with Connection(cell, process, timeline, "compute-main") as connection:
        command = f"fullbackup {connection.tenant} {timeline} {at or ''}"
        connection.begin(command, pq.ExecStatus.COPY_OUT)
        return b"".join(connection.pieces())


def members(archive):
    """Name -> content of the files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


def read_wal(cell, timeline, start, end, process="safekeeper-1"):
    """WAL as a safekeeper sends it to a pageserver."""
    wal = bytearray()
    with Connection(cell, process, timeline, "pageserver-1", replication=True) as connection:
        command = f"START_REPLICATION PHYSICAL {lsn_text(start)}"
        connection.begin(command, pq.ExecStatus.COPY_BOTH)
        for piece in connection.pieces():
            if piece[:1] == b"w":
                [at] = struct.unpack(">Q", piece[1:9])
                assert at == start + len(wal), "a hole in the WAL"
                wal += piece[25:]
            if start + len(wal) >= end:
                return bytes(wal[: end - start])
    raise AssertionError("the stream ended early")


def timeline_of(cell, branch="main"):
    [timeline] = [b["timeline"] for b in cell.status()["branches"] if b["name"] == branch]
    return timeline


def lsn(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"
