//! Runs the kernels on the host, for tests: their texts, compiled as C++ against a few dozen lines that stand in for CUDA.

use super::launch::{Arg, Grid};
use super::source::{self, MODULES, UNITS};
use candle_core::{Result, bail};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// The device that the CPU stands in for on this thread; each [`standing_in`] has its own.
type Stand = Option<&'static AtomicBool>;

thread_local!(static STAND: Cell<Stand> = const { Cell::new(None) });

/// Whether this thread's CPU tensors go through the operations for CUDA.
pub fn stands_in() -> bool {
    STAND.get().is_some()
}

/// Where this thread stands, for [`stand_there`].
pub fn stand() -> Stand {
    STAND.get()
}

/// Where a device would record, one that is stood in for is out of bounds for a while.
pub fn as_if_recording() {
    if let Some(recording) = STAND.get() {
        recording.store(true, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(1));
        recording.store(false, Ordering::SeqCst);
    }
}

/// Whether this thread's stood-in-for device is out of bounds.
pub fn is_recording() -> bool {
    STAND.get().is_some_and(|recording| recording.load(Ordering::SeqCst))
}

/// Launches so far: a test that means the device can see that it was one.
pub fn launches() -> u64 {
    LAUNCHES.load(Ordering::Relaxed)
}

static LAUNCHES: AtomicU64 = AtomicU64::new(0);

/// From now on on this thread: for the threads of a pool inside [`standing_in`].
pub fn stand_there(stand: Stand) {
    STAND.set(stand);
}

/// Runs `f` with the emulator in place of a device, or says why it cannot.
pub fn standing_in<R>(f: impl FnOnce() -> R) -> Option<R> {
    if let Err(reason) = library() {
        eprintln!("skipped: {reason}");
        return None;
    }
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            STAND.set(None);
        }
    }
    STAND.set(Some(Box::leak(Box::new(AtomicBool::new(false)))));
    let _back = Back;
    Some(f())
}

type Emulate = unsafe extern "C" fn(*const c_char, *const u32, *const u32, *mut *mut c_void, c_int) -> c_int;

/// The kernels of every module. One launch at a time: the emulator's threads share its variables.
struct Library(Mutex<[Emulate; MODULES.len()]>);

pub fn launch(module: usize, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    let library = match library() {
        Ok(library) => library,
        Err(reason) => bail!("{reason}"),
    };
    LAUNCHES.fetch_add(1, Ordering::Relaxed);
    let name = CString::new(kernel).expect("names have no zeros");
    let (blocks, threads) = (grid.blocks.map(|n| n as u32), [grid.threads[0] as u32, grid.threads[1] as u32, 1]);
    let mut pointers: Vec<*mut c_void> = args
        .iter()
        .map(|arg| match arg {
            Arg::Int(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::Word(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::Single(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::Double(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Arg::Address(v) => std::ptr::from_ref(v).cast_mut().cast(),
        })
        .collect();
    // Held to the end of the launch.
    let entries = library.0.lock().expect("no emulated kernel panics");
    let emulate = entries[module];
    // SAFETY: the pointers are to as many arguments as the kernel takes (the emulator checks the number), and the tests
    // see to it that they are the right ones.
    match unsafe { emulate(name.as_ptr(), blocks.as_ptr(), threads.as_ptr(), pointers.as_mut_ptr(), pointers.len() as c_int) } {
        0 => Ok(()),
        1 => bail!("there is no kernel `{kernel}`"),
        2 => bail!("`{kernel}` does not take {} arguments", args.len()),
        _ => bail!("some threads of `{kernel}` never reach a barrier at which the others wait"),
    }
}

/// The kernels of every text.
pub fn kernels() -> Vec<(&'static str, &'static str)> {
    UNITS.iter().flat_map(|(_, texts)| texts.iter().copied()).flat_map(source::kernels).collect()
}

fn library() -> std::result::Result<&'static Library, String> {
    static LIBRARY: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(build).as_ref().map_err(Clone::clone)
}

fn build() -> std::result::Result<Library, String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        return Err(format!("`{compiler}` is not there to compile the CUDA kernels for the host"));
    }
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut entries: Vec<Emulate> = Vec::new();
    let children: Vec<_> = (0..MODULES.len())
        .map(|module| {
            let waits = |body: &str| ["__syncthreads", "block_sum", "block_max", "sum_chunk"].iter().any(|call| body.contains(call));
            let row = |(k, body): &(&str, &str)| {
                format!("  {{\"{k}\", {}, emulator::arity({k}), [](void** a) {{ emulator::call({k}, a); }}}},\n", waits(body))
            };
            let table: String = kernels().iter().map(row).collect();
            let text = format!(
                "{}\n{}\nstatic const emulator::Kernel kernels[] = {{\n{table}}};\n{}",
                include_str!("emulator.h"),
                source::source(&UNITS, module),
                include_str!("emulator_launch.h")
            );
            let (from, to) = (folder.path().join(format!("{module}.cc")), folder.path().join(format!("{module}.so")));
            std::fs::write(&from, text).map_err(|e| e.to_string())?;
            // Nothing may be fused but what says so; fma itself is the processor's where it has one.
            let child = Command::new(&compiler)
                .args(["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-o"])
                .args([&to, &from])
                .args(std::env::var("EMULATOR_CXXFLAGS").iter().flat_map(|f| f.split_whitespace()))
                .spawn()
                .map_err(|e| e.to_string())?;
            Ok((child, to))
        })
        .collect::<std::result::Result<_, String>>()?;
    for (mut child, path) in children {
        if !child.wait().map_err(|e| e.to_string())?.success() {
            panic!("the CUDA kernels do not compile as C++");
        }
        let path = CString::new(path.to_str().expect("a temporary path is text")).expect("paths have no zeros");
        // SAFETY: the library was built above; it runs no code when loaded. It stays loaded.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null(), "{:?}", CStr::from_ptr(libc::dlerror()));
            let symbol = libc::dlsym(handle, c"emulate".as_ptr());
            assert!(!symbol.is_null(), "the emulator has its entry");
            entries.push(std::mem::transmute::<*mut c_void, Emulate>(symbol));
        }
    }
    Ok(Library(Mutex::new(entries.try_into().expect("one entry for each module"))))
}

/// Runs `f` on the CPU proper, inside [`standing_in`].
pub fn stand_aside<R>(f: impl FnOnce() -> R) -> R {
    let before = STAND.replace(None);
    let result = f();
    STAND.set(before);
    result
}
