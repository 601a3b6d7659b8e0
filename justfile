# `just` lists what there is.
default:
    @just --list

# What CI runs; needs no `just` itself.
ci:
    bash .ci/run

# The tests.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The tests of hostile peers in their long form, which waits for what takes minutes.
hostile-long *ARGS:
    DAGMESH_LONG=1 cargo test --package dagmesh-tests --test hostile {{ARGS}}

# Groups in the simulator: so many seeds of small wild ones, then the table of models (`just sim 1000 --nodes 10,100`).
sim SEEDS="20000" *ARGS:
    cargo run --release --package dagmesh-sim -- sweep --seeds {{SEEDS}}
    cargo run --release --package dagmesh-sim -- table --csv target/sim.csv {{ARGS}}

# The tests of groups in their long form: cut off for 30 s, idle for minutes.
groups-long *ARGS:
    DAGMESH_LONG=1 cargo test --package dagmesh-tests --test mesh groups:: {{ARGS}}

# Records in their long form: 50 real nodes, then the table of docs/records.md with up to 1,000 peers.
records *ARGS:
    DAGMESH_LONG=1 cargo test --package dagmesh-tests --test mesh many::read
    cargo run --release --package dagmesh-benches -- records {{ARGS}}

# Our daemon beside peers that others wrote; needs Go (go-libp2p, go-libipni, Kubo) and npm (js-libp2p).
interop *ARGS:
    DAGMESH_INTEROP=1 cargo test --workspace --test interop {{ARGS}}

# Kills daemons at random moments, CYCLES times, and a sync of 1 GiB now and then (`DAGMESH_TEST_SEED=N` repeats a run).
crash CYCLES="200":
    DAGMESH_CRASH_CYCLES={{CYCLES}} DAGMESH_CRASH_MIB=1024 \
        cargo test --package dagmesh-tests --test mesh -- --nocapture --test-threads=1 crash::

# A real mesh on loopback: publish a folder, follow it, change it, sync the change.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# One measurement, beside its ceiling (`just bench ceilings`, `just bench all --json`).
bench NAME *ARGS:
    cargo run --release --package dagmesh-benches -- {{NAME}} {{ARGS}}

# Fuzzes one target, or all: `just fuzz car 600`; `fuzz/run list` names them.
fuzz TARGET="" SECONDS="60":
    fuzz/run {{SECONDS}} {{TARGET}}

# Formats everything.
fmt:
    cargo fmt --all

# Every lint, as an error.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The API documentation.
docs $RUSTDOCFLAGS="-D warnings":
    cargo doc --workspace --no-deps

# The same, opened in a browser.
doc-open:
    cargo doc --workspace --no-deps --open

# Advisories, licences, bans and sources of the dependencies; needs cargo-deny.
deny:
    cargo deny --workspace check

# The container image.
image TAG="dagmesh":
    docker build --tag {{TAG}} .
