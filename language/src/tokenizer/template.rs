//! Chat templates: a conversation as the text that a model was trained on.
//!
//! In: a template in the language of Jinja, messages. Out: text. Must not: read a file or the clock, or work without end.
//!
//! Templates that ask for today's date (`strftime_now`) find no such function, as with libraries that lack it: the same
//! messages make the same prompt on any day.

use std::path::{Path, PathBuf};

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};

use crate::error::LanguageError;

/// Longest template, bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
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

/// A model's template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin: String,
    end: String,
    path: PathBuf,
}

impl ChatTemplate {
    /// Compiles a template; `begin` and `end` are the texts of the tokens that begin and end a text.
    ///
    /// # Errors
    /// It is no template.
    pub(crate) fn new(source: &str, begin: &str, end: &str, path: &Path) -> Result<Self, LanguageError> {
        let fail = |message: String| {
            let hint = "the model's chat template is damaged: fetch the file again, or give the prompt as plain text";
            LanguageError::new(path, format!("chat template: {message}")).hint(hint)
        };
        if source.len() > MAX_BYTES {
            return Err(fail(format!("{} bytes; {MAX_BYTES} are the most", source.len())));
        }
        let mut environment = Environment::new();
        // as `transformers` sets them
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| fail(e.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source.to_owned()).map_err(|e| fail(e.to_string()))?;
        Ok(Self { environment, begin: begin.into(), end: end.into(), path: path.to_owned() })
    }

    /// The text of a conversation; `answer` opens the turn of the model.
    ///
    /// # Errors
    /// The template refuses the messages, fails, or works too long; messages are too long.
    pub fn render(&self, messages: &[ChatMessage], answer: bool) -> Result<String, LanguageError> {
        let fail = |message: String| {
            let hint = "check the roles and their order: many templates want `user` and `assistant` in turns";
            LanguageError::new(&self.path, format!("chat template: {message}")).hint(hint)
        };
        if messages.iter().map(|m| m.content.len() + m.role.len()).sum::<usize>() > MAX_TEXT {
            return Err(fail(format!("messages of more than {MAX_TEXT} bytes")));
        }
        let message = |m: &ChatMessage| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let values = context! {
            messages => messages,
            add_generation_prompt => answer,
            bos_token => self.begin.as_str(),
            eos_token => self.end.as_str(),
        };
        let template = self.environment.get_template("chat").map_err(|e| fail(e.to_string()))?;
        template.render(values).map_err(|e| fail(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, content: &str) -> ChatMessage {
        ChatMessage { role: role.into(), content: content.into() }
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, "<s>", "</s>", Path::new("model.gguf")).unwrap()
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
        let error = ChatTemplate::new("{% for %}", "", "", Path::new("model.gguf")).unwrap_err();
        assert!(error.to_string().starts_with("model.gguf: chat template: "), "{error}");
    }
}
