//! The `tract` backend: Sonos' pure-Rust inference engine on the CPU, running the file that the exporter writes.
//!
//! In: a graph, exported to ONNX in memory. Out: an [`Engine`] whose states are tensors, fed back as they are. Must not: change what the
//! exporter writes, or call a product bf16 that is computed in f32.
//!
//! Options (defaults first):
//! - `shapes` static | symbolic: with `static` every size of a ladder of batches is a plan of its own, optimised for that size and holding its
//!   own packed weights; a step runs the smallest that holds its rows and computes the rest for nothing, which `flops_executed` says. With
//!   `symbolic` one plan serves every batch. In bf16 the default is, and only can be, `symbolic`.
//! - `ladder` powers | capacity: batches of 1, 2, 4, ... and the capacity, or the capacity alone (static shapes only).
//! - `opset` 17 | 23: with 23 norms and attention are single operators of the file, with 17 they are written out.
//!
//! A language model it runs as a file of one step whose caches are inputs and outputs ([`crate::onnx::decoder`]): in f32, with weights dequantised, open lengths
//! (`opset` is its only option), one sequence a run and all experts of a mixture computed.
//!
//! A file of somebody else's it loads as it is (`file`), with static shapes, in the precision of the file; it has no other option then.
//!
//! Precision `bf16` is tract's opt-in to AMX: operands of f32 products are rounded to bf16 as they are packed, and summed in f32. With a fixed
//! shape tract 0.23.9 finds its AMX kernel by name and takes the first of its packings, which is plain f32 on vector units; only
//! where the number of columns is open does it take the bf16 one. So the products of this precision are those with an open shape
//! (all linear layers, not the products inside attention), the engine counts them by reading its plan, and a plan without
//! any is refused. `TRACT_AMX_BF16` in the environment is overruled: the precision decides.
//!
//! With more than one thread tract splits products and row-wise operators over a pool of its own, the larger ones only.

use std::collections::BTreeMap;

use tract_linalg::isa::{Arch, Isa};
use tract_onnx::tract_core::knobs;

use super::cached::FileLanguage;
use super::language::LanguageEngine;
use super::{Backend, BackendError, Described, Engine, FILE_PRECISIONS, Options, Unavailable};
use crate::models::Model;
use crate::models::language::LanguageModel;
use crate::onnx::Opset;

mod engine;
mod file;
mod language;
mod plan;

/// See the module.
pub struct Tract;

/// tract as locked by this build; a test holds it to the lock file.
const VERSION: &str = "0.23.9";

/// Settings of tract that only the environment carries: they decide which kernels run.
const ENVIRONMENT: [&str; 3] = ["TRACT_CPU_ISA", "TRACT_X86_KIND", "TRACT_CONFIG"];

/// Options in effect, as [`Tract`] understands them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    bf16: bool,
    symbolic: bool,
    /// All sizes of the ladder; else the capacity alone.
    powers: bool,
    opset: Opset,
}

impl Chosen {
    fn of(options: &Options) -> Result<Self, BackendError> {
        if options.file.is_some() {
            super::is_files(options)?;
            return match options.extra.keys().find(|name| *name != "shapes") {
                None if options.extra.get("shapes").is_none_or(|v| v == "static") => Ok(Self::OF_A_FILE),
                _ => Err(BackendError::Failed(
                    "backend `tract` runs a file with static shapes, and has no other option for one\nhint: leave its options out".into(),
                )),
            };
        }
        let bf16 = match options.precision.as_str() {
            "f32" => false,
            "bf16" => true,
            other => {
                return Err(BackendError::unavailable(format!("tract computes in f32 and bf16 here, not in {other}")));
            }
        };
        if options.language {
            return Self::of_language(options);
        }
        let mut chosen = Self { bf16, symbolic: bf16, powers: true, opset: Opset::Seventeen };
        for (name, value) in &options.extra {
            let wrong = |choices: &str| {
                let message = format!("backend `tract` has no `{name} = {value}`\nhint: `{name}` is {choices}");
                Err(BackendError::Failed(message))
            };
            match (name.as_str(), value.as_str()) {
                ("shapes", "static") => chosen.symbolic = false,
                ("shapes", "symbolic") => chosen.symbolic = true,
                ("shapes", _) => return wrong("static or symbolic"),
                ("ladder", "powers") => chosen.powers = true,
                ("ladder", "capacity") => chosen.powers = false,
                ("ladder", _) => return wrong("powers or capacity"),
                ("opset", "17") => chosen.opset = Opset::Seventeen,
                ("opset", "23") => chosen.opset = Opset::TwentyThree,
                ("opset", _) => return wrong("17 or 23"),
                _ => {
                    let message =
                        format!("backend `tract` has no option `{name}`\nhint: it has shapes, ladder and opset");
                    return Err(BackendError::Failed(message));
                }
            }
        }
        if chosen.bf16 && !chosen.symbolic {
            return Err(BackendError::Unavailable(Unavailable {
                reason: format!("with static shapes tract {VERSION} runs its bf16 kernel on f32 operands"),
                hint: Some("bf16 needs `shapes = symbolic`, its default".into()),
            }));
        }
        if chosen.symbolic && options.extra.contains_key("ladder") {
            let message = "backend `tract` has a `ladder` with static shapes only\nhint: leave it out, or ask for `shapes = static`";
            return Err(BackendError::Failed(message.into()));
        }
        Ok(chosen)
    }

    /// Of a language model, whose lengths are open.
    fn of_language(options: &Options) -> Result<Self, BackendError> {
        if options.precision != "f32" {
            let message = format!("tract computes language models in f32 here, not in {}", options.precision);
            return Err(BackendError::unavailable(message));
        }
        let mut chosen = Self { bf16: false, symbolic: true, powers: true, opset: Opset::Seventeen };
        for (name, value) in &options.extra {
            match (name.as_str(), value.as_str()) {
                ("opset", "17") | ("shapes", "symbolic") => {}
                ("opset", "23") => chosen.opset = Opset::TwentyThree,
                _ => {
                    let message = format!(
                        "backend `tract` has no `{name} = {value}` for a language model\nhint: it has `opset`, which is 17 or 23"
                    );
                    return Err(BackendError::Failed(message));
                }
            }
        }
        Ok(chosen)
    }

    /// A file's batch and lengths are fixed when it is loaded; nothing is written.
    const OF_A_FILE: Self = Self { bf16: false, symbolic: false, powers: false, opset: Opset::Seventeen };

    fn written_out(self, file: bool) -> BTreeMap<String, String> {
        let shapes = if self.symbolic { "symbolic" } else { "static" };
        if file {
            return BTreeMap::from([("shapes".into(), shapes.into())]);
        }
        let mut all = vec![("shapes", shapes), ("opset", if self.opset == Opset::Seventeen { "17" } else { "23" })];
        if !self.symbolic {
            all.push(("ladder", if self.powers { "powers" } else { "capacity" }));
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl Backend for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn about(&self) -> &'static str {
        "Sonos' tract on the CPU, on the exported graph; fixed shapes on a ladder of batch sizes, or open ones"
    }

    fn precisions(&self) -> &'static [&'static str] {
        &["f32", "bf16"]
    }

    fn language_precisions(&self) -> &'static [&'static str] {
        &["f32"]
    }

    fn file_precisions(&self) -> &'static [&'static str] {
        FILE_PRECISIONS
    }

    fn probe(&self) -> Result<BTreeMap<String, String>, Unavailable> {
        check_environment()?;
        let mut facts = BTreeMap::from([
            ("tract".to_owned(), VERSION.to_owned()),
            ("tract-linalg-features".to_owned(), "multithread-mm".to_owned()),
            ("isa".to_owned(), isa(false)),
            ("amx-bf16".to_owned(), if has(Isa::X86_64AmxBf16) { "yes" } else { "no" }.to_owned()),
        ]);
        for knob in knobs::all() {
            let (current, default) = ((knob.current)(), (knob.default)());
            // set by the precision, not by the user
            if current != default && knob.name != AMX {
                facts.insert(knob.name.to_owned(), current);
            }
        }
        for name in ENVIRONMENT {
            if let Ok(value) = std::env::var(name) {
                facts.insert(name.to_owned(), value);
            }
        }
        if let Ok(value) = std::env::var(AMX) {
            facts.insert(format!("{AMX} (overruled)"), value);
        }
        Ok(facts)
    }

    fn environment(&self, options: &Options) -> Vec<(&'static str, String)> {
        vec![(AMX, u8::from(options.precision == "bf16" && options.file.is_none()).to_string())]
    }

    fn settings(&self, options: &Options) -> Vec<BTreeMap<String, String>> {
        let set = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        if options.file.is_some() {
            return vec![BTreeMap::new()];
        }
        let mut all = vec![BTreeMap::new(), set(&[("opset", "23")])];
        if options.language {
            return all;
        }
        if options.precision != "bf16" {
            if options.capacity > 1 {
                all.push(set(&[("ladder", "capacity")]));
            }
            all.push(set(&[("shapes", "symbolic")]));
            all.push(set(&[("shapes", "symbolic"), ("opset", "23")]));
        }
        all
    }

    fn describe(&self, options: &Options) -> Result<Described, BackendError> {
        check_environment().map_err(BackendError::Unavailable)?;
        let chosen = Chosen::of(options)?;
        if chosen.bf16 && !has(Isa::X86_64AmxBf16) {
            return Err(BackendError::Unavailable(Unavailable {
                reason: format!(
                    "bf16 needs AMX-BF16, which this machine does not offer to tract (it has {})",
                    isa(false)
                ),
                hint: Some("run it in f32, or on a processor with AMX (Sapphire Rapids and later)".into()),
            }));
        }
        let shapes = if chosen.symbolic { "symbolic" } else { "static" };
        Ok(Described { isa: isa(chosen.bf16), shapes, options: chosen.written_out(options.file.is_some()) })
    }

    fn load(&self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, BackendError> {
        self.describe(options)?;
        if let Some(asked) = &model.file {
            super::file::fits(asked.rows, options.capacity)?;
            let runner = file::TractFile::new(asked, options.capacity.max(1), options.threads)?;
            return Ok(Box::new(super::file::FileEngine::new(runner, asked.clone(), options.capacity)?));
        }
        Ok(Box::new(engine::TractEngine::new(model, options, Chosen::of(options)?)?))
    }

    fn speaks(&self) -> bool {
        true
    }

    fn load_language(&self, model: &LanguageModel, options: &Options) -> Result<Box<dyn LanguageEngine>, BackendError> {
        let options = Options { language: true, ..options.clone() };
        self.describe(&options)?;
        let runner = language::TractCaches::new(model, Chosen::of(&options)?.opset, options.threads)?;
        Ok(Box::new(FileLanguage::new(model, options.capacity, runner)))
    }
}

/// tract's switch for bf16 products.
const AMX: &str = "TRACT_AMX_BF16";

fn has(isa: Isa) -> bool {
    check_environment().is_ok() && tract_linalg::isa::native().has(isa)
}

/// The widest f32 kernels that tract has for this machine, and its bf16 tiles where they are used.
fn isa(bf16: bool) -> String {
    let widest = if has(Isa::X86_64Avx512f) {
        "avx512f"
    } else if has(Isa::X86_64Fma) && has(Isa::X86_64Avx2) {
        "avx2+fma"
    } else if has(Isa::X86_64Avx) {
        "avx"
    } else if cfg!(target_arch = "aarch64") {
        "neon"
    } else {
        "generic"
    };
    if bf16 { format!("{widest}+amx-bf16") } else { widest.into() }
}

/// tract panics on a `TRACT_CPU_ISA` that names a feature of another architecture.
fn check_environment() -> Result<(), Unavailable> {
    let Ok(spec) = std::env::var("TRACT_CPU_ISA") else { return Ok(()) };
    match foreign(&spec) {
        None => Ok(()),
        Some(token) => Err(Unavailable {
            reason: format!("TRACT_CPU_ISA is `{spec}`: `{token}` is no feature of this architecture"),
            hint: Some("unset TRACT_CPU_ISA".into()),
        }),
    }
}

/// The first part of a `TRACT_CPU_ISA` that tract would not survive.
fn foreign(spec: &str) -> Option<&str> {
    let own = Arch::ALL.iter().find(|arch| arch.is_native());
    spec.split(',').map(str::trim).filter(|token| !token.is_empty()).find(|token| {
        let name = token.strip_prefix(['+', '-']).unwrap_or(token);
        let known = Isa::ALL.iter().find(|isa| isa.name() == name);
        !token.is_ascii() || known.is_some_and(|isa| Some(&isa.arch()) != own)
    })
}

#[cfg(test)]
mod tests;
