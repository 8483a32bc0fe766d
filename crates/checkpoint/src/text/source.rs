//! A chat template's text, made ready for the engine.
//!
//! Line ends become `\n`, as Jinja reads them. The tags `{% generation %}` and `{% endgeneration %}`, which mark the assistant's
//! words for training, become a `with` block: they print their contents and keep what is set inside. Text, comments, raw blocks
//! and strings stay untouched, and so do line numbers. A tag with far more operators than any template has is refused, because the
//! engine goes as deep as they are many.

/// Spelling that the engine understands, of every tag that only the reference knows.
const TAGS: [(&str, &str); 2] = [("generation", "with"), ("endgeneration", "endwith")];

/// Operators of a tag, and branches `elif` of a template, at most: a hundred times those of released models.
const MAX_OPERATORS: usize = 2000;
/// Words that count as operators.
const OPERATORS: [&str; 7] = ["not", "and", "or", "if", "else", "is", "in"];

/// The template as the engine takes it.
///
/// # Errors
/// Too many operators or branches, in words.
pub(super) fn prepared(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut branches = 0;
    while let Some(at) = rest.find("{") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let (end, operators) = match tag.as_bytes().get(1) {
            Some(b'#') => (tag.find("#}").map_or(tag.len(), |end| end + 2), 0),
            Some(b'{') => {
                let end = end_of(tag, "}}");
                (end, operators(&tag[..end]))
            }
            Some(b'%') => {
                let end = end_of(tag, "%}");
                match word(&tag[..end]) {
                    ("raw", _) => (end + end_of_raw(&tag[end..]), 0),
                    _ => (end, operators(&tag[..end])),
                }
            }
            _ => (1, 0),
        };
        let (tag, after) = tag.split_at(end);
        branches += usize::from(word(tag).0 == "elif");
        for (count, what) in [(operators, "operators"), (branches, "branches `elif`")] {
            if count > MAX_OPERATORS {
                return Err(format!(
                    "{count} {what} by `{}`, at most {MAX_OPERATORS} are taken",
                    tag.chars().take(40).collect::<String>()
                ));
            }
        }
        match TAGS.iter().find(|(name, _)| word(tag) == (*name, "")) {
            Some((name, spelling)) => out.push_str(&tag.replacen(name, spelling, 1)),
            None => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Number of operators in a tag, strings left out.
fn operators(tag: &str) -> usize {
    let (mut quote, mut escaped, mut count) = (None, false, 0);
    let mut name = String::new();
    for c in tag.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c.is_alphanumeric() || c == '_' => name.push(c),
            None => {
                count += usize::from(OPERATORS.contains(&name.as_str()));
                name.clear();
                count += usize::from("+-*/%~|.[(<>=!".contains(c));
                quote = matches!(c, '"' | '\'').then_some(c);
            }
        }
    }
    count
}

/// The first word of a block tag and what stands after it; two empty texts for everything else.
fn word(tag: &str) -> (&str, &str) {
    let inside = tag
        .strip_prefix("{%")
        .and_then(|tag| tag.strip_suffix("%}"))
        .map(|inside| inside.trim_start_matches(['-', '+']))
        .map(|inside| inside.trim_end_matches(['-', '+']).trim());
    let Some(inside) = inside else {
        return ("", "");
    };
    let end = inside
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(inside.len());
    inside.split_at(end)
}

/// Length of a tag that ends in `close`, strings and nested brackets passed over.
fn end_of(tag: &str, close: &str) -> usize {
    let (mut quote, mut escaped, mut depth) = (None, false, 0usize);
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if depth == 0 && tag[at..].starts_with(close) => return at + close.len(),
            None => match c {
                '"' | '\'' => quote = Some(c),
                '{' | '[' | '(' => depth += 1,
                '}' | ']' | ')' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
    }
    tag.len()
}

/// Length of a raw block's contents and of the tag that ends it.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let tag = &text[from + at..];
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        from += at + end;
        if word(&tag[..end]).0 == "endraw" {
            return from;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    fn prepared(source: &str) -> String {
        super::prepared(source).expect("few operators")
    }

    #[test]
    fn generation_tags_become_blocks() {
        for (source, expected) in [
            (
                "{% generation %}a{% endgeneration %}",
                "{% with %}a{% endwith %}",
            ),
            (
                "{%-generation-%}\na{%+ endgeneration +%}",
                "{%-with-%}\na{%+ endwith +%}",
            ),
        ] {
            assert_eq!(prepared(source), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for source in [
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{%- endraw %}",
            "{{ '{% generation %}' }}",
            "{{ {'a': {'b': \"}}{% generation %}\"}} }}",
            "{% set generation = 1 %}{{ generation }}",
            "{% set x = 'it\\'s %}{% generation %}' %}",
            "{% generations %}",
            "a { b {",
            "{% generation",
            "{{ '",
        ] {
            assert_eq!(prepared(source), source);
        }
    }

    #[test]
    fn line_ends_are_newlines() {
        assert_eq!(
            prepared("a\r\nb\rc\n\r\n{{ x }}\r\n"),
            "a\nb\nc\n\n{{ x }}\n"
        );
    }

    #[test]
    fn a_tag_has_few_operators() {
        for part in ["not ", "-", "1|abs.", "1 if 1 else ", "a[0]("] {
            let error = super::prepared(&format!("{{{{ {} }}}}", part.repeat(3000)));
            assert!(error.is_err_and(|error| error.contains("operators")));
        }
        let branches = format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(3000));
        assert!(super::prepared(&branches).is_err_and(|error| error.contains("elif")));
        prepared(&"{{ not a }}".repeat(3000));
        prepared(&format!("{{{{ [{}] }}}}", "'- - -', ".repeat(3000)));
        prepared(&format!("{{% raw %}}{}{{% endraw %}}", "- ".repeat(3000)));
        prepared(&format!("{{# {} #}}", "- ".repeat(3000)));
    }
}
