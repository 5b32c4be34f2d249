//! What keeps an external program from the files, networks and processes of others: Landlock, and namespaces of its own.
//!
//! In: a folder. Out: the most that this kernel gives without privileges, tried in a process of its own ([`offered`]); the process that becomes
//! the program takes on exactly that ([`Confinement::take_on`]) or is not started. Must not: call something confined that is not.
//!
//! Landlock keeps it from writing to files but below its folder, from TCP (ABI 4) and from signals to others and abstract sockets (ABI 6). UDP
//! and every other network it does not know: for these there is a network namespace, which has not even a loopback; with it come System V
//! objects of its own. `/dev/shm` is a folder of files as any other. Neither keeps a program from reading, from changing modes, owners and times of files that are its user's,
//! or from sockets that have a path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::Context;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use crate::console;

/// The least that is called confined: files; truncation and links to other folders with it.
const FILES: ABI = ABI::V3;
/// Versions of Landlock of which each knows more: files, TCP with them, signals and abstract sockets with these.
const VERSIONS: [u32; 3] = [6, 4, 3];

/// Devices that may be written to, of those that are there. One that ends in `*` stands for all that begin so.
const DEVICES: &[&str] =
    &["null", "zero", "full", "random", "urandom", "nvidia*", "dri", "kfd", "accel", "accel*", "dxg"];

/// What a child says that has taken it on.
const DONE: &str = "confined";

/// What is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Landlock's version, one of 3, 4 and 6.
    pub landlock: u32,
    /// Namespaces of its own; else why it has none.
    pub namespaces: Result<(), String>,
}

/// The most that this kernel gives, tried once with `program`, which is this one, in `folder`.
///
/// # Errors
/// It gives nothing, and why.
pub fn offered(program: &Path, folder: &Path) -> Result<Confinement, String> {
    static NAMESPACES: OnceLock<Result<(), String>> = OnceLock::new();
    let landlock = VERSIONS.into_iter().find(|version| rules(*version).is_ok());
    let Some(landlock) = landlock else {
        let why = rules(3).err().unwrap_or_default();
        return Err(format!("the kernel has no Landlock that is new enough: {why}"));
    };
    let namespaces = NAMESPACES.get_or_init(|| {
        let confinement = Confinement { landlock, namespaces: Ok(()) };
        let mut command = Command::new(program);
        command.args(["worker", "--parent", &std::process::id().to_string()]).args(confinement.flags(folder));
        let output = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        if said.trim() == DONE { Ok(()) } else { Err(said.trim().to_string()) }
    });
    Ok(Confinement { landlock, namespaces: namespaces.clone() })
}

impl Confinement {
    /// Flags of `ergometer worker` that ask for it.
    pub fn flags(&self, folder: &Path) -> Vec<String> {
        let mut flags = vec!["--confine".to_string(), folder.to_string_lossy().into_owned()];
        flags.extend(["--landlock".to_string(), self.landlock.to_string()]);
        flags.extend(self.namespaces.is_ok().then(|| "--namespaces".to_string()));
        flags
    }

    /// For the record: what is held, by what, and what is not.
    pub fn told(&self) -> String {
        let own = self.namespaces.is_ok();
        let (tcp, scopes) = (self.landlock >= 4, self.landlock >= 6);
        let all = [
            (true, "writing to files"),
            (own, "networks"),
            (!own && tcp, "TCP"),
            (own, "System V objects"),
            (own || scopes, "abstract sockets"),
            (scopes, "signals"),
        ];
        let mut free = vec!["reading", "modes, owners and times of its user's files", "sockets that have a path"];
        free.extend(all[1..].iter().filter(|(held, what)| !held && *what != "TCP").map(|(_, what)| match *what {
            "networks" if tcp => "UDP and other networks",
            "networks" => "networks",
            other => other,
        }));
        let held: Vec<&str> = all.iter().filter(|(held, _)| *held).map(|(_, what)| *what).collect();
        let by = match &self.namespaces {
            Ok(()) => format!("by Landlock {} and namespaces of its own", self.landlock),
            Err(why) => format!("by Landlock {}, without namespaces of its own ({why})", self.landlock),
        };
        let whole = if own && scopes { "true" } else { "in part" };
        format!("{whole} (held: {}; {by}; free: {})", held.join(", "), free.join(", "))
    }

    /// From here on it holds for this process, which has one thread, and what it becomes: files are written below `folder` alone.
    ///
    /// # Errors
    /// The kernel does not do it, or not all of it.
    pub fn take_on(&self, folder: &Path) -> anyhow::Result<()> {
        if self.namespaces.is_ok() {
            namespaces()?;
        }
        let rules = rules(self.landlock).map_err(|e| anyhow::anyhow!("cannot be confined: {e}"))?;
        let mut rules = rules.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(FILES)))?;
        for place in devices(Path::new("/dev")).into_iter().chain([folder.to_path_buf()]) {
            let access = if place.is_dir() { AccessFs::from_all(FILES) } else { AccessFs::from_file(FILES) };
            rules = rules.add_rule(PathBeneath::new(PathFd::new(&place)?, access))?;
        }
        let status = rules.restrict_self()?;
        anyhow::ensure!(status.ruleset == RulesetStatus::FullyEnforced, "the kernel confines it in part only");
        Ok(())
    }
}

/// Takes it on and says so, without becoming a program: what [`offered`] asks of a child.
pub fn rehearse(confinement: &Confinement, folder: &Path) {
    match confinement.take_on(folder) {
        Ok(()) => console::out(&format!("{DONE}\n")),
        Err(error) => console::out(&format!("{error:#}\n")),
    }
}

/// A set of rules that the kernel knows all of.
fn rules(version: u32) -> Result<RulesetCreated, String> {
    let all = || {
        let own = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let mut rules = own.handle_access(AccessFs::from_all(FILES))?;
        if version >= 4 {
            rules = rules.handle_access(AccessNet::from_all(ABI::V4))?;
        }
        if version >= 6 {
            rules = rules.scope(Scope::from_all(ABI::V6))?;
        }
        rules.create()
    };
    all().map_err(|e: landlock::RulesetError| e.to_string())
}

/// Those of the devices that are there.
fn devices(folder: &Path) -> Vec<PathBuf> {
    let listed = |name: &str| {
        DEVICES.iter().any(|device| match device.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == *device,
        })
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_str().is_some_and(listed)).map(|e| e.path()).collect()
}

/// Makes user, network and IPC namespaces of its own for this process, in which it is who it was.
fn namespaces() -> anyhow::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let all = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    #[expect(deprecated, reason = "what took its place is unsafe for the sake of flags that are not given here")]
    rustix::thread::unshare(all).context("the kernel lets this user make no namespaces")?;
    let write = |file: &str, text: String| fs::write(file, text).with_context(|| file.to_string());
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_says_what_is_held_and_what_is_free() {
        let told = |landlock, namespaces: Result<(), String>| Confinement { landlock, namespaces }.told();
        let whole = told(6, Ok(()));
        assert!(
            whole.starts_with("true (held: writing to files, networks, System V objects, abstract sockets, signals;")
        );
        assert!(
            whole.ends_with("free: reading, modes, owners and times of its user's files, sockets that have a path)")
        );
        // with nothing but Landlock UDP goes out, and it is not called confined
        let tcp = told(6, Err("no".into()));
        assert!(
            tcp.starts_with("in part (held: writing to files, TCP, abstract sockets, signals; by Landlock 6, without")
        );
        assert!(tcp.contains("UDP and other networks, System V objects)"), "{tcp}");
        let files = told(3, Err("no".into()));
        assert!(files.contains("held: writing to files;") && files.contains("networks, System V"), "{files}");
        assert!(files.ends_with("abstract sockets, signals)") && !files.contains("TCP"), "{files}");
        assert!(told(4, Ok(())).starts_with("in part (") && told(4, Ok(())).ends_with("path, signals)"));
    }

    #[test]
    fn of_devices_those_in_the_list_are_open() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["null", "nvidia0", "nvidia-uvm", "sda", "mem", "tty", "kmsg", "nullify"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        fs::create_dir(dev.path().join("shm")).unwrap();
        let mut found = devices(dev.path());
        found.sort();
        let names: Vec<&str> = found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["null", "nvidia-uvm", "nvidia0"]);
    }
}
