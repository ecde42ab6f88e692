"""Whoever can write to the bucket can make reads fail, and not make them wrong."""

import json
import os
import shutil
import time
import tomllib

import psycopg
import pytest

import storage

ROWS = 1000
TABLES = 3
DAMAGED, NOT_NOW = "58R03", "58030"
# The last byte of a header, one of the middle, the last of the file, where the index ends.
MIDDLE = 0.5
PLACES = [511, MIDDLE, -1]


class Stored:
    """Tables of which each lies in a layer of its own, and their pages as they were read when
    nothing was damaged."""

    def __init__(self, cell):
        self.cell = cell
        self.timeline = storage.timeline_of(cell)
        self.home = cell.directory / "bucket/cells/dev/tenants" / cell.status()["tenant"]
        self.home = self.home / "timelines" / self.timeline
        self.path = f"/v1/tenants/{cell.status()['tenant']}/timelines/{self.timeline}"
        self.http = cell.processes()["pageserver-1"]["http"]
        # (table or catalog, LSN) -> pages
        self.pages, self.layer_of, self.relations = {}, {}, {}
        self.whole = {}
        self.write()
        assert self.read() == [], "the reads before any damage"

    def write(self):
        # The images that the first layers end in: what comes now is read from deltas above them.
        self.relations["pg_class"] = storage.relation(self.cell, "pg_class")
        for number in range(4):
            self.filled(f"before_the_images_{number}")
            self.flush()
        until(lambda: any(is_image(layer) for layer in self.layers()))
        for number in range(TABLES):
            table = f"table_{number}"
            before = set(self.layers())
            self.filled(table)
            at = self.flush()
            [self.layer_of[table]] = [n for n in set(self.layers()) - before if ends(n) >= at]
            self.keep(table, at)
            self.keep("pg_class", at)
        self.cell.sql("update table_0 set t = t || 'changed'")
        self.keep("table_0", self.flush())

    def filled(self, table):
        # Incompressible, so that the middle of its layer is the middle of its rows.
        rows = f"select g as n, {' || '.join(f'md5((g * {k})::text)' for k in range(1, 7))} as t"
        self.cell.sql(f"create table {table} as {rows} from generate_series(1, {ROWS}) g")
        self.relations[table] = storage.relation(self.cell, table)

    def flush(self):
        """Brings all of it into the bucket; answers up to where."""
        [(end,)] = self.cell.sql("select pg_current_wal_flush_lsn()::text")
        until(lambda: storage.lsn(self.status()["last_record_lsn"]) >= storage.lsn(end))
        code, status = self.cell.http("POST", self.http, f"{self.path}/flush")
        assert code == 200, status
        assert storage.lsn(status["remote_consistent_lsn"]) >= storage.lsn(end)
        return storage.lsn(end)

    def something_new(self):
        """A commit that is taken in and brought into the bucket."""
        self.cell.sql("create table if not exists something_new (n int)")
        self.cell.sql("insert into something_new values (1)")
        self.flush()

    def status(self):
        code, status = self.cell.http("GET", self.http, self.path)
        assert code == 200, status
        return status

    def keep(self, table, at):
        with storage.PageStream(self.cell, self.timeline) as stream:
            blocks = stream.blocks(self.relations[table], at, at)
            pages = stream.pages(self.relations[table], blocks, at, at)
        assert len(pages) > 10 and not any(isinstance(page, storage.Refused) for page in pages)
        self.pages[table, at] = pages

    def read(self):
        """Reads every page that was kept, and answers the errors by table. There are no wrong
        pages."""
        errors = []
        for (table, at), pages in self.pages.items():
            relation = self.relations[table]
            with storage.PageStream(self.cell, self.timeline) as stream:
                try:
                    assert stream.blocks(relation, at, at) == len(pages)
                except storage.Refused as error:
                    errors.append((table, error))
                found = stream.pages(relation, len(pages), at, at)
            for block, (page, kept) in enumerate(zip(found, pages, strict=True)):
                if isinstance(page, storage.Refused):
                    errors.append((table, page))
                else:
                    assert page == kept, f"page {block} of {table} at {at:X} is wrong"
        for _, error in errors:
            # An open layer that became shorter: whether it is the way to the bucket that cuts off
            # answers cannot be told, and the next who opens it sees the damage.
            cut_off = error.sqlstate == NOT_NOW and "bytes came of" in str(error)
            assert error.sqlstate == DAMAGED or cut_off, error
        return [(table, str(error)) for table, error in errors]

    # The bucket, the cache, and the process in between.

    def layers(self):
        return sorted(path.name for path in (self.home / "layers").iterdir())

    def manifests(self):
        """The newest first."""
        return sorted(self.home.glob("manifest-*"))

    def stop(self):
        if self.cell.processes()["pageserver-1"]["state"] == "running":
            self.cell.kill("pageserver-1")

    def start(self):
        self.cell.start("pageserver-1")
        self.until_up()

    def until_up(self):
        until(lambda: self.cell.http("GET", self.http, self.path)[0] == 200)

    def told(self):
        """What the pageserver says of the timeline, or why it says nothing."""
        try:
            return json.dumps(self.cell.http("GET", self.http, self.path)[1])
        except OSError:
            return ""

    def attach(self):
        compute = (self.cell.directory / "config" / "compute-main.toml").read_text()
        body = {"safekeepers": tomllib.loads(compute)["safekeepers"]}
        code, attached = self.cell.http("PUT", self.http, self.path, body)
        assert code == 200, attached

    def object(self, layer):
        return self.home / "layers" / layer

    def change(self, path, content):
        """Damages an object; the first content of it is kept."""
        self.whole.setdefault(path, path.read_bytes())
        # Never in place: other names may be links to it.
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    def mend(self):
        for path, content in self.whole.items():
            path.write_bytes(content)
        self.whole = {}

    def copies(self):
        """What the pageserver keeps of layers beside the bucket."""
        layers = self.cell.directory / "pageserver-1" / "layers"
        return [path for path in layers.rglob("*") if path.is_file()]

    def wipe_cache(self):
        for path in self.copies():
            # In place first: a pageserver that has it open does not keep it either.
            os.truncate(path, 0)
            path.unlink()

    def damaged(self, up, damage):
        """Damages the bucket while the pageserver is down, or up with no page read yet; either
        way the copies that it keeps of layers are gone."""
        self.stop()
        self.wipe_cache()
        if up:
            self.start()
            self.something_new()
        damage()
        self.wipe_cache()
        if not up:
            self.start()


def is_image(layer):
    first, _, last = layer.split("__")[1].partition("-")
    return first == last.split("-")[0]


def ends(layer):
    return int(layer.split("__")[1].split("-")[1], 16)


def until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stored(cell):
    return Stored(cell)


@pytest.fixture(autouse=True)
def mended(stored):
    yield
    stored.stop()
    stored.mend()


either_way = pytest.mark.parametrize("up", [False, True], ids=["down", "up"])


def named(errors, layer, reason):
    """Each error names the object and the reason, and there is one at least."""
    assert errors
    for _, error in errors:
        assert f"layers/{layer}" in error, error
        assert reason in error, error
    return {table for table, _ in errors}


@either_way
def test_a_layer_that_is_gone_is_named(stored, up):
    layer = stored.layer_of["table_1"]
    stored.damaged(up, lambda: stored.change(stored.object(layer), None))
    assert "table_1" in named(stored.read(), layer, "there is no object")


@either_way
@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_byte_is_named(stored, up, place):
    layer = stored.layer_of["table_1"]
    path = stored.object(layer)
    stored.damaged(up, lambda: stored.change(path, flipped(path, place)))
    errors = stored.read()
    if up and place != MIDDLE and not errors:
        # Header and index were proven when the layer was opened, and are not read again.
        stored.stop()
        stored.wipe_cache()
        stored.start()
        errors = stored.read()
    assert "table_1" in named(errors, layer, "")


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    return content


@either_way
def test_layers_that_changed_places_are_named(stored, up):
    one, other = stored.layer_of["table_1"], stored.layer_of["table_2"]
    stored.damaged(up, lambda: swap(stored, stored.object(one), stored.object(other)))
    errors = stored.read()
    of_one = [error for error in errors if one in error[1]]
    of_other = [error for error in errors if other in error[1]]
    assert len(of_one) + len(of_other) == len(errors)
    if up:
        # One that is open is read by chunks: they are those of another file, or are not there.
        assert errors
        return
    assert "table_1" in named(of_one, one, "its name differs")
    assert "table_2" in named(of_other, other, "its name differs")


def swap(stored, one, other):
    contents = one.read_bytes(), other.read_bytes()
    stored.change(one, contents[1])
    stored.change(other, contents[0])


def test_each_layer_may_be_gone(stored):
    """Whichever it is: no read is wrong. The images and the first layer are among them."""
    met = set()
    for layer in stored.layers():
        stored.damaged(False, lambda layer=layer: stored.change(stored.object(layer), None))
        if errors := stored.read():
            named(errors, layer, "there is no object")
            met.add(layer)
        stored.mend()
    assert met >= set(stored.layer_of.values())
    assert any(is_image(layer) for layer in met)


def test_an_older_manifest_in_the_place_of_the_newest_is_named(stored):
    stored.stop()
    newest, older, *_ = stored.manifests()
    stored.change(newest, older.read_bytes())
    stored.wipe_cache()
    refused(stored, newest, "its name differs")
    # It heals by itself, without a restart.
    stored.mend()
    stored.until_up()
    assert stored.read() == []


def test_a_bucket_set_back_to_an_older_manifest_is_refused(stored):
    """D3: the pageserver remembers what was accepted."""
    stored.stop()
    newest, older, *_ = stored.manifests()
    stored.change(newest, None)
    stored.wipe_cache()
    refused(stored, older, "was accepted: it is gone")
    stored.mend()
    stored.until_up()
    assert stored.read() == []


def refused(stored, manifest, reason):
    """The pageserver starts, and says of the timeline why it is not served, to whomever asks."""
    stored.cell.redoubt("dev", "start", "pageserver-1", check=False)
    until(lambda: manifest.name in stored.told())
    assert reason in stored.told()
    with pytest.raises(storage.Refused) as refusal:
        storage.PageStream(stored.cell, stored.timeline)
    assert refusal.value.sqlstate == DAMAGED
    assert manifest.name in str(refusal.value) and reason in str(refusal.value)


@pytest.mark.parametrize("gone", [False, True], ids=["replaced", "gone"])
def test_an_older_manifest_under_a_running_pageserver_changes_nothing(stored, gone):
    stored.start()
    newest, older, *_ = stored.manifests()
    stored.change(newest, None if gone else older.read_bytes())
    stored.wipe_cache()
    assert stored.read() == []
    # The next manifest is a whole one, and a restart begins from it.
    stored.something_new()
    stored.stop()
    stored.start()
    assert stored.read() == []


def test_where_nobody_remembers_the_newest_manifest_the_wal_is_ingested_again(stored):
    """What the older manifest does not name is still kept by the safekeepers (D2)."""
    stored.stop()
    for newest in stored.manifests()[:2]:
        newest.unlink()
    shutil.rmtree(stored.cell.directory / "pageserver-1")
    stored.cell.start("pageserver-1")
    stored.attach()
    assert stored.read() == []


def test_a_damaged_local_copy_is_replaced(stored):
    stored.start()
    assert stored.read() == []
    stored.stop()
    assert {path.name for path in stored.copies()} >= set(stored.layer_of.values())
    for path in stored.copies():
        path.write_bytes(flipped(path, MIDDLE))
    stored.start()
    assert stored.read() == []
    log = (stored.cell.directory / "logs" / "pageserver-1.log").read_text()
    assert "the local copy of a layer is damaged: removed" in log


def test_a_compute_says_what_is_damaged_and_nothing_is_lost(stored):
    cell, layer = stored.cell, stored.layer_of["table_1"]
    stored.damaged(False, lambda: stored.change(stored.object(layer), None))
    cell.kill("compute-main")
    cell.remove_compute()
    log = cell.directory / "logs" / "compute-main.log"
    before = len(log.read_text())
    assert cell.redoubt("dev", "start", "compute-main", check=False).returncode != 0
    told = log.read_text()[before:]
    assert layer in told and "there is no object" in told, cell.ends_of_logs()
    with pytest.raises(psycopg.Error):
        cell.sql("select 1")
    stored.mend()
    cell.redoubt("dev", "start", "compute-main", check=False)
    cell.until_answers(60)
    for table in stored.layer_of:
        assert cell.sql(f"select count(*), sum(n) from {table}") == [(ROWS, ROWS * (ROWS + 1) // 2)]
