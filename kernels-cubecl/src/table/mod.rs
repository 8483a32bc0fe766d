//! Device-side readers of what the host writes: words of [`sparse_accelerate_contract`] under their names.

mod span;

pub(crate) use span::Span;
