//! Metadata above the tables of a run: its origin, and the command that repeats it.

use crate::{record::WeightSource, run::Run};

/// Name and value of every metadata entry.
pub(super) fn metadata(run: &Run) -> Vec<(&'static str, String)> {
    let header = &run.header;
    let mut metadata = Vec::new();
    if let Some(model) = &header.model {
        let weights = match model.weights {
            WeightSource::Checkpoint => "weights of a checkpoint".to_string(),
            WeightSource::Random => "RANDOM WEIGHTS: times and memory mean something, answers and \
                                     errors do not"
                .to_string(),
        };
        let billions = model.parameters as f64 / 1e9;
        let text = format!(
            "{}, {billions:.3} billion parameters, {weights}",
            model.name
        );
        metadata.push(("model", text));
        if let Some(hash) = &model.hash {
            metadata.push(("SHA-256 of the model", hash.clone()));
        }
    }
    metadata.push(("device", header.device.clone()));
    let computed = match header.chunk {
        0 => format!("{}, a whole prompt at a time", header.dtype),
        chunk => format!("{}, {chunk} prompt tokens at a time", header.dtype),
    };
    metadata.push(("computed in", computed));
    metadata.push(("started", header.started.clone()));
    let commit = header.commit.as_deref().unwrap_or("of an unknown commit");
    metadata.push((
        "program",
        format!("sparse-accelerate {} ({commit})", header.version),
    ));
    metadata.push(("seed", header.seed.to_string()));
    metadata.push(("again with", command(&header.arguments)));
    metadata
}

/// The command line, quoted where a shell needs it.
fn command(arguments: &[String]) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(safe) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let words: Vec<String> = arguments.iter().map(quote).collect();
    format!("sparse-accelerate {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn arguments_are_quoted_for_a_shell() {
        let words = ["bench", "it's", "a b", "8k=0.5", ""].map(String::from);
        let expected = r"sparse-accelerate bench 'it'\''s' 'a b' 8k=0.5 ''";
        assert_eq!(super::command(&words), expected);
    }
}
