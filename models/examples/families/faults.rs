//! Faults that users of such programs reported: each kind, what happens here, and the test that holds it.

/// A kind of fault.
pub(crate) struct Fault {
    kind: &'static str,
    happens: &'static str,
    /// File of the repository, and the test in it.
    pub(crate) test: (&'static str, &'static str),
}

const fn fault(
    kind: &'static str,
    happens: &'static str,
    file: &'static str,
    test: &'static str,
) -> Fault {
    Fault {
        kind,
        happens,
        test: (file, test),
    }
}

const CHAT: &str = "crates/checkpoint/tests/chat.rs";
const CONFIG: &str = "crates/checkpoint/tests/config.rs";
const FILES: &str = "crates/checkpoint/tests/text_files.rs";
const GGUF: &str = "crates/checkpoint/tests/gguf.rs";
const IMPORT: &str = "crates/checkpoint/tests/import.rs";
const PUBLISHED: &str = "crates/checkpoint/tests/published.rs";
const ROPE: &str = "crates/checkpoint/tests/import_rope.rs";
const STREAM: &str = "crates/checkpoint/tests/stream.rs";
const VALUES: &str = "crates/checkpoint/tests/config_values.rs";
const WEIGHTS: &str = "crates/checkpoint/tests/weights.rs";
const WINDOW: &str = "crates/checkpoint/tests/config_window.rs";

/// Every kind.
pub(crate) const FAULTS: &[Fault] = &[
    fault(
        "streams of byte tokens lose text after an invalid byte",
        "the text is that of all ids decoded at once, over 3,000 ids too",
        STREAM,
        "long_texts_agree",
    ),
    fault(
        "stop strings in such a stream",
        "are found before the run of bytes ends",
        "crates/engine/src/stop.rs",
        "a_text_that_is_not_certain_may_end_it",
    ),
    fault(
        "a declared position scaling is not applied",
        "applied in every family, wherever it stands",
        VALUES,
        "rotary_fields_are_found_in_every_place",
    ),
    fault(
        "a position scaling of a GGUF file is dropped",
        "imported under each of its names",
        ROPE,
        "linear_interpolation_comes_under_each_of_its_names",
    ),
    fault(
        "an attention factor of a GGUF file without YaRN is dropped",
        "refused by its key",
        ROPE,
        "an_attention_factor_without_yarn_is_refused",
    ),
    fault(
        "a position scaling that does nothing is refused",
        "the model runs",
        VALUES,
        "a_scaling_that_does_nothing_is_none",
    ),
    fault(
        "`{% generation %}` in a chat template",
        "prints what it holds",
        CHAT,
        "generation_tags_print_what_they_hold",
    ),
    fault(
        "a broken or absent template stops commands that use none",
        "an error for chats alone",
        FILES,
        "a_broken_template_is_an_error_of_who_uses_it",
    ),
    fault(
        "pad, unk, sep, cls tokens are no variables of a template",
        "they are, from either file",
        FILES,
        "special_tokens_of_either_file_are_variables",
    ),
    fault(
        "CRLF in a template",
        "read as LF",
        CHAT,
        "line_ends_are_those_of_jinja",
    ),
    fault(
        "added tokens that only the files beside tokenizer.json know",
        "one token each",
        FILES,
        "tokens_that_only_other_files_know_are_single_tokens",
    ),
    fault(
        "special tokens that are named there without an id",
        "take the next ids, as in `transformers`; a note where the table has no row for them",
        FILES,
        "a_special_token_without_an_id_takes_the_next_one",
    ),
    fault(
        "a stop string that is or holds a special token",
        "found, never shown",
        "crates/engine/src/stop.rs",
        "special_tokens_are_found_and_never_shown",
    ),
    fault(
        "an end token that only the tokenizer or the template knows",
        "ends a text",
        FILES,
        "every_end_token_ends_a_text",
    ),
    fault(
        "`inspect` of GGUF formats that cannot be run",
        "listed and marked",
        GGUF,
        "formats_that_cannot_be_run_are_listed_and_marked",
    ),
    fault(
        "`inspect` of a big-endian GGUF file",
        "listed and marked",
        GGUF,
        "a_big_endian_file_is_listed_as_such",
    ),
    fault(
        "tokenizer ids past the embedding that no text gives",
        "a note",
        PUBLISHED,
        "tokens_past_the_table_that_no_text_gives_are_noted",
    ),
    fault(
        "windows switched on where no layer has one",
        "full attention",
        WINDOW,
        "a_window_that_no_layer_has_is_none",
    ),
    fault(
        "a tied model saved with `lm_head.weight` alone",
        "the model runs",
        WEIGHTS,
        "a_tied_model_may_hold_its_table_as_the_head",
    ),
    fault(
        "`Infinity` and `NaN` in config.json",
        "read; an error with the field where one is used",
        CONFIG,
        "words_that_python_writes_are_read",
    ),
    fault(
        "tensor names without `model.` or with a wrapper's prefix",
        "found",
        WEIGHTS,
        "names_with_another_prefix_are_those_of_the_classes",
    ),
    fault(
        "the first Llama files' spelling",
        "read",
        CONFIG,
        "the_first_llama_files_are_read",
    ),
    fault(
        "a Git LFS pointer in place of a file",
        "named, with what to do",
        PUBLISHED,
        "a_pointer_in_place_of_a_file_is_named",
    ),
    fault(
        "a GGUF file with biases on Q, K, V alone",
        "imported, zeros for the others",
        IMPORT,
        "biases_that_no_layer_of_a_llama_has_are_zero",
    ),
    fault(
        "generation_config.json values that mean off (`top_k` -1, `top_p` 0, `eos_token_id` -1, NaN)",
        "a note, and flags count",
        VALUES,
        "sampling_defaults_that_mean_off_are_noted",
    ),
    fault(
        "`--sink`, `--window` of 2^63 and more",
        "as far as the sequence reaches",
        "crates/cli/tests/selection.rs",
        "sinks_and_windows_of_any_size_end_with_the_sequence",
    ),
];

/// The section of the page.
pub(crate) fn section() -> String {
    let mut text =
        "## Faults reported by users, and what happens\n\n| fault | here | test |\n| --- | --- | --- |\n"
            .to_owned();
    for Fault {
        kind,
        happens,
        test: (file, test),
    } in FAULTS
    {
        let file = file.rsplit('/').next().unwrap_or(file);
        text += &format!("| {kind} | {happens} | `{file}`: `{test}` |\n");
    }
    text
}
