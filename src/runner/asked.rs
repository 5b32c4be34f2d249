//! What the examples of a run's tasks of language ask, for its folder.
//!
//! In: a plan. Out: prompts, choices and right answers as text. Must not: say more than the task itself has: prompts that a model's tokenizer cuts out
//! of a text or that are drawn are not the task's.

use ergometer_reports::store::RecordedExample;

use super::plan::Plan;

/// Every example with a prompt of its own, task by task.
pub(super) fn examples(plan: &Plan) -> Vec<RecordedExample> {
    let mut all = Vec::new();
    for (task, planned) in plan.tasks.iter().filter(|(_, planned)| planned.set.language.is_some()) {
        for (example, index) in planned.set.examples.iter().zip(0..) {
            let Some(text) = example.text.as_ref().filter(|t| !t.prompt.is_empty()) else { continue };
            all.push(RecordedExample {
                task: task.clone(),
                example: index,
                prompt: text.prompt.clone(),
                choices: text.continuations.clone(),
                answer: example.answer.to_string(),
            });
        }
    }
    all
}
