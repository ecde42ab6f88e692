"""Each check is given something that it must complain about, and its harmless neighbour."""

import checks
from checks import Crate, Graph


def graph(**crates):
    """graph(pageserver=("process", ["quorum"])): name -> layer and normal dependencies."""
    made = {name: Crate(layer, frozenset(deps), frozenset()) for name, (layer, deps) in crates.items()}
    for crate in list(made.values()):
        for dependency in crate.normal:
            made.setdefault(dependency, Crate("", frozenset(), frozenset()))
    return Graph(made)


def test_an_arrow_back_and_an_arrow_between_processes():
    wrong = graph(
        sealed=("core", ["store"]),
        store=("io", []),
        compute=("process", ["safekeeper", "store"]),
        safekeeper=("process", []),
    )
    assert checks.arrows(wrong) == [
        "compute (process) depends on safekeeper (process)",
        "sealed (core) depends on store (io)",
    ]


def test_a_test_dependency_is_an_arrow_too():
    wrong = Graph(
        {
            "compute": Crate("process", frozenset(), frozenset(["safekeeper"])),
            "safekeeper": Crate("process", frozenset(), frozenset()),
        }
    )
    assert len(checks.arrows(wrong)) == 1


def test_stock_servers_belong_to_tests_alone():
    stock = Crate("test", frozenset(), frozenset())
    tested = Graph({"redo": Crate("core", frozenset(), frozenset(["stock"])), "stock": stock})
    assert checks.arrows(tested) == []
    linked = Graph({"redo": Crate("core", frozenset(["stock"]), frozenset()), "stock": stock})
    assert checks.arrows(linked) == ["redo (core) depends on stock (test)"]


def test_a_forbidden_link_through_a_third_crate():
    wrong = graph(
        pageserver=("process", ["service"]), service=("io", ["quorum"]), quorum=("core", [])
    )
    assert checks.forbidden_links(wrong) == [
        "pageserver links quorum: it reads what was decided and decides nothing"
    ]


def test_the_command_line_with_a_crate_too_many():
    wrong = graph(redoubt=("process", ["sealed", "keyring"]), sealed=("core", []), keyring=("io", []))
    assert len(checks.forbidden_links(wrong)) == 1


def test_a_core_crate_that_reaches_a_runtime():
    wrong = graph(pg=("core", ["bytes"]), bytes=("", ["tokio"]))
    assert checks.io_links(wrong) == ["libs/core crate pg links tokio"]


def test_a_cipher_outside_sealed():
    wrong = graph(store=("io", ["aes-gcm-siv"]), sealed=("core", ["aes-gcm-siv"]))
    assert checks.cipher_links(wrong) == ["store depends on aes-gcm-siv"]


def test_io_in_core_is_seen_and_tests_and_comments_are_not():
    core = "libs/core/pg/src/page.rs"
    for line in ["use std::fs;", "std::net::TcpStream", "let t = Instant::now();", "println!()"]:
        assert checks.io_paths({core: line}), line
    for line in ["// std::fs is not used", "use std::time::Duration;", "#[cfg(test)]\nuse std::fs;"]:
        assert not checks.io_paths({core: line}), line
    assert not checks.io_paths({"libs/io/store/src/lib.rs": "use std::fs;"})


def test_a_cipher_named_outside_its_file():
    line = "use aes_gcm_siv::Aes256GcmSiv;"
    assert checks.cipher_paths({"libs/core/sealed/src/object.rs": line})
    assert not checks.cipher_paths({checks.CIPHER_FILE: line})


def test_names_lengths_and_unsafe():
    assert checks.empty_names({"libs/io/utils/src/lib.rs": "", "pageserver/src/common.rs": ""})
    assert not checks.empty_names({"pageserver/src/read.rs": ""})
    assert checks.too_long({"a.rs": "x\n" * 1001})
    assert not checks.too_long({"a.rs": "x\n" * 1000})
    assert checks.unsafe_not_forbidden({"libs/core/pg/src/lib.rs": "//! pg"})


def test_places_of_one_machine():
    assert checks.foreign_places({"a.md": "see /" + "work/shared/x"})
    assert checks.foreign_places({"a.sh": "pip --index" + "-url x"})
    assert not checks.foreign_places({"a.md": "the pageserver/worker and network/shared"})
    assert checks.lock_sources('source = "registry+https://example.org/index"')


def test_commands_are_found_in_spans_and_blocks():
    page = "Run `make test`.\n\n```console\n# redoubt sealed inspect FILE\n$ make run\n```\n`redoubt a|b X`\n"
    assert checks.commands(page) == [
        ("make", ("run",)),
        ("make", ("test",)),
        ("redoubt", ("a",)),
        ("redoubt", ("b",)),
        ("redoubt", ("sealed", "inspect")),
    ]


def test_targets_and_links():
    assert checks.long_targets("a: b\n\t1\n\t2\n\t3\n\t4\nb:\n\t1\n") == ["a"]
    assert checks.make_targets("a: b\n\tx\nB := 1\n") == {"a"}
    files = {"docs/x.md": "[a](../README.md) [b](gone.md) [c](https://example.org)", "README.md": ""}
    assert checks.broken_links(files) == ["docs/x.md: gone.md"]
