//! Where the ONNX Runtime library is, and loading it once per process.
//!
//! In: environment variables, the cache of `ergometer fetch`, an installed wheel. Out: a [`Found`] library, or why there is none. Must not:
//! load anything while searching, or end the process: `ort` panics if it has to look for a library itself.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::backends::Unavailable;
use crate::console;
use crate::fetch;

/// The variable that names the library, or the folder that it is in.
pub const VARIABLE: &str = "ERGOMETER_ONNXRUNTIME";
/// The variable that `ort` itself reads.
const DYLIB: &str = "ORT_DYLIB_PATH";
/// First words of the library's file name.
const STEM: &str = "libonnxruntime.so";
/// Asks an interpreter where its `onnxruntime` is, without importing it; a folder of that name in the working directory is none.
const WHERE: &str = "import sys\n\
    sys.path = [p for p in sys.path if p]\n\
    import importlib.util\n\
    s = importlib.util.find_spec('onnxruntime')\n\
    print(*(s.submodule_search_locations or []) if s else [], sep='\\n')\n";

/// How long the interpreter may take to say it.
const PYTHON: Duration = Duration::from_secs(8);

/// What to do where there is none.
pub const REMEDY: &str =
    "`ergometer fetch onnxruntime` obtains it; or set ERGOMETER_ONNXRUNTIME to a libonnxruntime.so of your own";

/// What to do where the fetched one is damaged.
const ANEW: &str = "`ergometer fetch onnxruntime` obtains it anew";

/// A library that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Who named it.
    pub by: &'static str,
}

impl Found {
    /// What and where it is, for messages.
    pub fn words(&self) -> String {
        format!("ONNX Runtime at {} ({})", self.path.display(), self.by)
    }

    /// What the file's name says of its version, links followed: `libonnxruntime.so.1.31.1`.
    pub fn version(&self) -> Option<String> {
        let real = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        version_of(&real).map(str::to_string)
    }
}

fn version_of(path: &Path) -> Option<&str> {
    let version = path.file_name()?.to_str()?.strip_prefix(STEM)?.strip_prefix('.')?;
    let numbers = version.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    (numbers && version.contains('.')).then_some(version)
}

/// The places that are searched, in this order.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Named by the backend's option or by `ERGOMETER_ONNXRUNTIME`: a file or a folder.
    pub named: Option<PathBuf>,
    /// Named by `ORT_DYLIB_PATH`.
    pub dylib: Option<PathBuf>,
    /// What `ergometer fetch onnxruntime` has obtained.
    pub fetched: Option<PathBuf>,
    /// What lies there instead of what it obtains.
    pub damaged: Option<PathBuf>,
    /// The interpreter whose installed wheel will do: program and first arguments; empty: none.
    pub python: Vec<OsString>,
}

impl Places {
    /// Those of this process.
    pub fn from_env(option: Option<&str>) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            named: option.map(PathBuf::from).or_else(|| set(VARIABLE)),
            dylib: set(DYLIB),
            fetched: fetch::cached("onnxruntime"),
            damaged: fetch::damaged("onnxruntime"),
            python: vec!["python3".into()],
        }
    }

    /// The first library in these places. A named one that is not there is an error: another than the one that was meant would run.
    pub fn find(&self) -> Result<Found, Unavailable> {
        for (path, by) in [(&self.named, VARIABLE), (&self.dylib, DYLIB)] {
            let Some(path) = path else { continue };
            let file = if path.is_dir() { library_in(path) } else { path.is_file().then(|| path.clone()) };
            // `ort` takes a relative path for one from the program's folder
            let file = file.and_then(|file| std::path::absolute(file).ok());
            return file.map(|path| Found { path, by }).ok_or_else(|| Unavailable {
                reason: format!(
                    "there is no ONNX Runtime library at {}, which {by} names{}",
                    path.display(),
                    kind(path)
                ),
                hint: Some(REMEDY.into()),
            });
        }
        if let Some(path) = self.fetched.clone() {
            return Ok(Found { path, by: "ergometer fetch" });
        }
        self.installed().map(|path| Found { path, by: "installed wheel" }).ok_or_else(|| Unavailable {
            reason: format!(
                "there is no ONNX Runtime library: {VARIABLE} and {DYLIB} are not set, {}, and python3 has no \
                 wheel `onnxruntime` of version 1.{} or later",
                match &self.damaged {
                    Some(file) => format!(
                        "{} is damaged (its sha256 is not that of what `ergometer fetch onnxruntime` obtains)",
                        file.display()
                    ),
                    None => "none has been fetched".into(),
                },
                ort::MINOR_VERSION
            ),
            hint: Some(if self.damaged.is_some() { ANEW } else { REMEDY }.into()),
        })
    }

    /// The library of the interpreter's wheel, if it is not too old.
    fn installed(&self) -> Option<PathBuf> {
        let (program, first) = self.python.split_first()?;
        let mut python = Command::new(program);
        python.args(first).args(["-c", WHERE]);
        let folders = String::from_utf8(crate::foreign::output_within(python, PYTHON)?).ok()?;
        let library = folders.lines().find_map(|folder| library_in(&Path::new(folder).join("capi")))?;
        let minor: u32 = version_of(&library)?.split('.').nth(1)?.parse().ok()?;
        (minor >= ort::MINOR_VERSION).then_some(library)
    }
}

/// What lies there instead of a file, for the message.
fn kind(path: &Path) -> &'static str {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => " (a folder without libonnxruntime.so)",
        Ok(found) if !found.is_file() => " (no regular file)",
        Ok(_) => "",
        Err(_) if path.is_symlink() => " (a link that leads nowhere)",
        Err(_) => "",
    }
}

/// The library in a folder; of several names the one that tells most of its version.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let paths = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    let named = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(STEM));
        name.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    paths.filter(named).filter(|p| p.is_file()).max_by_key(|p| (version_of(p).is_some(), p.clone()))
}

/// The library of this process: the search for it and its loading happen once.
static LOADED: Mutex<Option<Found>> = Mutex::new(None);

/// Finds and loads the library; the same one for the rest of the process. `option`: the path that a case names.
pub fn loaded(option: Option<&str>) -> Result<Found, Unavailable> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = loaded.as_ref() {
        let same = |path: &&str| {
            let named = Places { named: Some(path.into()), ..Places::default() };
            named.find().is_ok_and(|other| other.path == found.path)
        };
        return match option.filter(|path| !same(path)) {
            None => Ok(found.clone()),
            Some(path) => Err(Unavailable {
                reason: format!("this process has loaded {} and cannot load {path} as well", found.path.display()),
                hint: Some("the option `library` is for `ergometer run`, where each case has its own process".into()),
            }),
        };
    }
    let found = Places::from_env(option).find()?;
    // loads it and checks its version; later calls into `ort` find it loaded
    ort::init_from(&found.path).map(drop).map_err(|e| Unavailable {
        reason: format!("{} cannot be used: {e}", found.words()),
        hint: Some(format!("it must be version 1.{} or later; {REMEDY}", ort::MINOR_VERSION)),
    })?;
    Ok(loaded.insert(found).clone())
}

/// The runtime's environment: one per process, without telemetry, made when the first model is loaded.
pub fn environment(option: Option<&str>) -> Result<&'static ort::environment::Environment, Unavailable> {
    static ENVIRONMENT: OnceLock<Result<ort::environment::Environment, String>> = OnceLock::new();
    loaded(option)?;
    let made = ENVIRONMENT.get_or_init(|| {
        let builder = ort::init().with_name("ergometer").with_telemetry(false);
        builder.build().map_err(|e| e.to_string())
    });
    made.as_ref().map_err(|e| Unavailable { reason: format!("ONNX Runtime does not start: {e}"), hint: None })
}

/// Obtains the library where it is nowhere and may be downloaded. Tried once per process.
pub fn prepare(option: Option<&str>) -> Result<(), Unavailable> {
    static OBTAINED: OnceLock<Result<(), Unavailable>> = OnceLock::new();
    let places = Places::from_env(option);
    if places.named.is_some() || places.dylib.is_some() || places.fetched.is_some() {
        // what it names may be missing or unfit: the worker will say so
        return Ok(());
    }
    let obtain = || {
        let Err(nowhere) = places.find() else { return Ok(()) };
        let Some(item) = fetch::item("onnxruntime").filter(|_| !fetch::offline()) else { return Err(nowhere) };
        console::info(format!("fetching onnxruntime {}, which this run needs and this machine lacks", item.version));
        fetch::Fetcher::from_env()
            // how far it is, where somebody sees it
            .and_then(|fetcher| fetch::Fetcher { chatty: std::io::stderr().is_terminal(), ..fetcher }.fetch(item))
            .map(drop)
            .map_err(|e| Unavailable { reason: format!("{}; {}", nowhere.reason, e.reason), hint: Some(e.hint) })
    };
    OBTAINED.get_or_init(obtain).clone()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with an interpreter whose wheel lies there.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "no library").unwrap();
            path
        }

        /// An interpreter that knows a wheel in this folder.
        fn python(&self, wheel: &str) -> Vec<OsString> {
            let script = self.0.path().join("python.sh");
            fs::write(&script, format!("echo '{}'\n", self.0.path().join(wheel).display())).unwrap();
            vec!["sh".into(), script.into()]
        }
    }

    #[test]
    fn places_are_searched_in_their_order() {
        let machine = Machine::new();
        let [named, dylib, fetched, wheel] =
            ["a/own.so", "b/dylib.so", "c/fetched.so", "d/capi/libonnxruntime.so.1.31.1"]
                .map(|name| machine.file(name));
        let mut places = Places {
            named: Some(named.clone()),
            dylib: Some(dylib.clone()),
            fetched: Some(fetched.clone()),
            damaged: None,
            python: machine.python("d"),
        };
        let found = |places: &Places| places.find().map(|f| (f.path, f.by)).unwrap();
        assert_eq!(found(&places), (named, VARIABLE));
        places.named = None;
        assert_eq!(found(&places), (dylib, DYLIB));
        places.dylib = None;
        assert_eq!(found(&places), (fetched, "ergometer fetch"));
        places.fetched = None;
        assert_eq!(found(&places), (wheel, "installed wheel"));
        places.python = Vec::new();
        let nowhere = places.find().unwrap_err();
        assert!(nowhere.reason.contains("there is no ONNX Runtime library"), "{nowhere:?}");
        assert!(nowhere.hint.unwrap().contains("ergometer fetch onnxruntime"));
    }

    #[test]
    fn a_named_library_that_is_not_there_is_not_replaced_by_another() {
        let machine = Machine::new();
        let fetched = Some(machine.file("fetched.so"));
        let named = Some(machine.0.path().join("absent.so"));
        let damaged = Places { damaged: fetched.clone(), ..Places::default() }.find().unwrap_err();
        assert!(damaged.reason.contains("fetched.so is damaged (its sha256") && damaged.hint.unwrap().contains("anew"));
        let error = Places { named, fetched, ..Places::default() }.find().unwrap_err();
        assert!(error.reason.contains("absent.so") && error.reason.contains(VARIABLE), "{error:?}");
        let empty = Places { dylib: Some(machine.0.path().into()), ..Places::default() };
        assert!(empty.find().unwrap_err().reason.contains(DYLIB));
    }

    #[test]
    fn a_folder_stands_for_the_library_in_it() {
        let machine = Machine::new();
        machine.file("capi/libonnxruntime_providers_shared.so");
        let plain = machine.file("capi/libonnxruntime.so.1");
        let in_folder = || Places { named: Some(machine.0.path().join("capi")), ..Places::default() }.find().unwrap();
        assert_eq!((in_folder().path, in_folder().version()), (plain, None));
        let full = machine.file("capi/libonnxruntime.so.1.31.1");
        assert_eq!((in_folder().path, in_folder().version()), (full, Some("1.31.1".into())));
    }

    #[test]
    fn an_old_wheel_is_none() {
        for (version, fits) in [("1.23.2", false), ("1.24.4", true), ("1.31.1", true), ("1", false), ("1.x", false)] {
            let machine = Machine::new();
            machine.file(&format!("w/capi/libonnxruntime.so.{version}"));
            let places = Places { python: machine.python("w"), ..Places::default() };
            assert_eq!(places.find().is_ok(), fits, "{version}");
        }
        let failing = Places { python: vec!["false".into()], ..Places::default() };
        assert!(failing.find().is_err() && Places::default().find().is_err());
    }

    #[test]
    fn a_wheel_is_looked_up_without_being_imported() {
        let machine = Machine::new();
        fs::create_dir_all(machine.0.path().join("site/onnxruntime/capi")).unwrap();
        fs::write(machine.0.path().join("site/onnxruntime/__init__.py"), "raise SystemExit('imported')").unwrap();
        let library = machine.file("site/onnxruntime/capi/libonnxruntime.so.1.30.0");
        let path = format!("PYTHONPATH={}", machine.0.path().join("site").display());
        let python = ["env", &path, "python3"].map(OsString::from).to_vec();
        assert_eq!(Places { python, ..Places::default() }.find().unwrap().path, library);
    }
}
