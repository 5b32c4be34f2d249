//! Where the shipped suites and models are.
//!
//! In: the environment, the place of the executable, the working directory. Out: paths of what is really there. Must
//! not: write anything, or read what is inside a suite or a model.

use std::path::{Path, PathBuf};

use crate::error::{SuiteError, near_matches};
use crate::toml_table::unknown;

/// The variable that names the folder of the shipped suites, or the folder above it.
pub const HOME_VARIABLE: &str = "ERGOMETER_HOME";

/// The folder of the shipped suites: what `ERGOMETER_HOME` names; else `suites/` of the nearest folder above the
/// executable that has `suites/quick.toml`; else where this crate was built, if that is still there; and only then
/// `suites/` of the nearest folder above the working directory. So a name means what was shipped with the program that
/// runs, wherever it is called.
pub fn home() -> Option<PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    find_home(std::env::var_os(HOME_VARIABLE).map(PathBuf::from), here, program, Path::new(env!("CARGO_MANIFEST_DIR")))
}

fn find_home(named: Option<PathBuf>, here: Option<PathBuf>, program: Option<PathBuf>, built: &Path) -> Option<PathBuf> {
    // A wrong variable finds nothing: going on to another folder would run a suite that the user did not mean.
    if let Some(named) = named.filter(|n| !n.as_os_str().is_empty()) {
        return [named.join("suites"), named].into_iter().find(|f| f.is_dir());
    }
    let above = |start: &Path| start.ancestors().map(|a| a.join("suites")).find(|f| f.join("quick.toml").is_file());
    let found = program.as_deref().and_then(above);
    let found = found.or_else(|| built.join("quick.toml").is_file().then(|| built.to_owned()));
    found.or_else(|| here.as_deref().and_then(above))
}

/// Names and files of the shipped suites, sorted by name.
pub fn shipped_suites() -> Vec<(String, PathBuf)> {
    home().map(|h| suites_in(&h)).unwrap_or_default()
}

fn suites_in(folder: &Path) -> Vec<(String, PathBuf)> {
    // Cargo.toml lies in the same folder and is no suite.
    entries(folder, |p| {
        p.is_file() && p.extension().is_some_and(|e| e == "toml") && p.file_stem().is_some_and(|s| s != "Cargo")
    })
}

/// Names and folders of the shipped models, sorted by name: trained ones in `models/` (`config.json` and
/// `model.safetensors`), then those with random weights in `timing/` (`config.json` alone).
pub fn shipped_models() -> Vec<(String, PathBuf)> {
    home().map(|h| models_in(&h)).unwrap_or_default()
}

fn models_in(home: &Path) -> Vec<(String, PathBuf)> {
    let mut found = entries(&home.join("models"), |p| p.join("model.safetensors").is_file() && is_model(p));
    found.extend(entries(&home.join("timing"), is_model));
    found
}

/// Names and files of the shipped training files, sorted by name.
pub fn shipped_trainings() -> Vec<(String, PathBuf)> {
    let is = |p: &Path| p.extension().is_some_and(|e| e == "toml");
    home().map(|h| entries(&h.join("train"), is)).unwrap_or_default()
}

/// The shipped training file that a bare name means, where no file is called so.
pub fn find_training(name: &Path) -> Option<PathBuf> {
    let bare = name.components().count() == 1 && name.extension().is_none() && !name.exists();
    let found = shipped_trainings().into_iter().find(|(n, _)| bare && name.as_os_str() == n.as_str());
    found.map(|(_, file)| file)
}

fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file()
}

fn entries(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<(String, PathBuf)> {
    let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<_> = paths
        .filter(|p| wanted(p))
        .filter_map(|p| {
            let name = if p.is_dir() { p.file_name() } else { p.file_stem() };
            Some((name?.to_str()?.to_owned(), p))
        })
        .collect();
    found.sort();
    found
}

/// The file that a user means by a path or by the bare name of a shipped suite.
pub(crate) fn find_suite(path_or_name: &Path) -> Result<PathBuf, SuiteError> {
    let bare = path_or_name.components().count() == 1 && path_or_name.extension().is_none();
    let shipped = shipped_suites();
    let name = path_or_name.to_string_lossy();
    // A shipped name means the shipped suite, also where a file or a folder is called so here: `./quick` is that one.
    if bare && let Some((_, file)) = shipped.iter().find(|(n, _)| *n == name) {
        return Ok(file.clone());
    }
    if path_or_name.is_file() || (!bare && path_or_name.exists()) {
        return Ok(path_or_name.to_owned());
    }
    if let Some(dangling) = crate::text::dangling(path_or_name) {
        return Err(dangling);
    }
    let error = unknown("suite", &name, shipped.iter().map(|(n, _)| n.as_str()));
    Err(match (home(), std::env::var_os(HOME_VARIABLE)) {
        (None, Some(named)) => {
            error.hint(format!("{HOME_VARIABLE} is {}, which is no folder", named.to_string_lossy()))
        }
        (None, None) => error.hint(format!("name a file, or set {HOME_VARIABLE} to the folder of the shipped suites")),
        _ if !bare => {
            // the path that a shipped suite has in the tree, elsewhere
            let stem = path_or_name.file_stem().unwrap_or_default().to_string_lossy();
            let near = near_matches(&stem, shipped.iter().map(|(n, _)| n.as_str()));
            let hint = match near.first() {
                Some(name) => {
                    format!("`{name}` is a shipped suite, found by its name from anywhere: `ergometer run {name}`")
                }
                None => "name a TOML file or a shipped suite (`ergometer list suites`)".into(),
            };
            SuiteError::new("no such file").in_file(path_or_name).hint(hint)
        }
        _ => error,
    })
}

/// What a path of fetched data begins with: `fetched:NAME-VERSION/FILE`.
pub const FETCHED: &str = "fetched:";

/// The file that a suite means by a path: one of `ergometer fetch` where it begins with [`FETCHED`], else one that
/// starts at `folder`. Whether it is there shows when it is opened, unless it was to be fetched.
///
/// # Errors
/// It was not fetched, or its name leads elsewhere.
pub fn data_file(folder: &Path, path: &str) -> Result<PathBuf, SuiteError> {
    let Some(name) = path.strip_prefix(FETCHED) else { return Ok(folder.join(path)) };
    let shown = || crate::tensors::shown_name(path);
    let Some(files) = places(name) else {
        return Err(SuiteError::new(format!("`{}` names nothing that is fetched", shown()))
            .hint("write `fetched:NAME-VERSION/FILE`; `ergometer fetch` lists names and versions"));
    };
    if let Some(found) = files.iter().find(|f| f.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let error = SuiteError::new(format!("`{}` is not here: no file {}", shown(), looked.join(", nor ")));
    Err(error.hint(files.first().and_then(|f| how_to_fetch(f)).unwrap_or_default()))
}

/// The model that a suite means by a path, as [`data_file`]; of one that was not fetched the place where it would be, so
/// that a suite can be read without it.
pub fn model_path(folder: &Path, path: &str) -> PathBuf {
    let places = path.strip_prefix(FETCHED).and_then(places).unwrap_or_default();
    let found = places.iter().find(|p| p.exists()).or(places.first());
    found.cloned().unwrap_or_else(|| folder.join(path))
}

/// Where a file of a fetched item, `NAME-VERSION/FILE`, may be; `None`: it is none.
fn places(name: &str) -> Option<Vec<PathBuf>> {
    let plain = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    let (item, file) = name.split_once('/')?;
    if !plain || item.is_empty() || file.is_empty() {
        return None;
    }
    let caches = ergometer_files::cache::CacheFolders::from_env();
    Some(caches.all().iter().map(|cache| cache.join("fetched").join(name)).collect())
}

/// The command that obtains the file of this place, where that is one of fetched files and nothing is there.
pub fn how_to_fetch(path: &Path) -> Option<String> {
    let item = path.parent().filter(|item| item.parent().is_some_and(|p| p.ends_with("fetched")))?.file_name()?;
    let name = item.to_str()?.rsplit_once('-')?.0;
    (!path.exists()).then(|| format!("`ergometer fetch {}` obtains it", crate::tensors::shown_name(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_home_is_found_and_a_wrong_variable_finds_none() {
        let root = tempfile::tempdir().unwrap();
        let (house, deep) = (root.path().join("house"), root.path().join("house/a/b"));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(house.join("suites/models/whole")).unwrap();
        std::fs::create_dir_all(house.join("suites/models/half")).unwrap();
        std::fs::create_dir_all(house.join("suites/timing/drawn")).unwrap();
        for file in [
            "quick.toml",
            "Cargo.toml",
            "notes.md",
            "models/whole/config.json",
            "models/whole/model.safetensors",
            "timing/drawn/config.json",
        ] {
            std::fs::write(house.join("suites").join(file), "").unwrap();
        }
        std::fs::write(house.join("suites/models/half/config.json"), "").unwrap();
        let suites = house.join("suites");
        let (none, some) = (Path::new("/nowhere"), |p: &Path| Some(p.to_owned()));

        assert_eq!(find_home(None, some(&deep), None, none), some(&suites));
        assert_eq!(find_home(None, some(root.path()), some(&deep.join("program")), none), some(&suites));
        assert_eq!(find_home(None, None, None, &suites), some(&suites));
        // a folder of somebody's above the working directory is no match for what was shipped with the program
        let (hostile, far) = (root.path().join("hostile/suites"), root.path().join("far"));
        std::fs::create_dir_all(&hostile).unwrap();
        std::fs::create_dir_all(&far).unwrap();
        std::fs::write(hostile.join("quick.toml"), "").unwrap();
        assert_eq!(find_home(None, some(&hostile), some(&deep.join("program")), none), some(&suites));
        assert_eq!(find_home(None, some(&hostile), some(&far.join("program")), &suites), some(&suites));
        assert_eq!(find_home(None, some(&hostile), some(&far.join("program")), none), some(&hostile));
        assert_eq!(find_home(None, some(root.path()), None, none), None);
        assert_eq!(find_home(some(&house), None, None, none), some(&suites));
        assert_eq!(find_home(some(&suites), None, None, none), some(&suites));
        assert_eq!(find_home(some(none), some(&deep), None, &suites), None);

        let names = |found: Vec<(String, PathBuf)>| found.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(suites_in(&suites)), ["quick"]);
        assert_eq!(names(models_in(&suites)), ["whole", "drawn"]);
    }
}
