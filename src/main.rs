//! The binary: everything is in [`ddpm_lab::cli`].

/// Keeps its pages between steps, where the system's allocator would return and fault them in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(ddpm_lab::cli::main());
}
