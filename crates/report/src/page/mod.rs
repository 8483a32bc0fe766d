//! Runs as one page: HTML that needs nothing else, or Markdown.

mod html;
mod markdown;
mod metadata;
mod results;

pub use html::html;
pub use markdown::markdown;
pub use results::results;

/// Text for HTML and XML, attribute values included.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
