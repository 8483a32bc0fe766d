//! The decoder every family shares: pre-norm blocks of grouped-query attention and a gated MLP.
//!
//!   x += output(attend(rotate(query(n)), rotate(key(n)), value(n)))    n = norm(x)
//!   x += down(act(gate(n)) * up(n))                                    n = norm(x)
//!
//! Where a model normalises its heads, that comes between product and rotation, and where it normalises what is added, before the sum. The residual stream is `[rows, hidden]`, rows = batch times the longest sequence of the chunk, in
//! the type of the weights. Norms and rotary run in f32. Weights stay as checkpoints hold them,
//! `[out, in]`; a product reads them through transposed strides, without a copy.

mod attention;
mod layer;
mod mlp;
mod norm;
mod projection;
mod rotary;

pub(crate) use attention::Attention;
pub(crate) use layer::{DecoderLayer, LastRows, Pass};
pub(crate) use mlp::Mlp;
pub(crate) use norm::{HeadNorms, RmsNorm};
pub(crate) use projection::Projection;
pub(crate) use rotary::Rotaries;
