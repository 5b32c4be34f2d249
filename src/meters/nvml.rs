//! Energy of NVIDIA boards through NVML, which is loaded at run time.
//!
//! In: the library's path, which boards are visible. Out: gross J of all visible boards (`energy_gpu`) over a window. Must not: panic
//! where there is no library, driver or board, or count a board that this process cannot use.
//!
//! The counter covers the whole board (on Grace-Hopper the whole module) in mJ and moves in steps of 10 to 100 ms.

use super::Meter;
#[cfg(not(feature = "nvml"))]
use crate::backends::Unavailable;

/// NVML energy counters.
pub const METER: Meter = Meter {
    name: "nvml",
    about: "energy of NVIDIA boards, from NVML's counter",
    metrics: &["energy_gpu"],
    estimate: false,
    #[cfg(feature = "nvml")]
    probe: boards::probe,
    #[cfg(not(feature = "nvml"))]
    probe: |_| {
        Err(Unavailable { reason: "this build has no NVML".into(), hint: Some("build with --features nvml".into()) })
    },
};

#[cfg(feature = "nvml")]
mod boards;
