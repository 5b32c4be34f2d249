//! What the kernels ask of the operating system: permission for tiles of AMX, and large pages.
//!
//! In: CPUID, XCR0, system calls, memory that nobody has touched yet. Out: what may be used. Must not: compute,
//! measure, or know an operator.

pub(crate) mod amx;
pub(crate) mod pages;
