//! Whether a model can take a task's examples at all.
//!
//! In: a graph, a task's examples. Out: nothing, or an error that names both and says what to change. Must not: judge how well it will do.

use anyhow::{bail, ensure};
use ergometer_suites::task::ExampleSet;

use crate::graph::Graph;

/// Errors: examples of another length than the model's, more tokens than it knows, or puzzle ids beyond its table of puzzle embeddings (a
/// model without one does not see which puzzle it is given). `task` and `model` are the names that the user knows them by.
pub fn check(task: &str, set: &ExampleSet, model: &str, graph: &Graph) -> anyhow::Result<()> {
    let (input, logits) = (&graph.inputs[0], graph.outputs[0].ty);
    let cells = input.ty.elements();
    let other = |e: &&ergometer_suites::task::Example| {
        e.tokens.len() != cells || e.answer.len() * logits.features != logits.elements()
    };
    if let Some(example) = set.examples.iter().find(other) {
        bail!(
            "task `{task}` has {} cells, model `{model}` takes {cells} (`seq_len`): they do not belong together\nhint: pair each model with the task it is made for",
            example.tokens.len()
        );
    }
    let vocabulary = set.vocabulary as usize;
    ensure!(
        input.rows >= vocabulary && logits.features >= vocabulary,
        "task `{task}` has {vocabulary} tokens, model `{model}` knows {} (`vocab_size`)\nhint: pair each model with the task it is made for",
        input.rows.min(logits.features)
    );
    let largest = set.examples.iter().map(|e| e.puzzle_id as usize + 1).max().unwrap_or(1);
    let ids = largest.max(set.puzzle_ids as usize);
    match graph.inputs.get(1) {
        None if ids > 1 => bail!(
            "task `{task}` tells its {ids} puzzles apart by an id, and model `{model}` has no input for it: it cannot know which rule to follow\n\
             hint: use a model with puzzle embeddings (`puzzle_emb_ndim` above 0, `num_puzzle_identifiers` = {ids})"
        ),
        Some(table) if table.rows < ids => bail!(
            "task `{task}` needs a table of {ids} puzzle embeddings, model `{model}` has {}\n\
             hint: train it with `num_puzzle_identifiers` = {ids}, or use the task that it was trained on",
            table.rows
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::build_graph;
    use ergometer_suites::task::Example;
    use serde_json::json;

    #[test]
    fn what_does_not_belong_together_is_told_by_name() {
        let net = |ids: usize| {
            let features = if ids > 0 { 8 } else { 0 };
            let config = json!({"model_type": "trm", "seq_len": 4, "vocab_size": 6, "hidden_size": 8, "num_heads": 2, "expansion": 1.0,
                "H_cycles": 1, "L_cycles": 1, "L_layers": 1, "puzzle_emb_ndim": features, "num_puzzle_identifiers": ids});
            build_graph(&config).unwrap()
        };
        let set = |cells: usize, vocabulary, puzzle_ids, id| ExampleSet {
            examples: vec![Example {
                tokens: vec![1; cells],
                answer: vec![1; cells],
                puzzle_id: id,
                ..Example::default()
            }],
            vocabulary,
            puzzle_ids,
            questions: Vec::new(),
            baselines: Vec::new(),
            notes: Vec::new(),
        };
        for (set, ids, wanted) in [
            (set(4, 6, 1, 0), 0, None),
            (set(4, 6, 3, 2), 3, None),
            (set(4, 6, 1, 0), 3, None),
            (set(5, 6, 1, 0), 0, Some("has 5 cells, model `net` takes 4")),
            (set(4, 7, 1, 0), 0, Some("has 7 tokens, model `net` knows 6")),
            (set(4, 6, 3, 0), 0, Some("has no input for it")),
            (set(4, 6, 3, 0), 2, Some("a table of 3 puzzle embeddings, model `net` has 2")),
            // an id beyond what the task says it has
            (set(4, 6, 1, 4), 3, Some("a table of 5 puzzle embeddings")),
        ] {
            let found = check("t", &set, "net", &net(ids)).err().map(|e| e.to_string());
            match wanted {
                None => assert_eq!(found, None),
                Some(part) => assert!(found.as_ref().is_some_and(|f| f.contains(part)), "{part}: {found:?}"),
            }
        }
    }
}
