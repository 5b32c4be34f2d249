//! Whether a model can take a task's examples at all.
//!
//! In: a model, a task's examples. Out: what is known of the two's numbering of puzzles, or an error that names both and says what to change.
//! Must not: judge how well it will do, or claim of a net what its files do not say.

use anyhow::{bail, ensure};
use ergometer_suites::array::Read;
use ergometer_suites::error::did_you_mean;
use ergometer_suites::scenario::Scenario;
use ergometer_suites::task::ExampleSet;
use ergometer_suites::{Answer, Reading};

use crate::models::interface::{Interface, Port, PortRole};
use crate::worker::given;

/// Errors: examples of another length than the model's, more tokens than it knows, or puzzle ids that are not those of its table of puzzle
/// embeddings: another number of them, or, where the net records its numbering, another numbering (a model without a table does not see
/// which puzzle it is given). Gives what a reader of the score must know of that. `task` and `model` are the names that the user knows
/// them by.
pub fn check(
    task: &str,
    set: &ExampleSet,
    model: &str,
    interface: &Interface,
    numbering: Option<&str>,
) -> anyhow::Result<Option<String>> {
    if !set.inputs.is_empty() {
        arrays(task, set, model, interface)?;
        return Ok(None);
    }
    // an input that no example can fill, or no logits: a model for something else
    interface.feeds()?;
    let (input, logits) = (interface.tokens()?, interface.logits()?);
    let answered = logits.row()?;
    let other = |e: &&ergometer_suites::task::Example| {
        let cells = e.tokens.len();
        !input.takes(cells) || !gives(&e.answer, answered.at(cells), logits.features)
    };
    if let Some(example) = set.examples.iter().find(other) {
        bail!(
            "task `{task}` has {} cells, model `{model}` takes {} (`seq_len`): they do not belong together\nhint: pair each model with the task it is made for",
            example.tokens.len(),
            input.takes_words()
        );
    }
    ensure!(
        !interface.states.is_empty() || set.examples.iter().all(|e| e.start.is_none()),
        "task `{task}` starts a net's states with noise (`chains`), model `{model}` has none: it is one-shot\n\
         hint: pair it with recursive models alone; breadth of a one-shot model is `copies`"
    );
    let (vocabulary, known) = (set.vocabulary as usize, input.below().unwrap_or(0).min(logits.features));
    ensure!(
        known >= vocabulary,
        "task `{task}` has {vocabulary} tokens, model `{model}` knows {known} (`vocab_size`)\nhint: pair each model with the task it is made for"
    );
    let largest = set.examples.iter().map(|e| e.puzzle_id as usize + 1).max().unwrap_or(1);
    let ids = largest.max(set.puzzle_ids as usize);
    let Some(rows) = interface.input(PortRole::PuzzleId).and_then(|port| port.below()) else {
        ensure!(
            ids <= 1,
            "task `{task}` tells its {ids} puzzles apart by an id, and model `{model}` has no input for it: it cannot know which rule to follow\n\
             hint: use a model with puzzle embeddings (`puzzle_emb_ndim` above 0, `num_puzzle_identifiers` = {ids})"
        );
        return Ok(None);
    };
    if rows == usize::MAX {
        return Ok(Some("Which puzzle has which id in the file is not known.".into()));
    }
    // a task without ids shows every example to the first row
    let without_ids = ids <= 1 && set.numbering.is_none();
    ensure!(
        rows == ids || without_ids,
        "task `{task}` needs a table of {ids} puzzle embeddings, model `{model}` has {rows}: its ids stand for other puzzles\n\
         hint: train it with `num_puzzle_identifiers` = {ids}, or use the task that it was trained on (of ARC files: the same file, `max_side` and `augmentations`)"
    );
    match (&set.numbering, numbering) {
        (Some(of_task), Some(of_net)) if of_task != of_net => bail!(
            "task `{task}` numbers its puzzles as {of_task}, model `{model}` was trained with {}: its ids stand for other puzzles\n\
             hint: use the task that it was trained on (of ARC files: the same file, `max_side` and `augmentations`)",
            of_net.chars().take(64).flat_map(char::escape_debug).collect::<String>()
        ),
        (Some(of_task), Some(_)) => {
            Ok(Some(format!("The net's config records the numbering of puzzles that this task has ({of_task}).")))
        }
        (Some(_), None) => Ok(Some(
            "Whether the net was trained with this task's numbering of puzzles is not known: its config does not record one, and as many ids \
             are all that was checked. With another numbering its answers mean nothing."
                .into(),
        )),
        (None, Some(of_net)) => bail!(
            "task `{task}` has one kind of puzzle, model `{model}` was trained with the puzzles of {}\nhint: pair each model with the task it is made for",
            of_net.chars().take(64).flat_map(char::escape_debug).collect::<String>()
        ),
        (None, None) if rows > 1 => Ok(Some(format!(
            "The task has no puzzle ids, and the net's table has {rows} rows: every example uses the first, whatever that was trained for."
        ))),
        (None, None) => Ok(None),
    }
}

/// Errors: a trace is to be replayed, and the task has none or one that is too long.
fn replayed(task: &str, set: &ExampleSet, scenario: &Scenario) -> anyhow::Result<()> {
    if !scenario.replays() {
        return Ok(());
    }
    let n = set.examples.len();
    ensure!(
        set.examples.iter().all(|e| e.text.as_ref().is_some_and(|t| t.arrival.is_some())),
        "scenario `{scenario}` needs to know when requests come, and task `{task}` does not say\n\
         hint: give a task `prompts` a `trace` whose lines have `arrival`, or write `arrivals-60`"
    );
    ensure!(
        n <= crate::scenarios::arrivals::MAX_REQUESTS,
        "task `{task}` has a trace of {n} requests, {} are the most of one iteration\nhint: ask for fewer `examples`",
        crate::scenarios::arrivals::MAX_REQUESTS
    );
    Ok(())
}

/// Errors: a task of language for another model, another task for a language model, or a scenario that is not for the model.
pub fn language(task: &str, set: &ExampleSet, model: &str, speaks: bool, scenario: &Scenario) -> anyhow::Result<()> {
    match (set.language.is_some(), speaks) {
        (true, false) => bail!(
            "task `{task}` is one of language, model `{model}` is no language model\n\
             hint: pair it with a `.gguf` file, or with the folder of a decoder (`model_type` llama, gemma, qwen2, ...)"
        ),
        (false, true) => bail!(
            "task `{task}` is none of language, model `{model}` is a language model\n\
             hint: give it `perplexity`, `choices`, `completions`, `arithmetic`, `strings` or `prompts`"
        ),
        _ => {}
    }
    match (scenario.kind().language, speaks) {
        (false, true) => bail!(
            "scenario `{scenario}` is not for language models, and `{model}` is one\n\
             hint: write `generate-b1`, `prefill-b1`, `decode-b1`, `arrivals-60` or `arrivals-trace`"
        ),
        (true, false) => bail!(
            "scenario `{scenario}` is for language models, and `{model}` is none\nhint: write `single-stream` or `offline-b8`"
        ),
        _ => {}
    }
    replayed(task, set, scenario)?;
    let short = |e: &ergometer_suites::task::Example| e.text.as_ref().is_some_and(|t| t.output_tokens < 2);
    ensure!(
        scenario.kind().name != "decode" || !set.examples.iter().any(short),
        "scenario `{scenario}` times the tokens after the first, and task `{task}` has an example of one token\n\
         hint: ask for `output_tokens = 2` or more"
    );
    Ok(())
}

/// Errors: examples of arrays that the model does not take, or an output that it does not give.
fn arrays(task: &str, set: &ExampleSet, model: &str, interface: &Interface) -> anyhow::Result<()> {
    let names = |all: &[Port]| all.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
    ensure!(
        interface.inputs.iter().all(|port| port.kind.is_some()),
        "task `{task}` brings arrays, model `{model}` takes tokens\nhint: pair each model with the task it is made for"
    );
    if let Some(name) = set.inputs.iter().find(|name| interface.inputs.iter().all(|port| port.name != **name)) {
        let near = did_you_mean(name, interface.inputs.iter().map(|p| p.name.as_str()));
        bail!(
            "task `{task}` brings the input `{name}`, which model `{model}` does not have{near}\nhint: it takes {}",
            names(&interface.inputs)
        );
    }
    for port in &interface.inputs {
        let Some(place) = set.inputs.iter().position(|name| *name == port.name) else {
            bail!(
                "model `{model}` takes the input `{}`, which task `{task}` does not bring\n\
                 hint: it is {} {:?} an example; `state` in the [[model]] block is for what the model gives itself",
                port.name,
                port.kind.map_or("tokens", |kind| kind.name()),
                port.shape
            );
        };
        for (i, example) in set.examples.iter().enumerate() {
            let Some(array) = example.arrays.get(place) else {
                bail!("task `{task}`, example {i}: input `{}` is missing", port.name)
            };
            given::check_array(port, interface, array.kind, &array.shape).map_err(|e| {
                anyhow::anyhow!(
                    "task `{task}`, example {i}: model `{model}`: {e}\n\
                     hint: arrays hold one example each, of the type and shape that the model takes, without the axis that counts rows"
                )
            })?;
        }
    }
    if let Reading::Output { output: Some(name), .. } = &set.reads
        && interface.place_of(Some(name)).is_none()
    {
        let near = did_you_mean(name, interface.outputs.iter().map(|p| p.name.as_str()));
        bail!(
            "task `{task}` reads the output `{name}`, which model `{model}` does not have{near}\nhint: it gives {}",
            names(&interface.outputs)
        );
    }
    classes(task, set, model, interface)
}

/// Errors: classes that do not stand along the axis that is read, where the header says how long that is.
fn classes(task: &str, set: &ExampleSet, model: &str, interface: &Interface) -> anyhow::Result<()> {
    let (Some((port, Read::Argmax)), Reading::Output { axis, .. }) = (read_from(set, interface), &set.reads) else {
        return Ok(());
    };
    if port.shape.is_empty() {
        return Ok(());
    }
    let wanted = set.vocabulary as usize;
    let classes = match axis {
        None => port.classes(),
        Some(axis) => {
            let has = port.shape.get(*axis).copied();
            ensure!(
                has.is_some(),
                "task `{task}` reads classes along axis {axis}, and a row of output `{}` of model `{model}` has the shape {:?}\n\
                 hint: `class_axis` counts the axes of a row from 0, without the one that counts rows",
                port.name,
                port.shape
            );
            has
        }
    };
    let Some(classes) = classes else { return Ok(()) };
    let other = port.shape.iter().rposition(|n| *n >= wanted);
    let remedy = match other.filter(|_| axis.is_none() && port.shape.len() > 1) {
        Some(other) => format!("classes along axis {other} of a row: `class_axis = {other}`"),
        None => "labels count from 0; `class_axis` says along which axis of a row classes stand (the last with more than one)".into(),
    };
    ensure!(
        wanted <= classes,
        "task `{task}` has labels up to {}, a row of output `{}` of model `{model}` has the shape {:?}, {classes} along the axis of classes\n\
         hint: {remedy}",
        wanted.saturating_sub(1),
        port.name,
        port.shape
    );
    Ok(())
}

/// The output that answers are read off, and how; `None`: logits, the model's own way.
pub fn read_from<'a>(set: &ExampleSet, interface: &'a Interface) -> Option<(&'a Port, Read)> {
    let Reading::Output { output, how, .. } = &set.reads else { return None };
    Some((&interface.outputs[interface.place_of(output.as_deref())?], *how))
}

/// Whether a model that gives so many logits for a row, so many of them a token, can give an answer of this shape.
fn gives(answer: &Answer, logits: usize, vocabulary: usize) -> bool {
    match answer {
        Answer::Tokens(tokens) => tokens.len() * vocabulary == logits,
        Answer::Class(class) => (*class as usize) < vocabulary && logits == vocabulary,
        Answer::Numbers(numbers) => numbers.len() == logits,
        Answer::Likelihoods(choices) => choices.len() == logits && logits == vocabulary,
        // whether the engine can write, its worker says
        Answer::Text(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::build_graph;
    use ergometer_suites::task::Example;
    use serde_json::json;

    #[test]
    fn an_answer_has_the_shape_of_the_logits() {
        let tokens = |n: usize| Answer::Tokens(vec![0; n]);
        for (answer, logits, vocabulary, fits) in [
            (tokens(3), 18, 6, true),
            (tokens(2), 18, 6, false),
            (Answer::Class(5), 6, 6, true),
            (Answer::Class(6), 6, 6, false),
            (Answer::Class(0), 12, 6, false),
            (Answer::Numbers(vec![0.0; 4]), 4, 2, true),
            (Answer::Numbers(vec![0.0; 3]), 4, 2, false),
            (Answer::Likelihoods(vec![0.0; 4]), 4, 4, true),
            (Answer::Likelihoods(vec![0.0; 4]), 4, 2, false),
            (Answer::Text("a".into()), 4, 2, true),
        ] {
            assert_eq!(gives(&answer, logits, vocabulary), fits, "{answer:?} of {logits} logits, {vocabulary} a token");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_told_by_name() {
        let net = |ids: usize| {
            let features = if ids > 0 { 8 } else { 0 };
            let config = json!({"model_type": "trm", "seq_len": 4, "vocab_size": 6, "hidden_size": 8, "num_heads": 2, "expansion": 1.0,
                "H_cycles": 1, "L_cycles": 1, "L_layers": 1, "puzzle_emb_ndim": features, "num_puzzle_identifiers": ids});
            Interface::of_graph(&build_graph(&config).unwrap())
        };
        let set = |cells: usize, vocabulary, puzzle_ids, id| ExampleSet {
            examples: vec![Example {
                tokens: vec![1; cells],
                answer: vec![1; cells].into(),
                puzzle_id: id,
                ..Example::default()
            }],
            vocabulary,
            puzzle_ids,
            numbering: (puzzle_ids > 1).then(|| "arc-file-1".into()),
            questions: Vec::new(),
            baselines: Vec::new(),
            notes: Vec::new(),
            ..ExampleSet::default()
        };
        for (set, ids, wanted) in [
            (set(4, 6, 1, 0), 0, None),
            (set(4, 6, 3, 2), 3, None),
            (set(4, 6, 1, 0), 3, None),
            (set(4, 6, 3, 0), 4, Some("a table of 3 puzzle embeddings, model `net` has 4")),
            (set(5, 6, 1, 0), 0, Some("has 5 cells, model `net` takes 4")),
            (set(4, 7, 1, 0), 0, Some("has 7 tokens, model `net` knows 6")),
            (set(4, 6, 3, 0), 0, Some("has no input for it")),
            (set(4, 6, 3, 0), 2, Some("a table of 3 puzzle embeddings, model `net` has 2")),
            // an id beyond what the task says it has
            (set(4, 6, 1, 4), 3, Some("a table of 5 puzzle embeddings")),
        ] {
            let found = check("t", &set, "net", &net(ids), None).err().map(|e| e.to_string());
            match wanted {
                None => assert_eq!(found, None),
                Some(part) => assert!(found.as_ref().is_some_and(|f| f.contains(part)), "{part}: {found:?}"),
            }
        }
        let first_row = check("t", &set(4, 6, 1, 0), "net", &net(3), None).unwrap().unwrap();
        assert!(first_row.contains("has 3 rows") && first_row.contains("the first"), "{first_row}");
        // a numbering that is recorded must be the task's; where none is, nothing is claimed
        let check_net = |set: &ExampleSet, ids, of_net| check("t", set, "net", &net(ids), of_net);
        let known = check_net(&set(4, 6, 3, 2), 3, Some("arc-file-1")).unwrap().unwrap();
        assert!(known.contains("records the numbering") && known.contains("arc-file-1"), "{known}");
        let open = check_net(&set(4, 6, 3, 2), 3, None).unwrap().unwrap();
        assert!(open.contains("not known") && !open.contains("was trained on"), "{open}");
        let other = check_net(&set(4, 6, 3, 2), 3, Some("arc-file-2")).unwrap_err().to_string();
        assert!(other.contains("arc-file-1") && other.contains("arc-file-2") && other.contains("hint: "), "{other}");
        assert!(check_net(&set(4, 6, 1, 0), 1, Some("arc-file-1")).is_err());
        assert_eq!(check_net(&set(4, 6, 1, 0), 1, None).unwrap(), None);
    }
}
