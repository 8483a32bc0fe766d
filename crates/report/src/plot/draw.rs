//! Drawing of a plot's specification as SVG text or PNG bytes.
//!
//! Both backends are given the same letters, DejaVu Sans out of its crate, so that a machine without
//! fonts draws what every other draws. An SVG names a family and leaves its letters to the viewer.

use std::{fmt::Display, sync::OnceLock};

use plotters::{
    coord::Shift,
    prelude::{BitMapBackend, DrawingArea, DrawingBackend, IntoDrawingArea, SVGBackend},
    style::{FontStyle, RGBColor, TextStyle, WHITE, register_font},
};
use thiserror::Error;

use super::{Kind, Plot, SIZE, choices, heat, lines, png};

/// Family under which the letters are registered, and which SVG viewers have.
pub(super) const FAMILY: &str = "sans-serif";
/// Colour of text and axes.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);

const TITLE: i32 = 20;
const SUBTITLE: i32 = 15;
const EDGE: i32 = 8;
const BYTES_A_PIXEL: usize = 3;

/// A plot that could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("plot {name}: {reason}")]
pub struct PlotError {
    /// The plot's name.
    pub name: String,
    /// The library's words.
    pub reason: String,
}

impl PlotError {
    fn new(plot: &Plot, reason: impl Display) -> Self {
        Self {
            name: plot.name.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Text of a size, in the colour of the axes.
pub(super) fn text(size: i32) -> TextStyle<'static> {
    TextStyle::from((FAMILY, size)).color(&INK)
}

pub(super) fn svg(plot: &Plot) -> Result<String, PlotError> {
    letters(plot)?;
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        draw(plot, &area)?;
    }
    Ok(out)
}

pub(super) fn bitmap(plot: &Plot) -> Result<Vec<u8>, PlotError> {
    letters(plot)?;
    let (width, height) = SIZE;
    let mut pixels = vec![0; width as usize * height as usize * BYTES_A_PIXEL];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        draw(plot, &area)?;
    }
    png::encode(SIZE, &pixels).map_err(|error| PlotError::new(plot, error))
}

/// Registers the letters once a process.
fn letters(plot: &Plot) -> Result<(), PlotError> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let add = || register_font(FAMILY, FontStyle::Normal, dejavu::sans::regular()).is_ok();
    match REGISTERED.get_or_init(add) {
        true => Ok(()),
        false => Err(PlotError::new(plot, "the built-in font cannot be read")),
    }
}

fn draw<B: DrawingBackend>(plot: &Plot, area: &DrawingArea<B, Shift>) -> Result<(), PlotError> {
    let failed = |error: &dyn Display| PlotError::new(plot, error);
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let inner = area.margin(EDGE, EDGE, EDGE, EDGE);
    let inner = inner
        .titled(&plot.title, text(TITLE))
        .and_then(|inner| inner.titled(&plot.subtitle, text(SUBTITLE)))
        .map_err(|error| failed(&error))?;
    match &plot.kind {
        Kind::Lines(spec) => lines::draw(spec, &inner).map_err(|error| failed(&error))?,
        Kind::Heat(spec) => heat::draw(spec, &inner).map_err(|error| failed(&error))?,
        Kind::Choices(spec) => choices::draw(spec, &inner).map_err(|error| failed(&error))?,
    }
    area.present().map_err(|error| failed(&error))
}
