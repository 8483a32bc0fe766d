//! Output that work items on several threads write side by side.

use std::marker::PhantomData;

/// Output rows that work items write side by side.
#[derive(Debug)]
pub struct Rows<'a, E> {
    start: *mut E,
    len: usize,
    owner: PhantomData<&'a mut [E]>,
}

#[allow(unsafe_code)]
// SAFETY: every work item writes rows of its own; see [`Rows::row`].
unsafe impl<E: Send> Sync for Rows<'_, E> {}

impl<'a, E> Rows<'a, E> {
    /// Takes the slice for as long as the rows live.
    pub fn new(slice: &'a mut [E]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            owner: PhantomData,
        }
    }

    /// Returns `len` elements from `at`.
    ///
    /// # Panics
    /// When the elements pass the end of the slice.
    ///
    /// # Safety
    /// No two results that live at the same time, on one thread or several, may share an element.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub unsafe fn row(&self, at: usize, len: usize) -> &mut [E] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: inside the slice by the assertion; the caller lets no two results overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
