"""What the checks look at: the tracked files, the dependency graph, the built command line."""

import json
import subprocess
from pathlib import Path

import pytest

from checks import Graph

TOP = Path(__file__).resolve().parents[2]


def output(*command):
    return subprocess.run(
        command, cwd=TOP, check=True, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ).stdout


@pytest.fixture(scope="session")
def top():
    return TOP


@pytest.fixture(scope="session")
def tracked():
    """Path (relative) -> text of every tracked text file that exists."""
    files = {}
    for name in output("git", "ls-files", "-z").split("\0"):
        path = TOP / name
        if not name or not path.is_file():
            continue
        try:
            files[name] = path.read_text()
        except UnicodeDecodeError:
            continue
    return files


@pytest.fixture(scope="session")
def metadata():
    return json.loads(output("cargo", "metadata", "--format-version", "1", "--locked"))


@pytest.fixture(scope="session")
def graph(metadata):
    return Graph.of(metadata, TOP)


@pytest.fixture(scope="session")
def redoubt(metadata):
    binary = Path(metadata["target_directory"]) / "debug" / "redoubt"
    assert binary.exists(), "build it first: cargo build --package redoubt"
    return binary
