//! Faults of the tokenizer and of the chat template.
//!
//! Both parts wrap libraries whose errors are text; the text is kept and the way out is added.

/// Errors of turning text into tokens, tokens into text, or messages into a prompt.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// tokenizer.json is refused.
    #[error(
        "tokenizer.json cannot be used: {reason}; a fast (tokenizer.json) tokenizer of the `tokenizers` library is needed"
    )]
    Tokenizer {
        /// The library's answer.
        reason: String,
    },
    /// Text could not be encoded.
    #[error("encoding {bytes} bytes of text failed: {reason}")]
    Encode {
        /// Size of the text in bytes.
        bytes: usize,
        /// The library's answer.
        reason: String,
    },
    /// Token ids could not be decoded.
    #[error("decoding {tokens} token ids failed: {reason}")]
    Decode {
        /// Number of ids.
        tokens: usize,
        /// The library's answer.
        reason: String,
    },
    /// tokenizer_config.json or special_tokens_map.json holds something unusable.
    #[error("{file}: `{field}` is {got}, expected {expected}")]
    TokenizerConfig {
        /// The file.
        file: &'static str,
        /// The field.
        field: &'static str,
        /// The value, shortened.
        got: String,
        /// Description of an accepted value.
        expected: &'static str,
    },
    /// The model has no chat template.
    #[error("this model has no chat template; put one into chat_template.jinja")]
    NoTemplate,
    /// The chat template cannot be read.
    #[error("the chat template cannot be used: {reason}")]
    TemplateFile {
        /// The fault of the file.
        reason: String,
    },
    /// The chat template does not compile.
    #[error(
        "the chat template does not compile: {reason}; put a corrected one into chat_template.jinja, which goes first"
    )]
    TemplateSyntax {
        /// The template engine's answer, with the line.
        reason: String,
    },
    /// The chat template failed on these messages, or refused them.
    #[error("the chat template failed: {reason}")]
    TemplateRender {
        /// The template engine's answer, or the template's own sentence.
        reason: String,
    },
}
