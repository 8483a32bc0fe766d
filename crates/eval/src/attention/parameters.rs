//! Parameters of an attention: which a pattern has, and how one is set.

use serde::de::{DeserializeOwned, value::StrDeserializer};
use sparse_accelerate::{AttentionSettings, Dynamic, Pattern};

/// A parameter as written before `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Sink,
    Window,
    Last,
    Columns,
    Slashes,
    Alpha,
    Recall,
    Correction,
    Choosers,
    DenseLayers,
    ColumnShare,
    SlashShare,
}

use Parameter::*;

impl Parameter {
    /// Those of the settings' pattern.
    pub(super) fn of(settings: &AttentionSettings) -> Vec<Self> {
        let selection = [
            Recall,
            Sink,
            Window,
            Last,
            Correction,
            Choosers,
            DenseLayers,
            ColumnShare,
            SlashShare,
        ];
        if settings.heads.is_some() {
            return selection.to_vec();
        }
        let budgets: &[Self] = match &settings.pattern {
            // Dense by mode or by pattern.
            _ if settings.mode == sparse_accelerate::AttentionMode::Dense => return Vec::new(),
            Pattern::Dense | Pattern::FixedBlocks(_) => return Vec::new(),
            Pattern::Triangular(_) => return vec![Sink, Window, Last],
            Pattern::IntervalSlash(_) => &[Columns, Slashes],
            Pattern::BlockCluster(_) => &[Alpha],
            Pattern::Hybrid(_) | Pattern::Dynamic(_) => &[Columns, Slashes, Alpha],
        };
        [&selection, budgets].concat()
    }

    /// Its name and what may follow.
    fn form(self) -> (&'static str, &'static str) {
        match self {
            Sink => ("sink", "N"),
            Window => ("window", "N"),
            Last => ("last", "N"),
            Columns => ("columns", "N"),
            Slashes => ("slashes", "N"),
            Alpha => ("alpha", "X"),
            Recall => ("recall", "X"),
            Correction => ("correction", "none|mean|gaussian"),
            Choosers => ("choosers", "kv-heads|query-heads"),
            DenseLayers => ("dense_layers", "N"),
            ColumnShare => ("column_share", "X"),
            SlashShare => ("slash_share", "X"),
        }
    }
}

/// `sink=N, window=N or last=N`.
pub(super) fn list(allowed: &[Parameter]) -> String {
    let forms = allowed.iter().map(|parameter| {
        let (name, value) = parameter.form();
        format!("{name}={value}")
    });
    let forms: Vec<String> = forms.collect();
    match forms.split_last() {
        None => "possible here: it takes no parameters".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// Sets `name=value`; `None` if it is not allowed or the value cannot be read.
pub(super) fn set(
    settings: &mut AttentionSettings,
    allowed: &[Parameter],
    part: &str,
) -> Option<()> {
    let (name, value) = part.split_once('=')?;
    let known = |parameter: &&Parameter| parameter.form().0 == name;
    let parameter = *allowed.iter().find(known)?;
    let selection = &mut settings.selection;
    match (parameter, &mut settings.pattern) {
        (Sink, Pattern::Triangular(t)) if settings.heads.is_none() => {
            t.sink = value.parse().ok()?
        }
        (Window, Pattern::Triangular(t)) if settings.heads.is_none() => {
            t.window = value.parse().ok()?;
        }
        (Last, Pattern::Triangular(t)) if settings.heads.is_none() => {
            t.last = value.parse().ok()?
        }
        (Sink, _) => selection.sink = value.parse().ok()?,
        (Window, _) => selection.window = value.parse().ok()?,
        (Last, _) => selection.last = value.parse().ok()?,
        (Recall, _) => selection.recall = value.parse().ok()?,
        (Correction, _) => selection.correction = word(value)?,
        (Choosers, _) => selection.choosers = word(value)?,
        (DenseLayers, _) => selection.dense_layers = value.parse().ok()?,
        (ColumnShare, _) => selection.column_share = value.parse().ok()?,
        (SlashShare, _) => selection.slash_share = value.parse().ok()?,
        (Columns, Pattern::IntervalSlash(lists))
        | (
            Columns,
            Pattern::Hybrid(Dynamic {
                interval_slash: lists,
                ..
            })
            | Pattern::Dynamic(Dynamic {
                interval_slash: lists,
                ..
            }),
        ) => lists.columns = value.parse().ok()?,
        (Slashes, Pattern::IntervalSlash(lists))
        | (
            Slashes,
            Pattern::Hybrid(Dynamic {
                interval_slash: lists,
                ..
            })
            | Pattern::Dynamic(Dynamic {
                interval_slash: lists,
                ..
            }),
        ) => lists.slashes = value.parse().ok()?,
        (Alpha, Pattern::BlockCluster(blocks))
        | (
            Alpha,
            Pattern::Hybrid(Dynamic {
                block_cluster: blocks,
                ..
            })
            | Pattern::Dynamic(Dynamic {
                block_cluster: blocks,
                ..
            }),
        ) => blocks.alpha = value.parse().ok()?,
        // `of` lists these for no other pattern.
        (Columns | Slashes | Alpha, _) => return None,
    }
    Some(())
}

/// A word of a settings file.
fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).ok()
}
