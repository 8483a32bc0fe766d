//! The rotation of a model's positions: how much of a head is rotated, with which frequencies, in a sequence of which length.
//!
//! **A part of a head.** Some models rotate the first `r` of a head's `d` elements, pair `(i, i + r/2)`, and leave the rest as they
//! are. Kernels rotate whole heads, pair `(i, i + d/2)`. So the elements of every head of Q and K are brought into another order at
//! load: the first halves of the rotated pairs, elements that stay, the second halves, elements that stay. The frequencies of those
//! that stay are 0, with cosine 1 and sine 0. This is exact: a score is a sum over the elements of a head, whatever their order, and so is
//! the norm of a head, whose gains are reordered with it. Values, and with them the output projection, keep theirs.
//!
//! **One sequence, one set of frequencies.** LongRoPE and dynamic NTK have frequencies for the length of a sequence. Keys that were
//! rotated two ways cannot be compared, so a sequence has one set from its first chunk to its last new token, chosen by the
//! length it is *planned* for: the capacity of its cache, which is the prompt and the new tokens that may follow. A sequence planned
//! beyond the original length has the long factors even while it is shorter. `transformers` changes sets while a sequence grows,
//! and keeps the keys of before.

use sparse_accelerate_checkpoint::{ModelConfig, RopeScaling};

use crate::frequencies;

/// The rotation of positions, for sequences of every length.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotation {
    /// Base of the frequencies; `None` where nothing is rotated.
    theta: Option<f64>,
    head_dim: usize,
    rotary_dim: usize,
    scaling: Option<RopeScaling>,
}

/// Lengths of sequences that share their frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every length.
    Every,
    /// Up to the original length.
    Original,
    /// Beyond the original length.
    Beyond,
    /// Exactly so many tokens, beyond the original length.
    Tokens(usize),
}

/// The angles of one position a token, and what cosines and sines are multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Angles {
    /// Radians a position for each pair of the head, `[head_dim / 2]`; 0 for pairs that stay.
    pub(crate) frequencies: Vec<f64>,
    /// Factor of cosines and sines of the rotated pairs.
    pub(crate) factor: f64,
    /// Pairs that are rotated: the first ones.
    pub(crate) rotated: usize,
}

impl Rotation {
    /// The rotation of a configuration.
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self {
            theta: Some(config.rope_theta),
            head_dim: config.head_dim,
            rotary_dim: config.rotary_dim,
            scaling: config.rope_scaling.clone(),
        }
    }

    /// The rotation of layers that have one of their own.
    pub(crate) fn local(config: &ModelConfig) -> Self {
        Self {
            theta: Some(config.local_rope_theta),
            scaling: None,
            ..Self::new(config)
        }
    }

    /// No rotation of the same heads.
    pub(crate) fn still(&self) -> Self {
        Self {
            theta: None,
            scaling: None,
            ..self.clone()
        }
    }

    /// The lengths whose frequencies a sequence planned for `tokens` has.
    pub(crate) fn reach(&self, tokens: usize) -> Reach {
        match &self.scaling {
            Some(RopeScaling::LongRope(scaling)) => match tokens > scaling.original_max_positions {
                true => Reach::Beyond,
                false => Reach::Original,
            },
            Some(RopeScaling::Dynamic(scaling)) => match tokens > scaling.original_max_positions {
                true => Reach::Tokens(tokens),
                false => Reach::Original,
            },
            _ => Reach::Every,
        }
    }

    /// The angles of sequences of a reach.
    pub(crate) fn angles(&self, reach: Reach) -> Angles {
        let Some(theta) = self.theta else {
            return Angles {
                frequencies: vec![0.0; self.head_dim / 2],
                factor: 1.0,
                rotated: 0,
            };
        };
        let base = || frequencies::base(theta, self.rotary_dim);
        let (mut frequencies, factor): (Vec<f64>, f64) = match &self.scaling {
            Some(RopeScaling::Linear { factor }) => {
                (base().into_iter().map(|f| f / factor).collect(), 1.0)
            }
            Some(RopeScaling::Llama3(scaling)) => {
                let scaled = base().into_iter().map(|f| frequencies::llama3(f, scaling));
                (scaled.collect(), 1.0)
            }
            Some(RopeScaling::Yarn(scaling)) => {
                let scaled = frequencies::yarn(&base(), theta, scaling);
                (scaled, scaling.attention_factor)
            }
            Some(RopeScaling::LongRope(scaling)) => {
                let (divisors, factor) = match reach {
                    Reach::Beyond => (&scaling.long_factors, scaling.long_attention_factor),
                    _ => (&scaling.short_factors, scaling.short_attention_factor),
                };
                (frequencies::divided(base(), divisors), factor)
            }
            Some(RopeScaling::Dynamic(scaling)) => {
                let tokens = match reach {
                    Reach::Tokens(tokens) => tokens,
                    _ => scaling.original_max_positions,
                };
                let scaled = frequencies::dynamic(theta, self.rotary_dim, scaling, tokens);
                (scaled, 1.0)
            }
            // Whoever adds a scaling to the configuration adds it here.
            _ => (base(), 1.0),
        };
        let rotated = frequencies.len();
        frequencies.resize(self.head_dim / 2, 0.0);
        Angles {
            frequencies,
            factor,
            rotated,
        }
    }

    /// For each element of a head in memory, its place in the checkpoint; `None` where heads are rotated whole.
    pub(crate) fn order(&self) -> Option<Vec<usize>> {
        let (half, pairs) = (self.head_dim / 2, self.rotary_dim / 2);
        (pairs < half).then(|| {
            let first = 0..pairs;
            let stay = self.rotary_dim..half + pairs;
            let second = pairs..self.rotary_dim;
            let rest = half + pairs..self.head_dim;
            first.chain(stay).chain(second).chain(rest).collect()
        })
    }

    /// Base of frequencies `base^(-2 i / head_dim)` that are those of the rotated pairs before scaling.
    pub(crate) fn base_of_whole_heads(&self) -> Option<f64> {
        let share = self.head_dim as f64 / self.rotary_dim as f64;
        self.theta.map(|theta| theta.powf(share))
    }
}

#[cfg(test)]
mod tests {
    use sparse_accelerate_checkpoint::ModelConfig;

    use super::*;

    fn rotation(family: &str, more: &str) -> Rotation {
        let text = format!(
            r#"{{"architectures": ["{family}"], "hidden_size": 64, "intermediate_size": 96,
                "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 16,
                "max_position_embeddings": 512, "head_dim": 32, {more}}}"#
        );
        Rotation::new(&ModelConfig::from_json(&text).expect("sound"))
    }

    #[test]
    fn linear_interpolation_divides_every_frequency() {
        for family in ["LlamaForCausalLM", "Qwen2ForCausalLM"] {
            let angles = |scaling: &str| {
                let rotation = rotation(family, &format!(r#""rope_scaling": {scaling}"#));
                rotation.angles(rotation.reach(4096))
            };
            let plain = angles("null");
            let scaled = angles(r#"{"type": "linear", "factor": 4.0}"#);
            assert_eq!((scaled.frequencies.len(), scaled.factor), (16, 1.0));
            for (got, before) in scaled.frequencies.iter().zip(&plain.frequencies) {
                assert_eq!(got * 4.0, *before);
            }
        }
    }

    #[test]
    fn a_part_of_a_head_is_brought_to_the_front_of_both_halves() {
        let whole = rotation("LlamaForCausalLM", r#""partial_rotary_factor": 1.0"#);
        assert_eq!(whole.order(), None);
        for fraction in [0.125, 0.25, 0.5, 0.75, 0.9375] {
            let more = format!(r#""partial_rotary_factor": {fraction}"#);
            let part = rotation("LlamaForCausalLM", &more);
            let order = part.order().expect("an order");
            let angles = part.angles(part.reach(1));
            let pairs = (16.0 * fraction) as usize;
            assert_eq!((angles.rotated, angles.frequencies.len()), (pairs, 16));
            for pair in 0..16 {
                let partners = (order[pair], order[pair + 16]);
                match pair < pairs {
                    true => assert_eq!(partners, (pair, pair + pairs)),
                    false => assert!(partners.0 >= 2 * pairs && partners.1 >= 2 * pairs),
                }
                assert_eq!(angles.frequencies[pair] == 0.0, pair >= pairs);
            }
            let mut sorted = order;
            sorted.sort_unstable();
            assert_eq!(sorted, (0..32).collect::<Vec<_>>());
            // The base of whole heads gives the same frequencies.
            let base = part.base_of_whole_heads().expect("a base");
            for (pair, frequency) in angles.frequencies[..pairs].iter().enumerate() {
                let other = base.powf(-2.0 * pair as f64 / 32.0);
                assert!((other / frequency - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn layers_may_have_a_base_of_their_own_or_none() {
        let text = r#"{"architectures": ["Gemma3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
            "num_attention_heads": 2, "num_hidden_layers": 6, "vocab_size": 16, "max_position_embeddings": 512,
            "head_dim": 32, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}"#;
        let config = ModelConfig::from_json(text).expect("sound");
        let (main, local) = (Rotation::new(&config), Rotation::local(&config));
        let angles = |rotation: &Rotation| rotation.angles(rotation.reach(9)).frequencies;
        assert_eq!(angles(&main)[4], 1e6f64.powf(-0.25) / 8.0);
        assert_eq!(angles(&local)[4], 1e4f64.powf(-0.25));
        assert_eq!(angles(&main.still()), [0.0; 16]);
        assert_eq!(main.still().base_of_whole_heads(), None);
    }

    #[test]
    fn a_planned_length_decides() {
        let ones = |factor: f64| vec![factor.to_string(); 16].join(", ");
        let long = format!(
            r#""original_max_position_embeddings": 64, "rope_scaling": {{"type": "longrope",
                "short_factor": [{}], "long_factor": [{}], "short_mscale": 1.5}}"#,
            ones(1.0),
            ones(4.0)
        );
        let long = rotation("Phi3ForCausalLM", &long);
        let (short, beyond) = (long.angles(long.reach(64)), long.angles(long.reach(65)));
        assert_eq!(long.reach(65), long.reach(512));
        assert_eq!(short.factor, 1.5);
        assert_eq!(beyond.factor, (1.0 + 8f64.ln() / 64f64.ln()).sqrt());
        for (short, beyond) in short.frequencies.iter().zip(&beyond.frequencies) {
            assert_eq!(short / 4.0, *beyond);
        }
        let ntk = r#""rope_scaling": {"rope_type": "dynamic", "factor": 2.0}"#;
        let ntk = rotation("LlamaForCausalLM", ntk);
        assert_eq!(ntk.reach(512), Reach::Original);
        assert_eq!(ntk.reach(600), Reach::Tokens(600));
        let plain = rotation("LlamaForCausalLM", r#""rope_scaling": null"#);
        assert_eq!(plain.reach(600), Reach::Every);
        assert_eq!(ntk.angles(ntk.reach(9)), plain.angles(plain.reach(9)));
        let grown = ntk.angles(ntk.reach(600)).frequencies;
        assert!(grown[1] < ntk.angles(ntk.reach(513)).frequencies[1]);
    }
}
