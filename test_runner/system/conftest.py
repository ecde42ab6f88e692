"""A system for each module, with ports of its own; it is taken down and removed at the end."""

import os
import random
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from cell import Cell

def free_offset():
    """Far from the default ports, so that a developer's own system goes on beside the tests. Above
    the offsets that would move a port to 5432, and below those that would move one to where the
    kernel takes ports for connections, from 32768 on: a process could not have it again. In steps
    of 100, which leaves room for what a test starts beside it."""
    while True:
        offset = random.randrange(15000, 22800, 100)
        if all(is_free(port + offset) for port in (5454, 5455, 5456, 7676, 7800, 9898)):
            return offset


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@pytest.fixture(scope="module")
def new_cell():
    """Makes systems: `new_cell(*arguments of dev up)`; `env` is what its commands find set."""
    if os.getuid() != 0:
        pytest.fail("these tests mount an encrypted disk: run them as root")
    made = []

    def make(*arguments, up=True, env=None):
        directory = Path(tempfile.mkdtemp(prefix="redoubt-cell-"))
        directory.chmod(0o755)
        cell = Cell(directory / "home", free_offset(), *arguments, env=env)
        made.append((directory, cell))
        if up:
            cell.up()
        return cell

    yield make
    for directory, cell in made:
        cell.down()
        if "REDOUBT_TEST_KEEP" not in os.environ:
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def cell(new_cell):
    return new_cell()
