//! Chat templates: messages to one prompt, by the model's own Jinja template.
//!
//! Rendered the way the reference library does it: blocks trimmed, Python string methods, `raise_exception`, loop controls,
//! `tools` and `documents` none. `strftime_now` is absent, so a template that tests for it takes its fixed date and a prompt
//! does not change from day to day. Encode the result with `add_special` false.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::TextError;

const NAME: &str = "chat";

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    /// Speaker of the message: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// Text of the message.
    pub content: String,
}

impl ChatMessage {
    /// A message from its two parts.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// A compiled chat template with the special tokens it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`TextError::TemplateSyntax`] with the line.
    pub fn new(
        source: &str,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| TextError::TemplateSyntax {
            reason: error.to_string(),
        })?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TextError::TemplateSyntax {
                reason: error.to_string(),
            })?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos_token,
            eos_token,
        })
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for these messages. `add_generation_prompt` ends it where the assistant's answer begins.
    ///
    /// # Errors
    /// [`TextError::TemplateRender`] when the template refuses the messages (say, two user turns in a row) or fails.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let fail = |error: Error| TextError::TemplateRender {
            reason: error.to_string(),
        };
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
            .collect();
        let mut scope = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            tools => (),
            documents => (),
        };
        if let Some(token) = &self.bos_token {
            scope = context! { bos_token => token.as_str(), ..scope };
        }
        if let Some(token) = &self.eos_token {
            scope = context! { eos_token => token.as_str(), ..scope };
        }
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(scope))
            .map_err(fail)
    }
}
