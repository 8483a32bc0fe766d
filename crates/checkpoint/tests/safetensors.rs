//! Malformed safetensors files: each fault has its own error.
//!
//! Files are read through `inspect`, which maps a single file and checks it in full.

mod support;

use sparse_accelerate_checkpoint::{CheckpointError, Inspection, SafeTensorsError, inspect};
use support::{put, safetensors_bytes, safetensors_f32};

fn read(bytes: &[u8]) -> Result<Inspection, CheckpointError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path(), "x.safetensors", bytes);
    inspect(&dir.path().join("x.safetensors"))
}

fn fault(bytes: &[u8]) -> SafeTensorsError {
    match read(bytes) {
        Err(CheckpointError::SafeTensors { source, .. }) => source,
        other => panic!("expected a fault of the format, got {other:?}"),
    }
}

/// A header of f32 tensors given as name, element count, begin and end, over `data` bytes.
fn laid_out(tensors: &[(&str, u64, u64, u64)], data: usize) -> Vec<u8> {
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, count, begin, end)| {
            format!(
                r#""{name}":{{"dtype":"F32","shape":[{count}],"data_offsets":[{begin},{end}]}}"#
            )
        })
        .collect();
    safetensors_bytes(&format!("{{{}}}", entries.join(",")), &vec![0; data])
}

#[test]
fn a_sound_file_is_described() {
    let seen = read(&safetensors_f32(&[
        ("a", &[2, 3], &[0.0; 6]),
        ("b", &[0], &[]),
        ("c", &[], &[1.0]),
    ]))
    .expect("sound");
    let shapes: Vec<(&str, &[usize])> = seen
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.as_slice()))
        .collect();
    assert_eq!(shapes, [("a", &[2, 3][..]), ("b", &[0]), ("c", &[])]);
    assert_eq!((seen.elements, seen.total_bytes), (7, 28));
}

#[test]
fn shorter_than_its_length_field() {
    for size in 0..8 {
        assert!(
            matches!(fault(&vec![0; size]), SafeTensorsError::TooShort { got } if got == size as u64)
        );
    }
}

#[test]
fn header_over_the_limit() {
    let mut bytes = 100_000_001u64.to_le_bytes().to_vec();
    bytes.extend([b' '; 64]);
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::HeaderTooLarge {
            got: 100_000_001,
            ..
        }
    ));
    bytes[..8].fill(0xff);
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::HeaderTooLarge { got: u64::MAX, .. }
    ));
}

#[test]
fn header_beyond_the_file() {
    let mut bytes = 3u64.to_le_bytes().to_vec();
    bytes.extend(b"{}");
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::HeaderBeyondFile {
            got: 3,
            available: 2
        }
    ));
}

#[test]
fn header_that_is_no_json_of_the_format() {
    for header in [
        "",
        "{",
        "[]",
        "7",
        "\u{1}",
        r#"{"a":1}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
    ] {
        let error = fault(&safetensors_bytes(header, &[]));
        assert!(
            matches!(error, SafeTensorsError::HeaderJson(_)),
            "{header}: {error}"
        );
    }
    let mut bytes = 2u64.to_le_bytes().to_vec();
    bytes.extend([0xff, 0xfe]);
    assert!(matches!(fault(&bytes), SafeTensorsError::HeaderJson(_)));
}

#[test]
fn one_name_twice() {
    let bytes = laid_out(&[("a", 1, 0, 4), ("a", 1, 0, 4)], 4);
    assert!(matches!(fault(&bytes), SafeTensorsError::DuplicateName { name } if name == "a"));
}

#[test]
fn unknown_dtype() {
    let bytes = safetensors_bytes(
        r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#,
        &[0; 4],
    );
    assert!(matches!(fault(&bytes), SafeTensorsError::UnknownDtype { got, .. } if got == "F31"));
}

#[test]
fn offsets_reversed() {
    assert!(matches!(
        fault(&laid_out(&[("a", 1, 4, 0)], 4)),
        SafeTensorsError::OffsetsReversed {
            begin: 4,
            end: 0,
            ..
        }
    ));
}

#[test]
fn offsets_out_of_range() {
    let bytes = laid_out(&[("a", 2, 0, 8)], 4);
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::OffsetsOutOfRange {
            end: 8,
            available: 4,
            ..
        }
    ));
    let bytes = laid_out(&[("a", 2, 0, u64::MAX)], 4);
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::OffsetsOutOfRange { .. }
    ));
}

#[test]
fn tensors_overlap() {
    let bytes = laid_out(&[("a", 2, 0, 8), ("b", 2, 4, 12)], 12);
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::Overlap {
            begin: 4,
            other_end: 8,
            ..
        }
    ));
}

#[test]
fn a_gap_between_tensors() {
    let bytes = laid_out(&[("a", 1, 0, 4), ("b", 1, 8, 12)], 12);
    assert!(matches!(
        fault(&bytes),
        SafeTensorsError::Gap {
            begin: 8,
            expected: 4,
            ..
        }
    ));
}

#[test]
fn size_that_does_not_follow_from_shape_and_dtype() {
    assert!(matches!(
        fault(&laid_out(&[("a", 3, 0, 8)], 8)),
        SafeTensorsError::Size { got: 8, .. }
    ));
    let wide = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}"#;
    assert!(matches!(
        fault(&safetensors_bytes(wide, &[])),
        SafeTensorsError::Size { got: 0, .. }
    ));
}

#[test]
fn bytes_after_the_last_tensor() {
    assert!(matches!(
        fault(&laid_out(&[("a", 1, 0, 4)], 7)),
        SafeTensorsError::TrailingBytes {
            got: 7,
            expected: 4
        }
    ));
}
