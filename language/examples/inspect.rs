//! Shows a model: its config, and its tensors with type, shape and sum; or the token ids of a text.
//!
//! In: a GGUF file or a Hugging Face folder; with `encode` or `encode-special` also a text file. Out: lines on stdout.
//!
//! ```sh
//! cargo run --release -p ergometer-language --example inspect -- MODEL
//! cargo run --release -p ergometer-language --example inspect -- MODEL encode TEXT.txt
//! ```

use std::{error::Error, path::Path};

use ergometer_language::{Decoder, Encoding, Gguf, TextTokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [model] => tensors(Path::new(model)),
        [model, how @ ("encode" | "encode-special"), text] => {
            encode(Path::new(model), &std::fs::read_to_string(text)?, how == "encode-special")
        }
        _ => Err("usage: inspect MODEL [encode|encode-special TEXT.txt]".into()),
    }
}

fn tensors(model: &Path) -> Result<(), Box<dyn Error>> {
    let decoder = Decoder::open(model)?;
    println!("{:#?}", decoder.config);
    println!("{} parameters, {} bytes", decoder.parameters(), decoder.stored_bytes());
    for (name, tensor) in decoder.tensors() {
        let sum: f64 = decoder.dequantise(name)?.iter().map(|x| f64::from(*x)).sum();
        println!("{name}\t{}\t{:?}\t{sum:.6}", tensor.kind.name(), tensor.shape);
    }
    Ok(())
}

fn encode(model: &Path, text: &str, special: bool) -> Result<(), Box<dyn Error>> {
    let tokenizer = match model.extension().is_some_and(|e| e == "json") {
        true => TextTokenizer::of_json(model)?,
        false => TextTokenizer::of_gguf(&Gguf::open(model)?)?,
    };
    let ids = tokenizer.encode(text, Encoding { additions: special, special })?;
    let back = tokenizer.decode(&ids, true)?;
    eprintln!("{} tokens; decoded {} as it was", ids.len(), if back == text.as_bytes() { "exactly" } else { "NOT" });
    let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
    print!("{lines}");
    Ok(())
}
