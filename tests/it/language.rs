//! Language models through suites and runs: tasks of text on a recorded model with a tokenizer of single characters, every scenario, bad input.
//!
//! In: golden models. Out: records, predictions, messages. Must not: depend on what such a small model says, or how fast.

use ergometer_reports::case::Verdict;

use crate::house::{House, root};

/// A tokenizer with a token for each printable character and a few more, as many as the recorded models have.
pub fn tokenizer() -> String {
    let printable = (b' '..=b'~').map(|b| char::from(b).to_string()).chain(["\n".to_owned()]);
    let more = (0x100..).filter_map(char::from_u32).map(|c| c.to_string());
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        special.into_iter().chain(printable).chain(more).take(160).zip(0u32..).map(|(t, i)| (t, i.into())).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []}
    })
    .to_string()
}

/// A recorded model in the house, with its tokenizer if it is to have one.
fn speaker(house: &House, family: &str, tokenizer_too: bool) {
    let (from, to) = (root().join("tests/golden").join(family), house.path(family));
    std::fs::create_dir_all(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    if tokenizer_too {
        std::fs::write(to.join("tokenizer.json"), tokenizer()).unwrap();
    }
}

fn house() -> House {
    let house = House::new();
    speaker(&house, "llama", true);
    speaker(&house, "mixtral", true);
    speaker(&house, "gemma3", false);
    house.file(
        "text.txt",
        "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse.\n"
            .repeat(4),
    );
    house.file(
        "choices.jsonl",
        "{\"prompt\": \"The sky is\", \"choices\": [\" blue\", \" made of cheese\"], \"answer\": 0}\n\
         {\"prompt\": \"Two and two are\", \"choices\": [\" five\", \" four\", \" a pair of shoes\"], \"answer\": 1}\n",
    );
    house.file(
        "questions.jsonl",
        "{\"prompt\": \"Name a colour: \", \"answer\": \"red\", \"difficulty\": 2}\n{\"prompt\": \"1 + 1 = \", \"answer\": 2, \"max_tokens\": 3}\n",
    );
    house
}

const HEAD: &str = "[[model]]\nname = \"llama\"\npath = \"llama\"\n[[model]]\nname = \"mixtral\"\npath = \"mixtral\"\n\
    [[model]]\nname = \"gemma3\"\npath = \"gemma3\"\n\
    [[task]]\nname = \"book\"\nkind = \"perplexity\"\ntext = \"text.txt\"\nwindow = 32\nwindows = 3\noutput_tokens = 5\n\
    [[task]]\nname = \"choose\"\nkind = \"choices\"\nfile = \"choices.jsonl\"\noutput_tokens = 3\n\
    [[task]]\nname = \"ask\"\nkind = \"completions\"\nfile = \"questions.jsonl\"\noutput_tokens = 6\n\
    [[task]]\nname = \"sums\"\nkind = \"arithmetic\"\nexamples = 3\nshots = 1\ndigits = 1\noutput_tokens = 4\n\
    [[task]]\nname = \"drawn\"\nkind = \"prompts\"\nrandom = true\nprompt_tokens = [4, 9]\noutput_tokens = 4\nexamples = 3\n\
    [defaults]\nseconds = 0.05\niterations = 2\nwarmup_seconds = 0.01\nbackends = [\"native\"]\nslots = 2\n";

#[test]
fn quality_and_speed_of_a_language_model_stand_in_one_row() {
    let house = house();
    let cases = "[[cases]]\nmodels = [\"llama\"]\ntasks = [\"book\"]\nscenarios = [\"prefill-b1\", \"decode-b2\", \"generate-b2\", \"arrivals-6000\"]\n\
                 [[cases]]\nmodels = [\"mixtral\"]\ntasks = [\"ask\", \"choose\"]\nscenarios = [\"generate-b1\"]\n\
                 [[cases]]\nmodels = [\"gemma3\"]\ntasks = [\"drawn\"]\nscenarios = [\"generate-b3\"]\n";
    let suite = house.file("speak.toml", format!("{HEAD}{cases}"));
    house.run(&suite, "run", &[]).exits(0);
    let folder = ergometer_reports::load(&house.path("run")).unwrap();
    assert_eq!(folder.cases.len(), 7);
    for case in &folder.cases {
        let Some(Verdict::Reference { largest, examples, steps, .. }) = &case.case.verdict else {
            panic!("{:?}", case.case)
        };
        assert!(*largest < 1e-4 && *examples >= 1 && *steps >= 4, "{}: {largest:e}", case.case.path);
    }
    let records = &ergometer_reports::Report::new(folder).records;
    let of = |path: &str, metric: &str| {
        let found = records.iter().find(|r| r.path.contains(path) && r.metric == metric);
        found.unwrap_or_else(|| panic!("no record of {metric} for {path}")).value
    };
    let there = |path: &str, metric: &str| assert!(of(path, metric).is_some_and(|v| v > 0.0), "{path} {metric}");
    let absent = |path: &str, metric: &str| {
        assert!(!records.iter().any(|r| r.path.contains(path) && r.metric == metric), "{path} {metric}")
    };
    for scenario in ["prefill-b1", "decode-b2", "generate-b2", "arrivals-6000"] {
        let path = &format!("book/llama/f32/native/{scenario}/");
        // a model of random weights is as unsure as can be
        let perplexity = of(path, "perplexity").unwrap();
        assert!((50.0..1e4).contains(&perplexity), "{perplexity}");
        assert_eq!(of(path, "same_top"), Some(1.0));
        assert!(of(path, "kl_divergence").unwrap() < 1e-6);
        there(path, "kv_bytes");
        there(path, "throughput");
    }
    for (scenario, has, has_not) in [
        ("prefill-b1", &["prefill_rate", "ttft"][..], &["decode_rate", "tpot", "output_rate", "bandwidth_share"][..]),
        ("decode-b2", &["decode_rate", "tpot", "output_rate"], &["prefill_rate", "ttft", "tokens_per_joule_input"]),
        ("generate-b2", &["prefill_rate", "decode_rate", "ttft", "tpot", "output_rate"], &[]),
        ("arrivals-6000", &["ttft", "tpot", "output_rate"], &["prefill_rate", "decode_rate"]),
    ] {
        let path = &format!("book/llama/f32/native/{scenario}/");
        has.iter().for_each(|metric| there(path, metric));
        has_not.iter().for_each(|metric| absent(path, metric));
    }
    assert_eq!(of("generate-b2", "tokens_out"), Some(5.0));
    assert_eq!(of("prefill-b1", "tokens_in"), Some(17.0));
    assert!(of("ask/mixtral", "accuracy").is_some() && of("choose/mixtral", "choice_accuracy_normalised").is_some());
    assert!(of("drawn/gemma3", "accuracy").is_none());
    // experts that are used, and all of them
    assert!(of("ask/mixtral", "params_active").unwrap() < of("ask/mixtral", "params_total").unwrap());
    let page = std::fs::read_to_string(house.path("run/report/report.md")).unwrap();
    assert!(page.contains("perplexity") && page.contains("next token"), "{page}");
    house.assert_nobody_left();
}

#[test]
fn what_a_language_model_wrote_is_kept_as_text() {
    let house = house();
    let suite = house.file(
        "speak.toml",
        format!("{HEAD}[[cases]]\nmodels = [\"llama\"]\ntasks = [\"ask\", \"sums\"]\nscenarios = [\"generate-b2\"]\n"),
    );
    house.run(&suite, "run", &["--check"]).exits(0);
    let run = ergometer_reports::load(&house.path("run")).unwrap();
    let ask = run.cases.iter().find(|c| c.case.key.task == "ask").unwrap();
    assert_eq!(ask.predictions.len(), 2);
    assert_eq!(ask.predictions[1].depth, 3, "`max_tokens` of the line");
    assert_eq!(ask.predictions[0].difficulty, Some(2));
    let answers: Vec<usize> = ask.predictions.iter().map(|p| p.answer.chars().count()).collect();
    assert!(answers[0] <= 6 && answers[1] <= 3, "{answers:?}");
    assert_eq!(ask.case.key.family, "dense");
    assert_eq!(ask.case.error, None);
}

#[test]
fn what_does_not_belong_together_is_refused_before_anything_runs() {
    let house = house();
    house.file("short.txt", "A few words.\n");
    house.file("empty.jsonl", "{\"prompt\": \"\", \"answer\": \"a\"}\n");
    house.file("broken.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": \"a\" \"answer\": \"b\"}\n");
    house.file("beyond.jsonl", format!("{{\"prompt\": \"{}\", \"answer\": \"a\"}}\n", "long ".repeat(100)));
    let try_one = |cases: &str, words: &[&str]| {
        let suite = house.file("wrong.toml", format!("{HEAD}{cases}"));
        house.run(&suite, "wrong", &["--check"]).refused(words);
        assert!(!house.path("wrong").exists());
    };
    let task = |text: &str, model: &str| {
        format!(
            "[[task]]\nname = \"wrong\"\n{text}\n[[cases]]\nmodels = [\"{model}\"]\ntasks = [\"wrong\"]\nscenarios = [\"generate-b1\"]\n"
        )
    };
    let cases = |model: &str, tasks: &str, scenario: &str| {
        format!("[[cases]]\nmodels = [\"{model}\"]\ntasks = [\"{tasks}\"]\nscenarios = [\"{scenario}\"]\n")
    };
    try_one(&cases("llama", "book", "single-stream"), &["`llama`", "scenario `single-stream`", "generate-b1"]);
    try_one(&cases("gemma3", "book", "generate-b1"), &["`gemma3`", "no tokenizer", "tokenizer.json"]);
    try_one(&cases("mixtral", "drawn", "generate-b1"), &["`mixtral`", "random tokens", "text = "]);
    try_one(&task("kind = \"sudoku\"\nsize = 4\nexamples = 2", "llama"), &["`wrong`", "language model"]);
    try_one(&task("kind = \"completions\"\nfile = \"empty.jsonl\"", "llama"), &["example 0", "empty prompt"]);
    try_one(&task("kind = \"completions\"\nfile = \"broken.jsonl\"", "llama"), &["broken.jsonl", "line 2"]);
    try_one(
        &task("kind = \"completions\"\nfile = \"beyond.jsonl\"", "llama"),
        &["example 0", "made for 256", "shorten"],
    );
    try_one(&task("kind = \"perplexity\"\ntext = \"short.txt\"", "llama"), &["8 windows of 512", "13 tokens"]);
    try_one(
        &task("kind = \"completions\"\nfile = \"questions.jsonl\"\nchat = true", "llama"),
        &["no chat template", "`chat`"],
    );
    try_one(
        &task("kind = \"prompts\"\nrandom = true\noutput_tokens = 1", "gemma3").replace("generate-b1", "decode-b1"),
        &["decode-b1", "output_tokens = 2"],
    );
    // a tokenizer of another model
    let other = tokenizer().replace("\"N\":49", "\"N\":4000");
    assert_ne!(other, tokenizer());
    std::fs::write(house.path("llama/tokenizer.json"), other).unwrap();
    try_one(&cases("llama", "ask", "generate-b1"), &["token"]);
}
