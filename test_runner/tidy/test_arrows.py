"""Who may depend on whom, read from `cargo metadata`."""

import checks


def test_processes_depend_on_libs_io_and_these_on_libs_core_never_back(graph):
    assert len(graph.ours("core")) >= 5 and len(graph.ours("process")) >= 5
    assert checks.arrows(graph) == []


def test_no_process_reaches_what_its_row_of_the_table_excludes(graph):
    assert checks.forbidden_links(graph) == []


def test_libs_core_reaches_no_crate_that_does_io(graph):
    assert checks.io_links(graph) == []


def test_only_sealed_depends_on_a_cipher(graph):
    assert checks.cipher_links(graph) == []


def test_there_is_one_tls_stack_with_one_provider(graph):
    unwanted = {"openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"}
    assert unwanted & set(graph.crates) == set()


def test_the_table_in_the_architecture_names_every_forbidden_link(tracked):
    rows = {
        line.split("|")[1].strip().strip("`"): line.split("|")[-2]
        for line in tracked["ARCHITECTURE.md"].splitlines()
        if line.startswith("| `")
    }
    for process, bans in checks.MUST_NOT_LINK.items():
        for banned in bans.keys() - {"object_store"}:
            assert f"`{banned}`" in rows[process], f"{process} must not link {banned}"
