//! Fetching with a fake pip and local archives: what is wrong never gets its final name, and every failure says what to do.

use std::fs;

use sha2::{Digest, Sha256};

use super::*;
use crate::files::hex;

const THING: &[u8] =
    b"the pinned thing, long enough to be squeezed: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A cache, a fake package index (a folder), and an item whose archive lies in it.
struct Bench {
    folder: tempfile::TempDir,
    fetcher: Fetcher,
    item: Fetch,
}

impl Bench {
    fn new() -> Self {
        Self::with(THING, THING)
    }

    /// An archive that holds `inside`, with `pinned` as what is expected of it.
    fn with(inside: &[u8], pinned: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("index")).unwrap();
        fs::write(at("thing"), inside).unwrap();
        let zip = "import sys, zipfile\n\
            with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as z: z.write(sys.argv[2], 'pack/thing.bin')";
        let made = Command::new("python3").args(["-c", zip]).args([at("index/pack-1.whl"), at("thing")]).status();
        assert!(made.unwrap().success());
        // pip as far as it is used: it notes what it was asked, and copies the archive to the folder after `--dest`
        let fake = format!(
            "if [ \"$1\" = -I ]; then exec python3 \"$@\"; fi\necho \"$@\" >> {0}/asked\n\
             while [ $# -gt 0 ]; do case $1 in --dest|--pack-destination) dest=$2;; esac; last=$1; shift; done\n\
             if ! cp {0}/index/${{last%%[=@]*}}-1.* \"$dest\"; then echo 'ERROR: no such package' >&2; exit 1; fi\n",
            folder.path().display()
        );
        fs::write(at("fake.sh"), fake).unwrap();
        let sum = |bytes: &[u8]| -> &'static str { hex(&Sha256::digest(bytes)).leak() };
        let archive = Archive {
            requirement: "pack==1",
            file: "pack-1.whl",
            manager: PackageManager::Pip,
            sha256: sum(&fs::read(at("index/pack-1.whl")).unwrap()),
            options: &["--platform=here"],
        };
        let (bytes, sha256) = (pinned.len() as u64, sum(pinned));
        let variant =
            Variant { platform: None, archive, member: "pack/thing.bin", rest: &[], name: None, bytes, sha256 };
        let variants: &'static [Variant] = vec![variant].leak();
        let item = Fetch {
            name: "thing",
            kind: FetchKind::Dataset,
            version: "1",
            licence: "none",
            about: "",
            variants,
            makes: None,
            terms: None,
            next: &[],
        };
        let python = vec!["sh".into(), at("fake.sh").into_os_string()];
        let fetcher = Fetcher { python, chatty: true, ..Fetcher::new(at("cache"), false) };
        Self { folder, fetcher, item }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.at("asked")).unwrap_or_default().lines().map(str::to_string).collect()
    }

    /// Fails this way; what is there afterwards is no finished item.
    fn fails(&self, failure: Failure, parts: &[&str]) {
        let error = self.fetcher.fetch(&self.item).unwrap_err();
        assert_eq!(error.failure, failure, "{error}");
        for part in parts.iter().chain(&["\nhint: ", "pip download", "ergometer fetch thing --from pack-1.whl"]) {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }
        assert_eq!(self.fetcher.state(&self.item), FetchState::Absent);
    }
}

#[test]
fn an_item_is_downloaded_once_checked_and_unpacked() {
    let bench = Bench::new();
    assert_eq!((bench.fetcher.state(&bench.item), bench.fetcher.path(&bench.item)), (FetchState::Absent, None));
    let path = bench.fetcher.fetch(&bench.item).unwrap();
    assert_eq!(path, bench.at("cache/fetched/thing-1/thing.bin"));
    assert_eq!(fs::read(&path).unwrap(), THING);
    assert_eq!(bench.fetcher.path(&bench.item).as_ref(), Some(&path));
    assert!(!bench.at("cache/fetched/archives/pack-1.whl").exists(), "the archive is not kept");
    assert_eq!(bench.fetcher.fetch(&bench.item).unwrap(), path);
    let asked = bench.asked();
    assert_eq!(asked.len(), 1, "downloaded once");
    assert!(asked[0].starts_with("-m pip download --no-deps --only-binary=:all: --platform=here "), "{}", asked[0]);
    assert!(asked[0].ends_with(" pack==1"), "{}", asked[0]);
}

#[test]
fn a_damaged_item_is_obtained_anew() {
    let bench = Bench::new();
    let path = bench.fetcher.fetch(&bench.item).unwrap();
    let mut bytes = THING.to_vec();
    bytes[3] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(bench.fetcher.fetch(&bench.item).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), THING);
    fs::write(&path, b"short").unwrap();
    assert_eq!(bench.fetcher.state(&bench.item), FetchState::Absent, "a partial file is none");
}

#[test]
fn a_stop_between_download_and_unpacking_costs_nothing_and_a_part_of_an_archive_is_no_archive() {
    let bench = Bench::new();
    let archive = bench.at("cache/fetched/archives/pack-1.whl");
    fs::create_dir_all(archive.parent().unwrap()).unwrap();
    let whole = fs::read(bench.at("index/pack-1.whl")).unwrap();
    fs::write(&archive, &whole).unwrap();
    bench.fetcher.fetch(&bench.item).unwrap();
    assert_eq!(bench.asked().len(), 0, "what is whole is not downloaded again");

    let bench = Bench::new();
    fs::create_dir_all(bench.at("cache/fetched/archives")).unwrap();
    fs::write(bench.at("cache/fetched/archives/pack-1.whl"), &whole[..whole.len() / 2]).unwrap();
    bench.fetcher.fetch(&bench.item).unwrap();
    assert_eq!(bench.asked().len(), 1, "what is not is");
}

#[test]
fn a_wrong_archive_and_a_wrong_member_name_both_sums() {
    let bench = Bench::new();
    let pinned = bench.item.variants[0].archive.sha256;
    fs::write(bench.at("index/pack-1.whl"), b"another archive").unwrap();
    let got = hex(&Sha256::digest(b"another archive"));
    bench.fails(Failure::Mismatch, &[pinned, &got, "pack-1.whl"]);
    assert!(!bench.at("cache/fetched/archives/pack-1.whl").exists(), "the wrong archive is gone");

    // the archive is as pinned, but what is in it is not: the table itself is wrong
    let other = [&THING[..9], b"?", &THING[10..]].concat();
    let bench = Bench::with(&other, THING);
    let (archive, member) = (bench.item.variants[0].archive.sha256, bench.item.variants[0].sha256);
    bench.fails(Failure::Mismatch, &["pack/thing.bin", "pack-1.whl", archive, member]);
    let longer = [THING, b"and more"].concat();
    Bench::with(&longer, THING).fails(Failure::Mismatch, &["pack/thing.bin"]);
}

#[test]
fn without_network_python_or_leave_it_says_what_to_do_by_hand() {
    let bench = Bench::new();
    fs::remove_file(bench.at("index/pack-1.whl")).unwrap();
    bench.fails(Failure::Tool, &["pip did not download pack==1", "ERROR: no such package"]);

    let mut bench = Bench::new();
    bench.fetcher.python = vec!["/nonexistent/python3".into()];
    bench.fails(Failure::Tool, &["cannot start /nonexistent/python3"]);

    let mut bench = Bench::new();
    bench.fetcher.offline = true;
    bench.fails(Failure::Offline, &["ERGOMETER_OFFLINE"]);
    assert_eq!(bench.asked().len(), 0);
    // what is here stays usable
    bench.fetcher.take(&bench.item, &bench.at("thing")).unwrap();
    assert!(bench.fetcher.fetch(&bench.item).is_ok());

    let bench = Bench::new();
    fs::write(bench.at("cache"), b"a file where the folder should be").unwrap();
    let error = bench.fetcher.fetch(&bench.item).unwrap_err();
    assert!(error.failure == Failure::Io && error.hint.contains("ERGOMETER_CACHE"), "{error}");
}

#[test]
fn a_file_brought_by_hand_is_taken_if_it_is_the_archive_or_the_thing() {
    for brought in ["index/pack-1.whl", "thing"] {
        let bench = Bench::new();
        let path = bench.fetcher.take(&bench.item, &bench.at(brought)).unwrap();
        assert_eq!(fs::read(path).unwrap(), THING);
        assert!(bench.at(brought).exists() && bench.asked().is_empty());
    }
    let bench = Bench::new();
    let error = bench.fetcher.take(&bench.item, &bench.at("fake.sh")).unwrap_err();
    let variant = &bench.item.variants[0];
    assert_eq!(error.failure, Failure::Mismatch);
    assert!([variant.sha256, variant.archive.sha256].iter().all(|s| error.reason.contains(s)), "{error}");
    let error = bench.fetcher.take(&bench.item, &bench.at("absent")).unwrap_err();
    assert!(error.failure == Failure::Io && error.reason.contains("absent"), "{error}");
    assert_eq!(bench.fetcher.state(&bench.item), FetchState::Absent);
}

#[test]
fn what_is_not_for_this_platform_says_so() {
    let mut bench = Bench::new();
    let elsewhere = Variant { platform: Some(("plan9", "vax")), ..bench.item.variants[0] };
    bench.item.variants = vec![elsewhere].leak();
    let error = bench.fetcher.fetch(&bench.item).unwrap_err();
    assert!(error.failure == Failure::Platform && error.reason.contains(std::env::consts::ARCH), "{error}");
    assert_eq!(bench.fetcher.state(&bench.item), FetchState::NotForThisPlatform);
}

/// An item of two archives, the second a packed tar of npm with texts whose order is that of their names.
fn of_parts() -> Bench {
    let mut bench = Bench::new();
    let tar = "import io, sys, tarfile\n\
        with tarfile.open(sys.argv[1], 'w:gz') as t:\n    for name, text in (('p/b.txt', b'B'), ('p/a.txt', b'A'), ('p/a.json', b'no')):\n        \
        m = tarfile.TarInfo(name)\n        m.size = len(text)\n        t.addfile(m, io.BytesIO(text))";
    let made = Command::new("python3").args(["-c", tar]).arg(bench.at("index/texts-1.tgz")).status();
    assert!(made.unwrap().success());
    let sum = |bytes: &[u8]| -> &'static str { hex(&Sha256::digest(bytes)).leak() };
    let archive = Archive {
        manager: PackageManager::Npm,
        requirement: "texts@1",
        file: "texts-1.tgz",
        sha256: sum(&fs::read(bench.at("index/texts-1.tgz")).unwrap()),
        options: &[],
    };
    let whole = [THING, b"AB"].concat();
    let rest: &'static [Member] = vec![Member { archive, path: "p/*.txt" }].leak();
    let (bytes, sha256) = (whole.len() as u64, sum(&whole));
    let variant = Variant { rest, name: Some("whole.bin"), bytes, sha256, ..bench.item.variants[0] };
    bench.item.variants = vec![variant].leak();
    bench.fetcher.npm = bench.fetcher.python.clone();
    bench
}

#[test]
fn members_of_several_archives_become_one_file() {
    let bench = of_parts();
    let path = bench.fetcher.fetch(&bench.item).unwrap();
    assert_eq!(path, bench.at("cache/fetched/thing-1/whole.bin"));
    assert_eq!(fs::read(&path).unwrap(), [THING, b"AB"].concat());
    let asked = bench.asked();
    assert!(asked.len() == 2 && asked[1].starts_with("pack --ignore-scripts "), "{asked:?}");
    assert!(asked[1].ends_with(" texts@1"), "{asked:?}");
    assert_eq!(fs::read_dir(bench.at("cache/fetched/archives")).unwrap().count(), 0, "archives are not kept");

    // one is there, the other fails: the next try gets the other alone
    let bench = of_parts();
    fs::rename(bench.at("index/texts-1.tgz"), bench.at("away")).unwrap();
    let error = bench.fetcher.fetch(&bench.item).unwrap_err();
    assert!(
        error.reason.contains("npm did not download texts@1") && error.hint.contains("`npm pack texts@1`"),
        "{error}"
    );
    fs::rename(bench.at("away"), bench.at("index/texts-1.tgz")).unwrap();
    bench.fetcher.fetch(&bench.item).unwrap();
    assert_eq!(bench.asked().len(), 3);

    // what a later item is in too stays until then
    let mut bench = of_parts();
    bench.fetcher.later = vec![Box::leak(Box::new(Fetch { variants: bench.item.variants, ..of_parts().item }))];
    bench.fetcher.fetch(&bench.item).unwrap();
    assert_eq!(fs::read_dir(bench.at("cache/fetched/archives")).unwrap().count(), 2);
}

#[test]
fn several_files_are_brought_one_by_one() {
    let bench = of_parts();
    let error = bench.fetcher.take(&bench.item, &bench.at("index/texts-1.tgz")).unwrap_err();
    assert_eq!(error.failure, Failure::Part);
    assert!(error.reason.contains("1 of 2 files are here, pack-1.whl is missing"), "{error}");
    assert!(error.hint.contains("--from pack-1.whl"), "{error}");
    let path = bench.fetcher.take(&bench.item, &bench.at("index/pack-1.whl")).unwrap();
    assert_eq!(fs::read(path).unwrap(), [THING, b"AB"].concat());
    assert!(bench.asked().is_empty());
}

#[test]
fn terms_are_shown_and_nothing_is_obtained_until_they_are_accepted() {
    let page = b"<head><style>p {}</style></head>no<div class='x-article-body y'><p>You may &amp; you <div>must</div>\n not.<li>One</div>no";
    let mut bench = Bench::with(page, page);
    let text = Member { archive: bench.item.variants[0].archive, path: "pack/thing.bin" };
    let sha256 = bench.item.variants[0].sha256;
    bench.item.terms = Some(Licence { name: "strict", text, sha256, bytes: page.len() as u64 });
    let shown = bench.fetcher.terms(&bench.item).unwrap().unwrap();
    assert!(shown.starts_with("You may & you must\nnot.\nOne\n(the page: "), "{shown}");
    fs::remove_dir_all(bench.at("cache")).unwrap();
    for error in [bench.fetcher.fetch(&bench.item), bench.fetcher.take(&bench.item, &bench.at("thing"))] {
        let error = error.unwrap_err();
        assert_eq!(error.failure, Failure::Terms);
        assert!(error.hint.contains("ergometer fetch thing --accept-licence strict"), "{error}");
    }
    assert_eq!(bench.fetcher.state(&bench.item), FetchState::Absent);
    bench.fetcher.accepted = vec!["strict".into()];
    assert_eq!(bench.fetcher.terms(&bench.item), Ok(None));
    bench.fetcher.fetch(&bench.item).unwrap();
    // what was accepted once is not asked again
    bench.fetcher.accepted.clear();
    assert_eq!(bench.fetcher.terms(&bench.item), Ok(None));
    bench.fetcher.fetch(&bench.item).unwrap();
}

#[test]
fn the_table_is_sound() {
    let hexadecimal = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    for (i, item) in FETCHES.iter().enumerate() {
        assert!(FETCHES[..i].iter().all(|other| other.name != item.name), "{} twice", item.name);
        assert!(!item.variants.is_empty() && !item.licence.is_empty() && !item.about.is_empty(), "{}", item.name);
        for (j, v) in item.variants.iter().enumerate() {
            assert!(hexadecimal(v.sha256) && v.bytes > 0, "{}", item.name);
            for archive in v.members().map(|m| m.archive).chain(item.terms.map(|t| t.text.archive)) {
                let (mark, end) = match archive.manager {
                    PackageManager::Pip => ("==", ".whl"),
                    PackageManager::Npm => ("@", ".tgz"),
                };
                assert!(hexadecimal(archive.sha256) && archive.file.ends_with(end), "{}", item.name);
                assert!(archive.requirement[1..].contains(mark), "{} is not pinned", item.name);
            }
            assert!(!v.name().contains('*') && item.terms.is_none_or(|t| hexadecimal(t.sha256)), "{}", item.name);
            assert!(item.variants[..j].iter().all(|w| w.platform != v.platform), "{}: a platform twice", item.name);
        }
    }
    assert!(item("onnxruntime").is_some_and(|i| i.kind == FetchKind::Runtime) && item("nothing").is_none());
}
