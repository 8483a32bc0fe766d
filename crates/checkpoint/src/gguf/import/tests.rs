//! A disk that fills up: whatever was written is gone afterwards, wherever the write fails.
//!
//! Files are made through a hook whose writers fail after a number of bytes over all files.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use super::run::{ImportOptions, import_with};
use crate::{CheckpointError, WeightDtype};

#[path = "../../../tests/support/gguf_file.rs"]
#[allow(
    dead_code,
    reason = "shared with the integration tests, which use all of it"
)]
mod gguf_file;

const OPTIONS: ImportOptions = ImportOptions {
    dtype: WeightDtype::F32,
    tie: false,
};

struct Full {
    file: File,
    room: Rc<Cell<usize>>,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room.get();
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.room.set(room - written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn import_through(
    create: &dyn Fn(&Path) -> io::Result<Box<dyn Write>>,
) -> Result<(), CheckpointError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gguf = dir.path().join("x.gguf");
    fs::write(&gguf, gguf_file::tiny_model("llama").bytes()).expect("writable");
    let result = import_with(
        &gguf,
        &dir.path().join("new/out"),
        &OPTIONS,
        &mut |_| {},
        create,
    );
    if result.is_err() {
        let left: Vec<_> = fs::read_dir(dir.path())
            .expect("readable")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(left, ["x.gguf"], "nothing is left behind");
    }
    result.map(drop)
}

#[test]
fn a_disk_that_fills_up_leaves_nothing() {
    let attempt = |room: usize| {
        let room = Rc::new(Cell::new(room));
        import_through(&|path| {
            let (file, room) = (File::create(path)?, Rc::clone(&room));
            Ok(Box::new(Full { file, room }))
        })
    };
    for room in [0, 10, 1_000, 5_000, 20_000, 60_000, 100_000] {
        let error = attempt(room).expect_err("the disk is full");
        assert!(
            matches!(
                error,
                CheckpointError::Io {
                    action: "write",
                    ..
                }
            ),
            "{error}"
        );
    }
    attempt(usize::MAX).expect("a disk with room");
}

#[test]
fn a_file_that_cannot_be_made_leaves_nothing() {
    let error = import_through(&|path| {
        if path.ends_with("model.safetensors") {
            Err(io::ErrorKind::PermissionDenied.into())
        } else {
            Ok(Box::new(File::create(path)?))
        }
    });
    assert!(matches!(
        error,
        Err(CheckpointError::Io {
            action: "create",
            ..
        })
    ));
}

#[cfg(target_os = "linux")]
#[test]
fn the_full_device_is_a_full_disk() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let error = import_through(&|path| {
        let path = if path.ends_with("model.safetensors") {
            full
        } else {
            path
        };
        Ok(Box::new(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?,
        ))
    });
    assert!(matches!(
        error,
        Err(CheckpointError::Io {
            action: "write",
            ..
        })
    ));
}
