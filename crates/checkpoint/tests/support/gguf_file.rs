//! Writes small GGUF files, good and bad ones.
//!
//! Every part can be set by hand: counts that lie, offsets that overlap, types that do not exist. By default offsets are laid out
//! in order and aligned.

/// A metadata value with its type number.
#[derive(Clone)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// Type number and payload, as they stand.
    Raw(u32, Vec<u8>),
}

/// One tensor: name, dims (fastest first), type number, bytes, and an offset when it is not to follow the one before.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) offset: Option<u64>,
}

/// A file to be.
#[derive(Clone)]
pub(crate) struct GgufBuilder {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) metadata: Vec<(String, Meta)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) metadata_count: Option<u64>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

impl Default for GgufBuilder {
    fn default() -> Self {
        let (metadata, tensors) = (Vec::new(), Vec::new());
        Self {
            magic: *b"GGUF",
            version: 3,
            metadata,
            tensors,
            tensor_count: None,
            metadata_count: None,
        }
    }
}

impl GgufBuilder {
    /// Sets a key, in place of what it held before.
    pub(crate) fn set(&mut self, key: &str, value: Meta) -> &mut Self {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Gives a model other tokens with their types, and a table with as many rows.
    pub(crate) fn set_tokens(&mut self, tokens: &[String], types: &[i32]) -> &mut Self {
        let table = "token_embd.weight";
        self.tensors.retain(|tensor| tensor.name != table);
        self.add(
            table,
            &[64, tokens.len() as u64],
            &vec![0.5; 64 * tokens.len()],
        );
        self.set("tokenizer.ggml.tokens", Meta::Texts(tokens.to_vec()));
        self.set("tokenizer.ggml.token_type", Meta::I32s(types.to_vec()))
    }

    /// Adds an f32 tensor.
    pub(crate) fn add(&mut self, name: &str, dims: &[u64], values: &[f32]) -> &mut Self {
        let data = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims: dims.to_vec(),
            kind: 0,
            data,
            offset: None,
        });
        self
    }

    /// Gives a model of one layer as many that are alike, but for the values of their first elements.
    pub(crate) fn set_layers(&mut self, architecture: &str, layers: usize) -> &mut Self {
        let first: Vec<Tensor> = self.tensors.clone();
        let first = first
            .iter()
            .filter(|tensor| tensor.name.starts_with("blk.0."));
        for layer in 1..layers {
            self.tensors.extend(first.clone().map(|tensor| {
                let mut tensor = tensor.clone();
                tensor.name = tensor.name.replacen("blk.0.", &format!("blk.{layer}."), 1);
                tensor.data[..4].copy_from_slice(&(layer as f32).to_le_bytes());
                tensor
            }));
        }
        self.set(
            &format!("{architecture}.block_count"),
            Meta::U32(layers as u32),
        )
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.metadata_count
                .unwrap_or(self.metadata.len() as u64)
                .to_le_bytes(),
        );
        for (key, value) in &self.metadata {
            out.extend(string(key));
            let (kind, payload) = encode(value);
            out.extend(kind.to_le_bytes());
            out.extend(payload);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

fn encode(value: &Meta) -> (u32, Vec<u8>) {
    let array = |kind: u32, count: usize, items: Vec<u8>| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend(items);
        (9, bytes)
    };
    match value {
        Meta::U32(n) => (4, n.to_le_bytes().to_vec()),
        Meta::F32(x) => (6, x.to_le_bytes().to_vec()),
        Meta::Bool(b) => (7, vec![u8::from(*b)]),
        Meta::Text(text) => (8, string(text)),
        Meta::Texts(texts) => array(
            8,
            texts.len(),
            texts.iter().flat_map(|text| string(text)).collect(),
        ),
        Meta::I32s(list) => array(
            5,
            list.len(),
            list.iter().flat_map(|n| n.to_le_bytes()).collect(),
        ),
        Meta::F32s(list) => array(
            6,
            list.len(),
            list.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ),
        Meta::Raw(kind, payload) => (*kind, payload.clone()),
    }
}

/// The 256 characters of the byte-level alphabet, by byte.
pub(crate) fn byte_alphabet() -> Vec<String> {
    let mut extra = 0;
    (0u32..256)
        .map(|byte| {
            let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = if printable {
                byte
            } else {
                extra += 1;
                255 + extra
            };
            char::from_u32(code).map(String::from).unwrap_or_default()
        })
        .collect()
}

/// A complete model of one layer: width 64, two heads of 32, one key head, MLP 96, and a byte-level vocabulary of 260 rows.
/// Values count up, so that every row of every tensor is another. The heads of a Gemma 3 have 64 elements.
pub(crate) fn tiny_model(architecture: &str) -> GgufBuilder {
    let mut gguf = GgufBuilder::default();
    let mut tokens = byte_alphabet();
    let mut types = vec![1; 256];
    for (token, kind) in [
        ("<|start|>", 3),
        ("<|end|>", 3),
        ("<tool>", 4),
        ("[PAD259]", 5),
    ] {
        tokens.push(token.to_owned());
        types.push(kind);
    }
    let key = |name: &str| format!("{architecture}.{name}");
    gguf.set("general.architecture", Meta::Text(architecture.to_owned()));
    for (name, value) in [
        ("block_count", 1),
        ("context_length", 128),
        ("embedding_length", 64),
        ("feed_forward_length", 96),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        gguf.set(&key(name), Meta::U32(value));
    }
    gguf.set(&key("rope.freq_base"), Meta::F32(10_000.0));
    gguf.set(&key("attention.layer_norm_rms_epsilon"), Meta::F32(1e-5));
    if architecture == "phi3" {
        gguf.set("phi3.rope.scaling.original_context_length", Meta::U32(16));
        gguf.set("phi3.rope.dimension_count", Meta::U32(32));
        gguf.set("phi3.attention.sliding_window", Meta::U32(0));
    }
    if architecture == "gemma3" {
        gguf.set("gemma3.attention.key_length", Meta::U32(64));
        gguf.set("gemma3.attention.value_length", Meta::U32(64));
        gguf.set("gemma3.attention.sliding_window", Meta::U32(16));
    }
    gguf.set("tokenizer.ggml.model", Meta::Text("gpt2".to_owned()));
    let rule = match architecture {
        "llama" => "smollm",
        "smollm3" => "smaug-bpe",
        _ => "qwen2",
    };
    gguf.set("tokenizer.ggml.pre", Meta::Text(rule.to_owned()));
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(types));
    gguf.set("tokenizer.ggml.merges", Meta::Texts(Vec::new()));
    gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(256));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(257));
    gguf.set(
        "tokenizer.chat_template",
        Meta::Text("{% for m in messages %}<|start|>{{ m.content }}{% endfor %}".into()),
    );

    let mut next = 0;
    let mut add = |name: &str, dims: &[u64]| {
        let count = dims.iter().product::<u64>() as u32;
        let values: Vec<f32> = (next..next + count).map(|n| n as f32).collect();
        next += count;
        gguf.add(name, dims, &values);
    };
    add("token_embd.weight", &[64, 260]);
    add("output_norm.weight", &[64]);
    let fused = architecture == "phi3";
    let head = if architecture == "gemma3" { 64 } else { 32 };
    let apart: &[(&str, &[u64])] = &[
        ("attn_q", &[64, 2 * head]),
        ("attn_k", &[64, head]),
        ("attn_v", &[64, head]),
        ("ffn_gate", &[64, 96]),
        ("ffn_up", &[64, 96]),
    ];
    let in_one: &[(&str, &[u64])] = &[("attn_qkv", &[64, 128]), ("ffn_up", &[64, 192])];
    let shared: &[(&str, &[u64])] = &[
        ("attn_norm", &[64]),
        ("ffn_norm", &[64]),
        ("attn_output", &[2 * head, 64]),
        ("ffn_down", &[96, 64]),
    ];
    for (part, dims) in shared.iter().chain(if fused { in_one } else { apart }) {
        add(&format!("blk.0.{part}.weight"), dims);
    }
    if matches!(architecture, "gemma3" | "qwen3") {
        add("blk.0.attn_q_norm.weight", &[head]);
        add("blk.0.attn_k_norm.weight", &[head]);
    }
    if architecture == "gemma3" {
        add("blk.0.post_attention_norm.weight", &[64]);
        add("blk.0.post_ffw_norm.weight", &[64]);
    }
    if architecture == "qwen2" {
        add("blk.0.attn_q.bias", &[64]);
        add("blk.0.attn_k.bias", &[32]);
        add("blk.0.attn_v.bias", &[32]);
    }
    gguf
}

/// The same with a SentencePiece vocabulary: unknown, beginning, end, the bytes, and two letters that make a third token.
pub(crate) fn tiny_sentence_piece() -> GgufBuilder {
    sentence_piece_of("llama")
}

/// The same of any architecture.
pub(crate) fn sentence_piece_of(architecture: &str) -> GgufBuilder {
    let mut gguf = tiny_model(architecture);
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["a", "b", "ab"].map(String::from));
    let types = [&[2, 3, 3][..], &[6; 256], &[1; 3]].concat();
    gguf.set_tokens(&tokens, &types);
    let scores = [&[0.0; 259][..], &[-2.0, -3.0, -1.0]].concat();
    gguf.set("tokenizer.ggml.scores", Meta::F32s(scores));
    gguf.set("tokenizer.ggml.model", Meta::Text("llama".into()));
    gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(2));
    gguf
}
