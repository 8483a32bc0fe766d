//! Calibrations that come back from disk, and files that are refused.

use sparse_accelerate::{AttentionSettings, Pattern, Preset, Triangular, select::Prices};

use super::*;
use crate::{
    calibration::{BreakEven, LengthRecord, ModelRecord},
    device::{DeviceChoice, DeviceKind},
};

fn info(name: &str) -> DeviceInfo {
    DeviceInfo {
        choice: DeviceChoice::FLEX,
        name: name.into(),
        kind: DeviceKind::Cpu,
        backend: String::new(),
        memory: None,
        capabilities: None,
    }
}

fn calibration(name: &str, head_dim: usize) -> Calibration {
    Calibration {
        schema: SCHEMA,
        key: CalibrationKey::new(&info(name), WeightDtype::Bf16, head_dim, 4),
        version: "0.1.0".into(),
        heads: [32, 8],
        costs: Prices {
            dense_tile: 1.0,
            tile: 1.5,
            column: 2.5,
            row: 3.5,
        },
        dense_tile_ns: 1.25,
        misfit: 0.03,
        break_even: BreakEven::From { tokens: 4096 },
    }
}

struct Dir {
    path: PathBuf,
}

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self { path }
    }

    fn store(&self) -> Store {
        Store::below(&self.path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[test]
fn what_is_written_comes_back_and_nothing_is_left_beside_it() {
    let dir = Dir::new("calibration-round-trip");
    let (store, kept) = (dir.store(), calibration("Card <1>", 128));
    assert!(store.load(&kept.key).expect("no file").is_none());
    let path = store.path(&kept.key);
    // Twice: the second replaces the first.
    kept.write(&path).expect("written");
    kept.write(&path).expect("written");
    assert_eq!(store.load(&kept.key).expect("no file"), Some(kept));
    let names: Vec<_> = fs::read_dir(path.parent().expect("a folder"))
        .expect("a folder")
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn damaged_files_are_errors_with_their_name() {
    let dir = Dir::new("calibration-damaged");
    let (store, good) = (dir.store(), calibration("Card", 128));
    let path = store.path(&good.key);
    let text = |change: &dyn Fn(&mut Calibration)| {
        let mut other = good.clone();
        change(&mut other);
        serde_json::to_string(&other).expect("JSON")
    };
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    for (bad, reason) in [
        ("{".to_owned(), "EOF"),
        (text(&|c| c.schema = 1), "schema 1, not 2"),
        (text(&|c| c.costs.tile = -1.0), "costs.tile"),
        (text(&|c| c.key.group = 7), "group: 7"),
        (text(&|_| ()).replace("misfit", "fit"), "unknown field"),
    ] {
        fs::write(&path, bad).expect("written");
        let error = store.load(&good.key).expect_err(reason).to_string();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    let error = store.load(&good.key).expect_err("a folder");
    assert!(matches!(error, CalibrationError::Read { .. }), "{error}");
}

#[test]
fn a_device_lists_its_own() {
    let dir = Dir::new("calibration-list");
    let store = dir.store();
    for (name, head_dim) in [("Card", 128), ("Card", 64), ("Card 2", 128)] {
        let kept = calibration(name, head_dim);
        kept.write(&store.path(&kept.key)).expect("written");
    }
    let of = |name: &str| -> Vec<usize> {
        let found = store.of_device(&info(name)).into_iter();
        found
            .map(|(_, kept)| kept.expect("read").key.head_dim)
            .collect()
    };
    assert_eq!(of("Card"), [128, 64]);
    assert_eq!(of("Card 2"), [128]);
    assert!(of("Other").is_empty());
}

#[test]
fn settings_of_patterns_that_choose_take_prices_and_length() {
    let mut kept = calibration("Card", 128);
    let mut balanced = Preset::Balanced.settings();
    assert!(kept.apply(&mut balanced));
    assert_eq!(balanced.selection.costs, kept.costs);
    assert_eq!(balanced.min_sparse_len, 4096);

    kept.break_even = BreakEven::Beyond { longest: 32_768 };
    assert!(kept.apply(&mut balanced));
    assert_eq!(balanced.min_sparse_len, 65_536);
    kept.break_even = BreakEven::Unknown {
        reason: "a test".into(),
    };
    assert!(kept.apply(&mut balanced));
    assert_eq!(balanced.min_sparse_len, 65_536);

    // The triangular pattern's length and prices are its own.
    let by_name = || AttentionSettings {
        pattern: Pattern::Triangular(Triangular::default()),
        ..AttentionSettings::default()
    };
    let mut triangular = by_name();
    assert!(!kept.apply(&mut triangular));
    assert_eq!(triangular, by_name());
}

#[test]
fn prices_become_rates() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("../../benches/runs/2026-11-26-h100-selection/calibration.json");
    // Of an earlier schema, whose break-even meant another selection.
    let text = std::fs::read_to_string(path).expect("readable");
    let h100: Calibration = serde_json::from_str(&text).expect("a calibration");
    // 4 * 64 * 64 * 128 FLOPs in 4.6375 ns; sparse tiles at 0.953 of the price.
    let [dense, sparse] = h100.attention_rates().expect("rates");
    assert!((dense / 1e12 - 452.2).abs() < 0.1, "{dense}");
    assert!((sparse / dense - 1.0 / 0.953).abs() < 1e-3, "{sparse}");
    let free = Calibration {
        dense_tile_ns: 0.0,
        ..h100
    };
    assert_eq!(free.attention_rates(), None);
}

fn record(name: &str, model: &str) -> ModelRecord {
    let length = |tokens, dense_s, sparse_s| LengthRecord {
        tokens,
        dense_s,
        sparse_s,
        density: 0.5,
    };
    // Not in order, as lengths may be given.
    let lengths = vec![
        length(8192, 0.4, 0.3),
        length(1024, 0.02, 0.03),
        length(2048, 0.05, 0.05),
    ];
    let key = calibration(name, 128).key;
    ModelRecord::new(key, model.into(), "0.1.0".into(), "feed".into(), lengths)
}

#[test]
fn the_record_of_a_model_comes_back_and_says_from_where_it_is_sparse() {
    let dir = Dir::new("calibration-record");
    let (store, kept) = (dir.store(), record("Card", &"a1".repeat(32)));
    assert_eq!(kept.break_even, BreakEven::From { tokens: 2048 });
    let path = store.record_path(&kept.key, &kept.model);
    assert!(
        store
            .record(&kept.key, &kept.model)
            .expect("readable")
            .is_none()
    );
    kept.write(&path).expect("written");
    let found = store.record(&kept.key, &kept.model).expect("readable");
    assert_eq!(found.as_ref(), Some(&kept));
    // The device's own files are listed without it.
    assert!(store.of_device(&info("Card")).is_empty());

    let mut settings = AttentionSettings::default();
    assert!(kept.apply(&mut settings));
    assert_eq!(settings.min_sparse_len, 2048);
    let mut dense = AttentionSettings::dense();
    dense.pattern = Pattern::Triangular(Triangular::default());
    let before = dense.clone();
    assert!(!kept.apply(&mut dense));
    assert_eq!(dense, before);
}

#[test]
fn records_of_another_model_or_version_are_refused() {
    let dir = Dir::new("calibration-records");
    let (store, kept) = (dir.store(), record("Card", &"a1".repeat(32)));
    let path = store.record_path(&kept.key, &kept.model);
    // Another model whose outline begins alike.
    let other = format!("{}{}", "a1".repeat(8), "b2".repeat(24));
    kept.write(&path).expect("written");
    let error = store.record(&kept.key, &other).expect_err("another model");
    assert!(error.to_string().contains("it is of"), "{error}");
    for damage in ["{", "{\"schema\": 1}"] {
        fs::write(&path, damage).expect("written");
        let error = store.record(&kept.key, &kept.model).expect_err(damage);
        assert!(matches!(error, CalibrationError::Damaged { .. }), "{error}");
    }
    let old = ModelRecord {
        schema: SCHEMA - 1,
        ..kept
    };
    old.write(&path).expect("written");
    let error = store.record(&old.key, &old.model).expect_err("old");
    assert!(error.to_string().contains("schema"), "{error}");
}
