//! Pages and plots: well-formed, self-contained, of the stated size.

use std::path::PathBuf;

use sparse_accelerate_report::{Run, html, plot::SIZE, plots};
use zune_core::bytestream::ZCursor;
use zune_png::PngDecoder;

fn runs() -> Vec<Run> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join("fixtures");
    ["ttft", "eval", "kernel", "frontier", "decode"]
        .map(|name| Run::read(&root.join(format!("{name}.jsonl"))).expect("a run file"))
        .into()
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let page = html("Runs & more", &runs()).expect("a page");
    let body = page
        .strip_prefix("<!DOCTYPE html>\n")
        .expect("a document type");
    let tree = roxmltree::Document::parse(body).expect("well-formed");
    let count = |name: &str| {
        tree.descendants()
            .filter(|node| node.has_tag_name(name))
            .count()
    };
    assert_eq!(count("section"), 5);
    assert_eq!(count("svg"), plots_of_all().len());
    assert!(count("table") >= 9, "{}", count("table"));
    for outwards in [
        "http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link",
    ] {
        assert!(!page.contains(outwards), "the page holds {outwards}");
    }
    assert!(page.contains("Example GPU &lt;80 GB&gt;"));
}

fn plots_of_all() -> Vec<sparse_accelerate_report::Plot> {
    runs().iter().flat_map(plots).collect()
}

#[test]
fn plots_have_names_of_their_own_and_labelled_axes() {
    let plots = plots_of_all();
    let mut names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), plots.len());
    for (part, label) in [
        ("ttft", "time to first token, seconds"),
        ("error-density", "density, % of causal query-key pairs"),
        ("needle", "depth of the needle, % of the prompt"),
        ("recall", "query head"),
        ("scores", "points more than dense"),
        ("perplexity", "% more than dense"),
        ("frontier", "relative L2 error against dense"),
    ] {
        let plot = plots
            .iter()
            .find(|plot| plot.name.starts_with(part))
            .expect(part);
        let svg = plot.svg().expect(part);
        roxmltree::Document::parse(&svg).expect("well-formed");
        let text = svg.replace('\n', " ");
        // Selections of one layer have no model.
        let model = if part == "frontier" {
            "no model"
        } else {
            "tiny-8B"
        };
        for wanted in [label, model, "Example GPU"] {
            assert!(text.contains(wanted), "{part} lacks {wanted}");
        }
    }
}

#[test]
fn an_imposed_density_stands_in_the_title() {
    let plots = plots_of_all();
    let ttft = plots
        .iter()
        .find(|plot| plot.name.starts_with("ttft"))
        .expect("ttft");
    assert!(
        ttft.subtitle.contains(sparse_accelerate_report::FORCED),
        "{}",
        ttft.subtitle
    );
}

#[test]
fn png_has_the_stated_size_and_letters() {
    let plots = plots_of_all();
    for part in ["ttft", "needle"] {
        let plot = plots
            .iter()
            .find(|plot| plot.name.starts_with(part))
            .expect(part);
        let file = plot.png().expect(part);
        let mut decoder = PngDecoder::new(ZCursor::new(file));
        let pixels = decoder.decode().expect("pixels").u8().expect("bytes");
        let (width, height) = decoder.dimensions().expect("a size");
        assert_eq!((width as u32, height as u32), SIZE, "{part}");
        assert_eq!(pixels.len(), width * height * 3, "{part}");
        // The title: dark pixels in the top rows of a white page.
        let top = &pixels[..width * 3 * 40];
        let dark = top.iter().filter(|value| **value < 80).count();
        assert!(
            dark > 500,
            "{part}: {dark} dark values where the title stands"
        );
    }
}
