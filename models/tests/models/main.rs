//! Contracts of the models, on the CPU backend, with tiny checkpoints written into temporary folders.
//!
//! `parity` compares logits with a plain f64 forward written from the formulae, `mlx` with another program; `chunks` compares ways
//! of cutting the same work, `stages` ways of cutting the model; `window` looks past a window; `loading` holds the errors. One program,
//! because linking Burn is most of what building it takes.

mod chunks;
mod loading;
mod mlx;
mod parity;
mod reference;
mod stages;
mod tiny;
mod window;
