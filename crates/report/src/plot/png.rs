//! Pixels as a PNG file: signature, header, one chunk of rows, end (PNG specification, third edition,
//! sections 5 and 11).
//!
//! Rows are stored unfiltered: plots are areas of one colour, which the compression sees through.

use yazi::{CompressionLevel, Format};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
const BITS_A_SAMPLE: u8 = 8;
const RGB: u8 = 2;
const SAMPLES: usize = 3;

/// 8-bit RGB rows, `width * height * 3` bytes, as a file.
pub(super) fn encode((width, height): (u32, u32), pixels: &[u8]) -> Result<Vec<u8>, String> {
    let row = width as usize * SAMPLES;
    let mut rows = Vec::with_capacity(pixels.len() + height as usize);
    for pixels in pixels.chunks_exact(row) {
        // No filter.
        rows.push(0);
        rows.extend_from_slice(pixels);
    }
    let data = yazi::compress(&rows, Format::Zlib, CompressionLevel::Default)
        .map_err(|error| format!("the pixels cannot be compressed ({error:?})"))?;
    let mut header = Vec::new();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    // Compression, filters and interlacing: the only, the only, none.
    header.extend_from_slice(&[BITS_A_SAMPLE, RGB, 0, 0, 0]);
    let mut file = SIGNATURE.to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &data);
    chunk(&mut file, b"IEND", &[]);
    Ok(file)
}

/// Length, kind, data, and the checksum of kind and data.
fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend_from_slice(kind);
    file.extend_from_slice(data);
    let checksum = crc32fast::hash(&file[start..]);
    file.extend_from_slice(&checksum.to_be_bytes());
}
