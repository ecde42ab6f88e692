#!/usr/bin/env python3
"""Stands in for each process of a local system: answers as the contract says, keeps nothing.

It is what its file is called. Files beside it change what it does: `<program>.dies` ends it.
"""

import json
import os
import ssl
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

PROGRAM = Path(sys.argv[0]).name
BESIDE = Path(sys.argv[0]).parent
CONFIG = tomllib.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
LSN = "0/16B3748"


def pageserver_status():
    return {
        "node": CONFIG["node_id"],
        "generation": 1,
        "last_record_lsn": LSN,
        "remote_consistent_lsn": LSN,
        "stopped": None,
    }


def safekeeper_status():
    lsns = {f"{name}_lsn": LSN for name in ("flush", "commit", "backup", "remote_consistent")}
    return {"node": CONFIG["node_id"], "term": 1} | lsns


class Http(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/ready":
            self.answer(200, b"ready\n")
        elif "/lsn_at?unix=" in self.path:
            unix = float(self.path.rsplit("=", 1)[1])
            relation = "past" if unix < 1_000_000_000 else "present"
            self.answer(200, {"lsn": "0/1600000", "relation": relation})
        elif PROGRAM == "safekeeper":
            self.answer(200, safekeeper_status())
        elif PROGRAM == "pageserver" and (BESIDE / "imported").exists():
            self.answer(200, pageserver_status())
        else:
            self.answer(404, {"error": "there is none", "grade": "fix_request"})

    def body(self):
        assert self.headers["authorization"].startswith("Bearer ")
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def do_PUT(self):
        members = self.body()["safekeepers"]["members"]
        assert len(members) == 3, members
        self.answer(200, pageserver_status())

    def do_POST(self):
        body = self.body()
        print("branch", json.dumps(body), flush=True)
        self.answer(
            200,
            {
                "tenant": "00" * 16,
                "timeline": body["timeline"],
                "pg_major": 15,
                "start_lsn": body["lsn"],
                "ancestor": {"timeline": body["parent"], "lsn": body["lsn"]},
                "safekeepers": body["safekeepers"],
                "wal_segment_bytes": 16777216,
            },
        )


class Postgres(BaseRequestHandler):
    """Asks for a SCRAM password, as a Postgres does that lets clients in."""

    def handle(self):
        self.request.recv(4096)
        body = b"\0\0\0\x0aSCRAM-SHA-256\0\0"
        self.request.sendall(b"R" + (len(body) + 4).to_bytes(4) + body)


class Tcp(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def address(text):
    host, port = text.split(":")
    return host, int(port)


def serve():
    listen = CONFIG["listen"]["addr"] if PROGRAM == "keymanager" else CONFIG["http"]
    server = ThreadingHTTPServer(address(listen), Http)
    identity = Path(CONFIG["identity"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=identity / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    if PROGRAM == "compute":
        threading.Thread(target=Tcp(address(CONFIG["listen"]), Postgres).serve_forever).start()
    print("serves", flush=True)
    server.serve_forever()


if (BESIDE / f"{PROGRAM}.dies").exists():
    sys.exit("the reason why it ends")
if sys.argv[1] == "create":
    password = Path(sys.argv[sys.argv.index("--password-file") + 1]).read_text()
    assert len(password) > 16
    print("created", flush=True)
    (BESIDE / "imported").touch()
else:
    assert PROGRAM != "compute" or sys.argv[1] == "run"
    serve()
