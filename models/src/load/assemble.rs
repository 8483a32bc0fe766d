//! Building the decoder's modules from a source of tensors.
//!
//! The order of reading is embedding, layers from the first to the last, final norm, head: the order
//! in which sharded checkpoints are cut, so each shard is read front to back and then left alone. A stage
//! reads its part of that.

use burn::{
    module::{Param, ParamId},
    tensor::{Device, Tensor},
};
use sparse_accelerate_checkpoint::{
    EMBEDDING, FINAL_NORM, HEAD, LayerPart, LayerWeight, ModelConfig, WeightDtype,
};

use super::{
    host::HostTensor,
    on_device::OnDevice,
    options::{LoadOptions, LoadProgress, ModelOptions, dtype_of},
    source::WeightSource,
};
use crate::{
    blueprint::{Blueprint, GATE_UP, QKV},
    decoder::{Attention, DecoderLayer, HeadNorms, Mlp, Projection, RmsNorm, Rotaries},
    error::ModelError,
    model::{CausalLm, Metadata},
    placement::StagePart,
};

/// The source of parameters.
pub(crate) enum TensorSource<'a> {
    /// From the host, part by part.
    Host(&'a mut dyn WeightSource),
    /// Drawn on the device.
    Device(OnDevice),
}

/// Reads, stacks and uploads the tensors of one model.
pub(crate) struct Assembler<'a> {
    source: TensorSource<'a>,
    blueprint: &'a Blueprint,
    part: StagePart,
    dtype: WeightDtype,
    device: &'a Device,
    options: ModelOptions,
    done: Done<'a>,
}

/// The bytes loaded so far, and the callback that hears of them.
struct Done<'a> {
    progress: &'a mut dyn FnMut(LoadProgress<'_>),
    index: usize,
    total: usize,
    bytes: u64,
    total_bytes: u64,
}

impl Done<'_> {
    /// One tensor more, of `bytes` on the device.
    fn add(&mut self, tensor: &str, bytes: usize) {
        self.bytes += bytes as u64;
        (self.progress)(LoadProgress {
            tensor,
            index: self.index,
            total: self.total,
            bytes: self.bytes,
            total_bytes: self.total_bytes,
        });
        self.index += 1;
    }
}

/// One checkpoint tensor: its name without `.weight` or `.bias`, and its rows.
type Part = (String, usize);

impl<'a> Assembler<'a> {
    pub(crate) fn new(
        source: TensorSource<'a>,
        blueprint: &'a Blueprint,
        dtype: WeightDtype,
        options: &'a LoadOptions,
        progress: &'a mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Self, ModelError> {
        let part = blueprint.part(options.part.as_ref())?;
        let (total, total_bytes) = blueprint.count(&part, dtype_of(dtype).size());
        Ok(Self {
            source,
            blueprint,
            part,
            dtype,
            device: &options.device,
            options: ModelOptions {
                mlp_rows: options.model.mlp_rows.max(1),
                ..options.model
            },
            done: Done {
                progress,
                index: 0,
                total,
                bytes: 0,
                total_bytes,
            },
        })
    }

    /// The model, or its stage.
    pub(crate) fn model(mut self, config: &ModelConfig) -> Result<CausalLm, ModelError> {
        let b = self.blueprint;
        let part = self.part.clone();
        let embedding = match b.has_table(&part) {
            true => Some(self.table(EMBEDDING)?),
            false => {
                self.skip(1, 1);
                None
            }
        };
        let (tensors, parameters) = b.layer_tensors();
        let before = part.layers.start as u64;
        self.skip(before * tensors, before * parameters);
        let layers = part.layers.clone().map(|index| self.layer(config, index));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let (mut norm, mut head) = (None, None);
        if part.output {
            norm = Some(self.norm(FINAL_NORM.to_owned(), b.hidden, 0)?);
            if !b.tied_embeddings {
                let weight = self.table(HEAD)?;
                head = Some(Projection { weight, bias: None });
            }
        }
        Ok(CausalLm {
            embedding,
            layers,
            norm,
            head,
            rotaries: Rotaries::new(b, self.device),
            metadata: Metadata {
                config: config.clone(),
                blueprint: b.clone(),
                device: self.device.clone(),
                dtype: self.dtype,
                weight_bytes: self.done.bytes,
                options: self.options,
                part,
            },
        })
    }

    /// Passes over what other stages hold, so that a seed gives every stage what the whole model has.
    fn skip(&mut self, tensors: u64, parameters: u64) {
        match &mut self.source {
            TensorSource::Host(source) => source.skip(tensors),
            TensorSource::Device(random) => random.skip(parameters),
        }
    }

    /// A row for every token of the vocabulary.
    fn table(&mut self, name: &str) -> Result<Param<Tensor<2>>, ModelError> {
        let shape = [self.blueprint.vocab, self.blueprint.hidden];
        self.parameter(&[(name.to_owned(), shape)], shape, self.dtype, 0)
    }

    fn layer(&mut self, config: &ModelConfig, index: usize) -> Result<DecoderLayer, ModelError> {
        let weight = |part| config.layer_weight(part);
        let norm = self.layer_norm(index, weight(LayerPart::AttentionNorm))?;
        let qkv = match config.fused_projections {
            true => vec![weight(LayerPart::QueryKeyValue)],
            false => QKV.map(weight).to_vec(),
        };
        let qkv = self.projection(index, &qkv, self.blueprint.heads + self.blueprint.kv_heads)?;
        let head_norms = match config.head_norms {
            true => Some(HeadNorms {
                query: self
                    .head_norm(index, weight(LayerPart::QueryNorm))?
                    .times(self.blueprint.query_factor),
                key: self.head_norm(index, weight(LayerPart::KeyNorm))?,
            }),
            false => None,
        };
        let output = self.projection(index, &[weight(LayerPart::Output)], 0)?;
        let attention = Attention {
            norm,
            qkv,
            head_norms,
            output,
            post_norm: self.post_norm(config, index, LayerPart::PostAttentionNorm)?,
        };
        let norm = self.layer_norm(index, weight(LayerPart::MlpNorm))?;
        let gate_up = match config.fused_projections {
            true => vec![weight(LayerPart::GateUp)],
            false => GATE_UP.map(weight).to_vec(),
        };
        let gate_up = self.projection(index, &gate_up, 0)?;
        let down = self.projection(index, &[weight(LayerPart::Down)], 0)?;
        let mlp = Mlp {
            norm,
            gate_up,
            down,
            post_norm: self.post_norm(config, index, LayerPart::PostMlpNorm)?,
            activation: self.blueprint.activation,
            rows: self.options.mlp_rows,
        };
        Ok(DecoderLayer { attention, mlp })
    }

    fn layer_norm(&mut self, index: usize, weight: LayerWeight) -> Result<RmsNorm, ModelError> {
        self.norm(format!("{}.weight", weight.name(index)), weight.rows, 0)
    }

    /// A norm of heads, whose elements lie as those of the heads do.
    fn head_norm(&mut self, index: usize, weight: LayerWeight) -> Result<RmsNorm, ModelError> {
        self.norm(format!("{}.weight", weight.name(index)), weight.rows, 1)
    }

    /// The norm of what attention or MLP add, where the model has it.
    fn post_norm(
        &mut self,
        config: &ModelConfig,
        index: usize,
        part: LayerPart,
    ) -> Result<Option<RmsNorm>, ModelError> {
        match config.sandwich_norms {
            true => self.layer_norm(index, config.layer_weight(part)).map(Some),
            false => Ok(None),
        }
    }

    /// Projections of one input, stacked along their rows. They have the same width, and all have biases
    /// or none has. The first rows are those of `rotated` heads.
    fn projection(
        &mut self,
        index: usize,
        weights: &[LayerWeight],
        rotated: usize,
    ) -> Result<Projection, ModelError> {
        let width = weights[0].columns.unwrap_or_default();
        let biased = weights[0].bias;
        let parts: Vec<Part> = weights.iter().map(|w| (w.name(index), w.rows)).collect();
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let named = |kind: &str, (name, rows): &Part| (format!("{name}.{kind}"), *rows);
        let weights = parts.iter().map(|part| {
            let (name, rows) = named("weight", part);
            (name, [rows, width])
        });
        let weights: Vec<_> = weights.collect();
        let weight = self.parameter(&weights, [rows, width], self.dtype, rotated)?;
        let bias = if biased {
            let biases = parts.iter().map(|part| {
                let (name, rows) = named("bias", part);
                (name, [rows])
            });
            let biases: Vec<_> = biases.collect();
            Some(self.parameter(&biases, [rows], self.dtype, rotated)?)
        } else {
            None
        };
        Ok(Projection { weight, bias })
    }

    /// A norm; its gain is f32 whatever the weights are.
    fn norm(&mut self, name: String, width: usize, rotated: usize) -> Result<RmsNorm, ModelError> {
        let gamma = self.parameter(&[(name, [width])], [width], WeightDtype::F32, rotated)?;
        Ok(RmsNorm {
            gamma,
            eps: self.blueprint.norm_eps,
        })
    }

    /// The parameter that `parts` are stacked into, on the device as `shape`; the rows of its first `rotated` heads in the order of the
    /// model's rotation.
    fn parameter<const D: usize>(
        &mut self,
        parts: &[(String, [usize; D])],
        shape: [usize; D],
        dtype: WeightDtype,
        rotated: usize,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let (device, element) = (self.device, dtype_of(dtype));
        let bytes = |part: &[usize]| part.iter().product::<usize>() * element.size();
        // Weights live as long as the model: out of the pools that forward passes use.
        let tensor = match &mut self.source {
            TensorSource::Host(source) => {
                let mut host = HostTensor::new(dtype, shape.iter().product());
                for (name, part) in parts {
                    source.read(name, part, &mut host)?;
                    self.done.add(name, bytes(part));
                }
                if let Some(order) = self.blueprint.rotation.order().filter(|_| rotated > 0) {
                    host.reorder(rotated, &order, shape[1..].iter().product());
                }
                device.memory_persistent_allocations(host.into_data(shape), |data| {
                    Tensor::from_data(data, (device, element))
                })
            }
            TensorSource::Device(random) => {
                let name = parts.first().map_or("", |(name, _)| name);
                random.skip(1);
                let random = &*random;
                let draw = |()| random.draw(name, shape, element);
                let tensor = device.memory_persistent_allocations((), draw)?;
                for (name, part) in parts {
                    self.done.add(name, bytes(part));
                }
                tensor
            }
        };
        Ok(Param::initialized(ParamId::new(), tensor))
    }
}
