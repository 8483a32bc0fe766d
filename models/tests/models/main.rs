//! Contracts of the models, on the CPU backend, with tiny checkpoints written into temporary folders.
//!
//! `parity` compares logits with a plain f64 forward written from the formulae, `families` does so for what only some families have, and
//! `mlx` compares with another program, the forward written from the formulae too; `chunks` compares ways
//! of cutting the same work, `stages` ways of cutting the model; `window` looks past a window and `beyond` decodes past many of them;
//! `loading` holds the errors. One program, because linking Burn is most of what building it takes.

mod beyond;
mod chunks;
mod families;
mod loading;
mod mlx;
mod parity;
mod reference;
mod stages;
mod tiny;
mod window;
