//! The binary: everything is in [`ddpm_lab::cli`].

/// Keeps its pages between steps, where the system's allocator would return and fault them in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc.h, `mi_option_purge_delay`: milliseconds until free memory goes back to the system; negative: never.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() {
    // A step frees what the next one asks for: returned in between, its pages would be cleared anew, a tenth of the step.
    // SAFETY: sets an integer inside the allocator.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    std::process::exit(ddpm_lab::cli::main());
}
