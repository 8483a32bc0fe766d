//! Chat templates: messages to one prompt, by the model's own Jinja template.
//!
//! Rendered the way the reference library does it: line ends are `\n`, blocks trimmed, Python string methods, `raise_exception`,
//! `strftime_now`, a plain `tojson`, loop controls, `{% generation %}`, maps in the order they were written, every special token a
//! variable, `tools` and `documents` none. A template has a budget of work, so one that would run for ever is an error. Encode the
//! result with `add_special` false.

use std::fmt::Write as _;
use std::thread;

use chrono::format::{Item, StrftimeItems};
use chrono::{Local, NaiveDate, NaiveDateTime, NaiveTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::{SpecialTokens, json, source};
use crate::TextError;

const NAME: &str = "chat";
/// Steps of work, each worth about 64 bytes of data, that a template may take. The longest templates of released models take
/// a few thousand for a chat.
const BUDGET: u64 = 500_000;
/// Steps that a template may take besides for every byte of the messages.
const BUDGET_A_BYTE: u64 = 2;
/// Stack of the engine, which goes as deep as the template and its values are nested; only what is used takes memory.
const STACK: usize = 256 << 20;

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

/// The date and time that a template gets from `strftime_now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChatDate {
    /// Local time of this machine, as the reference has it.
    #[default]
    Today,
    /// 26 July 2024, which Llama's templates take where they know no date. A prompt is then the same on any day.
    Fixed,
}

impl ChatDate {
    fn time(self) -> NaiveDateTime {
        match self {
            Self::Today => Local::now().naive_local(),
            Self::Fixed => NaiveDate::from_ymd_opt(2024, 7, 26)
                .unwrap_or_default()
                .and_time(NaiveTime::MIN),
        }
    }

    fn written(self, format: &str) -> Result<String, Error> {
        let fault = || {
            let message = format!("strftime_now: `{format}` is no format of a local date");
            Error::new(ErrorKind::InvalidOperation, message)
        };
        let format = of_python(format).ok_or_else(fault)?;
        let items: Vec<Item<'_>> = StrftimeItems::new(&format).collect();
        if items.contains(&Item::Error) {
            return Err(fault());
        }
        let mut text = String::new();
        write!(text, "{}", self.time().format_with_items(items.iter())).map_err(|_| fault())?;
        Ok(text)
    }
}

/// A format of Python's `strftime` in the words of this program's library, which has letters of its own and other digits of a second;
/// `None` for a letter that Python does not have.
fn of_python(format: &str) -> Option<String> {
    const LETTERS: &str = "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%";
    let mut text = String::with_capacity(format.len());
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        text.push(letter);
        if letter != '%' {
            continue;
        }
        let mut kind = letters.next()?;
        if "-_0".contains(kind) {
            text.push(kind);
            kind = letters.next()?;
        }
        if !LETTERS.contains(kind) {
            return None;
        }
        if kind == 'f' {
            text.push('6');
        }
        text.push(kind);
    }
    Some(text)
}

/// Work of the engine on a stack of its own; a panic in it becomes words.
fn contained<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let thread = thread::Builder::new()
        .name("chat template".to_owned())
        .stack_size(STACK);
    thread::scope(|scope| {
        let worker = thread.spawn_scoped(scope, work);
        let worker = worker.map_err(|error| format!("no thread for the engine: {error}"))?;
        worker.join().map_err(|_| {
            "the engine gave up on it; put another one into chat_template.jinja".to_owned()
        })
    })
}

/// A compiled chat template with the special tokens it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    tokens: SpecialTokens,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`TextError::TemplateSyntax`] with the line.
    pub fn new(source: &str, tokens: SpecialTokens) -> Result<Self, TextError> {
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
        environment.add_filter("tojson", json::to_json);
        environment.add_function(
            "raise_exception",
            |message: Value| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
            },
        );
        let syntax = |reason| TextError::TemplateSyntax { reason };
        let prepared = source::prepared(source).map_err(syntax)?;
        let environment = contained(move || {
            let added = environment.add_template_owned(NAME, prepared);
            added
                .map(|()| environment)
                .map_err(|error| syntax(error.to_string()))
        });
        let environment = environment.map_err(syntax)??;
        Ok(Self {
            environment,
            source: source.to_owned(),
            tokens,
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
    /// [`TextError::TemplateRender`] when the template refuses the messages (say, two user turns in a row), fails, or takes more
    /// work than any template should.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        date: ChatDate,
    ) -> Result<String, TextError> {
        let fail = |error: Error| {
            TextError::TemplateRender {
            reason: match error.kind() {
                ErrorKind::OutOfFuel => {
                    "it takes more work than a template may; put a shorter one into chat_template.jinja".to_owned()
                }
                _ => error.to_string(),
            },
        }
        };
        let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(BUDGET + BUDGET_A_BYTE * bytes as u64));
        environment.add_function("strftime_now", move |format: &str| date.written(format));
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
            .collect();
        let scope = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            tools => (),
            documents => (),
            ..self.tokens.variables()
        };
        // Errors hold values of the template, which have to go on this stack too.
        let rendered = contained(move || {
            let template = environment.get_template(NAME);
            template
                .and_then(|template| template.render(scope))
                .map_err(fail)
        });
        rendered.map_err(|reason| TextError::TemplateRender { reason })?
    }

    /// The text that a template puts after the assistant's words, spaces before it left out.
    pub(crate) fn after_answer(&self) -> Option<String> {
        const ANSWER: &str = "answer";
        let messages = [
            ChatMessage::new("system", "rules"),
            ChatMessage::new("user", "question"),
            ChatMessage::new("assistant", ANSWER),
        ];
        // Some templates know no system, others want one.
        let render = |from: usize| self.render(&messages[from..], false, ChatDate::Fixed);
        let rendered = render(1).or_else(|_| render(0)).ok()?;
        let (_, after) = rendered.rsplit_once(ANSWER)?;
        Some(after.trim_start().to_owned())
    }
}
