//! Points joined by lines, one line a series, axes linear or logarithmic.

use std::ops::Range;

use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    },
    prelude::{
        ChartBuilder, Circle, Cross, DrawingArea, DrawingAreaErrorKind, DrawingBackend,
        EmptyElement, IntoDynElement, LineSeries, PathElement, Rectangle, SeriesLabelPosition,
        TriangleMarker,
    },
    style::{Color, RGBColor, ShapeStyle, WHITE},
};

use super::draw::{INK, text};

/// The colours of Okabe and Ito, darker ones first; black is left to dense.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(150, 140, 20),
];
const MARKERS: usize = 4;
const MARKER: i32 = 5;
const LABEL: i32 = 15;
const LEGEND: i32 = 14;
/// Room around the data, as a share of its extent.
const MARGIN: f64 = 0.06;

/// A line chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lines {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// True if a line joins the points of a series.
    pub(super) joined: bool,
    /// True if the series fall from left to right rather than rise; the legend takes the free corner.
    pub(super) falling: bool,
}

/// An axis with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) logarithmic: bool,
    /// Value and text of every tick.
    pub(super) ticks: Vec<(f64, String)>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// Positive where the axis is logarithmic.
    pub(super) points: Vec<(f64, f64)>,
    /// Half of the interval around every point's value; empty where there is none.
    pub(super) intervals: Vec<f64>,
}

impl Series {
    /// A series of values that are not uncertain.
    pub(super) fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            intervals: Vec::new(),
        }
    }

    /// Ends of the intervals, `(place, low, high)`.
    fn ends(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let points = self.points.iter().zip(&self.intervals);
        points.map(|(&(x, y), half)| (x, y - half, y + half))
    }

    /// Values and ends of intervals.
    pub(super) fn values(&self) -> impl Iterator<Item = f64> {
        let ends = self.ends().flat_map(|(_, low, high)| [low, high]);
        self.points.iter().map(|point| point.1).chain(ends)
    }
}

impl Axis {
    /// A logarithmic axis over positive values, ticks at 1, 2 and 5 times powers of ten.
    pub(super) fn decades(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values);
        let mut ticks = Vec::new();
        if low > 0.0 && high.is_finite() {
            for exponent in low.log10().floor() as i32..=high.log10().ceil() as i32 {
                for factor in [1.0, 2.0, 5.0] {
                    let tick = factor * 10f64.powi(exponent);
                    if (0.4 * low..2.6 * high).contains(&tick) {
                        ticks.push((tick, tick_text(tick)));
                    }
                }
            }
        }
        Self {
            label: label.into(),
            logarithmic: true,
            ticks,
        }
    }

    fn place(&self, value: f64) -> f64 {
        match self.logarithmic {
            true => value.log10(),
            false => value,
        }
    }

    /// The axis over all of `values`, with a margin.
    fn scale(&self, values: impl IntoIterator<Item = f64>) -> Scale<'_> {
        let (low, high) = extent(values.into_iter().map(|value| self.place(value)));
        let ends = match low.is_finite() && high.is_finite() {
            true if high > low => {
                let room = MARGIN * (high - low);
                (low - room, high + room)
            }
            true => (low - 0.5, high + 0.5),
            false => (0.0, 1.0),
        };
        Scale { axis: self, ends }
    }
}

/// An axis over data: `ends` in the axis' own measure.
struct Scale<'a> {
    axis: &'a Axis,
    ends: (f64, f64),
}

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (self.axis.place(*value) - self.ends.0) / (self.ends.1 - self.ends.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        let inside = |value: &f64| (self.ends.0..=self.ends.1).contains(&self.axis.place(*value));
        self.axis
            .ticks
            .iter()
            .map(|tick| tick.0)
            .filter(inside)
            .collect()
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.axis.ticks.iter().find(|tick| tick.0 == *value);
        tick.map_or(String::new(), |tick| tick.1.clone())
    }
}

fn tick_text(tick: f64) -> String {
    match tick {
        t if (1e-3..1e4).contains(&t) => format!("{}", (t * 1e6).round() / 1e6),
        t => format!("{t:.0e}"),
    }
}

pub(super) fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let ends = (f64::INFINITY, f64::NEG_INFINITY);
    values
        .into_iter()
        .fold(ends, |(low, high), v| (low.min(v), high.max(v)))
}

fn colour(at: usize, name: &str) -> RGBColor {
    match name {
        "dense" => INK,
        _ => COLOURS[at % COLOURS.len()],
    }
}

pub(super) fn draw<B: DrawingBackend>(
    spec: &Lines,
    area: &DrawingArea<B, Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let points = || spec.series.iter().flat_map(|series| series.points.iter());
    let x = spec.x.scale(points().map(|p| p.0));
    let y = spec.y.scale(spec.series.iter().flat_map(Series::values));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(&spec.x.label)
        .y_desc(&spec.y.label)
        .label_style(text(LABEL))
        .axis_desc_style(text(LABEL))
        .axis_style(INK)
        .bold_line_style(INK.mix(0.15))
        .light_line_style(WHITE)
        .draw()?;
    for (at, series) in spec.series.iter().enumerate() {
        let colour = colour(at, &series.name);
        let style = ShapeStyle::from(colour).stroke_width(2);
        let places = series.points.iter().copied();
        if spec.joined {
            chart.draw_series(LineSeries::new(places.clone(), style))?;
        }
        let whisker = |(x, low, high)| PathElement::new(vec![(x, low), (x, high)], style);
        chart.draw_series(series.ends().map(whisker))?;
        // One marker a series, so that lines can be told apart in grey too.
        let marked = chart.draw_series(places.map(|place| {
            let marker = match at % MARKERS {
                0 => Circle::new((0, 0), MARKER, colour.filled()).into_dyn(),
                1 => TriangleMarker::new((0, 0), MARKER + 1, colour.filled()).into_dyn(),
                2 => Rectangle::new([(-4, -4), (4, 4)], colour.filled()).into_dyn(),
                _ => Cross::new((0, 0), MARKER, style).into_dyn(),
            };
            EmptyElement::at(place) + marker
        }))?;
        marked.label(series.name.clone()).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 22, y)], style.stroke_width(3))
        });
    }
    chart
        .configure_series_labels()
        .position(match spec.falling {
            true => SeriesLabelPosition::UpperRight,
            false => SeriesLabelPosition::UpperLeft,
        })
        .legend_area_size(30)
        .background_style(WHITE.mix(0.85))
        .border_style(INK.mix(0.4))
        .label_font(text(LEGEND))
        .draw()
}
