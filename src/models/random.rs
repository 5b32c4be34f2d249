//! Random weights: how a net starts before training, and models that are nothing but their `config.json`.
//!
//! In: a graph's declared starts, a seed, a config's `random_weights`. Out: weights that are the same bits on every machine, and a whole
//! model folder for programs that want a file. Must not: call the system's mathematics library (its last digits differ), or draw more than
//! [`MOST_DRAWN`] weights because a config says so.
//!
//! Random weights serve for timing alone. Undamped they make a recursive net chaotic, since its calls feed each other: an error of rounding
//! then grows until no tolerance means anything. So the matrices that write to the residual are scaled by `damping`. And what training starts
//! at a constant, such as an embedding or a halting head of zeros, is drawn narrowly around it, since a backend that forgets a zero is right.

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use sha2::{Digest, Sha256};

use super::{Model, ModelError, config_error};
use crate::files::hex;
use crate::graph::{Graph, Param, Start};

/// Key of a config that asks for random weights.
const ASKED: &str = "random_weights";
/// Key that stands in its place in a config whose weights have been written to a file.
const WRITTEN: &str = "drawn_weights";
/// Ends of the names of matrices that write to the residual.
const TO_RESIDUAL: [&str; 2] = ["o_proj.weight", "down_proj.weight"];
/// Standard deviation of what training starts at a constant.
const AROUND_CONSTANT: f32 = 0.02;
/// Most weights that a config may ask for: 1 GiB of them.
pub const MOST_DRAWN: usize = 1 << 28;

/// What a config asks for.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RandomWeights {
    /// Seed of the draw.
    seed: u64,
    /// Factor on the matrices that write to the residual.
    damping: f64,
}

impl RandomWeights {
    /// What the config asks for, if it asks.
    pub fn read(config: &Value) -> Result<Option<Self>, ModelError> {
        let Some(asked) = config.get(ASKED) else { return Ok(None) };
        let hint = "write it as {\"seed\": 1, \"damping\": 0.12}";
        let asked =
            Self::deserialize(asked).map_err(|e| config_error(format!("`{ASKED}`: {e}")).hint(hint.to_string()))?;
        if !(asked.damping > 0.0 && asked.damping <= 1.0) {
            let message = format!("`{ASKED}`: `damping` is {}; it must lie above 0, and 1 is none", asked.damping);
            return Err(config_error(message).hint(hint.to_string()));
        }
        Ok(Some(asked))
    }

    /// Draws every parameter of a graph.
    pub fn draw(&self, graph: &Graph) -> Result<Vec<Vec<f32>>, ModelError> {
        few_enough(graph, &format!("`{ASKED}`")).map_err(|e| e.hint("put the weights into model.safetensors"))?;
        let draw = |(index, p): (usize, &Param)| {
            let damping = if TO_RESIDUAL.iter().any(|end| p.name.ends_with(end)) { self.damping } else { 1.0 };
            let (middle, std) = match p.start {
                Start::Normal(std) => (0.0, std),
                Start::Constant(c) => (c, AROUND_CONSTANT),
            };
            let mut normal = Normal::new(self.seed, index);
            (0..p.elements()).map(|_| (f64::from(middle) + normal.draw() * f64::from(std) * damping) as f32).collect()
        };
        Ok(graph.params.iter().enumerate().map(draw).collect())
    }
}

/// Errors: more weights than are drawn because a config says so.
pub(super) fn few_enough(graph: &Graph, what: &str) -> Result<(), ModelError> {
    let elements: usize = graph.params.iter().map(Param::elements).sum();
    if elements <= MOST_DRAWN {
        return Ok(());
    }
    Err(config_error(format!("{what} of {elements} parameters; {MOST_DRAWN} are the most"))
        .hint("make the net smaller: fewer layers, a smaller `hidden_size` or `vocab_size`"))
}

/// How parameter `index` of a net starts before training.
pub(super) fn start_values(p: &Param, seed: u64, index: usize) -> Vec<f32> {
    match p.start {
        Start::Constant(c) => vec![c; p.elements()],
        Start::Normal(std) => {
            let mut normal = Normal::new(seed, index);
            (0..p.elements()).map(|_| (normal.draw() * f64::from(std)) as f32).collect()
        }
    }
}

/// Normal numbers of standard deviation 1, cut off at two of them, each a sum of twelve uniform ones (Irwin and Hall).
pub(crate) struct Normal(ChaCha8Rng);

impl Normal {
    /// A stream for parameter (or state) `index` of what has this seed.
    pub fn new(seed: u64, index: usize) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Twelve uniform integers of 16 bits have, as near as makes no difference, mean 12 · 65535/2 and standard deviation 65536; so the
    /// result is a fraction over 2^17, and exact.
    pub fn draw(&mut self) -> f64 {
        loop {
            let sixteen_bits =
                |word: u64| (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
            let sum: u64 = (0..3).map(|_| sixteen_bits(self.0.next_u64())).sum();
            let z = (2.0 * sum as f64 - 12.0 * 65535.0) / 131_072.0;
            if z.abs() <= 2.0 {
                return z;
            }
        }
    }
}

/// The two files of the model that a config with `random_weights` stands for: the config, which now says where the weights came from, and
/// the weights.
pub(super) fn files(config: &Value, graph: &Graph, params: &[Vec<f32>]) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut()
        && let Some(asked) = fields.remove(ASKED)
    {
        fields.insert(WRITTEN.into(), asked);
    }
    super::files(&config, graph, params)
}

/// Whether the weights of a model folder are random ones, drawn or written: its answers then mean nothing.
pub fn is_random(folder: &Path) -> Result<bool, ModelError> {
    if super::file::is_onnx(folder) || super::language::opened::is_language(folder) {
        return Ok(false);
    }
    let (_, config) = super::read_json(&folder.join("config.json"))?;
    Ok([ASKED, WRITTEN].iter().any(|key| config.get(key).is_some()))
}

/// A folder with this model's weights in a file, for programs that cannot draw them: the model's own folder, or one in the cache that is
/// made at the first call and believed only if it holds what `hash` says.
pub fn materialise(folder: &Path, hash: &str, cache: &Path) -> anyhow::Result<PathBuf> {
    if super::file::is_onnx(folder) || super::language::opened::is_language(folder) {
        return Ok(folder.to_path_buf());
    }
    let (_, config) = super::read_json(&folder.join("config.json"))?;
    if config.get(ASKED).is_none() {
        return Ok(folder.to_path_buf());
    }
    let name = folder.file_name().map_or("model".into(), |n| n.to_string_lossy());
    let whole = cache.join("models").join(format!("{name}-{}", &hash[..16.min(hash.len())]));
    if file_hash(&whole).is_ok_and(|found| found == hash) {
        return Ok(whole);
    }
    let model = Model::load(folder)?;
    let (config, weights) = files(&config, model.graph()?, &model.params)?;
    super::write(&whole, &config, &weights)?;
    let found = file_hash(&whole)?;
    if found != hash {
        let message = format!("what was written is not the model that was looked at ({} now)", &found[..16]);
        return Err(ModelError::changed(&whole, message).into());
    }
    Ok(whole)
}

/// The hash of a folder with both files.
fn file_hash(folder: &Path) -> Result<String, ModelError> {
    let mut sum = Sha256::new().chain_update(super::weights::config_bytes(folder)?);
    super::weights::hash(folder, &mut sum)?;
    Ok(hex(&sum.finalize()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 2, "expansion": 1.0, "H_cycles": 1,
            "L_cycles": 1, "L_layers": 1, "puzzle_emb_ndim": 8, "num_puzzle_identifiers": 1,
            "random_weights": {"seed": 1, "damping": 0.12}})
    }

    fn folder_of(config: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        folder
    }

    #[test]
    fn drawn_weights_are_the_same_bits_on_every_machine() {
        let model = Model::load(folder_of(&config()).path()).unwrap();
        assert_eq!(&model.hash[..32], "acef1f65b27a96633b9c9e61c992e551");
    }

    #[test]
    fn the_draw_is_normal_cut_at_two_deviations() {
        let mut normal = Normal::new(7, 3);
        let all: Vec<f64> = (0..200_000).map(|_| normal.draw()).collect();
        let moment = |k: i32| all.iter().map(|z| z.powi(k)).sum::<f64>() / all.len() as f64;
        // of a normal distribution cut at two deviations: variance 0.774, fourth moment 1.42; a sum of twelve has slightly more in its flanks
        assert!(moment(1).abs() < 0.01, "{}", moment(1));
        assert!((moment(2) - 0.78).abs() < 0.02, "{}", moment(2));
        assert!((moment(4) - 1.43).abs() < 0.06, "{}", moment(4));
        assert!(all.iter().all(|z| z.abs() <= 2.0) && all.iter().any(|z| z.abs() > 1.99));
    }

    #[test]
    fn what_writes_to_the_residual_is_damped_and_no_constant_is_left() {
        let undamped = RandomWeights { seed: 1, damping: 1.0 };
        let graph = super::super::build_graph(&config()).unwrap();
        let (damped, full) =
            (RandomWeights { damping: 0.12, ..undamped }.draw(&graph).unwrap(), undamped.draw(&graph).unwrap());
        let spread = |v: &[f32]| v.iter().fold(0f32, |m, x| m.max(x.abs()));
        let mut damped_ones = Vec::new();
        for ((p, a), b) in graph.params.iter().zip(&damped).zip(&full) {
            if a == b {
                assert!(a.iter().any(|v| *v != a[0]), "{} is the same everywhere", p.name);
            } else {
                assert!((spread(a) / spread(b) - 0.12).abs() < 1e-6, "{}", p.name);
                damped_ones.push(p.name.clone());
            }
        }
        assert_eq!(damped_ones, ["L_level.layers.0.mlp.down_proj.weight", "L_level.layers.0.self_attn.o_proj.weight"]);
    }

    #[test]
    fn a_materialised_model_is_the_drawn_one_and_damage_is_mended() {
        let (folder, cache) = (folder_of(&config()), tempfile::tempdir().unwrap());
        let drawn = Model::load(folder.path()).unwrap();
        let make = || materialise(folder.path(), &drawn.hash, cache.path()).unwrap();
        let whole = make();
        let read = Model::load(&whole).unwrap();
        assert_eq!((&read.hash, &read.params), (&drawn.hash, &drawn.params));
        assert!(is_random(folder.path()).unwrap() && is_random(&whole).unwrap());
        // a folder with weights is its own
        assert_eq!(materialise(&whole, &drawn.hash, cache.path()).unwrap(), whole);
        std::fs::write(whole.join("model.safetensors"), b"half a file").unwrap();
        assert_eq!(Model::load(&make()).unwrap().hash, drawn.hash);
        // nothing else passes for it
        let error = materialise(folder.path(), &"0".repeat(64), cache.path()).unwrap_err().to_string();
        assert!(error.contains("is not the model"), "{error}");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_with_a_remedy() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut config = config();
            change(&mut config);
            Model::load(folder_of(&config).path()).unwrap_err().to_string()
        };
        for wrong in [
            json!(1),
            json!({"seed": 1}),
            json!({"seed": -1, "damping": 0.1}),
            json!({"seed": 1, "damping": 0.1, "std": 2}),
        ] {
            let error = refused(&|c| c["random_weights"] = wrong.clone());
            assert!(error.contains("config.json") && error.contains("hint: write it as"), "{error}");
        }
        for damping in [0.0, -0.1, 1.5] {
            assert!(refused(&|c| c["random_weights"]["damping"] = damping.into()).contains("must lie above 0"));
        }
        let large = refused(&|c| (c["vocab_size"], c["hidden_size"]) = ((1 << 22).into(), 128.into()));
        assert!(large.contains("are the most"), "{large}");
        let both = folder_of(&config());
        std::fs::write(both.path().join("model.safetensors"), b"").unwrap();
        let error = Model::load(both.path()).unwrap_err().to_string();
        assert!(error.contains("remove one of them"), "{error}");
    }
}
