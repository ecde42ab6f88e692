"""What a thief of every disk finds: no row, no name of a table or of a column."""

import psycopg
import pytest

MARKER = "quetzalcoatlus-northropi"
NEEDLES = [
    text.encode() for text in (MARKER, "plesiosaur_sightings", "hadrosaur_weight", "ichthyosaur_typo")
]


@pytest.fixture(scope="module")
def written(cell):
    cell.sql("create table plesiosaur_sightings (hadrosaur_weight int, seen text)")
    cell.sql(
        f"insert into plesiosaur_sightings select g, '{MARKER}-' || g from generate_series(1, 1000) g"
    )
    # What Postgres would like to log: a statement that fails, with text of the user in it.
    for statement in (
        f"select ichthyosaur_typo from plesiosaur_sightings where seen = '{MARKER}'",
        f"insert into plesiosaur_sightings values ('{MARKER}', 'x')",
        f"do $$ begin raise warning '{MARKER}'; end $$",
    ):
        with pytest.raises(psycopg.Error) if "raise" not in statement else no_error():
            cell.sql(statement)
    cell.sql("checkpoint")
    cell.redoubt("dev", "flush")
    return cell


class no_error:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_no_file_holds_the_marker(written):
    files = list(written.files())
    assert any("layers" in str(path) for path in files), "no layer has reached the bucket"
    assert any("safekeeper" in str(path) and "wal" in str(path) for path in files)
    assert written.find(NEEDLES) == []


def test_the_same_search_finds_them_where_nothing_is_sealed(written, tmp_path):
    """The search is one that can find: over a plain copy of the same tables it hits."""
    plain = written.directory / "plain-copy"
    with written.connect(autocommit=True) as connection:
        with connection.cursor().copy("copy plesiosaur_sightings to stdout") as copy:
            plain.write_bytes(b"".join(bytes(part) for part in copy))
    try:
        assert (plain, NEEDLES[0]) in written.find(NEEDLES)
    finally:
        plain.unlink()
