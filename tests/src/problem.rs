//! Attention problems: shapes, seeded inputs, and how they are laid out for a backend.

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparse_accelerate::{AttentionPlan, AttentionSettings, Heads, Span, Visible};

/// Memory order in which a tensor reaches the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[B, H, N, d]` in this order.
    Contiguous,
    /// `[B, N, H, d]` in memory, swapped: what a projection gives.
    Swapped,
}

/// One problem; the inputs follow from it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Element type of query, key and value.
    pub dtype: DType,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Head dimension.
    pub head_dim: usize,
    /// The sequences.
    pub spans: Vec<Span>,
    /// Cache tokens beyond the longest sequence, filled with NaN.
    pub slack: usize,
    /// Standard deviation of the inputs' logits grows with its square.
    pub magnitude: f32,
    /// Layout of the query.
    pub layout: Layout,
    /// Keys that a row sees, its own included; `None` for all up to its own.
    pub window: Option<u32>,
}

/// Inputs rounded to the problem's type, as f32 values in `[B, H, N, d]` order.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// `[B, Hq, N, d]`.
    pub query: Vec<f32>,
    /// `[B, Hk, S, d]`, NaN past each sequence's `kv_len`.
    pub key: Vec<f32>,
    /// `[B, Hk, S, d]`, NaN past each sequence's `kv_len`.
    pub value: Vec<f32>,
}

impl Problem {
    /// One whole prompt, contiguous, of moderate magnitude.
    pub fn whole(dtype: DType, [heads, kv_heads, head_dim]: [usize; 3], len: usize) -> Self {
        Self {
            dtype,
            heads,
            kv_heads,
            head_dim,
            spans: vec![Span::whole(len)],
            slack: 0,
            magnitude: 1.0,
            layout: Layout::Contiguous,
            window: None,
        }
    }

    /// A ragged batch of (query rows, keys), one pair a sequence, in a cache of 5 tokens more. Every prompt
    /// ends with its keys.
    pub fn ragged(dtype: DType, heads: [usize; 3], spans: &[(usize, usize)]) -> Self {
        Self::batch(dtype, heads, spans, 5, |kv_len| kv_len)
    }

    /// A ragged batch of (query rows, keys), one pair a sequence, in a cache of 3 tokens more. Prompts end
    /// 20 tokens before the keys do.
    pub fn decoding(dtype: DType, heads: [usize; 3], spans: &[(usize, usize)]) -> Self {
        let prompt_len = |kv_len: usize| kv_len.saturating_sub(20).max(1);
        Self::batch(dtype, heads, spans, 3, prompt_len)
    }

    fn batch(
        dtype: DType,
        heads: [usize; 3],
        spans: &[(usize, usize)],
        slack: usize,
        prompt_len: impl Fn(usize) -> usize,
    ) -> Self {
        let span = |&(query_len, kv_len): &(usize, usize)| Span {
            query_len,
            kv_len,
            prompt_len: prompt_len(kv_len),
        };
        Self {
            spans: spans.iter().map(span).collect(),
            slack,
            ..Self::whole(dtype, heads, 1)
        }
    }

    /// The heads, as a plan takes them.
    pub fn model_heads(&self) -> Heads {
        Heads::new(self.heads, self.kv_heads, self.head_dim)
    }

    /// The keys that rows may see.
    pub fn visible(&self) -> Visible {
        self.window
            .map_or(Visible::Causal, |keys| Visible::Window(keys as usize))
    }

    /// The plan of the sequences under some settings and the problem's window.
    ///
    /// # Panics
    /// If the settings are refused.
    pub fn plan(&self, settings: &AttentionSettings, device: &Device) -> AttentionPlan {
        let (heads, visible) = (self.model_heads(), self.visible());
        AttentionPlan::new(settings, &self.spans, heads, visible, device).expect("plan")
    }

    /// Returns true where the window shows row `i` of a sequence key `j`.
    pub fn in_window(&self, sequence: usize, i: usize, j: usize) -> bool {
        let position = self.spans[sequence].offset() + i;
        self.window.is_none_or(|keys| j + keys as usize > position)
    }

    /// Query rows of the longest sequence.
    pub fn rows(&self) -> usize {
        self.spans.iter().map(|s| s.query_len).max().unwrap_or(0)
    }

    /// Cache length.
    pub fn keys(&self) -> usize {
        self.spans.iter().map(|s| s.kv_len).max().unwrap_or(0) + self.slack
    }

    /// Query `[B, Hq, N, d]`.
    pub fn query_dims(&self) -> [usize; 4] {
        [self.spans.len(), self.heads, self.rows(), self.head_dim]
    }

    /// Key and value `[B, Hk, S, d]`.
    pub fn key_dims(&self) -> [usize; 4] {
        [self.spans.len(), self.kv_heads, self.keys(), self.head_dim]
    }

    /// Seeded inputs.
    pub fn inputs(&self, seed: u64) -> Inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = |dims: [usize; 4], live: &dyn Fn(usize, usize) -> bool| {
            let [b, h, n, d] = dims;
            let mut out = Vec::with_capacity(b * h * n * d);
            for sequence in 0..b {
                for _ in 0..h {
                    for row in 0..n {
                        for _ in 0..d {
                            // Irwin-Hall of 12: mean 0, variance 1.
                            let x: f32 = (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
                            let x = if live(sequence, row) {
                                x * self.magnitude
                            } else {
                                f32::NAN
                            };
                            out.push(round(x, self.dtype));
                        }
                    }
                }
            }
            out
        };
        let cached = |b: usize, row: usize| row < self.spans[b].kv_len;
        Inputs {
            query: normal(self.query_dims(), &|b, row| row < self.spans[b].query_len),
            key: normal(self.key_dims(), &cached),
            value: normal(self.key_dims(), &cached),
        }
    }

    /// A `[B, H, N, d]` tensor on a device, in the wanted memory order.
    pub fn tensor(
        &self,
        values: &[f32],
        dims: [usize; 4],
        layout: Layout,
        device: &Device,
    ) -> Tensor<4> {
        let [b, h, n, d] = dims;
        match layout {
            Layout::Contiguous => self.upload(values.to_vec(), dims, device),
            Layout::Swapped => {
                let mut swapped = Vec::with_capacity(values.len());
                for sequence in 0..b {
                    for row in 0..n {
                        for head in 0..h {
                            let at = ((sequence * h + head) * n + row) * d;
                            swapped.extend_from_slice(&values[at..at + d]);
                        }
                    }
                }
                self.upload(swapped, [b, n, h, d], device).swap_dims(1, 2)
            }
        }
    }

    fn upload(&self, values: Vec<f32>, dims: [usize; 4], device: &Device) -> Tensor<4> {
        let data = TensorData::new(values, dims).convert_dtype(self.dtype);
        Tensor::from_data(data, (device, self.dtype))
    }
}

/// `x` in the given type, widened again.
pub fn round(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Reads a tensor back as f32 values, in row-major order.
///
/// # Panics
/// If the data cannot be converted to f32.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("f32 data")
}
