//! A powercap tree of known wattage in a temporary folder, for tests of the meter and of whole runs.
//!
//! In: zones with a name and a power. Out: a folder for `ERGOMETER_POWERCAP` whose `energy_uj` files advance while it lives. Must not: be
//! used where a reading is believed; it measures nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Range of the counters unless a zone says otherwise: what Intel counters in units of 61 µJ give.
pub const USUAL_RANGE_UJ: u64 = 262_143_328_850;

/// How often the counters advance unless [`FakePowercap::every`] says otherwise.
const PERIOD: Duration = Duration::from_millis(4);

/// A tree in the making.
#[derive(Clone, Debug, Default)]
pub struct FakePowercap {
    zones: Vec<Zone>,
    period: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Zone {
    folder: String,
    name: String,
    watts: f64,
    first: u64,
    range: u64,
    /// W of its power limit.
    limit: Option<u64>,
    /// Seconds between resets.
    reset: Option<f64>,
}

impl FakePowercap {
    /// A tree without zones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a zone: its folder (`intel-rapl:0`), what its file `name` says (`package-0`) and its power in W. The counter of the first
    /// begins at 1 J, of the next at 1001 J and so on: equal values mean one counter under two names.
    pub fn zone(self, folder: &str, name: &str, watts: f64) -> Self {
        let first = 1_000_000 + 1_000_000_000 * self.zones.len() as u64;
        self.counter(folder, name, watts, first, USUAL_RANGE_UJ)
    }

    /// Adds a zone whose counter begins at `first` and wraps at `range`, both in µJ.
    pub fn counter(mut self, folder: &str, name: &str, watts: f64, first: u64, range: u64) -> Self {
        self.zones.push(Zone {
            folder: folder.into(),
            name: name.into(),
            watts,
            first,
            range,
            limit: None,
            reset: None,
        });
        self
    }

    /// Gives the last zone a power limit, in W.
    pub fn limit(mut self, watts: u64) -> Self {
        self.zones.last_mut().expect("there is a zone").limit = Some(watts);
        self
    }

    /// Sets the last zone's counter back to 0 each time that so many seconds have passed.
    pub fn reset_each(mut self, seconds: f64) -> Self {
        self.zones.last_mut().expect("there is a zone").reset = Some(seconds);
        self
    }

    /// Lets the counters advance once in this time.
    pub fn every(self, period: Duration) -> Self {
        Self { period: Some(period), ..self }
    }

    /// Writes the tree, and leaves its counters as they are.
    ///
    /// # Errors
    /// The temporary folder cannot be written.
    pub fn still(self) -> io::Result<FakeTree> {
        // in memory, where there is such a place: a counter that waits for a disk stands still
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        for zone in &self.zones {
            let path = folder.path().join(&zone.folder);
            fs::create_dir_all(&path)?;
            fs::write(path.join("name"), format!("{}\n", zone.name))?;
            fs::write(path.join("max_energy_range_uj"), format!("{}\n", zone.range))?;
            if let Some(watts) = zone.limit {
                fs::write(path.join("constraint_0_power_limit_uw"), format!("{}\n", watts * 1_000_000))?;
            }
            set(&path, zone.first)?;
        }
        let counted = Arc::new(Mutex::new(vec![0.0; self.zones.len()]));
        Ok(FakeTree { folder, zones: self.zones, counted, stop: Arc::new(AtomicBool::new(false)), thread: None })
    }

    /// Writes the tree and advances its counters from a thread until the tree is dropped.
    ///
    /// # Errors
    /// As [`still`](Self::still).
    pub fn run(self) -> io::Result<FakeTree> {
        let period = self.period.unwrap_or(PERIOD);
        let mut tree = self.still()?;
        let (zones, counted) = (tree.zones.clone(), tree.counted.clone());
        let (root, stop) = (tree.folder.path().to_path_buf(), tree.stop.clone());
        let begin = Instant::now();
        tree.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
                let seconds = begin.elapsed().as_secs_f64();
                for (zone, counted) in zones.iter().zip(counted.iter_mut()) {
                    let microjoules = (seconds * zone.watts * 1e6) as u64;
                    let now = match zone.reset {
                        Some(each) => u128::from((seconds % each * zone.watts * 1e6) as u64),
                        None => (u128::from(zone.first) + u128::from(microjoules)) % u128::from(zone.range.max(1)),
                    };
                    // A zone that a test has removed stays away.
                    let _ = set(&root.join(&zone.folder), now as u64);
                    *counted = microjoules as f64 * 1e-6;
                }
                drop(counted);
                std::thread::sleep(period);
            }
        }));
        Ok(tree)
    }
}

/// A tree on the disk, removed when dropped.
pub struct FakeTree {
    folder: tempfile::TempDir,
    zones: Vec<Zone>,
    /// J that each zone has counted since the tree began to run, as its file says at this moment.
    counted: Arc<Mutex<Vec<f64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeTree {
    /// What `ERGOMETER_POWERCAP` is to say.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a zone.
    pub fn zone(&self, folder: &str) -> PathBuf {
        self.folder.path().join(folder)
    }

    /// J that the zones of this name have counted, wraps or not, as their files say at this moment: a window that lies between two calls
    /// holds at most their difference, however late the machine lets the counting thread run.
    pub fn joules(&self, name: &str) -> f64 {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        self.zones.iter().zip(counted.iter()).filter(|(z, _)| z.name == name).map(|(_, joules)| joules).sum()
    }

    /// Sets a counter, in µJ.
    ///
    /// # Errors
    /// The zone's folder is gone.
    pub fn set(&self, folder: &str, microjoules: u64) -> io::Result<()> {
        set(&self.zone(folder), microjoules)
    }
}

impl FakeTree {
    /// Lets its counters stand still from now on.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for FakeTree {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Renamed into place, so that a reader never sees half a number.
fn set(zone: &Path, microjoules: u64) -> io::Result<()> {
    let aside = zone.join(".energy_uj");
    fs::write(&aside, format!("{microjoules}\n"))?;
    fs::rename(aside, zone.join("energy_uj"))
}
