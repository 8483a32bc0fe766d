//! Malformed GGUF files: each fault has its own error.
//!
//! Files are read through `inspect`, which checks the header and every tensor's place.

mod support;

use sparse_accelerate_checkpoint::{CheckpointError, GgufError, Inspection, inspect};
use support::gguf_file::{GgufBuilder, Meta, Tensor, string, tiny_model};
use support::put;

fn read(bytes: &[u8]) -> Result<Inspection, CheckpointError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path(), "x.gguf", bytes);
    inspect(&dir.path().join("x.gguf"))
}

fn fault(bytes: &[u8]) -> GgufError {
    match read(bytes) {
        Err(CheckpointError::Gguf { source, .. }) => source,
        other => panic!("expected a fault of the format, got {other:?}"),
    }
}

fn one_tensor(dims: &[u64], kind: u32, bytes: usize, offset: Option<u64>) -> GgufBuilder {
    let tensor = Tensor {
        name: "t".into(),
        dims: dims.to_vec(),
        kind,
        data: vec![0; bytes],
        offset,
    };
    GgufBuilder {
        tensors: vec![tensor],
        ..GgufBuilder::default()
    }
}

fn one_value(kind: u32, payload: Vec<u8>) -> GgufBuilder {
    let mut gguf = GgufBuilder::default();
    gguf.set("k", Meta::Raw(kind, payload));
    gguf
}

/// A number under key `k` and a tensor `t`, every number with its highest byte first.
fn big_endian() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_be_bytes(), text.as_bytes()].concat();
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_be_bytes());
    out.extend([1u64, 1].map(u64::to_be_bytes).concat());
    out.extend(text("k"));
    out.extend([4u32, 258].map(u32::to_be_bytes).concat());
    out.extend(text("t"));
    out.extend(2u32.to_be_bytes());
    out.extend([2u64, 3].map(u64::to_be_bytes).concat());
    out.extend(0u32.to_be_bytes());
    out.extend(0u64.to_be_bytes());
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend([0; 24]);
    out
}

#[test]
fn a_sound_file_is_described() {
    for version in [2, 3] {
        let seen = read(
            &GgufBuilder {
                version,
                ..tiny_model("llama")
            }
            .bytes(),
        )
        .expect("sound");
        assert_eq!(seen.metadata["GGUF.version"], version);
        assert_eq!(
            seen.metadata["tokenizer.ggml.tokens"],
            "[260 entries: string]"
        );
        assert_eq!(
            (
                seen.tensors[0].name.as_str(),
                seen.tensors[0].shape.as_slice()
            ),
            ("token_embd.weight", &[260, 64][..])
        );
        assert_eq!(seen.tensors[0].dtype, "F32");
    }
}

#[test]
fn every_scalar_type_is_read() {
    let mut gguf = GgufBuilder::default();
    let sizes = [
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 4),
        (5, 4),
        (6, 4),
        (7, 1),
        (10, 8),
        (11, 8),
        (12, 8),
    ];
    for (kind, size) in sizes {
        gguf.set(&format!("k{kind}"), Meta::Raw(kind, vec![0; size]));
    }
    assert_eq!(
        read(&gguf.bytes()).expect("sound").metadata.len(),
        sizes.len() + 1
    );
}

#[test]
fn magic_and_version() {
    assert!(matches!(
        fault(
            &GgufBuilder {
                magic: *b"GGML",
                ..Default::default()
            }
            .bytes()
        ),
        GgufError::Magic { .. }
    ));
    for version in [0, 1, 4, 4u32.swap_bytes()] {
        let bytes = GgufBuilder {
            version,
            ..Default::default()
        }
        .bytes();
        assert!(matches!(fault(&bytes), GgufError::Version { got } if got == version));
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = tiny_model("qwen2").bytes();
    for size in (0..whole.len()).step_by(whole.len() / 200).chain(0..200) {
        assert!(read(&whole[..size]).is_err(), "the first {size} bytes");
    }
    assert!(matches!(fault(b"GGUF"), GgufError::Truncated { .. }));
    assert!(matches!(fault(b""), GgufError::Truncated { .. }));
}

#[test]
fn counts_are_limited() {
    for (tensors, pairs) in [
        (Some(u64::MAX), None),
        (None, Some(u64::MAX)),
        (Some(1 << 17), None),
    ] {
        let bytes = GgufBuilder {
            tensor_count: tensors,
            metadata_count: pairs,
            ..Default::default()
        }
        .bytes();
        assert!(matches!(fault(&bytes), GgufError::Limit { .. }));
    }
    let bytes = GgufBuilder {
        tensor_count: Some(9),
        ..Default::default()
    }
    .bytes();
    assert!(matches!(fault(&bytes), GgufError::Truncated { .. }));
}

#[test]
fn strings_are_limited_and_utf8() {
    assert!(matches!(
        fault(&one_value(8, u64::MAX.to_le_bytes().to_vec()).bytes()),
        GgufError::Limit { .. }
    ));
    assert!(matches!(
        fault(&one_value(8, 4096u64.to_le_bytes().to_vec()).bytes()),
        GgufError::Truncated { .. }
    ));
    let mut bad = string("xx");
    bad[8] = 0xff;
    assert!(matches!(
        fault(&one_value(8, bad).bytes()),
        GgufError::Utf8 { .. }
    ));
    let mut long = one_tensor(&[1], 0, 4, None);
    long.tensors[0].name = "n".repeat(257);
    assert!(matches!(
        fault(&long.bytes()),
        GgufError::Limit { got: 257, .. }
    ));
}

#[test]
fn value_types_are_known_and_arrays_flat() {
    for kind in [13, 99, u32::MAX] {
        assert!(matches!(
            fault(&one_value(kind, vec![0; 8]).bytes()),
            GgufError::ValueType { .. }
        ));
    }
    assert!(matches!(
        fault(&one_value(7, vec![2]).bytes()),
        GgufError::ValueType { .. }
    ));
    let array = |item: u32, count: u64| {
        let mut payload = item.to_le_bytes().to_vec();
        payload.extend(count.to_le_bytes());
        one_value(9, payload).bytes()
    };
    assert!(
        matches!(fault(&array(9, 1)), GgufError::ValueType { got, .. } if got == "array of arrays")
    );
    assert!(matches!(
        fault(&array(0, u64::MAX)),
        GgufError::Limit { .. }
    ));
    assert!(matches!(
        fault(&array(8, 1 << 20)),
        GgufError::Truncated { .. } | GgufError::Limit { .. }
    ));
    assert!(matches!(fault(&array(77, 1)), GgufError::ValueType { .. }));
}

#[test]
fn arrays_are_limited_together() {
    let array = || {
        let payload = [&0u32.to_le_bytes()[..], &(1u64 << 22).to_le_bytes()].concat();
        Meta::Raw(9, [payload, vec![0; 1 << 22]].concat())
    };
    let mut gguf = GgufBuilder::default();
    gguf.set("a", array()).set("b", array());
    assert!(read(&gguf.bytes()).is_ok());
    gguf.set("c", Meta::I32s(vec![0]));
    let error = fault(&gguf.bytes());
    assert!(
        matches!(error, GgufError::Limit { got, limit, .. } if got == limit + 1),
        "{error}"
    );
}

#[test]
fn a_file_of_the_first_version_is_refused_with_a_way_out() {
    // Its counts and lengths have four bytes.
    let mut bytes = b"GGUF".to_vec();
    bytes.extend([1u32, 0, 1, 1].map(u32::to_le_bytes).concat());
    bytes.push(b'k');
    bytes.extend([4u32, 7].map(u32::to_le_bytes).concat());
    let error = fault(&bytes);
    assert!(matches!(error, GgufError::Version { got: 1 }));
    let text = error.to_string();
    assert!(
        text.contains("2 and 3") && text.contains("convert the file again"),
        "{text}"
    );
}

#[test]
fn keys_and_names_stand_once() {
    let mut gguf = one_value(0, vec![1]);
    gguf.metadata.push(gguf.metadata[0].clone());
    assert!(matches!(fault(&gguf.bytes()), GgufError::Duplicate { name, .. } if name == "k"));
    let mut gguf = one_tensor(&[1], 0, 4, None);
    gguf.tensors.push(gguf.tensors[0].clone());
    assert!(matches!(fault(&gguf.bytes()), GgufError::Duplicate { name, .. } if name == "t"));
}

#[test]
fn alignment_is_a_power_of_two() {
    for bad in [0, 1, 24, 33, 1 << 30] {
        let mut gguf = GgufBuilder::default();
        gguf.set("general.alignment", Meta::U32(bad));
        assert!(
            matches!(fault(&gguf.bytes()), GgufError::Alignment { got } if got == u64::from(bad))
        );
    }
    let mut gguf = GgufBuilder::default();
    gguf.set("general.alignment", Meta::Text("32".into()));
    assert!(matches!(fault(&gguf.bytes()), GgufError::ValueType { .. }));
}

#[test]
fn dims_are_one_to_four_and_make_whole_blocks() {
    assert!(matches!(
        fault(&one_tensor(&[1; 5], 0, 4, None).bytes()),
        GgufError::Limit {
            got: 5,
            limit: 4,
            ..
        }
    ));
    for (dims, kind) in [
        (&[][..], 0),
        (&[0], 0),
        (&[4, 0], 0),
        (&[33], 2),
        (&[128], 12),
        (&[1 << 32, 1 << 32], 0),
    ] {
        let error = fault(&one_tensor(dims, kind, 64, None).bytes());
        assert!(
            matches!(error, GgufError::TensorDims { .. }),
            "{dims:?}: {error}"
        );
    }
    assert!(matches!(
        fault(&one_tensor(&[1 << 62], 0, 64, None).bytes()),
        GgufError::TensorDims { .. }
    ));
}

#[test]
fn formats_that_cannot_be_run_are_listed_and_marked() {
    // Type number, name, bytes of 256 elements.
    for (number, name, bytes) in [
        (15, "Q8_K", 292),
        (16, "IQ2_XXS", 66),
        (17, "IQ2_XS", 74),
        (18, "IQ3_XXS", 98),
        (19, "IQ1_S", 50),
        (21, "IQ3_S", 110),
        (22, "IQ2_S", 82),
        (29, "IQ1_M", 56),
        (34, "TQ1_0", 54),
        (35, "TQ2_0", 66),
        (39, "MXFP4", 136),
        (40, "NVFP4", 144),
        (41, "Q1_0", 36),
    ] {
        let mut gguf = one_tensor(&[256], number, bytes, None);
        gguf.add("u", &[1], &[1.0]);
        let seen = read(&gguf.bytes()).expect("sound");
        let (t, u) = (&seen.tensors[0], &seen.tensors[1]);
        assert_eq!((t.dtype.as_str(), t.bytes), (name, bytes as u64));
        assert_eq!((t.supported, u.supported), (false, true), "{name}");
        assert!(
            seen.notes.len() == 1 && seen.notes[0].contains(name),
            "{:?}",
            seen.notes
        );
        // A byte less is a file cut short.
        gguf.tensors.truncate(1);
        gguf.tensors[0].data.pop();
        assert!(
            matches!(fault(&gguf.bytes()), GgufError::TensorOffset { .. }),
            "{name}"
        );
    }
    assert!(
        read(&tiny_model("llama").bytes())
            .expect("sound")
            .notes
            .is_empty()
    );
}

#[test]
fn formats_that_can_be_run_are_marked_so() {
    // Type number, name, bytes of 256 elements.
    for (number, name, bytes) in [
        (0, "F32", 1024),
        (1, "F16", 512),
        (2, "Q4_0", 144),
        (3, "Q4_1", 160),
        (6, "Q5_0", 176),
        (7, "Q5_1", 192),
        (8, "Q8_0", 272),
        (10, "Q2_K", 84),
        (11, "Q3_K", 110),
        (12, "Q4_K", 144),
        (13, "Q5_K", 176),
        (14, "Q6_K", 210),
        (20, "IQ4_NL", 144),
        (23, "IQ4_XS", 136),
        (30, "BF16", 512),
    ] {
        let mut gguf = one_tensor(&[256], number, bytes, None);
        let seen = read(&gguf.bytes()).expect("sound");
        let t = &seen.tensors[0];
        assert_eq!((t.dtype.as_str(), t.bytes), (name, bytes as u64));
        assert!(t.supported && seen.notes.is_empty(), "{name}");
        gguf.tensors[0].data.pop();
        assert!(
            matches!(fault(&gguf.bytes()), GgufError::TensorOffset { .. }),
            "{name}"
        );
    }
}

#[test]
fn a_format_of_unknown_size_reaches_to_the_next_tensor() {
    let mut gguf = one_tensor(&[7, 3], 77, 64, None);
    gguf.add("u", &[1], &[1.0]);
    let seen = read(&gguf.bytes()).expect("sound");
    assert_eq!(
        (seen.tensors[0].dtype.as_str(), seen.tensors[0].bytes),
        ("type 77", 64)
    );
    assert!(!seen.tensors[0].supported);
}

#[test]
fn a_big_endian_file_is_listed_as_such() {
    let seen = read(&big_endian()).expect("sound");
    assert_eq!(seen.metadata["GGUF.version"], 3);
    assert_eq!(seen.metadata["GGUF.byte_order"], "big endian");
    assert_eq!(seen.metadata["k"], 258);
    let t = &seen.tensors[0];
    assert_eq!(
        (t.name.as_str(), t.shape.as_slice(), t.bytes),
        ("t", &[3, 2][..], 24)
    );
    assert!(seen.notes[0].contains("big endian"), "{:?}", seen.notes);
}

#[test]
fn tensors_lie_aligned_inside_the_file_and_apart() {
    for offset in [1, 16, 32, u64::MAX - 31] {
        let error = fault(&one_tensor(&[1], 0, 4, Some(offset)).bytes());
        assert!(
            matches!(error, GgufError::TensorOffset { .. }),
            "{offset}: {error}"
        );
    }
    let mut gguf = one_tensor(&[16], 0, 64, None);
    gguf.tensors.push(Tensor {
        name: "u".into(),
        offset: Some(32),
        ..gguf.tensors[0].clone()
    });
    let error = fault(&gguf.bytes());
    assert!(error.to_string().contains("begins inside t"), "{error}");
}

#[test]
fn an_architecture_that_is_not_imported_is_noted() {
    let mut gguf = tiny_model("llama");
    assert!(read(&gguf.bytes()).expect("sound").notes.is_empty());
    gguf.set("general.architecture", Meta::Text("gemma2".into()));
    let notes = read(&gguf.bytes()).expect("sound").notes.concat();
    assert!(
        notes.contains("gemma2") && notes.contains("qwen3"),
        "{notes}"
    );
}
