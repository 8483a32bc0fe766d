//! Prints `docs/families.md`.
//!
//!   cargo run -p sparse-accelerate-models --example families > docs/families.md

mod faults;
mod page;

fn main() {
    print!("{}", page::page());
}
