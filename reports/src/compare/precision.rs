//! Reduced precisions against full precision: whether a case answers as well as f32 does, on the same examples.
//!
//! In: a [`RecordedRun`]. Out: a [`Finding`] per case whose precision is neither f32 nor f64, as a pure function of the
//! recorded answers. Must not: compare answers to different questions, or take "not shown to be worse" for "shown to be
//! no worse".

use std::collections::BTreeMap;

use crate::{
    case::{Case, CaseError, ErrorKind},
    format,
    missing::Missing,
    questions::{of_record, questions},
    stats::{
        Estimate,
        paired::{PairedCounts, paired_difference},
    },
    store::{CaseRun, RecordedRun},
};

/// Percentage points of accuracy that a reduced precision may lose.
pub const MARGIN: f64 = 0.5;

/// Fewest paired examples for a verdict of non-inferiority.
pub const EXAMPLES: u64 = 2000;

/// What the answers say about a reduced precision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noninferiority {
    /// The whole interval lies above the loss that is allowed, on enough examples.
    NonInferior,
    /// The whole interval lies below it, on however many examples.
    Inferior,
    /// Neither, and why.
    CannotTell(String),
}

/// The difference to full precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Accuracy minus that of full precision, in percentage points.
    pub estimate: Estimate,
    /// Path of the case in full precision.
    pub partner: String,
    /// What follows.
    pub verdict: Noninferiority,
}

impl Finding {
    /// Verdict and reason in one line.
    pub fn text(&self) -> String {
        match &self.verdict {
            Noninferiority::NonInferior => format!("non-inferior to full precision by {MARGIN} points"),
            Noninferiority::Inferior => format!("inferior to full precision by more than {MARGIN} points"),
            Noninferiority::CannotTell(why) => {
                format!("cannot tell whether it is non-inferior to full precision by {MARGIN} points: {why}")
            }
        }
    }

    /// The error that an inferior case ends in: no speed without a right answer.
    pub fn error(&self) -> Option<CaseError> {
        if self.verdict != Noninferiority::Inferior {
            return None;
        }
        let interval = self.estimate.interval.as_ref().map(|(lower, upper)| format!(" ({lower:+.2} to {upper:+.2})"));
        let message = format!(
            "accuracy differs by {:+.2}{} points from `{}` on the same {} examples, more than the {MARGIN} points that a reduced precision may lose",
            self.estimate.value,
            interval.unwrap_or_default(),
            self.partner,
            self.estimate.n,
        );
        let hint = Some("use a wider precision for this model".into());
        Some(CaseError { kind: ErrorKind::Inferior, message, hint })
    }
}

/// Findings by id of the case, or why there is none. Cases in full precision and cases that ended in an error have no
/// entry.
///
/// The partner is a case of the same model (of a reduced form in a file of its own: of the model that the suite calls its original), task and depth rule in f32 or f64, all known by their hashes: of the same
/// backend if there is one (with the same options before others), else of any; f32 before f64, then in the order of
/// paths.
pub(super) fn findings(run: &RecordedRun) -> BTreeMap<String, Result<Finding, Missing>> {
    let answers = Answers { by_id: run.cases.iter().map(|c| (c.case.id.as_str(), c)).collect() };
    let mut known: BTreeMap<(&str, &str), Option<Estimate>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for case in run.cases.iter().map(|c| &c.case).filter(|c| c.error.is_none() && c.is_reduced()) {
        let found = (|| {
            let own = answers.of(case)?;
            if let Some(why) = &own.case.unscored {
                return Err(Missing { kind: "not-applicable".into(), message: why.clone(), hint: None });
            }
            let (partner, theirs) = answers.partner(run, case)?;
            let estimate =
                known.entry((own.case.id.as_str(), theirs.case.id.as_str())).or_insert_with(|| difference(own, theirs));
            let Some(estimate) = estimate.clone() else {
                return Err(missing(format!("no example was answered by both this case and `{}`", partner.path), None));
            };
            let verdict = judge(&estimate);
            let method = format!("{}; against `{}`", estimate.method, partner.path);
            Ok(Finding { estimate: Estimate { method, ..estimate }, partner: partner.path.clone(), verdict })
        })();
        all.insert(case.id.clone(), found);
    }
    all
}

struct Answers<'a> {
    by_id: BTreeMap<&'a str, &'a CaseRun>,
}

impl<'a> Answers<'a> {
    /// The case that was scored for this one.
    fn of(&self, case: &Case) -> Result<&'a CaseRun, Missing> {
        let source = case.accuracy_from.as_deref().and_then(|id| self.by_id.get(id)).copied();
        match source {
            None => Err(missing("this case has no scored answers".into(), None)),
            Some(CaseRun { case: Case { error: Some(error), path, .. }, .. }) => Err(Missing {
                message: format!("the case that scores it, `{path}`, failed: {}", error.message),
                ..error.into()
            }),
            Some(source) => Ok(source),
        }
    }

    fn partner(&self, run: &'a RecordedRun, case: &Case) -> Result<(&'a Case, &'a CaseRun), Missing> {
        let key = &case.key;
        let model = case.reduces.as_ref().map_or(&key.model_hash, |original| &original.model_hash);
        let asked_the_same = |other: &Case| {
            let o = &other.key;
            // rows that have halted answer the same, kept at work or not
            let rule = |depth: &str| depth.replacen("halt-keep-", "halt-", 1);
            (&o.model_hash, &o.task, &o.task_hash, rule(&o.depth))
                == (model, &key.task, &key.task_hash, rule(&key.depth))
        };
        let full = run.cases.iter().map(|c| &c.case).filter(|c| c.error.is_none() && !c.is_reduced());
        let candidates = full.filter(|c| asked_the_same(c)).filter_map(|c| Some((c, self.of(c).ok()?)));
        let rank = |(c, _): &(&Case, &CaseRun)| {
            let foreign = c.key.backend != key.backend;
            let options = foreign || c.key.backend_options != key.backend_options;
            (foreign, c.key.precision != "f32", options, c.key.batch != key.batch)
        };
        // cases are sorted by path, and the first of equals is taken
        candidates.min_by_key(rank).ok_or_else(|| {
            let what = "no case in f32 or f64 with the same";
            match &case.reduces {
                None => missing(
                    format!("cannot tell: {what} model, task and depth rule in this run"),
                    Some(format!("add the precision f32 beside {} in the suite", key.precision)),
                ),
                Some(original) => missing(
                    format!("cannot tell: {what} task and depth rule of the original `{}` in this run", original.model),
                    Some(format!("add cases of `{}` in f32 on the same task", original.model)),
                ),
            }
        })
    }
}

fn missing(message: String, hint: Option<String>) -> Missing {
    Missing { kind: "not-measured".into(), message, hint }
}

/// Cluster and whether it is right, by example; or by question, where the task decides questions from several rows.
fn decided(case: &CaseRun) -> BTreeMap<(u64, &str), (u64, bool)> {
    if case.case.questions > 0 {
        let asked = questions(of_record(&case.attempts));
        return asked.iter().zip(0..).map(|(q, i)| ((i, q.name), (q.cluster, q.right()))).collect();
    }
    case.predictions.iter().filter(|p| p.last).map(|p| ((p.example, ""), (p.cluster, p.exact))).collect()
}

/// First minus second, in percentage points, over what both decided.
fn difference(own: &CaseRun, theirs: &CaseRun) -> Option<Estimate> {
    let theirs = decided(theirs);
    let mut clusters: BTreeMap<u64, PairedCounts> = BTreeMap::new();
    for (item, (cluster, right)) in decided(own) {
        let Some(&(_, other)) = theirs.get(&item) else { continue };
        let pairs = clusters.entry(cluster).or_default();
        pairs.gained += u64::from(right && !other);
        pairs.lost += u64::from(!right && other);
        pairs.all += 1;
    }
    let clusters: Vec<PairedCounts> = clusters.into_values().collect();
    let alone = clusters.iter().all(|c| c.all == 1);
    Some(paired_difference(&clusters, alone)?.scaled(100.0))
}

fn judge(estimate: &Estimate) -> Noninferiority {
    let n = estimate.n;
    match &estimate.interval {
        Ok((_, upper)) if *upper < -MARGIN => Noninferiority::Inferior,
        _ if n < EXAMPLES => Noninferiority::CannotTell(format!("n = {n} paired examples, it needs {EXAMPLES}")),
        Ok((lower, _)) if *lower > -MARGIN => Noninferiority::NonInferior,
        Ok((lower, _)) => Noninferiority::CannotTell(format!(
            "the interval is too wide, it reaches down to {} points",
            format::number(*lower)
        )),
        Err(why) => Noninferiority::CannotTell(format!("no interval: {why}")),
    }
}
