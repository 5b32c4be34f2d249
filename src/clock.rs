//! The clock that harness and workers share.
//!
//! In: nothing. Out: nanoseconds that several processes can compare. Must not: give a date.

/// The system's monotonic clock, the same for all processes since boot.
pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
