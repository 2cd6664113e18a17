# Recipes of ddpm-lab. `./just` is the same as `just`, and fetches what is missing first.

set positional-arguments

# CUDA where a toolkit is found; `just cuda= sweep …` leaves it out, `--device cpu` computes on the CPU all the same.
cuda := `command -v nvcc >/dev/null 2>&1 && echo yes || true`
features := if cuda == "yes" { "--features cuda" } else { "" }
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")
lab := target / "debug/ddpm-lab"

_default:
    @{{just_executable()}} --justfile {{justfile()}} --list --unsorted

_tools:
    @[ -x .tools/bin/cmake ] || ./just --setup

# Build everything (once; the tests use the same build).
build: _tools
    cargo build {{features}} --locked

# Run an experiment file: just sweep experiments/beta_schedules.toml [KEY=VALUE…] [-j N]
sweep *args: _quiet_build
    @exec {{lab}} sweep "$@"

# Show what a file expands to, without running: just plan experiments/beta_schedules.toml
plan *args: _quiet_build
    @exec {{lab}} plan "$@"

# Draw the report of every sweep in the store, or of those named.
report *args: _quiet_build
    @exec {{lab}} report "$@"

# List the runs in the store.
ls *args: _quiet_build
    @exec {{lab}} ls "$@"

# Any other command: just lab show latest
lab *args: _quiet_build
    @exec {{lab}} "$@"

# Quiet once there is something to run; the first build says what it is doing.
_quiet_build: _tools
    @cargo build {{features}} --locked `[ -x {{lab}} ] && echo --quiet || true`

# All tests, with cargo-nextest where it is installed.
test *args: _tools
    #!/usr/bin/env bash
    set -euo pipefail
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked "$@"
    else
        cargo test --locked "$@"
    fi

# Kill a sweep so many times at random and compare every byte with one that nothing disturbed: just kill-test 200
kill-test kills="200" seed="1": _tools
    DDPM_LAB_KILLS={{kills}} DDPM_LAB_SEED={{seed}} cargo test --locked --test it -- --nocapture random_kills

# The CUDA tests, on a GPU: operations, losses, updates and whole runs against the CPU. `just test-cuda no` leaves cuDNN out.
test-cuda cudnn="yes": _tools
    #!/usr/bin/env bash
    set -euo pipefail
    features=$([ "$1" = no ] && echo cuda || echo cudnn)
    # One test at a time: each opens the GPU for itself.
    cargo test --locked --lib --features "$features" -- --include-ignored --test-threads 1 cuda
    cargo build --locked --features "$features"
    rm -rf target/test-cuda
    {{lab}} sweep experiments/smoke.toml --device cuda --results target/test-cuda
    {{lab}} sweep experiments/smoke.toml --device cuda --results target/test-cuda name=smoke_bf16 train.dtype=bf16
    {{lab}} sweep experiments/smoke.toml --device cuda --results target/test-cuda name=smoke_tf32 train.matmul_precision=tf32

# Formatting and lints, as a change must pass them.
check: _tools
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# How long the report of a hundred runs takes, and in how much memory.
bench-report: _quiet_build
    cargo test --locked --test it -- --ignored --exact --nocapture report_speed::the_report_of_a_hundred_runs

# Ten thousand finished runs, and the commands that look at a whole store, timed: just bench-store [--cells N]
bench-store *args: _quiet_build
    @python3 benches/ten_thousand_runs.py --lab {{lab}} "$@"

# Steps, predictions and sweeps against PyTorch, interleaved; makes .bench/ with torch and diffusers the first time.
bench-torch *args: _quiet_build
    @[ -x .bench/bin/python ] || (python3 -m venv .bench && .bench/bin/pip install --quiet torch diffusers numpy)
    @.bench/bin/python benches/against_torch.py --lab {{lab}} "$@"
