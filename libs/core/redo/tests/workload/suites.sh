#!/bin/bash
# Runs PostgreSQL's own suites against a running server, for the WAL that they make it write. Their
# verdicts do not count: a suite may be of another major version than the server.
# suites.sh SOURCES SUITE_BIN SERVER_BIN SOCKET
#   SOURCES     PostgreSQL's sources: src/test/{regress,isolation}, contrib
#   SUITE_BIN   the programs of the version that the sources are of
#   SERVER_BIN  those of the server's version; SOCKET the directory of its socket
set -uo pipefail
sources=$1 programs=$2 server=$3 socket=$4
pgxs=$programs/../lib/pgxs/src/test
mkdir -p suites/lib suites/out
for module in src/test/regress/regress contrib/spi/autoinc contrib/spi/refint; do
    gcc -O1 -w -shared -fPIC -I"$("$server/pg_config" --includedir-server)" \
        -o "suites/lib/${module##*/}.so" "$sources/$module.c" 2>>suites/build.log
done
# What pg_regress of another version would not set.
export PG_ABS_SRCDIR=$sources/src/test/regress PG_ABS_BUILDDIR=$PWD/suites/out
export PG_LIBDIR=$PWD/suites/lib PG_DLSUFFIX=.so
export PGISOLATIONTIMEOUT=20

# A suite may have tests of bugs that the server has, and that end it: it recovers first.
ready() {
    for ((second = 0; second < 600; second++)); do
        "$server/pg_isready" -q -h "$socket" && return
        sleep 1
    done
}

to=(--host="$socket" --user=postgres --bindir="$programs")
regress() {
    local input=$1
    shift
    ready
    timeout "${TIMEOUT:-900}" "$pgxs/regress/pg_regress" "${to[@]}" --dlpath=suites/lib \
        --inputdir="$input" --outputdir=suites/out "$@" >>suites/run.log 2>&1
}

regress "$sources/src/test/regress" --max-concurrent-tests=20 \
    --schedule="$sources/src/test/regress/parallel_schedule"
ready
# A step that another version refuses may leave its transaction open, and all others wait for it.
PGOPTIONS="-c idle_in_transaction_session_timeout=60s" \
    timeout "${TIMEOUT:-900}" "$pgxs/isolation/pg_isolation_regress" "${to[@]}" \
    --inputdir="$sources/src/test/isolation" --outputdir=suites/out \
    --schedule="$sources/src/test/isolation/isolation_schedule" >>suites/run.log 2>&1
for extension in bloom btree_gin btree_gist pg_trgm hstore ltree intarray; do
    at=$sources/contrib/$extension
    read -ra tests < <(awk '/^REGRESS *=/ { on = 1; sub(/.*=/, "") }
        on { more = /\\$/; sub(/\\$/, ""); printf "%s ", $0; if (!more) exit }
        END { print "" }' "$at/Makefile")
    regress "$at" --dbname="contrib_$extension" "${tests[@]}"
done
ready
grep -cE '^(ok|not ok|test | +[a-z_0-9]+ +\.\.\.)' suites/run.log
