"""Extensions with index kinds of their own, whose WAL is generic records: their own tests pass on a
compute, and what the page server redoes of their pages is what PostgreSQL had."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from cell import PG_BIN, PROFILE, TARGET, TOP
from storage import PageStream, lsn, relation, timeline_of

EXTENSIONS = ["pgvector", "rum", "bloom"]

# Of each kind: the type of a column, a value of it made of the number g, the index, and a query.
VECTOR = "array[sin(g), cos(g * 7), sin(g * 13), cos(g * 29), sin(g * 31), g % 11]::vector"
NEAR = "order by v <-> '[0.5, 0.5, -0.5, 0, 0.3, 5]' limit 100"
WORDS = "'w3 & (w5 | w70)'::tsquery"
TEXT = "to_tsvector('simple', format('w%s w%s x%s %s', g % 7, g % 101, g, repeat('y ', g % 40)))"
KINDS = {
    "hnsw": ("vector(6)", VECTOR, "hnsw (v vector_l2_ops) with (m = 8)", NEAR),
    "ivfflat": (
        "halfvec(6)",
        f"{VECTOR}::halfvec",
        "ivfflat (v halfvec_l2_ops) with (lists = 20)",
        NEAR,
    ),
    "rum": (
        "tsvector",
        TEXT,
        "rum (v rum_tsvector_ops)",
        f"where v @@ {WORDS} order by v <=> {WORDS}, id",
    ),
    "rum_array": (
        "int[]",
        "array[g % 17, g % 503, -g]",
        "rum (v rum_anyarray_ops)",
        "where v @> '{3, 20}' order by id",
    ),
    "bloom": (
        "int",
        "g % 300",
        "bloom (v, id) with (length = 512)",
        "where v = 7 order by id",
    ),
}
# An index of this kind finds most of what is nearest, not all of it.
NEARLY = {"hnsw": 0.95}
# All lists are looked through, so that this kind finds all.
SETTINGS = "set hnsw.ef_search = 400; set ivfflat.probes = 20"
SCANS = ["indexscan", "bitmapscan", "indexonlyscan"]


@pytest.fixture(scope="module")
def built():
    """`root/usr`: what extensions install; `source/NAME`: their sources and tests."""
    script = TOP / "scripts" / "extensions"
    return Path(subprocess.check_output(script, text=True).strip())


@pytest.fixture(scope="module")
def cell(new_cell, built, tmp_path_factory):
    """A system whose computes find the extensions in `/usr`, as if they had been installed: the
    machine itself stays as it is."""
    programs, from_cargo = tmp_path_factory.mktemp("programs"), (TARGET / PROFILE).resolve()
    for name in ("keymanager", "safekeeper", "pageserver"):
        (programs / name).symlink_to(from_cargo / name)
    compute = programs / "compute"
    overlay = f"mount -t overlay overlay -o ro,lowerdir={built}/root/usr:/usr /usr"
    compute.write_text(
        "#!/bin/sh\n"
        f"exec unshare --mount sh -c '{overlay} && exec \"$@\"'"
        f" sh {from_cargo / 'compute'} \"$@\"\n"
    )
    compute.chmod(0o755)
    return new_cell(env={"REDOUBT_PROGRAMS": str(programs)})


@pytest.mark.parametrize("name", EXTENSIONS)
def test_their_own_tests_pass(cell, built, tmp_path, name):
    source = tmp_path / name
    shutil.copytree(built / "source" / name, source)
    url = conninfo_to_dict(cell.url())
    own = {f"PG{word.upper()}": url[word] for word in ("host", "port", "user", "password")}
    # Left out: those in Perl, which make clusters of their own, and those of isolation, of locks.
    left_out = ["TAP_TESTS=", "ISOLATION="]
    run = subprocess.run(
        ["make", "-s", "installcheck", "USE_PGXS=1", f"PG_CONFIG={PG_BIN}/pg_config", *left_out],
        cwd=source,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    differences = [path.read_text() for path in source.rglob("regression.diffs")]
    assert run.returncode == 0, "\n".join([run.stdout, *differences])
    assert "passed" in run.stdout, run.stdout


def test_their_pages_are_redone_and_their_indexes_come_back(cell):
    for extension in ("pageinspect", "pg_walinspect", "vector", "rum", "bloom"):
        cell.sql(f"create extension {extension}")
    for kind, (column, _, index, _) in KINDS.items():
        cell.sql(f"create table of_{kind} (id int, v {column}) with (autovacuum_enabled = off)")
        insert(cell, kind, 0, 1000)
        cell.sql(f"create index index_{kind} on of_{kind} using {index}")
        change(cell, kind, 1000)
    found = {}
    for kind in KINDS:
        assert_pages_are_those_of_postgres(cell, kind)
        found[kind] = assert_found(cell, kind)

    cell.kill("compute-main")
    cell.remove_compute()
    cell.start("compute-main")
    cell.until_answers(60)
    for kind in KINDS:
        assert by_index(cell, kind) == found[kind], kind
    for kind in KINDS:
        change(cell, kind, 3000)
        assert_pages_are_those_of_postgres(cell, kind)
        assert_found(cell, kind)


def insert(cell, kind, first, count):
    value = KINDS[kind][1]
    numbers = f"generate_series({first + 1}, {first + count}) g"
    cell.sql(f"insert into of_{kind} select g, {value} from {numbers}")


def change(cell, kind, first):
    """Changes that an index has WAL of: most of it are pieces of pages, which have to be redone."""
    begin = wal_end(cell)
    insert(cell, kind, first, 1000)
    cell.sql(f"delete from of_{kind} where id % 3 = 0")
    cell.sql(f"vacuum of_{kind}")
    insert(cell, kind, first + 1000, 1000)
    cell.sql(f"update of_{kind} set v = v where id % 7 = 0")
    _, database, file, _ = relation(cell, f"index_{kind}")
    [(redone,)] = cell.sql(
        f"select count(*) from pg_get_wal_records_info('{begin}', '{wal_end(cell)}')"
        " where resource_manager = 'Generic' and fpi_length = 0"
        f" and block_ref like '%rel 1663/{database}/{file} %'"
    )
    assert redone > 1000, f"{kind}: {redone} generic records without an image"


def assert_pages_are_those_of_postgres(cell, kind):
    """The page server's, made of WAL, and those that PostgreSQL itself changed, in its memory."""
    index = relation(cell, f"index_{kind}")
    with cell.connect(autocommit=True) as connection:
        ours = connection.execute(
            f"select get_raw_page('index_{kind}', block::int) from generate_series(0,"
            f" pg_relation_size('index_{kind}') / 8192 - 1) block order by block",
            binary=True,
        ).fetchall()
    at = lsn(wal_end(cell))
    with PageStream(cell, timeline_of(cell)) as stream:
        assert stream.blocks(index, at, at) == len(ours) > 10, kind
        pages = stream.pages(index, len(ours), at, at)
    different = [n for n, ((page,), redone) in enumerate(zip(ours, pages)) if page != redone]
    assert not different, f"{kind}: {len(different)} of {len(ours)} pages, {different[:20]}"


def assert_found(cell, kind):
    """The rows that the index finds, which are those that the table has."""
    index, table = by_index(cell, kind), rows(cell, kind, SCANS)
    if kind in NEARLY:
        assert len(set(index) & set(table)) >= NEARLY[kind] * len(table) > 50, kind
    else:
        assert index == table != [], kind
    return index


def by_index(cell, kind):
    return rows(cell, kind, ["seqscan"], uses=f"index_{kind}")


def rows(cell, kind, off, uses=""):
    query = f"select id from of_{kind} {KINDS[kind][3]}"
    with cell.connect(autocommit=True) as connection:
        connection.execute(SETTINGS)
        for scan in off:
            connection.execute(f"set enable_{scan} = off")
        plan = str(connection.execute(f"explain {query}").fetchall())
        assert (uses or "Seq Scan") in plan, plan
        return [row for (row,) in connection.execute(query)]


def wal_end(cell):
    [(end,)] = cell.sql("select pg_current_wal_flush_lsn()::text")
    return end
