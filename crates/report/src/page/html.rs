//! One HTML page: metadata, tables, plots of every run. No script, no font, no reference outwards; it is
//! well-formed XML too.

use std::fmt::Write;

use super::{escape, metadata::metadata};
use crate::{plot::PlotError, plots, run::Run, tables};

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; \
max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 2px solid #222; \
padding-top: .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.5rem 0 .4rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #222; vertical-align: bottom; } .n { text-align: right; }
.note { color: #555; margin: .2rem 0; font-size: .9rem; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; }
";

/// Namespace attribute that inline SVG does not need; it would be the page's only reference outwards.
const NAMESPACE: &str = " xmlns=\"http://www.w3.org/2000/svg\"";

/// Runs as one page.
///
/// # Errors
/// A plot that could not be drawn.
pub fn html(title: &str, runs: &[Run]) -> Result<String, PlotError> {
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
    );
    for run in runs {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<section>\n<h2>{}</h2>\n<dl>", escape(&run.title()));
        for (name, value) in metadata(run) {
            let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
        }
        out += "</dl>\n";
        for table in tables(run) {
            let _ = writeln!(out, "<div class=\"scroll\">\n{}</div>", table.html());
        }
        for plot in plots(run) {
            let svg = plot.svg()?.replace(NAMESPACE, "");
            let label = escape(&format!("{}: {}", plot.title, plot.subtitle));
            let svg = svg.replacen(
                "<svg",
                &format!("<svg role=\"img\" aria-label=\"{label}\""),
                1,
            );
            let _ = writeln!(out, "<figure>{svg}</figure>");
        }
        out += "</section>\n";
    }
    out += "</body>\n</html>\n";
    Ok(out)
}
