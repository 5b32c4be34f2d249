//! Tasks of language: files by line, generated questions, lengths, scorers.
//!
//! In: small files. Out: examples and scores. Must not: need a tokenizer.

use super::*;

fn made(kind: &str, parameters: &str, folder: &Path) -> Result<ExampleSet, SuiteError> {
    (crate::task(kind).unwrap().examples)(&parameters.parse().unwrap(), folder)
}

fn house(files: &[(&str, &str)]) -> tempfile::TempDir {
    let house = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(house.path().join(name), text).unwrap());
    house
}

#[test]
fn lines_become_examples_with_clusters_and_difficulty() {
    let house = house(&[(
        "a.jsonl",
        "{\"prompt\": \"p\", \"answer\": 7, \"cluster\": \"x\", \"difficulty\": 3}\n\n{\"prompt\": \"q\", \"answer\": \"a\", \"cluster\": \"x\", \"max_tokens\": 5}\n{\"prompt\": \"r\", \"answer\": \"b\"}\n",
    )]);
    let set = made("completions", "file = 'a.jsonl'\nscorer = 'contains'", house.path()).unwrap();
    let [a, b, c] = &set.examples[..] else { panic!() };
    assert_eq!((a.answer.clone(), a.difficulty), (Answer::Text("7".into()), 3));
    assert!(a.cluster == b.cluster && c.cluster != a.cluster);
    let most = |e: &Example| e.text.as_ref().unwrap().output_tokens;
    assert_eq!((most(a), most(b)), (64, 5));
    let one = made("completions", "file = 'a.jsonl'\nexamples = 1", house.path()).unwrap();
    assert_eq!(one.examples.len(), 1);
}

#[test]
fn what_is_wrong_with_a_file_is_named_by_its_line() {
    let house = house(&[
        ("broken.jsonl", "{\"prompt\": \"p\", \"answer\": \"a\"}\n{\"prompt\": \"p\", \"answer\": }\n"),
        ("list.jsonl", "[1]\n"),
        ("key.jsonl", "{\"prompt\": \"p\", \"anwser\": \"a\"}\n"),
        ("missing.jsonl", "\n{\"prompt\": \"p\"}\n"),
        ("choice.jsonl", "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"], \"answer\": 2}\n"),
        ("one.jsonl", "{\"prompt\": \"p\", \"choices\": [\"a\"], \"answer\": 0}\n"),
        ("word.jsonl", "{\"prompt\": \"p\", \"answer\": \"seven\"}\n"),
        ("trace.jsonl", "{\"prompt_tokens\": 3, \"output_tokens\": 2}\n{\"prompt_tokens\": 0, \"output_tokens\": 2}\n"),
        (
            "back.jsonl",
            "{\"arrival\": 2, \"prompt\": \"p\", \"output_tokens\": 2}\n{\"arrival\": 1.5, \"prompt\": \"p\", \"output_tokens\": 2}\n",
        ),
        (
            "some.jsonl",
            "{\"arrival\": 2, \"prompt\": \"p\", \"output_tokens\": 2}\n{\"prompt\": \"p\", \"output_tokens\": 2}\n",
        ),
        ("never.jsonl", "{\"arrival\": -1, \"prompt\": \"p\", \"output_tokens\": 2}\n"),
        ("both.jsonl", "{\"prompt\": \"p\", \"prompt_tokens\": 3, \"output_tokens\": 2}\n"),
        ("mixed.jsonl", "{\"prompt\": \"p\", \"output_tokens\": 2}\n{\"prompt_tokens\": 3, \"output_tokens\": 2}\n"),
        ("empty.txt", " \n"),
        ("text.txt", "words\n"),
    ]);
    for (kind, parameters, words) in [
        ("completions", "file = 'broken.jsonl'", ["line 2", "broken.jsonl"]),
        ("completions", "file = 'list.jsonl'", ["line 1", "no JSON object"]),
        ("completions", "file = 'key.jsonl'", ["line 1", "`answer`"]),
        ("completions", "file = 'missing.jsonl'", ["line 2, `answer`", "missing"]),
        ("completions", "file = 'nowhere.jsonl'", ["nowhere.jsonl", "cannot be read"]),
        ("completions", "file = 'word.jsonl'\nscorer = 'number'", ["line 1, `answer`", "no number"]),
        ("completions", "file = 'word.jsonl'\nscorer = 'exakt'", ["`scorer`", "`exact`"]),
        ("completions", "file = 'word.jsonl'\nexamples = 2", ["`examples`", "1 lines"]),
        ("choices", "file = 'choice.jsonl'", ["line 1, `answer`", "index"]),
        ("choices", "file = 'one.jsonl'", ["line 1, `choices`", "two texts"]),
        ("perplexity", "text = 'empty.txt'", ["empty.txt", "no text"]),
        ("perplexity", "window = 512", ["`text`", "missing"]),
        ("prompts", "prompt_tokens = 4", ["`text`", "random"]),
        ("prompts", "text = 'text.txt'\nrandom = true", ["`text`", "random"]),
        ("prompts", "text = 'text.txt'\nprompt_tokens = [9, 3]", ["`prompt_tokens`", "LEAST, MOST"]),
        ("prompts", "random = true\ntrace = 'trace.jsonl'", ["line 2, `prompt_tokens`", "1 to"]),
        ("prompts", "random = true\ntrace = 'trace.jsonl'\noutput_tokens = 3", ["`output_tokens`", "trace"]),
        ("prompts", "trace = 'back.jsonl'", ["line 2, `arrival`", "before"]),
        ("prompts", "trace = 'some.jsonl'", ["line 2, `arrival`", "some lines"]),
        ("prompts", "trace = 'never.jsonl'", ["line 1, `arrival`", "seconds"]),
        ("prompts", "trace = 'both.jsonl'", ["line 1, `prompt_tokens`", "one of them"]),
        ("prompts", "trace = 'mixed.jsonl'", ["line 2, `prompt`", "some lines"]),
        ("prompts", "trace = 'back.jsonl'\nexamples = 1\nrandom = true", ["`random`", "trace has them"]),
        ("prompts", "random = true\ncontext = [3, 4]\nprompt_tokens = 3", ["`context`", "leave out one"]),
        ("prompts", "random = true\nprompt_tokens = { mean = 3, sd = 1 }", ["`prompt_tokens`", "lognormal"]),
        ("arithmetic", "digits = 1\noperations = '+'\nexamples = 200", ["`examples`", "digits"]),
        ("strings", "operations = 'revrse'", ["`operations`", "`reverse`"]),
    ] {
        let said = made(kind, parameters, house.path()).unwrap_err().to_string();
        assert!(words.iter().all(|w| said.contains(w)) && said.contains("hint: "), "{kind} {parameters}: {said}");
    }
}

#[test]
fn generated_questions_have_their_answers() {
    let here = Path::new("");
    let set =
        made("arithmetic", "digits = [1, 4]\noperations = ['+', '-', '*']\nexamples = 50\nshots = 2\nseed = 3", here)
            .unwrap();
    assert_eq!(set.examples.len(), 50);
    let mut prompts = std::collections::HashSet::new();
    for example in &set.examples {
        let prompt = &example.text.as_ref().unwrap().prompt;
        assert_eq!(prompt.lines().count(), 3, "two are shown: {prompt}");
        let asked = prompt.lines().last().unwrap();
        let [a, operation, b, "="] = asked.split(' ').collect::<Vec<_>>()[..] else { panic!("{asked}") };
        let (a, b): (i64, i64) = (a.parse().unwrap(), b.parse().unwrap());
        let right = match operation {
            "+" => a + b,
            "-" => a - b,
            _ => a * b,
        };
        assert_eq!(example.answer, Answer::Text(right.to_string()));
        assert!(example.difficulty == 1 || example.difficulty == 4);
        assert!(prompts.insert(asked.to_owned()) && !prompt.lines().take(2).any(|shown| shown.starts_with(asked)));
    }
    let set = made("strings", "operations = 'reverse'\nletters = 4\nexamples = 5\nchat = true", here).unwrap();
    for example in &set.examples {
        let prompt = &example.text.as_ref().unwrap().prompt;
        let word: String = prompt.rsplit(": ").next().unwrap().chars().rev().collect();
        assert_eq!((example.answer.clone(), example.difficulty), (Answer::Text(word), 4));
    }
    let again = made("strings", "operations = 'reverse'\nletters = 4\nexamples = 5\nchat = true", here).unwrap();
    assert_eq!(set.examples, again.examples);
}

#[test]
fn lengths_are_fixed_drawn_or_traced() {
    let house = house(&[("t.jsonl", "{\"prompt_tokens\": 3, \"output_tokens\": 2}\n")]);
    let lengths = |parameters: &str| {
        let set = made("prompts", &format!("random = true\n{parameters}"), house.path()).unwrap();
        set.examples
            .iter()
            .map(|e| e.text.as_ref().map(|t| (t.prompt_tokens, t.output_tokens)).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(lengths("prompt_tokens = 5\noutput_tokens = 2\nexamples = 2"), [(5, 2), (5, 2)]);
    assert_eq!(lengths("trace = 't.jsonl'"), [(3, 2)]);
    assert_eq!(lengths("context = [4, 9, 2]\noutput_tokens = 1\nexamples = 4"), [(4, 1), (9, 1), (2, 1), (4, 1)]);
    let drawn = lengths("prompt_tokens = { mean = 200, sd = 100, most = 500 }\nexamples = 4000");
    let mean = drawn.iter().map(|d| f64::from(d.0)).sum::<f64>() / 4000.0;
    // a hundredth or so of the weight lies above 500
    assert!(
        (185.0..205.0).contains(&mean) && drawn.iter().any(|d| d.0 == 500) && drawn.iter().all(|d| d.0 <= 500),
        "{mean}"
    );
    let drawn = lengths("prompt_tokens = [4, 9]\nexamples = 100");
    assert!(
        (4..=9).all(|n| drawn.iter().any(|d| d.0 == n)) && drawn.iter().all(|d| (4..=9).contains(&d.0) && d.1 == 128)
    );
}

fn text(how: TextMatch, stop: &[&str], wanted: &str, given: &str) -> AnswerScore {
    let stop = stop.iter().map(|s| (*s).to_owned()).collect();
    let scorer = LanguageScorer::Text(TextScorer { how, stop });
    let (label, answer) = (Answer::Text(wanted.into()), Answer::Text(given.into()));
    scorer.fits(&label, &answer).unwrap();
    scorer.score(&label, &answer)
}

use crate::score::AnswerScore;

#[test]
fn written_answers_are_scored() {
    use TextMatch::{Contains, Edit, Exact, Number};
    for (how, stop, wanted, given, right) in [
        (Exact, &[][..], "Paris", " Paris\n", true),
        (Exact, &[], "Paris", "Paris.", false),
        (Exact, &["\n"], "7", "\n 7\n8 + 1 = 9", true),
        (Contains, &[], "Paris", "It is Paris, in France.", true),
        (Number, &[], "1200", "So that is 1,200.", true),
        (Number, &[], "7", "3 + 4 = 7.0", true),
        (Number, &[], "7", "7 apples of 9", false),
        (Number, &[], "-5", "it is -5", true),
        (Number, &[], "7", "none", false),
        (Edit, &[], "abc", "abc", true),
    ] {
        assert_eq!(text(how, stop, wanted, given).score.exact, right, "{how:?} {wanted} {given}");
    }
    let off = text(Edit, &[], "the cat", "the bat");
    let sums: Vec<_> = off.sums.iter().map(|s| (s.metric.as_str(), s.numerator, s.denominator)).collect();
    assert_eq!(sums, [("cer", 1.0, 7.0), ("wer", 1.0, 2.0)]);
}

#[test]
fn likelihoods_are_scored() {
    let scorer = LanguageScorer::Choices;
    let answer = Answer::Likelihoods(vec![-2.0, -3.0, -2.0, -1.0]);
    let rights =
        |right| -> Vec<f64> { scorer.score(&Answer::Class(right), &answer).sums.iter().map(|s| s.numerator).collect() };
    assert_eq!((rights(0), rights(1)), (vec![1.0, 0.0], vec![0.0, 1.0]));
    let scorer = LanguageScorer::Perplexity;
    let scored = scorer.score(&Answer::default(), &Answer::Likelihoods(vec![-1.0, -3.0]));
    let sums: Vec<_> = scored.sums.iter().map(|s| (s.part, s.numerator, s.denominator)).collect();
    assert_eq!(sums[..2], [(0, 4.0, 2.0), (1, 10.0, 2.0)]);
    for wrong in [vec![0.5], vec![f64::NAN], vec![f64::NEG_INFINITY], vec![]] {
        assert!(scorer.fits(&Answer::default(), &Answer::Likelihoods(wrong)).is_err());
    }
    assert!(scorer.fits(&Answer::default(), &Answer::Tokens(vec![1])).is_err());
}

#[test]
fn a_trace_says_when_requests_come_and_what_they_ask() {
    let house = house(&[(
        "t.jsonl",
        "{\"arrival\": 0, \"prompt\": \"one\", \"output_tokens\": 2}\n{\"arrival\": 0.25, \"prompt\": \"two\", \"output_tokens\": 3}\n",
    )]);
    let set = made("prompts", "trace = 't.jsonl'", house.path()).unwrap();
    let texts: Vec<&TextExample> = set.examples.iter().filter_map(|e| e.text.as_ref()).collect();
    assert_eq!((texts[1].prompt.as_str(), texts[1].output_tokens), ("two", 3));
    assert_eq!(texts.iter().map(|t| t.arrival.unwrap().as_millis()).collect::<Vec<_>>(), [0, 250]);
    assert_eq!(set.language.unwrap().prompts, PromptSource::Examples);
}
