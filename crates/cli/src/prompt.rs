//! Sources of a prompt, and its tokens.
//!
//! A text goes through the model's chat template as one user message unless `--raw` is given. It is
//! never cut: a prompt that does not fit is an error with both numbers.

use std::{
    io::{IsTerminal, Read, stdin},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::Args;
use sparse_accelerate_checkpoint::{ChatDate, ChatMessage, ModelDir};

use crate::exit::usage;

/// Exactly one source.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SourceArgs {
    /// The prompt
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,

    /// Read the prompt from a file (UTF-8)
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Read the prompt from standard input
    #[arg(long)]
    stdin: bool,
}

/// Text that is put around the prompt.
#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// System message of the chat template
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Give the prompt to the model as it is, without the chat template
    #[arg(long)]
    raw: bool,
}

impl SourceArgs {
    /// The text, refused when there is nothing in it.
    pub(crate) fn text(&self) -> Result<String> {
        let text = if let Some(path) = &self.file {
            std::fs::read_to_string(path)
                .map_err(|error| usage(format!("--file {}: {error}", path.display())))?
        } else if let Some(prompt) = &self.prompt {
            prompt.clone()
        } else {
            if stdin().is_terminal() {
                eprintln!("reading the prompt from the terminal; end with Ctrl-D");
            }
            let mut text = String::new();
            stdin()
                .read_to_string(&mut text)
                .context("cannot read the prompt from standard input")?;
            text
        };
        if text.trim().is_empty() {
            return Err(usage("the prompt is empty; give some text"));
        }
        Ok(text)
    }
}

impl FormatArgs {
    /// The tokens of the prompt.
    pub(crate) fn ids(&self, dir: &ModelDir, text: &str) -> Result<Vec<u32>> {
        if self.raw {
            return Ok(dir.tokenizer().encode(text, true)?);
        }
        chat_ids(dir, self.system.as_deref(), text)
    }
}

/// The tokens of one user message in the model's chat template.
pub(crate) fn chat_ids(dir: &ModelDir, system: Option<&str>, text: &str) -> Result<Vec<u32>> {
    let template = dir.chat_template().map_err(|error| {
        usage(format!(
            "{error}; or pass --raw to give it the prompt as it is"
        ))
    })?;
    let mut messages = Vec::new();
    messages.extend(system.map(|system| ChatMessage::new("system", system)));
    messages.push(ChatMessage::new("user", text));
    let rendered = template.render(&messages, true, ChatDate::Today)?;
    Ok(dir.tokenizer().encode(&rendered, false)?)
}
