//! Parity of a language model: the worker's logits after each token of some sequences, against the reference interpreter's.
//!
//! In: a warm worker, the reference's logits in the cache or made now. Out: the case's verdict, and what the difference means for the next token:
//! divergence, same choice, change of probability. Must not: interpret anything in this process.
//!
//! Sequences are the first tokens of the task's own prompts. A worker is told their tokens alone; ours read the first half in one call and the rest token
//! by token, so that prompts and decoding are both seen. The reference computes in f64 with the weights as the file has them, dequantised.

use std::path::{Path, PathBuf};

use ergometer_files::{Links, counted};
use ergometer_reports::case::{CaseError, ErrorKind, Sample, Verdict};
use ergometer_reports::precision::{Precision, Tolerance};
use sha2::{Digest, Sha256};

use super::case::{Running, unexpected};
use super::interpreted::written_by_reference;
use super::judge::LanguageJudge;
use super::plan::{PlannedCase, PlannedModel, PlannedTask};
use super::process::{Worker, case_error};
use crate::backends::language::log_sum;
use crate::console;
use crate::files::{hex, sha256, write_atomically};
use crate::parity::error;
use crate::parity::language::LanguageVectors;
use crate::protocol::{Command, Go, Job, LanguageJob, Message, Mode, NotThere};

/// Sequences that are compared, at most, and tokens of each.
const ROWS: usize = 2;
const TOKENS: usize = 32;
/// Operations that the interpreter may spend on them.
const BUDGET: f64 = 2e10;
/// Logits of one sequence that a line carries.
const MAX_LOGITS: usize = 1 << 22;
/// What full precision may be off by in a decoder, of the largest logit.
const FULL: Tolerance = Tolerance { name: "f32-decoder", limit: 1e-3 };

/// Sequences to compare, of one length.
fn sequences(case: &PlannedCase, model: &PlannedModel) -> Vec<Vec<u32>> {
    let (Some(tokens), Some(language)) = (&case.language, &model.language) else { return Vec::new() };
    let each = language.flops(1, TOKENS).max(1.0);
    let affordable = ((BUDGET / each) as usize).min(MAX_LOGITS / language.config().vocabulary.max(1)).max(1);
    let whole = |i: usize| {
        let rest = tokens.job.rest.get(i).and_then(|r| r.first()).into_iter().flatten();
        tokens.inputs[i].iter().chain(rest).copied().collect::<Vec<u32>>()
    };
    let mut rows: Vec<Vec<u32>> = (0..tokens.inputs.len().min(ROWS)).map(whole).collect();
    let shortest = rows.iter().map(Vec::len).min().unwrap_or(0);
    let n = shortest.min(TOKENS).min(affordable);
    rows.truncate((affordable / n.max(1)).max(1));
    rows.iter_mut().for_each(|row| row.truncate(n));
    rows
}

/// What a case is judged by. A router that scores two experts almost the same sends a token to one or the other by the last bits of the
/// scores, and what follows is another net's: a mixture is judged with every expert active, where it depends on its scores without a step.
/// What its own number of experts comes to is seen in the next token's probabilities.
pub(super) fn judge(
    case: &PlannedCase,
    model: &PlannedModel,
    task: &PlannedTask,
    cache: &Path,
) -> Result<LanguageJudge, CaseError> {
    let experts = model.language.as_ref().and_then(|l| l.config().mlp.experts);
    let (questions, own) = vectors(case, model, task, cache, None)?;
    let all_experts = match experts.filter(|e| e.used < e.count) {
        Some(e) => {
            let all = e.count as u32;
            Some((all, vectors(case, model, task, cache, Some(all))?.1))
        }
        None => None,
    };
    Ok(LanguageJudge { questions, vectors: own, all_experts })
}

/// The file of the sequences, and what the reference gives for them; so many experts active, if not the model's own number.
fn vectors(
    case: &PlannedCase,
    model: &PlannedModel,
    task: &PlannedTask,
    cache: &Path,
    active: Option<u32>,
) -> Result<(PathBuf, LanguageVectors), CaseError> {
    let questions = LanguageVectors { rows: sequences(case, model), logits: Vec::new() };
    let fault = |what: &str, e: String| {
        let hint =
            Some("set ERGOMETER_CACHE to a folder that can be written; `--resume` then runs this case again".into());
        CaseError { kind: ErrorKind::Reference, message: format!("the reference's logits: {what}: {e}"), hint }
    };
    // what the interpreter would compute: its own text, the weights, the tokens
    let interpreter = [include_str!("../graph/interpreter.rs"), include_str!("../backends/reference/language.rs")];
    let mut hash = Sha256::new().chain_update(interpreter.concat()).chain_update(&model.hash);
    hash.update(format!("{:?}{active:?}", questions.rows));
    let stem = cache.join("reference").join(format!("language-{}", hex(&hash.finalize())));
    let (path, asked) = (stem.with_extension("safetensors"), stem.with_extension("questions.safetensors"));
    let sum = stem.with_extension("sha256");
    let whole = || {
        let known = std::fs::read_to_string(&sum).ok()?;
        let now = sha256(&path, 1 << 30, Links::Refused).ok()?;
        LanguageVectors::read(&path).ok().filter(|v| now == known && v.rows == questions.rows && !v.logits.is_empty())
    };
    let bytes = questions.write().map_err(|e| fault("tokens", format!("{e:#}")))?;
    std::fs::create_dir_all(cache.join("reference")).map_err(|e| fault("cache", e.to_string()))?;
    write_atomically(&asked, &bytes).map_err(|e| fault("tokens", format!("{e:#}")))?;
    if let Some(vectors) = whole() {
        return Ok((asked, vectors));
    }
    console::detail(|| {
        let (rows, tokens) = (counted(questions.rows.len(), "sequence"), counted(questions.rows[0].len(), "token"));
        format!("reference of {}: made of {rows} of {tokens} into {}", case.path, path.display())
    });
    let _ = std::fs::remove_file(&sum);
    record(case, model, task, &questions, active, &path)?;
    let now = sha256(&path, 1 << 30, Links::Refused).map_err(|e| fault("file", e.to_string()))?;
    write_atomically(&sum, now.as_bytes()).map_err(|e| fault("checksum", format!("{e:#}")))?;
    whole().map(|vectors| (asked, vectors)).ok_or_else(|| fault("file", "not what was asked for".into()))
}

/// Lets a worker of the reference write them.
fn record(
    case: &PlannedCase,
    model: &PlannedModel,
    task: &PlannedTask,
    questions: &LanguageVectors,
    active: Option<u32>,
    path: &Path,
) -> Result<(), CaseError> {
    let (n, tokens) = (questions.rows.len(), questions.rows[0].len());
    let job = Job {
        batch: 1,
        inputs: questions.rows.clone(),
        puzzle_ids: vec![0; n],
        language: Some(LanguageJob { context: tokens, output: vec![0; n], ..LanguageJob::default() }),
        ..super::job::job(case, task, &model.folder)
    };
    written_by_reference(job, case.spec.timeout_seconds.max(600.0), tokens as u64, active, path)
}

/// What a difference of logits comes to for the next token.
#[derive(Debug, PartialEq)]
struct NextToken {
    /// Kullback-Leibler divergence from the reference's distribution, nats.
    divergence: f64,
    /// The same token is the likeliest.
    same: bool,
    /// Largest change of a token's probability.
    change: f64,
}

fn next_token(got: &[f32], want: &[f32]) -> NextToken {
    let logs = |logits: &[f32]| -> Vec<f64> {
        let norm = log_sum(logits);
        logits.iter().map(|v| f64::from(*v) - norm).collect()
    };
    let highest = crate::scenarios::requests::highest;
    let (p, q) = (logs(want), logs(got));
    let pairs = || p.iter().zip(&q);
    NextToken {
        divergence: pairs().map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0),
        same: highest(got) == highest(want),
        change: pairs().map(|(p, q)| (p.exp() - q.exp()).abs()).fold(0.0, f64::max),
    }
}

impl Running<'_, '_> {
    /// Compares the worker with the reference and writes the verdict.
    pub(super) fn compare_language(&mut self, worker: &mut Worker, judge: &LanguageJudge) -> Result<(), CaseError> {
        let mut judged = None;
        if let Some((all, vectors)) = &judge.all_experts {
            judged = self.logits(worker, &judge.questions, vectors, Some(*all))?;
        }
        let own = self.logits(worker, &judge.questions, &judge.vectors, None)?;
        let Some(largest) = judged.or(own) else {
            self.out.case.verdict = Some(Verdict::AccuracyOnly);
            return Ok(());
        };
        let precision = Precision::of(&self.planned.key.precision);
        let Tolerance { name, limit } = if precision.full { FULL } else { precision.tolerance };
        let tolerance = if judged.is_some() { format!("{name}, every expert active") } else { name.to_owned() };
        let (examples, steps) = (judge.vectors.rows.len() as u32, judge.vectors.rows[0].len() as u32);
        self.out.case.verdict =
            Some(Verdict::Reference { tolerance: tolerance.clone(), limit, largest, examples, steps });
        if largest <= limit {
            return Ok(());
        }
        let message =
            format!("the largest error is {largest:.3e} of the largest logit, {tolerance} allows {limit:.0e}");
        let mut hint =
            "the reference computes the same weights in f64: the backend, or its precision, loses that much".to_owned();
        if judge.all_experts.is_some() {
            hint += "; a worker that knows no `active_experts` is to say that it cannot show `outputs`";
        }
        Err(CaseError { kind: ErrorKind::Parity, message, hint: Some(hint) })
    }

    /// The largest difference of the worker's logits from the reference's, of the largest logit; `None`: another program does not show its
    /// logits, or no engine does with so many experts active. With the model's own number of experts what it means is kept as samples.
    fn logits(
        &mut self,
        worker: &mut Worker,
        questions: &Path,
        vectors: &LanguageVectors,
        active_experts: Option<u32>,
    ) -> Result<Option<f64>, CaseError> {
        let wrong = |message: String| Err(case_error(ErrorKind::WrongOutput, message));
        let vectors_file = Some(super::job::absolute(questions));
        let go = Go {
            block: self.block,
            mode: Mode::Compare,
            n: 0,
            seconds: 0.0,
            steps: 0,
            vectors: vectors_file,
            active_experts,
        };
        worker.send(&Command::Go(go))?;
        let (mut seen, mut largest, mut refused) = (0, 0.0f64, false);
        loop {
            match worker.message()? {
                Message::Outputs(o) if o.step as usize == seen + 1 && seen < vectors.rows.len() => {
                    let want = vectors.row(seen);
                    if o.logits.len() != want.len() || o.logits.iter().any(|v| !v.is_finite()) {
                        return wrong(format!(
                            "sequence {seen}: {} logits, {} finite ones are due",
                            o.logits.len(),
                            want.len()
                        ));
                    }
                    largest = largest.max(error(&o.logits, want));
                    if active_experts.is_none() {
                        self.keep_differences(&o.logits, want, vectors.rows[seen].len());
                    }
                    seen += 1;
                }
                Message::Outputs(o) => return wrong(format!("logits of sequence {} came out of order", o.step)),
                Message::Unavailable(u) if u.what == "outputs" && seen == 0 && active_experts.is_some() => {
                    refused = true;
                }
                Message::Unavailable(u) if u.what == "outputs" && seen == 0 && !self.planned.command.is_empty() => {
                    self.refused(NotThere { what: "parity_error".into(), ..u })?;
                    refused = true;
                }
                Message::Unavailable(u) => self.refused(u)?,
                Message::Done(_) => break,
                other => return Err(unexpected("`outputs` or `done`", &other)),
            }
        }
        self.block += 1;
        if refused {
            return Ok(None);
        }
        if seen < vectors.rows.len() {
            return wrong(format!("logits of sequence {seen} are missing"));
        }
        Ok(Some(largest))
    }

    fn keep_differences(&mut self, got: &[f32], want: &[f32], tokens: usize) {
        let vocabulary = want.len() / tokens.max(1);
        for (got, want) in got.chunks_exact(vocabulary).zip(want.chunks_exact(vocabulary)) {
            let NextToken { divergence, same, change } = next_token(got, want);
            let (block, t_ns) = (self.block, self.now());
            for (metric, value) in
                [("kl_divergence", divergence), ("same_top", f64::from(u8::from(same))), ("probability_change", change)]
            {
                let sample = Sample {
                    block,
                    phase: "accuracy",
                    iteration: None,
                    t_ns,
                    example: None,
                    rows: None,
                    metric,
                    value,
                };
                self.out.samples.push(sample);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_logits_become_those_of_the_next_token() {
        let same = next_token(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]);
        assert_eq!(same, NextToken { divergence: 0.0, same: true, change: 0.0 });
        // a half and a half, of which one becomes certain
        let off = next_token(&[0.0, 0.0], &[0.0, -50.0]);
        assert!((off.divergence - 2f64.ln()).abs() < 1e-9 && (off.change - 0.5).abs() < 1e-9 && off.same);
        assert!(!next_token(&[0.0, 1.0], &[1.0, 0.0]).same);
        // a constant changes nothing
        let shifted = next_token(&[11.0, 12.0], &[1.0, 2.0]);
        assert!(shifted.divergence < 1e-9 && shifted.change < 1e-6);
    }
}
