//! The machine: operating system, processor, memory, limits, settings that decide speed.
//!
//! In: `/proc` and `/sys`. Out: [`Machine`]. Must not: fail, write, or start anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ergometer_files::counted;

/// Instruction-set extensions that kernels care about, as `/proc/cpuinfo` spells them (x86-64, then AArch64) and as we do.
const EXTENSIONS: &[(&str, &str)] = &[
    ("avx2", "avx2"),
    ("fma", "fma"),
    ("f16c", "f16c"),
    ("avx_vnni", "avx-vnni"),
    ("avx512f", "avx512f"),
    ("avx512bw", "avx512bw"),
    ("avx512dq", "avx512dq"),
    ("avx512vl", "avx512vl"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512_bf16", "avx512bf16"),
    ("avx512_fp16", "avx512fp16"),
    ("amx_tile", "amx-tile"),
    ("amx_int8", "amx-int8"),
    ("amx_bf16", "amx-bf16"),
    ("asimd", "neon"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
    ("sve2", "sve2"),
];

/// What was seen; empty or 0 where it could not be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Operating system, kernel release, architecture.
    pub os: String,
    /// Processor model.
    pub cpu: String,
    /// Logical processors that this process may run on.
    pub cpus: u32,
    /// Cores that these processors are on: fewer where some share one; 0 where the system does not tell.
    pub cores: u32,
    /// Processors that the control group's quota is worth, where there is one.
    pub quota: Option<f64>,
    /// Extensions present and switched on by the operating system.
    pub isa: Vec<String>,
    /// Bytes of memory of the machine.
    pub memory_bytes: u64,
    /// The machine is virtual, as far as it can be told.
    pub virtual_machine: bool,
    /// Limits and settings that decide speed: `limit.cpus`, `limit.memory_bytes`, `cpu.cores`, `cpu.governor`, `cpu.boost`, `cpu.smt`.
    pub settings: BTreeMap<String, String>,
}

/// Looks at this machine.
pub fn observe() -> Machine {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let allowed = rustix::thread::sched_getaffinity(None).ok();
    let cores = allowed
        .as_ref()
        .map_or(0, |set| cores(set, |cpu| line(format!("{CPUS}/cpu{cpu}/topology/thread_siblings_list"))));
    let (mut settings, quota) = settings();
    if cores > 0 {
        settings.insert("cpu.cores".into(), cores.to_string());
    }
    Machine {
        os: format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.machine())),
        cpu: cpu_name(&cpuinfo).unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH)),
        cpus: allowed
            .map_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32), |set| set.count()),
        cores,
        quota,
        isa: extensions(&cpuinfo),
        memory_bytes: fs::read_to_string("/proc/meminfo").ok().and_then(|t| memory_bytes(&t)).unwrap_or(0),
        virtual_machine: is_virtual(&cpuinfo),
        settings,
    }
}

/// Where the system shows its processors.
const CPUS: &str = "/sys/devices/system/cpu";

/// Distinct cores among these processors; `siblings` gives the list of those on the same core. 0: it is not known of each.
fn cores(allowed: &rustix::thread::CpuSet, siblings: impl Fn(usize) -> Option<String>) -> u32 {
    let cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    // the same list stands at each of its processors
    let lists: Option<BTreeSet<String>> = cpus.map(siblings).collect();
    lists.map_or(0, |lists| lists.len() as u32)
}

impl Machine {
    /// What to know of so many compute threads on this machine: that they must take turns, or share cores.
    pub fn threads(&self, threads: u32) -> Option<String> {
        if threads > self.cpus {
            return Some(format!(
                "{} on the {} that this process may use: they share processors, so every operator that splits its work waits for threads that are not running",
                counted(threads, "thread"),
                counted(self.cpus, "processor")
            ));
        }
        if let Some(quota) = self.quota.filter(|quota| f64::from(threads) > *quota) {
            return Some(format!(
                "{} under a quota of {quota:.2} processors: the control group stops them for a part of each period",
                counted(threads, "thread")
            ));
        }
        (self.cores > 0 && threads > self.cores).then(|| {
            format!(
                "{} on {}: processors that share a core have the ceiling of one",
                counted(threads, "thread"),
                counted(self.cores, "core")
            )
        })
    }

    /// Of the processors as such: that some share a core, or that a quota is worth less.
    pub fn shared(&self) -> Option<String> {
        self.threads(self.cpus)
    }
}

/// Names of GPUs as the driver shows them without NVML.
pub fn gpus_of_driver() -> Vec<String> {
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter_map(|f| fs::read_to_string(f.path().join("information")).ok())
        .filter_map(|text| Some(field(&text, "Model")?.to_string()))
        .collect();
    names.sort();
    names
}

/// The value of the first `key : value` line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// Model of the first processor of `/proc/cpuinfo`, with family, model and stepping.
pub fn cpu_name(cpuinfo: &str) -> Option<String> {
    let name = field(cpuinfo, "model name")?;
    // Virtual machines often hide the model; these numbers tell the generation all the same.
    let number = |key| field(cpuinfo, key).and_then(|v| v.parse::<u32>().ok());
    Some(match (number("cpu family"), number("model"), number("stepping")) {
        (Some(family), Some(model), Some(stepping)) => {
            format!("{name} (family {family}, model {model}, stepping {stepping})")
        }
        _ => name.to_string(),
    })
}

/// Extensions that the first processor of `/proc/cpuinfo` has, as we spell them.
pub fn extensions(cpuinfo: &str) -> Vec<String> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let present: Vec<&str> = flags.split_ascii_whitespace().collect();
    EXTENSIONS.iter().filter(|(flag, _)| present.contains(flag)).map(|(_, name)| (*name).into()).collect()
}

/// Bytes of memory of `/proc/meminfo`.
pub fn memory_bytes(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The processor says that there is a hypervisor, or the firmware names one.
fn is_virtual(cpuinfo: &str) -> bool {
    let flagged = field(cpuinfo, "flags").is_some_and(|f| f.split_ascii_whitespace().any(|f| f == "hypervisor"));
    let firmware = ["sys_vendor", "product_name"].map(|f| line(format!("/sys/class/dmi/id/{f}")).unwrap_or_default());
    let names = ["QEMU", "KVM", "VMware", "VirtualBox", "Virtual Machine", "Xen", "Bochs", "HVM domU"];
    flagged
        || Path::new("/sys/hypervisor/type").exists()
        || names.iter().any(|name| firmware.iter().any(|said| said.contains(name)))
}

/// Limits and settings, and the quota of processors.
fn settings() -> (BTreeMap<String, String>, Option<f64>) {
    let mut settings = BTreeMap::new();
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let quota = limit(&cgroup, "cpu", |dir| {
        let two = line(dir.join("cpu.max")).and_then(|l| quota(&l));
        let one =
            || quota(&format!("{} {}", line(dir.join("cpu.cfs_quota_us"))?, line(dir.join("cpu.cfs_period_us"))?));
        two.or_else(one)
    });
    if let Some(cpus) = quota {
        settings.insert("limit.cpus".into(), format!("{cpus:.2}"));
    }
    if let Some(bytes) = limit(&cgroup, "memory", |dir| {
        let text = line(dir.join("memory.max")).or_else(|| line(dir.join("memory.limit_in_bytes")))?;
        // Version 1 says "no limit" by a number near the largest.
        text.parse::<u64>().ok().filter(|&b| b < 1 << 60).map(|b| b as f64)
    }) {
        settings.insert("limit.memory_bytes".into(), format!("{bytes}"));
    }
    for (name, file) in [
        ("cpu.governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        ("cpu.boost", "/sys/devices/system/cpu/cpufreq/boost"),
        ("cpu.no_turbo", "/sys/devices/system/cpu/intel_pstate/no_turbo"),
        ("cpu.smt", "/sys/devices/system/cpu/smt/control"),
    ] {
        if let Some(value) = line(file) {
            settings.insert(name.into(), value);
        }
    }
    (settings, quota)
}

/// The tightest limit of a control-group controller from this process' group up to the root; version 2, then 1.
fn limit(cgroup: &str, controller: &str, read: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let mut tightest: Option<f64> = None;
    for entry in cgroup.lines() {
        let mut parts = entry.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mount = match controllers {
            "" => PathBuf::from("/sys/fs/cgroup"),
            list if list.split(',').any(|c| c == controller) => Path::new("/sys/fs/cgroup").join(list),
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            if let Some(value) = read(&mount.join(group)) {
                tightest = Some(tightest.map_or(value, |t| t.min(value)));
            }
        }
    }
    tightest
}

/// `200000 100000` is two processors; `max` and -1 are no limit.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

fn line(file: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.lines().next()?.trim().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CPUINFO: &str = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Some CPU\nstepping\t: 8\n\
        flags\t\t: fpu avx2 fma avx512f amx_tile amx_bf16 hypervisor\n";

    #[test]
    fn the_processor_is_named_with_its_generation_and_extensions() {
        assert_eq!(cpu_name(CPUINFO).unwrap(), "Some CPU (family 6, model 143, stepping 8)");
        assert_eq!(extensions(CPUINFO), ["avx2", "fma", "avx512f", "amx-tile", "amx-bf16"]);
        assert!(is_virtual(CPUINFO));
        assert_eq!(extensions("Features\t: fp asimd sve\n"), ["neon", "sve"]);
        assert_eq!(cpu_name(""), None);
    }

    #[test]
    fn memory_is_in_bytes_and_quotas_in_processors() {
        assert_eq!(memory_bytes("MemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(memory_bytes("MemTotal: lots\n"), None);
        assert_eq!(quota("150000 100000"), Some(1.5));
        assert_eq!(quota("max 100000"), None);
        assert_eq!(quota("-1 100000"), None);
    }

    #[test]
    fn processors_that_share_a_core_are_one_core() {
        let mut set = rustix::thread::CpuSet::new();
        [0, 1, 4].iter().for_each(|cpu| set.set(*cpu));
        let lists = |pairs: &'static [(usize, &str)]| {
            move |cpu| pairs.iter().find(|(c, _)| *c == cpu).map(|(_, list)| (*list).to_string())
        };
        assert_eq!(cores(&set, lists(&[(0, "0,4"), (1, "1,5"), (4, "0,4")])), 2);
        assert_eq!(cores(&set, lists(&[(0, "0"), (1, "1"), (4, "4")])), 3);
        assert_eq!(cores(&set, lists(&[(0, "0")])), 0, "half a word is none");
    }

    #[test]
    fn threads_beyond_processors_quota_or_cores_are_told() {
        let machine = |cpus, cores, quota| Machine { cpus, cores, quota, ..Machine::default() };
        let said = |m: Machine, threads| m.threads(threads).unwrap_or_default();
        assert!(said(machine(1, 1, None), 4).starts_with("4 threads on the 1 processor that"));
        assert!(said(machine(4, 4, Some(1.5)), 2).starts_with("2 threads under a quota of 1.50 processors"));
        assert!(said(machine(2, 1, None), 2).starts_with("2 threads on 1 core:"));
        for (fits, threads) in [(machine(2, 2, None), 2), (machine(2, 0, None), 2), (machine(2, 1, Some(1.0)), 1)] {
            assert_eq!(fits.threads(threads), None);
        }
        assert!(machine(2, 1, None).shared().is_some() && machine(2, 2, Some(2.0)).shared().is_none());
    }

    #[test]
    fn the_tightest_limit_on_the_way_to_the_root_counts() {
        let read = |dir: &Path| match dir.to_str()? {
            "/sys/fs/cgroup/a/b" => Some(4.0),
            "/sys/fs/cgroup/a" => Some(2.0),
            "/sys/fs/cgroup/memory/old" => Some(1.0),
            _ => None,
        };
        assert_eq!(limit("0::/a/b\n", "memory", read), Some(2.0));
        assert_eq!(limit("4:memory:/old\n0::/a/b\n", "memory", read), Some(1.0));
        assert_eq!(limit("4:memory:/old\n", "cpu", read), None);
        assert_eq!(limit("nonsense", "cpu", read), None);
    }

    #[test]
    fn the_detected_instruction_sets_agree_with_the_compiler_s() {
        #[cfg(target_arch = "x86_64")]
        for (name, present) in [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ] {
            assert_eq!(observe().isa.iter().any(|i| i == name), present, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(.|\n|:){0,200}") {
            let _ = (cpu_name(&text), extensions(&text), memory_bytes(&text), quota(&text), is_virtual(&text));
            let _ = limit(&text, "cpu", |_| None);
        }
    }
}
