"""The checks themselves: data in, list of complaints out, so that each can be shown to fail."""

import re
from dataclasses import dataclass
from pathlib import Path

# Which crates a process must not reach, by whatever way, and why (ARCHITECTURE.md, "Processes").
MUST_NOT_LINK = {
    "safekeeper": {"redo": "it keeps WAL and does not interpret it"},
    "pageserver": {"quorum": "it reads what was decided and decides nothing"},
    "keymanager": {"redo": "it sees no pages", "quorum": "it sees no WAL"},
    "controlplane": {"sealed": "it cannot decrypt", "keyring": "it holds no key"},
    "compute": {
        "redo": "pages are made by the page server",
        "store": "it has no bucket credentials",
        "object_store": "it has no bucket credentials",
    },
}
# The command line reaches these of our crates and no other.
CLI, CLI_LINKS = "redoubt", {"api", "sealed", "ids"}

# What a crate of libs/core may not reach: each of them is a way to the world.
IO_CRATES = {
    "tokio", "async-std", "smol", "mio", "socket2", "hyper", "reqwest", "axum", "rustls", "nix",
    "rocksdb", "librocksdb-sys", "object_store", "tempfile", "tracing-subscriber", "prometheus",
    "chrono", "time", "rand", "uuid",
}
IO_PATHS = re.compile(
    r"\bstd::(fs|net|process|env|thread|os)\b"
    r"|\bstd::time::(\{[^}]*)?(SystemTime|Instant)\b"
    r"|\b(SystemTime|Instant)::now\b"
    r"|\btokio::|\bgetrandom::|\bprintln!|\beprintln!"
)
CIPHER_PATHS = re.compile(
    r"\b(aes|aes_gcm|aes_gcm_siv|polyval|ghash|chacha20|chacha20poly1305|ring::aead)::"
)
CIPHER_FILE = "libs/core/sealed/src/cipher.rs"
CIPHER_CRATES = {"aes", "aes-gcm", "aes-gcm-siv", "polyval", "ghash", "chacha20poly1305"}

EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "shared", "lib_common"}
LINES_MAX = 1000


@dataclass(frozen=True)
class Crate:
    layer: str  # "core", "io", "process", "test" or "" for what is not ours
    normal: frozenset  # names of normal and build dependencies, as resolved
    dev: frozenset


class Graph:
    def __init__(self, crates):
        self.crates = crates

    @classmethod
    def of(cls, metadata, top):
        packages = {p["id"]: p for p in metadata["packages"]}
        ours = set(metadata["workspace_members"])
        crates = {}
        for node in metadata["resolve"]["nodes"]:
            package = packages[node["id"]]
            normal, dev = set(), set()
            for dependency in node["deps"]:
                name = packages[dependency["pkg"]]["name"]
                for kind in dependency["dep_kinds"]:
                    (dev if kind["kind"] == "dev" else normal).add(name)
            layer = layer_of(package, top) if node["id"] in ours else ""
            # Several versions of one crate count as one: a ban is a ban.
            before = crates.get(package["name"], Crate(layer, frozenset(), frozenset()))
            crates[package["name"]] = Crate(
                layer, before.normal | normal, before.dev | dev
            )
        return cls(crates)

    def ours(self, *layers):
        return sorted(n for n, c in self.crates.items() if c.layer and (not layers or c.layer in layers))

    def reach(self, name):
        """Every crate that `name` links, itself excluded."""
        seen, todo = set(), [name]
        while todo:
            for dependency in self.crates[todo.pop()].normal:
                if dependency not in seen:
                    seen.add(dependency)
                    todo.append(dependency)
        return seen


def layer_of(package, top):
    parts = Path(package["manifest_path"]).parent.relative_to(top).parts
    if parts[:2] == ("libs", "core"):
        return "core"
    if parts[:2] == ("libs", "io"):
        return "io"
    if parts[:1] == ("test_runner",):
        return "test"
    return "process"


def arrows(graph):
    """processes -> libs/io -> libs/core; tests obey too, and may use crates of test_runner."""
    allowed = {"process": {"io", "core"}, "io": {"io", "core"}, "core": {"core"}, "test": {"core"}}
    return [
        f"{name} ({crate.layer}) depends on {other} ({graph.crates[other].layer})"
        for name, crate in sorted(graph.crates.items())
        if crate.layer
        for other in sorted(crate.normal | crate.dev)
        if (layer := graph.crates[other].layer)
        and layer not in allowed[crate.layer]
        and not (layer == "test" and other not in crate.normal)
    ]


def forbidden_links(graph):
    found = []
    for process, bans in MUST_NOT_LINK.items():
        if process in graph.crates:
            reached = graph.reach(process)
            found += [f"{process} links {b}: {why}" for b, why in bans.items() if b in reached]
    if CLI in graph.crates:
        extra = (graph.reach(CLI) & set(graph.ours())) - CLI_LINKS
        found += [f"{CLI} links {name}: it may link {sorted(CLI_LINKS)}" for name in sorted(extra)]
    return found


def io_links(graph):
    return [
        f"libs/core crate {name} links {bad}"
        for name in graph.ours("core")
        for bad in sorted(graph.reach(name) & IO_CRATES)
    ]


def without_tests(text):
    """The part of a Rust file above its test module: STYLE puts tests at the bottom."""
    kept = []
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*#\[cfg\((all\()?test\b", line):
            break
        kept.append((number, re.sub(r"//.*", "", line)))
    return kept


def is_core_source(name):
    return re.match(r"libs/core/[^/]+/src/.*\.rs$", name) and not re.search(r"tests?(/|\.rs$)", name)


def io_paths(files):
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in files.items()
        if is_core_source(name)
        for number, line in without_tests(text)
        if IO_PATHS.search(line)
    ]


def unsafe_not_forbidden(files):
    return [
        name
        for name, text in files.items()
        if re.match(r"libs/core/[^/]+/src/lib\.rs$", name)
        and "#![forbid(unsafe_code)]" not in text
    ]


def cipher_paths(files):
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in files.items()
        if name.endswith(".rs") and name != CIPHER_FILE
        for number, line in without_tests(text)
        if CIPHER_PATHS.search(line)
    ]


def cipher_links(graph):
    return [
        f"{name} depends on {bad}"
        for name in graph.ours()
        if name != "sealed"
        for bad in sorted(graph.crates[name].normal & CIPHER_CRATES)
    ]


def empty_names(files):
    return [
        name
        for name in files
        if any(part.split(".")[0].lower() in EMPTY_NAMES for part in Path(name).parts)
    ]


def too_long(files):
    return [
        f"{name}: {len(text.splitlines())} lines"
        for name, text in files.items()
        if name.endswith((".rs", ".py", ".c", ".h", ".sh"))
        and len(text.splitlines()) > LINES_MAX
    ]


def foreign_places(files):
    """Paths and package hosts of one machine; Cargo.lock names the one public index."""
    patterns = [
        r"(?<![\w.${}-])/" + r"work/(main|shared|\.)",
        r"index" + r"-url",
        r"replace" + r"-with\s*=",
        r"/root/" + r"\.",
        r"https?://[^/\s]*(pypi|npmjs|deb\.debian)" + r"[^/\s]*",
    ]
    wanted = re.compile("|".join(patterns))
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if wanted.search(line)
    ]


def lock_sources(lock):
    public = 'source = "registry+https://github.com/rust-lang/crates.io-index"'
    return [line for line in lock.splitlines() if line.startswith("source = ") and line != public]


def snippets(markdown):
    """The code spans and the lines of fenced blocks of a page."""
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", markdown, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    lines = [line for block in fenced for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", rest)


def commands(markdown):
    """(program, words) for each `make` or `redoubt` command that a page shows."""
    found = set()
    for snippet in snippets(markdown):
        match = re.match(r"(?:[$#] )?(?:\S+/)?(make|redoubt)\b(.*)", snippet.strip())
        if match:
            program, rest = match.groups()
            words = []
            for word in rest.split():
                if not re.fullmatch(r"[a-z][a-z|-]*", word):
                    break
                words.append(word)
            for alternative in alternatives(words):
                found.add((program, alternative))
    return sorted(found)


def alternatives(words):
    """`sealed inspect|verify` shows two commands."""
    result = [()]
    for word in words:
        result = [done + (choice,) for done in result for choice in word.split("|")]
    return result


def make_targets(makefile):
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))


def long_targets(makefile):
    """Targets with more than three lines of work."""
    found = []
    for target, body in re.findall(r"^([a-z][a-z-]*):[^\n]*\n((?:\t[^\n]*\n)*)", makefile, re.M):
        if body.count("\n") > 3:
            found.append(target)
    return found


def broken_links(files):
    found = []
    for name, text in files.items():
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
                if re.match(r"[a-z]+:", target):
                    continue
                path = (Path(name).parent / target).as_posix()
                if not any(f == norm(path) or f.startswith(norm(path) + "/") for f in files):
                    found.append(f"{name}: {target}")
    return found


def norm(path):
    parts = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
