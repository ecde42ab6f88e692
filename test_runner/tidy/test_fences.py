"""What the text of the sources must not contain."""

import checks


def test_libs_core_names_no_disk_network_clock_or_process(tracked):
    assert checks.io_paths(tracked) == []


def test_every_crate_of_libs_core_forbids_unsafe_code(tracked):
    assert checks.unsafe_not_forbidden(tracked) == []


def test_one_file_names_a_cipher(tracked):
    assert checks.cipher_paths(tracked) == []


def test_no_file_or_folder_has_a_name_that_says_nothing(tracked):
    assert checks.empty_names(tracked) == []


def test_no_source_file_is_longer_than_a_thousand_lines(tracked):
    assert checks.too_long(tracked) == []


def test_no_file_names_a_place_of_one_machine(tracked):
    assert checks.foreign_places(tracked) == []


def test_every_locked_crate_comes_from_the_public_index(tracked):
    assert checks.lock_sources(tracked["Cargo.lock"]) == []
