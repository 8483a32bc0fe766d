//! The matrix product under the CPU paths.

/// `out [m, n] (+)= left [m, k] . right [k, n]`; operands with their (row, column) strides, `out`
/// contiguous. Runs on the calling thread: the items around it are the parallelism.
pub fn product(
    [m, n, k]: [usize; 3],
    out: &mut [f32],
    add: bool,
    (left, [left_row, left_column]): (&[f32], [usize; 2]),
    (right, [right_row, right_column]): (&[f32], [usize; 2]),
) {
    if m == 0 || n == 0 {
        return;
    }
    let last = |rows: usize, columns: usize, [r, c]: [usize; 2]| (rows - 1) * r + (columns - 1) * c;
    assert!(m * n <= out.len() && k > 0);
    assert!(last(m, k, [left_row, left_column]) < left.len());
    assert!(last(k, n, [right_row, right_column]) < right.len());
    #[allow(unsafe_code)]
    // SAFETY: every element that the strides reach lies inside its slice, by the assertions above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            left.as_ptr(),
            left_column as isize,
            left_row as isize,
            right.as_ptr(),
            right_column as isize,
            right_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
