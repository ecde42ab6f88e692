"""What README and docs promise exists."""

import subprocess

import checks
import pytest


def pages(tracked):
    return {
        name: text
        for name, text in tracked.items()
        if name.endswith(".md") and ("/" not in name or name.startswith(("docs/", "test_runner/")))
    }


def test_every_make_command_shown_is_a_target(tracked):
    targets = checks.make_targets(tracked["Makefile"])
    shown = {
        (name, words[0])
        for name, text in pages(tracked).items()
        for program, words in checks.commands(text)
        if program == "make" and words
    }
    assert shown, "README shows no make command"
    assert [s for s in shown if s[1] not in targets] == []


def test_every_redoubt_command_shown_answers_help(tracked, redoubt):
    shown = {
        (name, words)
        for name, text in pages(tracked).items()
        for program, words in checks.commands(text)
        if program == "redoubt"
    }
    assert shown, "README shows no redoubt command"
    unknown = [
        (name, " ".join(words))
        for name, words in sorted(shown)
        if subprocess.run([redoubt, *words, "--help"], capture_output=True).returncode != 0
    ]
    assert unknown == []


def test_no_target_has_more_than_three_lines(tracked):
    assert checks.long_targets(tracked["Makefile"]) == []


def test_every_link_between_pages_leads_somewhere(tracked):
    assert checks.broken_links(tracked) == []


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"]
)
def test_the_pages_that_a_visitor_looks_for_exist(tracked, page):
    assert tracked[page].strip()
