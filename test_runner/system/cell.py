"""One local system, driven by the command line as a user drives it."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg

TOP = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
PROFILE = os.environ.get("REDOUBT_TEST_PROFILE", "debug")
PG_BIN = Path("/usr/lib/postgresql/15/bin")
SAFEKEEPERS = ["safekeeper-1", "safekeeper-2", "safekeeper-3"]


class CommandFailed(AssertionError):
    """A command ended otherwise than the test needs; carries its whole output."""


class Cell:
    """A directory with everything of one system in it, on ports of its own."""

    def __init__(self, directory, port_offset, *up, env=None):
        self.directory = Path(directory)
        self.env = env or {}
        self.port_offset = port_offset
        self.up_arguments = [str(argument) for argument in up]

    # The command line.

    def redoubt(self, *arguments, check=True, timeout=300, env=None):
        command = [TARGET / PROFILE / "redoubt", *map(str, arguments)]
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"REDOUBT_HOME": str(self.directory)} | self.env | (env or {}),
        )
        if check and run.returncode != 0:
            raise CommandFailed(
                f"{' '.join(map(str, command))}: {run.returncode}\n{run.stdout}\n{run.stderr}"
                f"\n{self.ends_of_logs()}"
            )
        return run

    def up(self, timeout=300):
        offset = ["--port-offset", self.port_offset]
        return self.redoubt("dev", "up", *offset, *self.up_arguments, timeout=timeout)

    def down(self):
        return self.redoubt("dev", "down", check=False)

    def status(self):
        return json.loads(self.redoubt("dev", "status", "--json").stdout)

    def processes(self):
        """Name -> what `dev status` says of it."""
        return {process["name"]: process for process in self.status()["processes"]}

    def kill(self, name, kind="KILL"):
        self.redoubt("dev", "kill", name, "--signal", kind)

    def start(self, name):
        self.redoubt("dev", "start", name)

    def kill_everything(self):
        """kill -9 of every process that the cell has, all at once."""
        pids = [p["pid"] for p in self.processes().values() if p.get("pid")]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return pids

    def remove_compute(self, name="compute-main"):
        shutil.rmtree(self.directory / name)

    def http(self, method, port, path, body=None):
        """(status, JSON) of a request to a process, as the operator."""
        token = (self.directory / "tokens" / "admin.jwt").read_text().strip()
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=self.tls(), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def tls(self):
        operator = self.directory / "identity" / "operator"
        context = ssl.create_default_context(cafile=operator / "ca.pem")
        context.load_cert_chain(operator / "cert.pem", operator / "key.pem")
        return context

    def metrics(self, port):
        """The page of a process."""
        url = f"https://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, context=self.tls(), timeout=10) as answer:
            return answer.read().decode()

    # Postgres.

    def url(self, branch="main"):
        arguments = ["psql", "--print-url", "--branch", branch]
        return self.redoubt(*arguments).stdout.strip()

    def connect(self, branch="main", **options):
        return psycopg.connect(self.url(branch), connect_timeout=10, **options)

    def sql(self, statement, branch="main"):
        with self.connect(branch, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def until_answers(self, seconds, branch="main"):
        """How long it took until a query was answered."""
        start = time.monotonic()
        while True:
            try:
                self.sql("select 1", branch)
                return time.monotonic() - start
            except psycopg.Error as error:
                assert time.monotonic() - start < seconds, (
                    f"no answer within {seconds} s: {error}\n{self.ends_of_logs()}"
                )
                time.sleep(0.1)

    def pgbench(self, *arguments, check=True, timeout=300):
        command = [PG_BIN / "pgbench", *map(str, arguments), self.url()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if check and run.returncode != 0:
            raise CommandFailed(f"{run.stdout}\n{run.stderr}\n{self.ends_of_logs()}")
        return run

    # What lies on disks.

    def files(self):
        """Every file of every process; a compute's mount is in a namespace of its own."""
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path

    def find(self, needles):
        """(path, needle) of each file that holds one of the byte strings."""
        found = []
        for path in self.files():
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # a process was faster
            found += [(path, needle) for needle in needles if needle in content]
        return found

    def ends_of_logs(self, lines=15):
        parts = []
        for path in sorted((self.directory / "logs").glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"== {path.name}\n" + "\n".join(last))
        return "\n".join(parts)
