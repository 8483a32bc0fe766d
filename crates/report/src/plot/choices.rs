//! Plot of the heads' choices: layer by head, density and recall side by side, coloured by pattern.

use plotters::{
    coord::Shift,
    prelude::{DrawingArea, DrawingAreaErrorKind, DrawingBackend, Rectangle, Text},
    style::{
        Color, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    Kind, Plot,
    draw::text,
    heat::{self, Heat},
};
use crate::run::distinct;

/// Pixels at the bottom for the names of the patterns.
const LEGEND: i32 = 34;
const LABEL: i32 = 15;
/// Side of a coloured square of the legend.
const SQUARE: i32 = 14;
/// Colours of Okabe and Ito, in the order of [`PATTERNS`]; what has another name gets the last.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
];
/// Patterns that have a colour of their own, the same in every plot.
const PATTERNS: [&str; 5] = [
    "dense",
    "triangular",
    "interval-slash",
    "block-cluster",
    "hybrid",
];
/// Below this recall's colours do not begin, unless something lies there.
const RECALL_FROM: f64 = 0.8;

/// Choice of one head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadChoice {
    /// Decoder layer.
    pub layer: usize,
    /// Head of it.
    pub head: usize,
    /// Name of the pattern.
    pub choice: String,
    /// Share of causal pairs computed, 0 to 1.
    pub density: f64,
    /// Share of attention mass kept, 0 to 1; NaN where it was not measured.
    pub recall: f64,
}

/// Two panels and the names of their colours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choices {
    panels: [Heat; 2],
    legend: Vec<(String, RGBColor)>,
}

/// A plot of what heads chose; `name` is a file name without extension, `heads` what the heads are
/// (`KV head`, `query head`).
pub fn choices(
    name: String,
    title: String,
    subtitle: String,
    heads: &str,
    chosen: &[HeadChoice],
) -> Plot {
    let least = chosen.iter().map(|c| c.recall).fold(RECALL_FROM, f64::min);
    let density = panel(chosen, heads, "density", (0.0, 1.0), |c| c.density);
    let recall = panel(chosen, heads, "recall", (least, 1.0), |c| c.recall);
    let mut names = distinct(chosen.iter().map(|c| c.choice.as_str()));
    names.sort_by_key(|name| place(name));
    let legend = names
        .into_iter()
        .map(|name| (name.to_owned(), colour(name)));
    Plot {
        name,
        title,
        subtitle,
        kind: Kind::Choices(Box::new(Choices {
            panels: [density, recall],
            legend: legend.collect(),
        })),
    }
}

fn colour(name: &str) -> RGBColor {
    COLOURS[place(name)]
}

fn place(name: &str) -> usize {
    let at = PATTERNS.iter().position(|pattern| *pattern == name);
    at.unwrap_or(PATTERNS.len())
}

fn panel(
    chosen: &[HeadChoice],
    heads: &str,
    label: &str,
    range: (f64, f64),
    of: impl Fn(&HeadChoice) -> f64,
) -> Heat {
    let count = |of: fn(&HeadChoice) -> usize| chosen.iter().map(of).max().map_or(0, |n| n + 1);
    let (layers, columns) = (count(|c| c.layer), count(|c| c.head));
    let mut cells = vec![vec![None; columns]; layers];
    let mut hues = vec![vec![COLOURS[PATTERNS.len()]; columns]; layers];
    for c in chosen {
        let value = of(c);
        cells[c.layer][c.head] = value.is_finite().then_some(value);
        hues[c.layer][c.head] = colour(&c.choice);
    }
    Heat {
        x_label: heads.into(),
        y_label: "layer".into(),
        value_label: label.into(),
        x: (0..columns).map(|head| head.to_string()).collect(),
        y: (0..layers).map(|layer| layer.to_string()).collect(),
        cells,
        range,
        hues: Some(hues),
    }
}

pub(super) fn draw<B: DrawingBackend>(
    spec: &Choices,
    area: &DrawingArea<B, Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let (width, height) = area.dim_in_pixel();
    let (above, below) = area.split_vertically(height as i32 - LEGEND);
    let sides = above.split_evenly((1, 2));
    for (panel, side) in spec.panels.iter().zip(&sides) {
        let (low, high) = panel.range;
        let title = format!("{}, pale {low:.2} to full {high:.2}", panel.value_label);
        let inner = side.titled(&title, text(LABEL))?;
        heat::draw(panel, &inner)?;
    }
    let step = width as i32 / spec.legend.len().max(1) as i32;
    let left = Pos::new(HPos::Left, VPos::Center);
    for (at, (name, colour)) in spec.legend.iter().enumerate() {
        let (x, y) = (at as i32 * step + SQUARE, LEGEND / 2);
        let corners = [(x, y - SQUARE / 2), (x + SQUARE, y + SQUARE / 2)];
        below.draw(&Rectangle::new(corners, colour.filled()))?;
        let place = (x + SQUARE + 6, y);
        below.draw(&Text::new(name.clone(), place, text(LABEL).pos(left)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen() -> Vec<HeadChoice> {
        let names = ["hybrid", "dense", "other"];
        let choice = |at: usize| HeadChoice {
            layer: at / 3,
            head: at % 3,
            choice: names[at % 3].into(),
            density: at as f64 / 6.0,
            recall: if at == 4 {
                f64::NAN
            } else {
                0.7 + at as f64 / 20.0
            },
        };
        (0..6).map(choice).collect()
    }

    fn plot() -> Plot {
        let name = "choices".to_owned();
        choices(
            name,
            "Choices".into(),
            "a model".into(),
            "KV head",
            &chosen(),
        )
    }

    #[test]
    fn cells_stand_at_their_layer_and_head() {
        let Kind::Choices(spec) = plot().kind else {
            panic!("another kind");
        };
        let [density, recall] = &spec.panels;
        assert_eq!(density.cells[1][2], Some(5.0 / 6.0));
        assert_eq!(recall.cells[1][1], None);
        assert_eq!(recall.range, (0.7, 1.0));
        let names: Vec<&str> = spec.legend.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dense", "hybrid", "other"]);
        let hues = density.hues.as_ref().unwrap();
        assert_eq!(hues[0][0], colour("hybrid"));
        assert_ne!(hues[0][1], hues[0][2]);
    }

    #[test]
    fn it_is_drawn_with_its_names_and_numbers() {
        let svg = plot().svg().unwrap();
        for words in [
            "Choices",
            "KV head",
            "density, pale 0.00",
            "recall, pale 0.70",
            "hybrid",
            "0.83",
        ] {
            assert!(svg.contains(words), "{words}");
        }
        assert_eq!(plot().png().unwrap()[1..4], *b"PNG");
        let none = choices("none".into(), "t".into(), "s".into(), "KV head", &[]);
        assert!(none.svg().unwrap().contains("density"));
    }
}
