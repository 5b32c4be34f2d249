//! Which energy domains a case's joules per right answer hold, and what they are called in its record.
//!
//! In: what a case says of the device that it computes on, what the run's meters cover. Out: metrics to add up, or why
//! no sum means anything. Must not: guess that a program which does not say where it computes leaves the boards alone.

use std::collections::BTreeMap;

use super::Summary;
use crate::{environment::Environment, metric::domain, missing::Missing};

/// Where a case computes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    Processor,
    Boards,
    /// Nothing says it.
    Unknown,
    /// Something that is neither.
    Other(String),
}

/// What a word for a device means, in any case of letters: `cpu`, `CUDA:0`, `AUTO:GPU,CPU`.
fn device(text: &str) -> Device {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty()).collect();
    let any = |names: &[&str]| words.iter().any(|w| names.iter().any(|n| w.starts_with(n)));
    if any(&["cuda", "gpu", "nvidia", "tensorrt"]) {
        Device::Boards
    } else if words.is_empty() {
        Device::Unknown
    } else if words.iter().all(|w| *w == "cpu") {
        Device::Processor
    } else {
        Device::Other(text.chars().take(40).collect())
    }
}

/// The UUIDs in a word for a device, as NVML and CUDA write them: `cuda:GPU-4f8c...`.
fn uuids(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    // 32 digits in groups; `GPU-1` is a number
    parts.filter(|p| p.len() == 40 && p.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("GPU-")))
}

/// Names of a domain's parts, as its meter reported them when the run began.
fn names<'a>(environment: &'a Environment, metric: &str) -> Option<&'a str> {
    let of = |meter: &str| environment.versions.get(&format!("{meter}.{metric}")).map(String::as_str);
    of("rapl").or(of("nvml")).filter(|names| !names.is_empty())
}

/// What an energy metric covers, in words.
pub(super) fn covered(environment: &Environment, metric: &str) -> String {
    let what = domain(metric).map_or("unknown parts", |domain| domain.parts);
    names(environment, metric).map_or_else(|| what.to_string(), |names| format!("{what} {}", names.replace('+', ", ")))
}

fn refuse(message: String, hint: &str) -> Missing {
    Missing { kind: "unavailable".into(), message, hint: Some(hint.into()) }
}

impl Summary<'_> {
    /// Where the case computes, by its option `device` and by what its worker reports under that name. One that
    /// computes on boards says so whatever else it says.
    fn device(&self) -> Device {
        let devices: Vec<Device> = self.device_texts().iter().map(|text| device(text)).collect();
        let first = |wanted: fn(&Device) -> bool| devices.iter().find(|d| wanted(d)).cloned();
        first(|d| *d == Device::Boards)
            .or(first(|d| matches!(d, Device::Other(_))))
            .or(first(|d| *d == Device::Processor))
            .unwrap_or(Device::Unknown)
    }

    /// Whether it computes on boards.
    pub(super) fn on_boards(&self) -> bool {
        self.device() == Device::Boards
    }

    /// The boards that it computes on are among the metered ones: none that it may use is left out, and those that it
    /// names are there.
    pub(super) fn metered_boards(&self) -> Result<(), Missing> {
        let versions = &self.environment.versions;
        let metered = |name: &str| versions.get(name).map(String::as_str).filter(|_| self.ready("energy_gpu"));
        if let Some(left_out) = metered("nvml.unmetered") {
            return Err(refuse(
                format!("it computes on boards, and one that it may use is not metered: {left_out}"),
                "hide that board by CUDA_VISIBLE_DEVICES, or have its power integrated by ERGOMETER_NVML_POWER=integrate",
            ));
        }
        let Some(boards) = metered("nvml.energy_gpu") else { return Ok(()) };
        let texts = self.device_texts();
        let mut named = texts.iter().flat_map(|text| uuids(text));
        match named.find(|uuid| !boards.split('+').any(|board| board.eq_ignore_ascii_case(uuid))) {
            None => Ok(()),
            Some(other) => Err(refuse(
                format!("it computes on {other}, and what is metered is {boards}"),
                "let CUDA_VISIBLE_DEVICES name that board, for ergometer too",
            )),
        }
    }

    fn ready(&self, metric: &str) -> bool {
        self.environment.meters.iter().any(|m| m.unavailable.is_none() && m.metrics.iter().any(|name| name == metric))
    }

    /// What its option and its worker report of its device.
    fn device_texts(&self) -> Vec<String> {
        let case = &self.case_run.case;
        let of = |map: &BTreeMap<String, String>, wanted: &str| {
            map.iter().filter(|(k, _)| k.eq_ignore_ascii_case(wanted)).map(|(_, v)| v.clone()).collect::<Vec<_>>()
        };
        let mut texts = of(&case.key.backend_options, "device");
        texts.extend(of(&case.versions, "device"));
        texts.extend(of(&case.versions, "option device"));
        texts
    }

    /// Whether it computes on something that the processor's ceilings say nothing of.
    pub(super) fn on_gpu(&self) -> bool {
        matches!(self.device(), Device::Boards | Device::Other(_))
    }

    /// The metrics whose sum is what a right answer costs.
    pub(super) fn domains(&self) -> Result<&'static [&'static str], Missing> {
        const HINT: &str = "the worker's `loaded` tells it in its versions: device = cpu, or device = cuda:0";
        match self.device() {
            Device::Processor => Ok(&["energy_cpu"]),
            Device::Boards => self.metered_boards().map(|()| &["energy_cpu", "energy_gpu"][..]),
            Device::Other(other) => Err(refuse(format!("it computes on `{other}`, which no meter here reads"), HINT)),
            Device::Unknown if self.ready("energy_gpu") => Err(refuse(
                "boards are metered here, and the worker does not say whether it computes on them".into(),
                HINT,
            )),
            Device::Unknown => Ok(&["energy_cpu"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_of_a_device_means_the_same() {
        for said in ["cuda", "CUDA:0", "Gpu", "gpu.1", "cuda0", "NVIDIA H100", "AUTO:GPU,CPU", "cpu,cuda:1", "TensorRT"]
        {
            assert_eq!(device(said), Device::Boards, "{said}");
        }
        for said in ["cpu", "CPU", " Cpu:0", "cpu.0"] {
            assert_eq!(device(said), Device::Processor, "{said}");
        }
        let uuid = "GPU-4f8c1d2e-0a3b-5c6d-7e8f-90a1b2c3d4e5";
        assert_eq!(device(&format!("cuda:{uuid}")), Device::Boards);
        assert_eq!(uuids(&format!("AUTO:{uuid},cpu")).collect::<Vec<_>>(), [uuid]);
        assert_eq!(uuids("GPU-1 cuda:0 gpu.1").count(), 0);
        assert_eq!((device(""), device("0")), (Device::Unknown, Device::Unknown));
        assert_eq!(device("NPU"), Device::Other("NPU".into()));
    }
}
