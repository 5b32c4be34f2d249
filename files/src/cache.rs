//! Where the user's cache folder may be.
//!
//! In: the environment. Out: folders to be tried, the best first. Must not: look whether they are there, or make one.

use std::env;
use std::path::PathBuf;

/// The variable that names the folder.
pub const VARIABLE: &str = "ERGOMETER_CACHE";

/// Folders that may be the cache folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFolders {
    /// The one that [`VARIABLE`] names, and no other.
    Named(PathBuf),
    /// The variable names none.
    Usual {
        /// `ergometer` in the user's cache folder, where the system names that.
        home: Option<PathBuf>,
        /// This user's own in the folder for temporary files, where the other is of no use.
        temporary: PathBuf,
    },
}

impl CacheFolders {
    /// Those of this process.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(named) = set(VARIABLE) {
            return Self::Named(named);
        }
        let home = set("XDG_CACHE_HOME")
            .filter(|p| p.is_absolute())
            .map(|p| p.join("ergometer"))
            .or_else(|| set("HOME").map(|p| p.join(".cache/ergometer")));
        let user = rustix::process::geteuid().as_raw();
        Self::Usual { home, temporary: env::temp_dir().join(format!("ergometer-cache-{user}")) }
    }

    /// All of them, the best first.
    pub fn all(self) -> Vec<PathBuf> {
        match self {
            Self::Named(named) => vec![named],
            Self::Usual { home, temporary } => home.into_iter().chain([temporary]).collect(),
        }
    }
}
