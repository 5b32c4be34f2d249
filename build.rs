//! What decides the speed of this build, for `environment.json`: compiler, profile, target and its features.
//!
//! In: what cargo tells. Out: variables for `env!`. Must not: need anything but rustc, or change with the working tree.

use std::process::Command;

fn main() {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let said = Command::new(get("RUSTC")).arg("-V").output();
    let version = said.map(|o| String::from_utf8_lossy(&o.stdout).trim().trim_start_matches("rustc ").to_string());
    println!("cargo::rustc-env=ERGOMETER_RUSTC={}", version.unwrap_or_else(|_| "unknown".into()));
    println!("cargo::rustc-env=ERGOMETER_PROFILE={} (opt-level {})", get("PROFILE"), get("OPT_LEVEL"));
    println!("cargo::rustc-env=ERGOMETER_TARGET={}", get("TARGET"));
    println!("cargo::rustc-env=ERGOMETER_TARGET_FEATURES={}", get("CARGO_CFG_TARGET_FEATURE"));
    println!("cargo::rerun-if-changed=build.rs");
}
