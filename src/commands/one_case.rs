//! The suite of one case that `time` and `tune` run: a model, a backend, and the examples that a task has ready for such a model.
//!
//! In: what the flags say. Out: a suite file. Must not: run anything, know a task by name, or guess one
//! for a model that none fits.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ergometer_suites::language;
use ergometer_suites::task::QuickSet;
use ergometer_suites::{FileForm, Task};
use serde_json::json;

use super::file_case::{self, FileCase};
use super::flags;
use crate::backends::Backend;
use crate::graph::cost::Workload;
use crate::models::Model;
use crate::models::file::{OnnxFile, is_onnx};
use crate::models::interface::Interface;
use crate::models::language::{LanguageModel, opened};
use crate::runner::estimate::RATE;

/// What the flags say.
#[derive(Clone, Debug)]
pub struct OneCase {
    /// Folder of a model, or the name of a shipped one.
    pub model: PathBuf,
    /// Backend.
    pub backend: String,
    /// Precision; the backend's first if not given.
    pub precision: Option<String>,
    /// Rows per iteration.
    pub batch: u32,
    /// Compute threads.
    pub threads: u32,
    /// One of the sets that tasks have ready ([`Task::quick`]); what fits the model if not given.
    pub task: Option<String>,
    /// Depth rule; the model's own if not given.
    pub depth: Option<String>,
    /// Least seconds of measuring, 3 if not given; of a file seconds of the whole once it is loaded, 8 if not given.
    pub seconds: Option<f64>,
    /// What is bound of a file.
    pub form: FileForm,
    /// Search the backend's settings first.
    pub tune: bool,
}

/// Most seconds of one iteration, and of answering all examples, where nobody asked for more.
const ITERATION: f64 = 1.5;
const SCORING: f64 = 8.0;

/// A suite of one case.
pub struct OneSuite {
    /// Its file.
    pub path: PathBuf,
    /// What was cut short, so that a large net is done soon; in words.
    pub cut: Vec<String>,
    /// What the numbers are of, where that is not a task.
    pub notes: Vec<String>,
}

impl OneCase {
    /// Writes the suite into a folder. Of a large net it has fewer steps and examples, unless the flags ask for all.
    // Over 80 lines: each flag is checked where it is first needed, in the order in which a user would want to hear of it
    pub fn suite(&self, folder: &Path, file: &str) -> anyhow::Result<OneSuite> {
        let path = flags::model(&self.model)?;
        let Some(backend) = crate::backends::backend(&self.backend) else {
            bail!("{}", flags::backend(&self.backend).unwrap_err());
        };
        if opened::is_language(&path) {
            return self.of_language(backend, &path, &folder.join(file));
        }
        // what flags say is checked before a model is read
        let precision = match is_onnx(&path) {
            true => String::new(),
            false => flags::precision(backend, self.precision.as_deref())?,
        };
        let model = Model::load_as(&path, &self.form)?;
        let precision = match &model.file {
            Some(own) => self.precision.clone().unwrap_or_else(|| own.precision.into()),
            None => precision,
        };
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
        let name = fit_for_a_suite(&name);
        if let Some(depth) = self.depth.as_ref().filter(|depth| model.file.is_some() && *depth != "once") {
            bail!("`--depth {depth}`: a file has one step, and its only depth is `once`\nhint: leave `--depth` out");
        }
        if let Some(own) = model.file.as_ref().filter(|_| self.task.is_none()) {
            return self.of_file(own, &model.interface, (&name, &path, &precision), &folder.join(file));
        }
        let mut chosen = Chosen::of(&model.interface, &name, self.task.as_deref())?;
        chosen.belongs(&name, &model, self.task.as_deref())?;
        if let Some(depth) = self.depth.as_ref().filter(|d| model.interface.one_shot() && *d != "once") {
            bail!(
                "`--depth {depth}`: model `{name}` is one-shot, its only depth is `once`\nhint: leave `--depth` out, or use a recursive model"
            );
        }
        let (most, mut cut) = (model.interface.max_steps, Vec::new());
        // of a model whose costs are not known nothing is cut
        let flops_steps = model.graph.as_ref().map_or(0.0, |graph| graph.cost(&Workload::one()).flops_steps);
        // how fast it is, is not known before it has run
        let rate = if self.backend == "reference" { 0.1 * RATE } else { RATE * f64::from(self.threads.max(1)) };
        let affordable = |seconds: f64, flops: f64| (seconds * rate / flops.max(1.0)).clamp(1.0, 1e9) as u64;
        let fitting = affordable(ITERATION, flops_steps * f64::from(self.batch.max(1)));
        let mut steps = u64::from(most.max(1));
        let depth = match &self.depth {
            Some(depth) => {
                steps = depth.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(1);
                depth.clone()
            }
            None if most == 1 => "once".into(),
            None if fitting < steps => {
                cut.push(format!("{fitting} of {most} supervision steps (`--depth halt-{most}` asks for all)"));
                steps = fitting;
                format!("fixed-{fitting}")
            }
            None => format!("halt-{most}"),
        };
        let fitting = affordable(SCORING, flops_steps * steps.max(1) as f64);
        if let Some(all) = chosen.at_most(fitting) {
            cut.push(format!("{fitting} of {all} {} (a suite can have as many as you like)", chosen.set.count));
        }
        let scenario = if self.batch == 1 { "single-stream".to_string() } else { format!("offline-b{}", self.batch) };
        let path =
            path.to_str().with_context(|| format!("the path {} is not UTF-8, which suites are", path.display()))?;
        let suite = json!({
            "about": "one case",
            "model": [if model.file.is_some() {
                let mut file = json!({"name": name, "path": path, "shape": self.form.shape, "state": self.form.state});
                if let Some(batch) = &self.form.batch {
                    file["batch"] = json!(batch);
                }
                file
            } else {
                json!({"name": name, "path": path})
            }],
            "task": [chosen.block()],
            "cases": [{
                "models": [name], "backends": [self.backend], "precisions": [precision], "tasks": [chosen.set.name],
                "scenarios": [scenario], "threads": [self.threads], "depth": [depth], "tune": self.tune,
                "seconds": self.seconds.unwrap_or(3.0), "warmup_seconds": 0.5, "timeout_seconds": 300.0,
            }],
        });
        written(&suite, &folder.join(file), cut, Vec::new())
    }

    /// The suite of a language model: generated sums where it has a tokenizer, else random tokens; prompts and what is written after them, together.
    fn of_language(&self, backend: &dyn Backend, path: &Path, suite: &Path) -> anyhow::Result<OneSuite> {
        for (flag, given) in [("task", &self.task), ("depth", &self.depth)] {
            if let Some(given) = given {
                bail!(
                    "`--{flag} {given}` is not for language models\nhint: leave it out; a suite can ask a language model anything (`ergometer init`)"
                );
            }
        }
        let known = backend.language_precisions();
        let precision = self.precision.clone().unwrap_or_else(|| known.first().map_or("f32", |p| p).to_string());
        if !known.contains(&precision.as_str()) {
            bail!(
                "backend `{}` does not compute language models in {precision}\nhint: it does in {}",
                self.backend,
                known.join(", ")
            );
        }
        let model = LanguageModel::load(path, None)?;
        let (task, note) = match model.decoder().tokenizer.is_some() {
            true => (
                json!({"name": "sums", "kind": language::ARITHMETIC.name, "digits": [2], "examples": 4, "shots": 12, "output_tokens": 32, "ignore_end": true}),
                "prompts are 12 sums with their results and one without, 32 tokens are written after each",
            ),
            false => (
                json!({"name": "drawn", "kind": language::PROMPTS.name, "random": true, "prompt_tokens": 64, "output_tokens": 32, "examples": 4}),
                "the model has no tokenizer: prompts are 64 random tokens, 32 are written after each",
            ),
        };
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
        let name = fit_for_a_suite(&name);
        let path =
            path.to_str().with_context(|| format!("the path {} is not UTF-8, which suites are", path.display()))?;
        let seconds = self.seconds.unwrap_or(3.0);
        let whole = json!({
            "about": "one case",
            "model": [{"name": name, "path": path}],
            "task": [task],
            "cases": [{
                "models": [name], "backends": [self.backend], "precisions": [precision], "tasks": [task["name"]],
                "scenarios": [format!("generate-b{}", self.batch)], "threads": [self.threads], "tune": self.tune,
                "seconds": seconds, "within_seconds": seconds, "iterations": 2, "warmup_seconds": 0.0, "timeout_seconds": 300.0,
            }],
        });
        written(&whole, suite, Vec::new(), vec![note.into()])
    }

    /// The suite of a file with random inputs: its name in the suite, its path, and the precision that was asked for.
    fn of_file(
        &self,
        own: &OnnxFile,
        interface: &Interface,
        (name, path, precision): (&str, &Path, &str),
        suite: &Path,
    ) -> anyhow::Result<OneSuite> {
        let case = FileCase {
            name,
            path: path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?,
            form: &self.form,
            backend: &self.backend,
            batch: self.batch,
            threads: self.threads,
            seconds: self.seconds.unwrap_or(file_case::WHOLE),
            tune: self.tune,
        };
        let notes = vec![format!("inputs are random: {}", file_case::words(interface))];
        written(&case.suite(own, interface, precision), suite, Vec::new(), notes)
    }
}

fn written(suite: &serde_json::Value, path: &Path, cut: Vec<String>, notes: Vec<String>) -> anyhow::Result<OneSuite> {
    let text = toml::to_string(suite).context("cannot write the suite")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(OneSuite { path: path.to_path_buf(), cut, notes })
}

/// A folder's name as that of a model in a suite, which has few characters and begins with a letter or digit.
pub(super) fn fit_for_a_suite(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().take(60).map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) { name } else { format!("net{name}") }
}

impl OneSuite {
    /// An error in terms of the command: the file of this suite is nothing that its user knows of.
    pub fn told(&self, error: anyhow::Error) -> anyhow::Error {
        let file = self.path.display().to_string();
        let text = crate::cli::explain(&error);
        if !text.contains(&file) {
            return error;
        }
        anyhow::anyhow!("{}", text.replace(&format!("{file}: "), "").replace(&file, "what the flags ask for"))
    }
}

/// The examples that the model is asked.
pub(super) struct Chosen {
    task: &'static Task,
    set: &'static QuickSet,
    parameters: toml::Table,
}

impl Chosen {
    /// The set that was asked for, or the one that fits the model.
    pub fn of(interface: &Interface, model: &str, asked: Option<&str>) -> anyhow::Result<Self> {
        let input = interface.tokens()?;
        let (cells, tokens) = (input.row()?.most(), input.below().unwrap_or(0));
        let mut sets = ergometer_suites::quick_sets();
        let found = match asked {
            Some(name) => sets.find(|(_, set)| set.is_called(name)),
            None => sets.find(|(_, set)| (set.fits)(cells, tokens)),
        };
        match (found, asked) {
            (Some((task, set)), _) => Ok(Self { task, set, parameters: set.table(cells, tokens)? }),
            (None, Some(_)) => bail!("{}", flags::task("").unwrap_err()),
            (None, None) => bail!(
                "no shipped task has {cells} cells and {tokens} tokens, as model `{model}` does\nhint: write a suite with a task of your own and use `ergometer run`"
            ),
        }
    }

    /// Asks for no more examples than these; gives how many there were, if that is fewer.
    fn at_most(&mut self, most: u64) -> Option<u64> {
        let count = self.parameters.get_mut(self.set.count)?;
        let all = u64::try_from(count.as_integer()?).ok().filter(|all| most < *all)?;
        *count = toml::Value::Integer(i64::try_from(most).ok()?);
        Some(all)
    }

    /// Its name in a suite.
    pub fn name(&self) -> &'static str {
        self.set.name
    }

    /// Its block in a suite.
    pub fn block(&self) -> toml::Table {
        let mut block = self.parameters.clone();
        block.insert("name".into(), self.set.name.into());
        block.insert("kind".into(), self.task.name.into());
        block
    }

    /// Errors: the model cannot take the task. One example tells.
    pub fn belongs(&self, name: &str, model: &Model, asked: Option<&str>) -> anyhow::Result<()> {
        let mut one = self.parameters.clone();
        one.insert(self.set.count.into(), 1.into());
        let set = (self.task.examples)(&one, Path::new("")).map_err(anyhow::Error::from);
        let recorded = model.training.numbering.as_deref();
        let fits =
            set.and_then(|set| crate::compatibility::check(self.set.name, &set, name, &model.interface, recorded));
        let Err(error) = fits else { return Ok(()) };
        let text = error.to_string();
        let why = text.split("\nhint: ").next().unwrap_or_default();
        match asked {
            Some(asked) => {
                bail!(
                    "`--task {asked}`: {why}\nhint: leave `--task` out for what fits the model, or name another model"
                )
            }
            None => bail!(
                "no shipped task fits model `{name}`: {why}\nhint: write a suite with a task of your own and use `ergometer run`"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_suite_or_are_named_and_a_large_net_is_cut_short() {
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        let folder = tempfile::tempdir().unwrap();
        let one = |model: &str, depth: Option<&str>| OneCase {
            model: suites.join(model),
            backend: "native".into(),
            precision: None,
            batch: 1,
            threads: 1,
            task: None,
            depth: depth.map(str::to_string),
            seconds: None,
            form: FileForm::default(),
            tune: false,
        };
        let written = |one: OneCase| {
            let OneSuite { path, cut, .. } = one.suite(folder.path(), "one.toml").unwrap();
            (std::fs::read_to_string(path).unwrap(), cut)
        };
        let (text, cut) = written(one("timing/trm-mlp-512", None));
        assert!(
            cut.len() == 2 && cut[0].contains("of 16 supervision steps") && cut[1].contains("of 100 examples"),
            "{cut:?}"
        );
        assert!(text.contains("fixed-1") && !text.contains("examples = 100"), "{text}");
        let (text, cut) = written(one("timing/trm-mlp-512", Some("halt-16")));
        assert!(text.contains("halt-16") && cut.len() == 1, "what is asked for is done: {cut:?}");
        let refused = |one: OneCase| one.suite(folder.path(), "one.toml").err().expect("refused").to_string();
        let asked = |model: &str, task: &str| OneCase { task: Some(task.into()), ..one(model, None) };
        for (model, task, why) in [
            ("models/trm-4x4", "9", "has 81 cells, model `trm-4x4` takes 16"),
            ("models/trm-4x4", "arc-rules", "has 36 cells, model `trm-4x4` takes 16"),
            ("models/dense-6x6", "arc-rules", "has 12 tokens, model `dense-6x6` knows 8"),
            ("models/trm-arc", "6", "was trained with the puzzles of arc-rules-1"),
            ("models/trm-arc", "sudoku-4x4", "has 16 cells, model `trm-arc` takes 36"),
        ] {
            let said = refused(asked(model, task));
            assert!(said.contains(&format!("`--task {task}`: ")) && said.contains(why), "{said}");
            assert!(said.contains("hint: leave `--task` out") && !said.contains("toml"), "{said}");
        }
        for (model, task) in [("models/trm-4x4", "4"), ("models/trm-arc", "arc-rules"), ("models/dense-6x6", "6")] {
            assert!(asked(model, task).suite(folder.path(), "one.toml").is_ok(), "{model} {task}");
        }
        let said = refused(one("models/dense-4x4", Some("halt-4")));
        assert!(said.contains("`--depth halt-4`") && said.contains("`once`"), "{said}");
        assert!(written(one("models/dense-4x4", Some("once"))).0.contains("once"));
        let (text, cut) = written(one("models/trm-4x4", None));
        assert!(cut.is_empty() && text.contains("halt-") && text.contains("examples = 100"), "{cut:?} {text}");
    }
}
