//! A bounds-checked reader over the bytes of a GGUF header, in the file's byte order.
//!
//! Every read states what it reads, so that a truncated file is reported by the thing that is missing.

use crate::GgufError;

/// Longest string accepted, in bytes; chat templates reach some tens of thousands.
const MAX_STRING: u64 = 1 << 24;

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            big_endian: false,
        }
    }

    /// Reads numbers from here on with their highest byte first.
    pub(super) fn set_big_endian(&mut self) {
        self.big_endian = true;
    }

    /// Offset of the next byte.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], GgufError> {
        let truncated = GgufError::Truncated {
            what,
            at: self.at as u64,
            size: self.bytes.len() as u64,
        };
        let end = self.at.checked_add(count).ok_or(truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(GgufError::Truncated {
            what,
            at: self.at as u64,
            size: self.bytes.len() as u64,
        })?;
        self.at = end;
        Ok(taken)
    }

    /// The bytes of a number, lowest first whatever the file's order.
    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        if self.big_endian {
            array.reverse();
        }
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count or length with a limit.
    pub(super) fn count(&mut self, what: &'static str, limit: u64) -> Result<usize, GgufError> {
        let got = self.u64(what)?;
        if got > limit {
            Err(GgufError::Limit { what, got, limit })
        } else {
            Ok(got as usize)
        }
    }

    /// A length-prefixed UTF-8 string.
    pub(super) fn string(
        &mut self,
        what: &'static str,
        limit: Option<u64>,
    ) -> Result<&'a str, GgufError> {
        let at = self.at as u64;
        let length = self.count(what, limit.unwrap_or(MAX_STRING))?;
        std::str::from_utf8(self.take(length, what)?).map_err(|_| GgufError::Utf8 { what, at })
    }
}
