//! The filter `tojson` as chat templates expect it: `json.dumps` of Python, without the escapes for HTML that Jinja would add.
//!
//! Arguments are `ensure_ascii` (false), `indent`, `separators`, `sort_keys` (false), by position or by name. Keys keep their
//! order. A value that JSON cannot hold, such as an undefined one, is an error.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Nesting of a value at most; far above any tool's description.
const MAX_DEPTH: usize = 200;
/// Spaces of `indent` at most.
const MAX_INDENT: i64 = 100;
/// Bytes of output that one unit of the template's budget pays for.
const BYTES_A_UNIT: u64 = 4;

/// The filter.
pub(super) fn to_json(
    state: &State,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<String, Error> {
    type Arguments = (
        Option<Value>,
        Option<Value>,
        Option<Value>,
        Option<Value>,
        Kwargs,
    );
    let args = args.into_values();
    let (ascii, indent, separators, sort, named): Arguments = from_args(&args)?;
    let pick = |given: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let given = match given {
            Some(value) => Some(value),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(given.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ascii = pick(ascii, "ensure_ascii")?;
    let indent = pick(indent, "indent")?.map(unit_of_indent).transpose()?;
    let separators = pick(separators, "separators")?;
    let sort = pick(sort, "sort_keys")?;
    named.assert_all_used()?;
    let (comma, colon) = match separators {
        Some(pair) => (
            text_of(&pair.get_item_by_index(0)?)?,
            text_of(&pair.get_item_by_index(1)?)?,
        ),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        out: String::new(),
        ascii: ascii.is_some_and(|value| value.is_true()),
        sort: sort.is_some_and(|value| value.is_true()),
        indent,
        comma,
        colon,
    };
    writer.value(value, 0)?;
    state.consume_fuel(writer.out.len() as u64 / BYTES_A_UNIT)?;
    Ok(writer.out)
}

/// One step of indentation: a text, or a number of spaces.
fn unit_of_indent(value: Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let spaces = match bool::try_from(value.clone()) {
        Ok(flag) => i64::from(flag),
        Err(_) => i64::try_from(value)?,
    };
    match usize::try_from(spaces.max(0)) {
        Ok(spaces) if spaces as i64 <= MAX_INDENT => Ok(" ".repeat(spaces)),
        _ => Err(fault(format!(
            "tojson: indent is {spaces}, but at most {MAX_INDENT} spaces are written"
        ))),
    }
}

fn text_of(value: &Value) -> Result<String, Error> {
    let text = value.as_str().map(ToOwned::to_owned);
    text.ok_or_else(|| fault(format!("tojson: the separator {value} is no text")))
}

fn fault(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

struct Writer {
    out: String,
    ascii: bool,
    sort: bool,
    indent: Option<String>,
    comma: String,
    colon: String,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(fault(format!(
                "tojson: the value is nested more than {MAX_DEPTH} deep"
            )));
        }
        match value.kind() {
            ValueKind::Map => self.map(value, depth),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth),
            ValueKind::String => {
                self.text(value.as_str().unwrap_or_default());
                Ok(())
            }
            _ => {
                let text = scalar(value)?;
                self.out.push_str(&text);
                Ok(())
            }
        }
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort {
            keys.sort();
        }
        let empty = keys.is_empty();
        self.out.push('{');
        for (at, key) in keys.into_iter().enumerate() {
            self.next(at, depth + 1);
            match key.as_str() {
                Some(text) => self.text(text),
                None => {
                    let name = scalar(&key)?;
                    self.text(&name);
                }
            }
            self.out.push_str(&self.colon);
            self.value(&value.get_item(&key)?, depth + 1)?;
        }
        self.end(empty, depth);
        self.out.push('}');
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for (at, item) in value.try_iter()?.enumerate() {
            empty = false;
            self.next(at, depth + 1);
            self.value(&item, depth + 1)?;
        }
        self.end(empty, depth);
        self.out.push(']');
        Ok(())
    }

    fn next(&mut self, at: usize, depth: usize) {
        if at > 0 {
            self.out.push_str(&self.comma);
        }
        self.line(depth);
    }

    fn end(&mut self, empty: bool, depth: usize) {
        if !empty {
            self.line(depth);
        }
    }

    fn line(&mut self, depth: usize) {
        if let Some(unit) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(unit);
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(c),
                '\u{7f}'.. if self.ascii => self.escape(c),
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing into a String cannot fail.
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }
}

/// A value without parts, as Python writes it.
fn scalar(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number if value.is_integer() => Ok(value.to_string()),
        ValueKind::Number => Ok(float(f64::try_from(value.clone())?)),
        other => Err(fault(format!(
            "tojson: a value of type {other} has no form in JSON"
        ))),
    }
}

fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}Infinity");
    }
    // Both languages write the shortest digits and change to exponents at the same sizes, but not in the same way.
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(size) => format!("{digits}e-{size:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}
