//! Chat templates: a conversation as the text that a model was trained on.
//!
//! In: a template in the language of Jinja, messages. Out: text. Must not: read a file or the clock, or work without end.
//! Instructions, the template's length and the text that comes out are bounded, and what is nested deeply has a stack of
//! its own; texts inside a template are not bounded: one that doubles a variable takes memory until it is stopped.
//! A template is compiled when it is rendered, so that one that is damaged does not keep the rest of a model from use.
//!
//! Templates that ask for today's date (`strftime_now`) find no such function, as with libraries that lack it: the same
//! messages make the same prompt on any day.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    thread,
};

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Kwargs};
use serde::Serialize;

use crate::error::LanguageError;

/// Longest template, bytes.
pub(crate) const MAX_BYTES: usize = 128 << 10;
/// Stack of the thread that compiles and renders: so much for each byte of a template, which may be a level of nesting, and what else it takes.
const STACK_PER_BYTE: usize = 32 << 10;
const STACK: usize = 16 << 20;
/// Longest text that a template may make, bytes.
const MAX_RENDERED: usize = 64 << 20;
/// Most instructions that one rendering takes.
const FUEL: u64 = 5_000_000;
/// Longest text of all messages together, bytes.
const MAX_TEXT: usize = 32 << 20;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    begin: String,
    end: String,
    path: PathBuf,
}

/// Tags of training that stand around what a model is to say: they change no text.
fn without_training_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        text.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        match tag.trim_matches(|c: char| "{}%-+ ".contains(c)) {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text + rest
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, which is what `transformers` gives templates.
struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}

fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(n) => {
            let blanks = " ".repeat(n.min(64));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonJson)),
    };
    written.map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}")))?;
    Ok(Value::from_safe_string(String::from_utf8(bytes).unwrap_or_default()))
}

/// Text of at most [`MAX_RENDERED`] bytes.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(io::Error::other(format!("the text is longer than {MAX_RENDERED} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error with those that led to it.
fn whole(error: &Error) -> String {
    let (mut text, mut cause) = (error.to_string(), std::error::Error::source(error));
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

impl ChatTemplate {
    /// A template; `begin` and `end` are the texts of the tokens that begin and end a text.
    pub(crate) fn new(source: &str, begin: &str, end: &str, path: &Path) -> Self {
        // one that is too long is not kept
        let source = if source.len() > MAX_BYTES { "x".repeat(MAX_BYTES + 1) } else { source.to_owned() };
        Self { source, begin: begin.into(), end: end.into(), path: path.to_owned() }
    }

    fn fail(&self, message: String) -> LanguageError {
        let hint = "check the roles and their order (many templates want `user` and `assistant` in turns), or give the prompt as plain text";
        LanguageError::new(&self.path, format!("chat template: {message}")).hint(hint)
    }

    /// The text of a conversation; `answer` opens the turn of the model.
    ///
    /// # Errors
    /// It is no template; it refuses the messages, fails, works too long or makes too long a text; messages are too long.
    pub fn render(&self, messages: &[ChatMessage], answer: bool) -> Result<String, LanguageError> {
        if self.source.len() > MAX_BYTES {
            return Err(self.fail(format!("it has more than {MAX_BYTES} bytes")));
        }
        if messages.iter().map(|m| m.content.len() + m.role.len()).sum::<usize>() > MAX_TEXT {
            return Err(self.fail(format!("messages of more than {MAX_TEXT} bytes")));
        }
        let made = thread::scope(|scope| {
            let work = || self.rendered(messages, answer).map_err(|e| whole(&e));
            let stack = STACK + STACK_PER_BYTE * self.source.len();
            let thread = thread::Builder::new().stack_size(stack).spawn_scoped(scope, work);
            let thread = thread.map_err(|e| format!("no thread for it: {e}"))?;
            thread.join().unwrap_or_else(|_| Err("it cannot be read".into()))
        });
        made.map_err(|message| self.fail(message))
    }

    fn rendered(&self, messages: &[ChatMessage], answer: bool) -> Result<String, Error> {
        let mut environment = Environment::new();
        // as `transformers` sets them
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", |value: &Value, options: Kwargs| to_json(value, options));
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = without_training_tags(&self.source);
        let template = environment.template_from_str(&source)?;
        let message = |m: &ChatMessage| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let values = context! {
            messages => messages,
            add_generation_prompt => answer,
            bos_token => self.begin.as_str(),
            eos_token => self.end.as_str(),
            // what `transformers` gives where there are none
            tools => (),
            documents => (),
        };
        let mut text = Bounded(Vec::new());
        template.render_captured_to(values, &mut text)?;
        Ok(String::from_utf8(text.0).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, content: &str) -> ChatMessage {
        ChatMessage { role: role.into(), content: content.into() }
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, "<s>", "</s>", Path::new("model.gguf"))
    }

    /// That of SmolLM2-135M-Instruct.
    const SMOLLM: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn a_conversation_becomes_the_published_text() {
        let text = template(SMOLLM).render(&[said("user", "Hello")], true).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
             <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        );
        let text = template(SMOLLM).render(&[said("system", "S"), said("user", "U")], false).unwrap();
        assert_eq!(text, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n");
    }

    #[test]
    fn methods_of_python_and_refusals_work() {
        let source = "{{ bos_token }}{%- for m in messages %}\n    {%- if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\n{{ m.content.strip() | upper }}{{ eos_token }}\n{%- endfor %}";
        let text = template(source).render(&[said("user", " hi ")], false).unwrap();
        assert_eq!(text, "<s>HI</s>");
        let error = template(source).render(&[said("tool", "x")], false).unwrap_err();
        assert!(error.message.contains("no tools") && error.to_string().contains("hint: "), "{error}");
    }

    #[test]
    fn a_template_that_does_not_end_is_stopped() {
        let source =
            "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}";
        let error = template(source).render(&[], false).unwrap_err();
        assert!(error.message.contains("fuel"), "{error}");
    }

    #[test]
    fn broken_templates_are_refused_with_the_file() {
        let error = template("{% for %}").render(&[], false).unwrap_err();
        assert!(error.to_string().starts_with("model.gguf: chat template: "), "{error}");
        let error = template(&"a".repeat(MAX_BYTES + 1)).render(&[], false).unwrap_err();
        assert!(error.message.contains("131072 bytes"), "{error}");
    }

    #[test]
    fn long_chains_end_in_an_answer_or_an_error() {
        let most = MAX_BYTES - 20;
        for (first, link, last) in [
            ("1", "+1", ""),
            ("", "not ", "1"),
            ("", "-", "1"),
            ("1", "~1", ""),
            ("a", ".b", ""),
            ("", "(", "1"),
            ("", "[", "1"),
        ] {
            let source = format!("{{{{ {first}{}{last} }}}}", link.repeat(most / link.len()));
            // what it gives is its own affair; the process lives
            let _ = template(&source).render(&[], false);
        }
        let endless = "{% for i in range(90000) %}{{ 'a'*20000 }}{% endfor %}";
        let error = template(endless).render(&[], false).unwrap_err();
        assert!(error.message.contains("longer than 67108864 bytes"), "{error}");
    }

    #[test]
    fn templates_see_what_transformers_gives_them() {
        let rendered = |source: &str| template(source).render(&[said("user", "<é\"\n")], false).unwrap();
        assert_eq!(rendered("{% if tools is not none %}TOOLS{% endif %}{% if not documents %}-{% endif %}"), "-");
        assert_eq!(rendered("{{ messages | tojson }}"), r#"[{"role": "user", "content": "<é\"\n"}]"#);
        assert_eq!(rendered("{{ [1] | tojson(indent=2) }}"), "[\n  1\n]");
        assert_eq!(rendered("{%- generation -%} a {%- endgeneration %}b{% generation %}c{% endgeneration %}"), "abc");
    }
}
