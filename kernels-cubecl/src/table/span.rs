//! Spans: the head of every table.

use cubecl::prelude::*;
use sparse_accelerate_contract::{self as contract, SPAN_WORDS};

/// The span of a sequence. Lengths and positions in tokens.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Span {
    /// New query rows.
    pub(crate) query_len: u32,
    /// Cached keys, the new rows included.
    pub(crate) kv_len: u32,
    /// First position whose rows see everything; `u32::MAX` for none.
    pub(crate) dense_from: u32,
}

#[cube]
impl Span {
    /// Reads the span of sequence `b` from a table or from spans alone.
    pub(crate) fn of(table: &[u32], b: u32) -> Span {
        let at = b * comptime!(SPAN_WORDS as u32);
        Span {
            query_len: table[(at + comptime!(contract::Sequence::QUERY_LEN as u32)) as usize],
            kv_len: table[(at + comptime!(contract::Sequence::KV_LEN as u32)) as usize],
            dense_from: table[(at + comptime!(contract::Sequence::DENSE_FROM as u32)) as usize],
        }
    }

    /// Reads the absolute position of the first cached key of sequence `b`, from which the others are counted.
    pub(crate) fn first(table: &[u32], b: u32) -> u32 {
        let at = b * comptime!(SPAN_WORDS as u32);
        table[(at + comptime!(contract::Sequence::FIRST as u32)) as usize]
    }

    /// Gives the position of the first query row.
    pub(crate) fn offset(&self) -> u32 {
        self.kv_len - self.query_len
    }
}
