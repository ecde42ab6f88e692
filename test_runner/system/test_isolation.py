"""What a superuser of the database gets to see of the machine: programs, and nothing of others."""

import psycopg
import pytest


def of_program(cell, command):
    with cell.connect(autocommit=True) as connection:
        connection.execute("create temp table output (line text)")
        connection.execute(f"copy output from program $c${command}$c$")
        return [line for (line,) in connection.execute("select line from output")]


def test_a_superuser_sees_neither_files_nor_services_of_the_machine(cell):
    assert of_program(cell, "echo goes") == ["goes"]
    for path in (cell.directory, "/root", "/home", "/etc/hostname", "/var/lib"):
        with pytest.raises(psycopg.Error):
            of_program(cell, f"ls {path}")
    with pytest.raises(psycopg.Error):
        cell.sql(f"select pg_read_file('{cell.directory}/tokens/admin.jwt')")
    for name, process in cell.processes().items():
        connect = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{process['http']}'"
        with pytest.raises(psycopg.Error):
            of_program(cell, connect)
            pytest.fail(f"{name} can be reached")
