"""Indexes that are no B-trees answer as their tables do, after a start from storage alone."""

KINDS = {
    "hash": ("n int", "g % 500", "n = 7"),
    "gin": ("n int[]", "array[g % 5, 1000 + g]", "n @> array[3]"),
}


def found(cell, kind, condition):
    """The rows that the index finds, and those that the table has."""

    def rows(*scans_off):
        with cell.connect("main", autocommit=True) as connection:
            for scan in scans_off:
                connection.execute(f"set enable_{scan} = off")
            return connection.execute(f"select count(*) from of_{kind} where {condition}").fetchone()

    return rows("seqscan"), rows("indexscan", "bitmapscan")


def test_indexes_of_all_kinds_come_back(cell):
    for kind, (column, value, _) in KINDS.items():
        cell.sql(f"create table of_{kind} ({column})")
        cell.sql(f"create index on of_{kind} using {kind} (n)")
        for _ in range(2):
            cell.sql(f"insert into of_{kind} select {value} from generate_series(1, 10000) g")
            cell.sql(f"delete from of_{kind} where ctid::text like '%3)'")
            cell.sql(f"vacuum of_{kind}")
    cell.kill_everything()
    cell.remove_compute()
    cell.up()
    cell.until_answers(60)
    for kind, (_, value, condition) in KINDS.items():
        by_index, by_table = found(cell, kind, condition)
        assert by_index == by_table != (0,), kind
        cell.sql(f"insert into of_{kind} select {value} from generate_series(1, 2000) g")
        by_index, by_table = found(cell, kind, condition)
        assert by_index == by_table, kind
