//! Output that work items on several threads write side by side.

use std::marker::PhantomData;

/// Output rows that work items write side by side.
pub(crate) struct Rows<'a, E> {
    start: *mut E,
    len: usize,
    owner: PhantomData<&'a mut [E]>,
}

#[allow(unsafe_code)]
// SAFETY: every work item writes rows of its own; see [`Rows::row`].
unsafe impl<E: Send> Sync for Rows<'_, E> {}

impl<'a, E> Rows<'a, E> {
    pub(crate) fn new(slice: &'a mut [E]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            owner: PhantomData,
        }
    }

    /// `len` elements from `at`. No two work items may ask for the same element.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) fn row(&self, at: usize, len: usize) -> &mut [E] {
        assert!(at + len <= self.len);
        // SAFETY: inside the slice by the assertion; work items are cut so that each has elements of
        // its own, and one item asks for a row once at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
