"""C1: a start of a compute that was replaced takes nothing back from the one that replaced it."""

import os
import subprocess

from cell import PROFILE, TARGET


def test_an_earlier_start_of_a_compute_gets_no_vote_and_ends(cell):
    cell.sql("create table t as select 1 as n")
    config = cell.directory / "config/compute-main.toml"
    earlier = cell.directory / "earlier.toml"
    earlier.write_text(config.read_text())
    cell.kill("compute-main")
    cell.start("compute-main")
    assert epoch(config) == epoch(earlier) + 1
    # Its term would be the higher one.
    cell.kill("compute-main")
    run = subprocess.run(
        [TARGET / PROFILE / "compute", "run", "--config", earlier],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"REDOUBT_HOME": str(cell.directory)},
    )
    assert run.returncode == 6, run.stdout + run.stderr
    assert "another start of this compute has overtaken it" in run.stdout + run.stderr
    cell.start("compute-main")
    cell.until_answers(60)
    assert cell.sql("select n from t") == [(1,)]


def epoch(config):
    [line] = [line for line in config.read_text().splitlines() if line.startswith("endpoint_epoch")]
    return int(line.split("=")[1])
