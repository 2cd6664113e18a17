//! Hot loops at the processor's full width: a portable binary that uses AVX2 or AVX-512 where it finds them.
//!
//! Start at [`dispatch`]. Loops keep a fixed number of lanes and fuse only where they say so, so the instruction set
//! changes their speed and not their bits.

/// Runs `f`, compiled for the best instruction set of this processor.
///
/// `f` must be `#[inline(always)]`, and so must be what it calls: only what is inlined here is compiled that way. The
/// bound is `FnMut` because calling a closure by value goes through a shim that the compiler does not inline.
#[inline(always)]
pub fn dispatch<R>(f: impl FnMut() -> R) -> R {
    pulp::Arch::new().dispatch(Call(f))
}

struct Call<F>(F);

impl<R, F: FnMut() -> R> pulp::NullaryFnOnce for Call<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        (self.0)()
    }
}
