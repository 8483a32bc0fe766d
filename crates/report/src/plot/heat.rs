//! A heat map: one cell a pair of names, coloured from 0 to 1, or from pale to full in a hue of its own.

use plotters::{
    coord::Shift,
    prelude::{DrawingArea, DrawingAreaErrorKind, DrawingBackend, Rectangle, Text, ViridisRGB},
    style::{
        BLACK, Color, FontTransform, IntoTextStyle, RGBColor, WHITE,
        colors::colormaps::ColorMap,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::draw::{INK, text};

/// Room left, right, above and below the cells, in pixels.
const ROOM: (i32, i32, i32, i32) = (96, 110, 14, 66);
const LABEL: i32 = 15;
/// Most cells that still have their number written in them.
const NUMBERED: usize = 120;
/// Most labels along an axis; of more, every n-th is written.
const LABELS: usize = 16;
/// Steps of the colour bar.
const BAR: i32 = 64;
/// Room to the right where there is no bar.
const NO_BAR: i32 = 16;
/// Share of a hue at the low end.
const PALE: f64 = 0.15;
/// Colour of a cell that was not measured.
const ABSENT: RGBColor = RGBColor(214, 214, 214);

/// A heat map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heat {
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) value_label: String,
    /// Columns from the left.
    pub(super) x: Vec<String>,
    /// Rows from the bottom.
    pub(super) y: Vec<String>,
    /// `cells[row][column]`, 0 to 1; `None` where nothing was measured.
    pub(super) cells: Vec<Vec<Option<f64>>>,
    /// Values at the two ends of the colours.
    pub(super) range: (f64, f64),
    /// Hues of the cells, in place of viridis and its bar.
    pub(super) hues: Option<Vec<Vec<RGBColor>>>,
}

impl Heat {
    /// Position of a value in the range, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Colours of a cell and of the number in it.
    fn colours(&self, row: usize, column: usize, value: f64) -> (RGBColor, RGBColor) {
        let (low, high) = self.range;
        let (fill, dark) = match &self.hues {
            // Viridis is dark below its middle.
            None => (
                ViridisRGB.get_color_normalized(value, low, high),
                (value - low) / (high - low) < 0.6,
            ),
            Some(hues) => (tint(hues[row][column], self.share(value)), false),
        };
        (fill, if dark { WHITE } else { BLACK })
    }
}

/// A hue over white: pale at 0, full at 1.
fn tint(RGBColor(r, g, b): RGBColor, share: f64) -> RGBColor {
    let ink = PALE + (1.0 - PALE) * share;
    let mix = |part: u8| (255.0 - ink * (255.0 - f64::from(part))).round() as u8;
    RGBColor(mix(r), mix(g), mix(b))
}

pub(super) fn draw<B: DrawingBackend>(
    spec: &Heat,
    area: &DrawingArea<B, Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let (width, height) = area.dim_in_pixel();
    let (left, mut right, top, bottom) = ROOM;
    if spec.hues.is_some() {
        right = NO_BAR;
    }
    let (width, height) = (width as i32 - left - right, height as i32 - top - bottom);
    let (columns, rows) = (spec.x.len() as i32, spec.y.len() as i32);
    if columns == 0 || rows == 0 {
        return Ok(());
    }
    let at_x = |column: i32| left + width * column / columns;
    let at_y = |row: i32| top + height - height * row / rows;
    let numbered = spec.x.len() * spec.y.len() <= NUMBERED;
    let middle = Pos::new(HPos::Center, VPos::Center);

    for (row, cells) in spec.cells.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            let colours = cell.map(|value| spec.colours(row, column, value));
            let (row, column) = (row as i32, column as i32);
            let corners = [(at_x(column), at_y(row + 1)), (at_x(column + 1), at_y(row))];
            let fill = colours.map_or(ABSENT, |(fill, _)| fill);
            area.draw(&Rectangle::new(corners, fill.filled()))?;
            if let (Some(value), Some((_, ink))) = (cell.filter(|_| numbered), colours) {
                let center = (
                    (corners[0].0 + corners[1].0) / 2,
                    (corners[0].1 + corners[1].1) / 2,
                );
                let style = text(LABEL).color(&ink).pos(middle);
                area.draw(&Text::new(format!("{value:.2}"), center, style))?;
            }
        }
    }
    let step = |count: usize| count.div_ceil(LABELS).max(1);
    for (at, name) in spec.x.iter().enumerate().step_by(step(spec.x.len())) {
        let center = (at_x(at as i32) + at_x(at as i32 + 1)) / 2;
        let style = text(LABEL).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(name.clone(), (center, top + height + 8), style))?;
    }
    for (at, name) in spec.y.iter().enumerate().step_by(step(spec.y.len())) {
        let center = (at_y(at as i32) + at_y(at as i32 + 1)) / 2;
        let style = text(LABEL).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(name.clone(), (left - 8, center), style))?;
    }
    let below = Pos::new(HPos::Center, VPos::Bottom);
    let under = (left + width / 2, top + height + bottom - 10);
    area.draw(&Text::new(
        spec.x_label.clone(),
        under,
        text(LABEL).pos(below),
    ))?;
    let style = text(LABEL)
        .transform(FontTransform::Rotate270)
        .pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(
        spec.y_label.clone(),
        (16, top + height / 2),
        style,
    ))?;
    match spec.hues {
        Some(_) => Ok(()),
        None => bar(spec, area, (left + width + 24, top, height)),
    }
}

/// The colours with their values.
fn bar<B: DrawingBackend>(
    spec: &Heat,
    area: &DrawingArea<B, Shift>,
    (x, top, height): (i32, i32, i32),
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let (low, high) = spec.range;
    let at = |step: i32| top + height - height * step / BAR;
    for step in 0..BAR {
        let share = f64::from(step) / f64::from(BAR - 1);
        let fill = ViridisRGB.get_color_normalized(share, 0.0, 1.0);
        let corners = [(x, at(step + 1)), (x + 18, at(step))];
        area.draw(&Rectangle::new(corners, fill.filled()))?;
    }
    let ends = [(x, top), (x + 18, top + height)];
    area.draw(&Rectangle::new(ends, INK.stroke_width(1)))?;
    let left = Pos::new(HPos::Left, VPos::Center);
    for share in [0.0, 0.5, 1.0] {
        let y = top + height - (f64::from(height) * share) as i32;
        let y = y.clamp(top + 6, top + height - 6);
        let value = format!("{:.2}", low + share * (high - low));
        area.draw(&Text::new(value, (x + 23, y), text(LABEL).pos(left)))?;
    }
    let style = text(LABEL)
        .transform(FontTransform::Rotate270)
        .into_text_style(area)
        .pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(
        spec.value_label.clone(),
        (x + 62, top + height / 2),
        style,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hue_is_pale_at_the_low_end_and_full_at_the_high() {
        let blue = RGBColor(0, 114, 178);
        assert_eq!(tint(blue, 1.0), blue);
        let RGBColor(r, g, b) = tint(blue, 0.0);
        assert_eq!((r, g, b), (217, 234, 243));
    }
}
