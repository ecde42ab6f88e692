"""Revocation: what DESIGN.md promises, with default timings once and with fast ones often."""

import json
import time

import psycopg
import pytest


@pytest.fixture(scope="module")
def fast(new_cell):
    return new_cell("--fast-keys")


def drill(cell, *arguments, timeout=400):
    report = cell.directory / "drill"
    run = cell.redoubt(
        "drill", "revoke", "--report", report, *arguments, check=False, timeout=timeout
    )
    assert run.returncode == 0, run.stdout + run.stderr + cell.ends_of_logs()
    return json.loads((report / "report.json").read_text()), (report / "report.md").read_text()


def test_with_default_timings(cell):
    report, markdown = drill(cell)
    assert report["passed"] is True
    assert "58R01" in markdown


@pytest.mark.parametrize("turn", range(5))
def test_with_fast_timings(fast, turn):
    report, _ = drill(fast)
    assert report["passed"] is True, report


def key_file(cell, **changes):
    cell.redoubt("dev", "key", *[f"--{name}={value}" for name, value in changes.items()])


@pytest.mark.parametrize("fault", ["error", "timeout"])
def test_a_kms_that_cannot_be_asked_is_no_revocation(fast, fault):
    fast.sql("create table if not exists goes_on (n int)")
    key_file(fast, fault=fault)
    try:
        # Longer than the fast lease: what lives on, lives on renewals while unverified.
        end = time.monotonic() + 8
        while time.monotonic() < end:
            fast.sql("insert into goes_on values (1)")
            time.sleep(0.25)
    finally:
        key_file(fast, fault="none")
    fast.sql("select count(*) from goes_on")


def gone_within(cell, seconds):
    start = time.monotonic()
    while True:
        try:
            cell.sql("select 1")
        except psycopg.Error as error:
            return time.monotonic() - start, str(error)
        assert time.monotonic() - start < seconds, "still answering"
        time.sleep(0.1)


def test_a_stopped_agent_loses_its_postgres(fast):
    fast.until_answers(30)
    with fast.connect(autocommit=True) as connection:
        connection.execute("select 1")
        fast.kill("compute-main", "STOP")
        key_file(fast, state="disabled")
        try:
            fast_lease_seconds = 30
            deadline = time.monotonic() + fast_lease_seconds
            while fast.redoubt("dev", "postgres", "--running", check=False).returncode == 0:
                assert time.monotonic() < deadline, "Postgres outlived the lease of its agent"
                time.sleep(0.2)
        finally:
            key_file(fast, state="enabled")
            fast.kill("compute-main", "CONT")
    fast.until_answers(60)


def test_a_dead_keymanager_closes_everything_and_its_return_opens_it(fast):
    fast.until_answers(30)
    fast.kill("keymanager-1")
    _, error = gone_within(fast, 60)
    assert "58R0" in error or "key" in error or "closed" in error, error
    fast.start("keymanager-1")
    fast.until_answers(60)
