//! Pipes, devices, links and sizes: each refused by name, and none of them waited for or written through.
//!
//! In: a temporary folder with one of each. Out: verdicts. Must not: need a privilege.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

/// A folder with one of each kind.
fn zoo() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "words").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("file", at("link")).unwrap();
    symlink("folder", at("way")).unwrap();
    symlink("nowhere", at("lost")).unwrap();
    symlink("/dev/zero", at("endless")).unwrap();
    let status = process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(status.success());
    drop(UnixListener::bind(at("socket")).unwrap());
    File::create(at("sparse")).unwrap().set_len(5 << 30).unwrap();
    dir
}

fn refused<T: fmt::Debug>(result: io::Result<T>) -> Refusal {
    let error = result.unwrap_err();
    Refusal::of(&error).unwrap_or_else(|| panic!("{error}"))
}

#[test]
fn only_regular_files_of_a_size_are_read_and_none_is_waited_for() {
    let dir = zoo();
    let at = |name: &str| dir.path().join(name);
    for links in [Links::Followed, Links::Refused] {
        assert_eq!(read(&at("file"), 5, links).unwrap(), b"words");
        assert_eq!(refused(read(&at("file"), 4, links)), Refusal::Large(4));
        assert_eq!(refused(read(&at("sparse"), 1 << 20, links)), Refusal::Large(1 << 20));
        assert_eq!(refused(read(&at("folder"), 9, links)), Refusal::Kind("a folder"));
        assert_eq!(refused(read(&at("pipe"), 9, links)), Refusal::Kind("a named pipe"));
        assert!(matches!(refused(read(&at("socket"), 9, links)), Refusal::Kind(_)));
        assert_eq!(refused(read(Path::new("/dev/zero"), 9, links)), Refusal::Kind("a device"));
        assert_eq!(read(&at("missing"), 9, links).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert_eq!(read(&at("link"), 5, Links::Followed).unwrap(), b"words");
    assert_eq!(refused(read(&at("endless"), 9, Links::Followed)), Refusal::Kind("a device"));
    for name in ["link", "lost", "endless", "way"] {
        assert_eq!(refused(read(&at(name), 9, Links::Refused)), Refusal::Link, "{name}");
    }
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.read("file", 9).unwrap(), b"words");
    assert_eq!(refused(folder.read("link", 9)), Refusal::Link);
    assert_eq!(refused(folder.read("pipe", 9)), Refusal::Kind("a named pipe"));
    assert_eq!(refused(folder.folder("way")), Refusal::Link);
    assert_eq!(refused(folder.make("way")), Refusal::Link);
    // what the system calls regular and never ends is cut at the limit
    assert_eq!(refused(rest(File::open("/dev/zero").unwrap(), 1000)), Refusal::Large(1000));
}

#[test]
fn what_is_written_is_new_and_never_goes_through_a_link() {
    let dir = zoo();
    let at = |name: &str| dir.path().join(name);
    let folder = Folder::open(dir.path()).unwrap();
    folder.write("link", b"new").unwrap();
    assert_eq!((fs::read(at("link")).unwrap(), fs::read(at("file")).unwrap()), (b"new".into(), b"words".into()));
    assert!(fs::symlink_metadata(at("link")).unwrap().is_file(), "the link is replaced");
    folder.write("report/plots/one.svg", b"<svg/>").unwrap();
    assert_eq!(fs::read(at("report/plots/one.svg")).unwrap(), b"<svg/>");
    assert_eq!(refused(folder.write("way/inside", b"x")), Refusal::Link);
    assert!(!at("folder/inside").exists());
    for name in ["pipe", "socket", "folder"] {
        assert!(matches!(refused(folder.write(name, b"x")), Refusal::Kind(_)), "{name}");
        assert!(matches!(refused(replace(&at(name), b"x")), Refusal::Kind(_)), "{name}");
    }
    for name in ["../out", "/tmp-out", "a//b", "./a", "a/../b", ""] {
        assert_eq!(folder.write(name, b"x").unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
    }
    assert_eq!(folder.new_file("file").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(folder.new_file("lost").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    replace(&at("deep/er/file"), b"made").unwrap();
    assert_eq!(fs::read(at("deep/er/file")).unwrap(), b"made");
    let left = fs::read_dir(dir.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(TEMPORARY));
    assert_eq!(left.count(), 0, "nothing unfinished stays");
}

#[test]
fn a_lock_is_a_regular_file_and_a_folder_is_removed_without_its_links() {
    let dir = zoo();
    let at = |name: &str| dir.path().join(name);
    let folder = Folder::open(dir.path()).unwrap();
    lock_file(&at("new.lock")).unwrap();
    folder.lock_file("new.lock").unwrap();
    assert_eq!(refused(lock_file(&at("pipe"))), Refusal::Kind("a named pipe"));
    assert_eq!(refused(folder.lock_file("pipe")), Refusal::Kind("a named pipe"));
    assert_eq!(refused(lock_file(&at("link"))), Refusal::Link);
    assert_eq!(refused(folder.lock_file("lost")), Refusal::Link);
    assert!(!at("nowhere").exists(), "nothing is made where a link leads");
    let inner = folder.make("inner").unwrap();
    inner.write("a/b", b"x").unwrap();
    symlink("../folder", at("inner/out")).unwrap();
    fs::write(at("folder/kept"), "").unwrap();
    folder.remove("inner").unwrap();
    assert!(!at("inner").exists() && at("folder/kept").exists());
}

#[test]
fn a_file_without_a_name_is_nowhere_and_its_temporary_name_fits() {
    let mut file = unnamed().unwrap();
    file.write_all(b"said").unwrap();
    let shown = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    assert!(shown.is_ok_and(|path| !path.exists()));
    let long = temporary(&"é".repeat(300));
    assert!(long.len() < 255 && long.starts_with(TEMPORARY));
    assert_ne!(temporary("x"), temporary("x"));
}
