//! Replaces the functions of the C library that read the time of day. The file that the variable `SENTINEL_TEST_CLOCK` names has
//! eight bytes: the milliseconds, in the byte order of the machine, that are added to the real time. A test writes them while the
//! process runs. Reads that file and the clock of the kernel, and nothing else. Monotonic clocks are not touched.

use std::{
    fs::File,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use rustix::{
    mm::{MapFlags, ProtFlags},
    time::{ClockId, Timespec},
};

/// Names the file.
const VARIABLE: &str = "SENTINEL_TEST_CLOCK";
/// `CLOCK_REALTIME` and `CLOCK_REALTIME_COARSE` of Linux.
const TIMES_OF_DAY: [i32; 2] = [0, 5];

/// `struct timeval`.
#[repr(C)]
pub struct Timeval {
    seconds: i64,
    micros: i64,
}

/// The milliseconds that are added now.
fn step() -> i64 {
    static SHARED: OnceLock<Option<&'static AtomicI64>> = OnceLock::new();
    SHARED.get_or_init(map).map_or(0, |shared| shared.load(Ordering::Relaxed))
}

/// The file in memory, for as long as the process runs.
fn map() -> Option<&'static AtomicI64> {
    let file = File::open(std::env::var_os(VARIABLE)?).ok()?;
    if file.metadata().ok()?.len() != size_of::<AtomicI64>() as u64 {
        return None;
    }
    // SAFETY: the mapping is new, has the size of the file, starts at a page and is never removed; the test only ever replaces
    // the eight bytes, with one write.
    unsafe {
        let memory =
            rustix::mm::mmap(ptr::null_mut(), size_of::<AtomicI64>(), ProtFlags::READ, MapFlags::SHARED, &file, 0);
        memory.ok()?.cast::<AtomicI64>().as_ref()
    }
}

/// The stepped time of day: seconds, and nanoseconds of the second.
fn now() -> (i64, i64) {
    let Timespec { tv_sec, tv_nsec } = rustix::time::clock_gettime(ClockId::Realtime);
    let nanos = i128::from(tv_sec) * 1_000_000_000 + i128::from(tv_nsec) + i128::from(step()) * 1_000_000;
    (nanos.div_euclid(1_000_000_000) as i64, nanos.rem_euclid(1_000_000_000) as i64)
}

/// `gettimeofday` of the C library. The time zone is not filled in.
///
/// # Safety
/// `time` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Timeval, _zone: *mut u8) -> i32 {
    let (seconds, nanos) = now();
    if !time.is_null() {
        // SAFETY: the caller guarantees it.
        unsafe { time.write(Timeval { seconds, micros: nanos / 1_000 }) };
    }
    0
}

/// `time` of the C library.
///
/// # Safety
/// `time` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(time: *mut i64) -> i64 {
    let (seconds, _) = now();
    if !time.is_null() {
        // SAFETY: the caller guarantees it.
        unsafe { time.write(seconds) };
    }
    seconds
}

/// `clock_gettime` of the C library.
///
/// # Safety
/// `time` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
    let value = if TIMES_OF_DAY.contains(&clock) {
        let (tv_sec, tv_nsec) = now();
        Timespec { tv_sec, tv_nsec: tv_nsec as _ }
    } else {
        let id = match clock {
            1 => ClockId::Monotonic,
            2 => ClockId::ProcessCPUTime,
            3 => ClockId::ThreadCPUTime,
            4 => ClockId::MonotonicRaw,
            6 => ClockId::MonotonicCoarse,
            7 => ClockId::Boottime,
            _ => return -1,
        };
        rustix::time::clock_gettime(id)
    };
    // SAFETY: the caller guarantees it.
    unsafe { time.write(value) };
    0
}
