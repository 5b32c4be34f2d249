//! Energy of NVIDIA boards through NVML, which is loaded and read by a process of its own.
//!
//! In: the library's path, which boards are visible. Out: gross J of all visible boards (`energy_gpu`) over a window. Must not: load NVML in
//! this process, wait for it without a limit, panic where there is no library, driver or board, or count a board that this process cannot use.
//!
//! The counter covers the whole board (on Grace-Hopper the whole module) in mJ and moves in steps of 10 to 100 ms. A board without a counter
//! is left out and named, or, where [`POWER`] asks for it, its power is integrated, which is an estimate.

use super::Meter;
#[cfg(not(feature = "nvml"))]
use crate::backends::Unavailable;

/// The variable that asks, by the word `integrate`, for the power of boards without an energy counter to be integrated.
pub const POWER: &str = "ERGOMETER_NVML_POWER";

/// NVML energy counters.
pub const METER: Meter = Meter {
    name: "nvml",
    about: "energy of NVIDIA boards, from NVML's counter",
    metrics: &["energy_gpu"],
    estimate: false,
    #[cfg(feature = "nvml")]
    probe: apart::probe,
    #[cfg(not(feature = "nvml"))]
    probe: |_| {
        Err(Unavailable { reason: "this build has no NVML".into(), hint: Some("build with --features nvml".into()) })
    },
};

#[cfg(feature = "nvml")]
mod apart;
#[cfg(feature = "nvml")]
mod boards;

#[cfg(feature = "nvml")]
pub(crate) use apart::serve;
