//! The import from beginning to end.
//!
//! Order: read and check the file, plan every tensor against the config, then write config, tokenizer and weights to a staging
//! directory, open the result as a model directory, and only then put it in its place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::convert::{Conversion, Stop};
use super::staging::Staging;
use super::{config, names, tokenizer, writer};
use crate::gguf::GgufFile;
use crate::{Architecture, CheckpointError, GgufError, ModelConfig, ModelDir, WeightDtype};

const BUFFER: usize = 1 << 20;
const WEIGHTS: &str = "model.safetensors";

/// Options of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// Element type of the written weights. f32 holds every GGUF value exactly.
    pub dtype: WeightDtype,
    /// Uses a separate output table as embedding table too, for models that tie the two and whose file holds both.
    /// The output table is kept, because it is usually quantised more finely.
    pub tie: bool,
}

/// Progress of an import, reported before each tensor is written.
#[derive(Clone, Copy, Debug)]
pub struct ImportProgress<'a> {
    /// The tensor about to be written, by its Hugging Face name.
    pub tensor: &'a str,
    /// Tensors written so far.
    pub index: usize,
    /// Tensors in all.
    pub total: usize,
}

/// Summary of a finished import.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportSummary {
    /// The new model directory.
    pub path: PathBuf,
    /// Model family.
    pub architecture: Architecture,
    /// Element type written.
    pub dtype: WeightDtype,
    /// Tensors written.
    pub tensors: usize,
    /// Trained values, a tied table counted once.
    pub parameters: u64,
    /// Bytes of weights written.
    pub weight_bytes: u64,
    /// True if the output projection is the embedding table.
    pub tied_embeddings: bool,
}

/// Dequantises a GGUF file into a new Hugging Face model directory.
///
/// Memory stays at one row of a tensor; the file is mapped. `out_dir` must not exist or be empty; it appears as a whole at the
/// end, and on any error nothing is left behind.
///
/// # Errors
/// [`CheckpointError::Gguf`] for a malformed or unsupported file, [`CheckpointError::OutputExists`], [`CheckpointError::Io`]
/// for a full disk and the like, and whatever opening the result as a model directory would report.
pub fn import_gguf(
    gguf: &Path,
    out_dir: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(ImportProgress<'_>),
) -> Result<ImportSummary, CheckpointError> {
    let create = |path: &Path| File::create(path).map(|file| Box::new(file) as Box<dyn Write>);
    import_with(gguf, out_dir, options, progress, &create)
}

/// One tensor of the output: name, shape and where it comes from.
struct Planned {
    name: String,
    shape: Vec<usize>,
    /// Position in the file's table; none for a bias of zeros.
    source: Option<usize>,
    heads: Option<usize>,
    /// A norm's gain.
    gain: bool,
}

/// [`import_gguf`] with the creation of files as a parameter.
pub(super) fn import_with(
    gguf: &Path,
    out_dir: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(ImportProgress<'_>),
    create: &dyn Fn(&Path) -> io::Result<Box<dyn Write>>,
) -> Result<ImportSummary, CheckpointError> {
    let file = GgufFile::open(gguf)?;
    let fault = CheckpointError::gguf(gguf);
    file.check_importable().map_err(&fault)?;
    let architecture = config::architecture(&file.metadata).map_err(&fault)?;
    let context = file
        .metadata
        .size(&format!("{}.context_length", architecture.gguf_name()))
        .map_err(&fault)?;
    let rebuilt = tokenizer::rebuild(&file.metadata, architecture, context).map_err(&fault)?;
    let has_output = file
        .tensors
        .iter()
        .any(|tensor| tensor.name == names::OUTPUT);
    let tied = options.tie || !has_output;
    let config = config::config_json(
        &file,
        architecture,
        &rebuilt.token_metadata,
        options.dtype,
        tied,
    )
    .map_err(&fault)?;
    let model = ModelConfig::from_json(&config.to_string())?;
    let plan = plan(&file, &model, has_output).map_err(&fault)?;
    let generation =
        config::generation_json(&file.metadata, &rebuilt.token_metadata).map_err(&fault)?;

    let staging = Staging::new(out_dir)?;
    let dir = staging.path();
    let put = |name: &str, value: &Value| write_json(&dir.join(name), value, create);
    put("config.json", &config)?;
    put("generation_config.json", &generation)?;
    put("tokenizer.json", &rebuilt.tokenizer)?;
    put("tokenizer_config.json", &rebuilt.tokenizer_config)?;

    let path = dir.join(WEIGHTS);
    let out = create(&path).map_err(CheckpointError::io("create", &path))?;
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let head = writer::head(
        plan.iter().map(|p| (p.name.as_str(), p.shape.as_slice())),
        options.dtype,
    );
    out.write_all(&head)
        .map_err(CheckpointError::io("write", &path))?;
    for (index, planned) in plan.iter().enumerate() {
        progress(ImportProgress {
            tensor: &planned.name,
            index,
            total: plan.len(),
        });
        let Some(source) = planned.source else {
            let zeros = vec![0; planned.shape.iter().product::<usize>() * options.dtype.size()];
            out.write_all(&zeros)
                .map_err(CheckpointError::io("write", &path))?;
            continue;
        };
        let tensor = &file.tensors[source];
        let conversion = Conversion {
            tensor,
            bytes: file.bytes(tensor),
            kind: tensor.kind().map_err(&fault)?,
            heads: planned.heads,
            offset: match planned.gain && model.gains_less_one {
                true => 1.0,
                false => 0.0,
            },
            dtype: options.dtype,
        };
        conversion.write(&mut out).map_err(|stop| match stop {
            Stop::Format(source) => fault(source),
            Stop::Write(source) => CheckpointError::io("write", &path)(source),
        })?;
    }
    out.flush().map_err(CheckpointError::io("write", &path))?;
    drop(out);

    let weight_bytes = ModelDir::open(dir)?.weights()?.total_bytes();
    let summary = ImportSummary {
        path: out_dir.to_path_buf(),
        architecture,
        dtype: options.dtype,
        tensors: plan.len(),
        parameters: model.parameter_count(),
        weight_bytes,
        tied_embeddings: tied,
    };
    staging.commit()?;
    Ok(summary)
}

/// Matches the file's tensors with those that the config implies, both ways. config.json has one word for the biases of four
/// projections, and one for those of three: where a file has some of them, the others are zero.
fn plan(file: &GgufFile, model: &ModelConfig, has_output: bool) -> Result<Vec<Planned>, GgufError> {
    let mut left: BTreeMap<&str, usize> = file
        .tensors
        .iter()
        .enumerate()
        .map(|(i, tensor)| (tensor.name.as_str(), i))
        .collect();
    left.remove(names::ROPE_FREQS);
    if model.architecture == Architecture::Phi3 {
        left.remove(names::SHORT_FACTORS);
        left.remove(names::LONG_FACTORS);
    }
    if model.tied_embeddings && has_output {
        // The finer table serves as both: it goes by the embedding's name.
        if let Some(output) = left.remove(names::OUTPUT) {
            left.insert(names::EMBEDDING, output);
        }
    }
    let mut plan = Vec::new();
    for (name, expected) in model.expected_tensors() {
        let gguf_name = names::to_gguf(model.architecture, &name)
            .ok_or_else(|| GgufError::MissingTensor { name: name.clone() })?;
        let Some(source) = left.remove(gguf_name.as_str()) else {
            let part = names::part_of_bias(model.architecture, &name);
            let none = part.is_some_and(|part| !names::has_bias(file, part));
            if none && model.architecture.biased_throughout() {
                plan.push(Planned {
                    name,
                    shape: expected,
                    source: None,
                    heads: None,
                    gain: false,
                });
                continue;
            }
            return Err(GgufError::MissingTensor { name: gguf_name });
        };
        let got = file.tensors[source].shape();
        if got != expected {
            return Err(GgufError::TensorShape {
                name: gguf_name,
                got,
                expected,
            });
        }
        let heads =
            names::interleaved_heads(model.architecture, &gguf_name, model.heads, model.kv_heads);
        // No other weight has a single dimension.
        let gain = expected.len() == 1 && name.ends_with(".weight");
        plan.push(Planned {
            name,
            shape: expected,
            source: Some(source),
            heads,
            gain,
        });
    }
    match left.keys().next() {
        Some(name) => Err(GgufError::UnexpectedTensor {
            name: (*name).to_owned(),
        }),
        None => Ok(plan),
    }
}

fn write_json(
    path: &Path,
    value: &Value,
    create: &dyn Fn(&Path) -> io::Result<Box<dyn Write>>,
) -> Result<(), CheckpointError> {
    let mut out = create(path).map_err(CheckpointError::io("create", path))?;
    let text = format!("{value:#}\n");
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CheckpointError::io("write", path))
}
