//! Plots of a run, drawn as SVG or PNG.
//!
//! A [`Plot`] is a specification; drawing it needs no font on the machine: letters come with the
//! program. Colours are those of Okabe and Ito for lines, each with its own marker, and viridis for
//! heat maps: both can be told apart without red and green.

mod by_length;
mod choices;
mod draw;
mod frontier;
mod heat;
mod lines;
mod of_run;
mod png;

pub use choices::{HeadChoice, choices};
pub use draw::PlotError;
pub use of_run::plots;

use choices::Choices;
use heat::Heat;
use lines::Lines;

/// Pixels of a plot, width and height.
pub const SIZE: (u32, u32) = (960, 600);

/// One plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// A name for a file, without extension.
    pub name: String,
    /// Title of the plot.
    pub title: String,
    /// Subtitle: model, device, and a note where a density was forced.
    pub subtitle: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Lines(Lines),
    Heat(Heat),
    Choices(Box<Choices>),
}

impl Plot {
    /// The plot as an SVG document.
    ///
    /// # Errors
    /// The drawing library refused; the message is its own.
    pub fn svg(&self) -> Result<String, PlotError> {
        draw::svg(self)
    }

    /// The plot as a PNG file of [`SIZE`].
    ///
    /// # Errors
    /// The drawing library or the encoder refused; the message is its own.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        draw::bitmap(self)
    }
}
