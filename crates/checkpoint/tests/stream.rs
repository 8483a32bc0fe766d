//! Streams against the definition: the pieces joined are what decoding all ids at once gives.
//!
//! Two tokenizers: every token bytes, and single bytes among whole words, where one bad byte spoils its run.

mod support;

use proptest::prelude::*;
use serde_json::json;
use sparse_accelerate_checkpoint::Tokenizer;
use support::byte_tokenizer;

const WORDS: [&str; 6] = [
    "a",
    "\u{2581}b",
    "\u{2581}",
    "\u{2581}\u{2581}",
    "\u{65e5}",
    "<0xZZ>",
];
/// Id of the first word after the two special tokens and the bytes.
const FIRST_WORD: u32 = 258;

fn byte(byte: u8) -> u32 {
    2 + u32::from(byte)
}

fn word(text: &str) -> u32 {
    let at = WORDS.iter().position(|word| *word == text);
    FIRST_WORD + at.expect("a word of the list") as u32
}

/// A tokenizer as Llama 2 has it: words, and a token for every byte.
fn fallback() -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = ["<unk>", "</s>"].map(str::to_owned).into_iter();
    let words = WORDS.map(str::to_owned);
    for (id, token) in tokens.chain(bytes).chain(words).enumerate() {
        vocab.insert(token, id.into());
    }
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "added_tokens": [special(0, "<unk>"), special(1, "</s>")],
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                   "vocab": vocab, "merges": [] },
    });
    Tokenizer::from_json(&file.to_string()).expect("sound")
}

fn byte_level() -> Tokenizer {
    Tokenizer::from_json(&byte_tokenizer().to_string()).expect("sound")
}

/// The pieces, with what is held back at the end as the last one; what was pending before each has to be right too.
fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream();
    let mut pieces = Vec::new();
    let mut out = String::new();
    for (at, id) in ids.iter().enumerate() {
        if let Some(piece) = stream.push(*id).expect("decodes") {
            out.push_str(&piece);
            pieces.push(piece);
        }
        if at < 200 {
            let so_far = tokenizer.decode(&ids[..=at], true).expect("decodes");
            assert_eq!(format!("{out}{}", stream.pending()), so_far, "{ids:?}");
        }
    }
    pieces.extend(stream.flush());
    assert_eq!(stream.flush(), None);
    pieces
}

fn agrees(tokenizer: &Tokenizer, ids: &[u32]) {
    let whole = tokenizer.decode(ids, true).expect("decodes");
    assert_eq!(pieces(tokenizer, ids).concat(), whole, "{ids:?}");
}

#[test]
fn text_after_a_bad_byte_is_not_lost() {
    let tokenizer = fallback();
    let ids = [
        word("a"),
        byte(b'\n'),
        byte(0xe5),
        word("a"),
        byte(b'x'),
        byte(b'y'),
        word("\u{2581}b"),
        byte(0xff),
        byte(b'z'),
        word("a"),
    ];
    let expected = "a\u{fffd}\u{fffd}axy b\u{fffd}\u{fffd}a";
    assert_eq!(pieces(&tokenizer, &ids).concat(), expected);
    agrees(&tokenizer, &ids);
}

#[test]
fn a_bad_run_goes_out_as_it_comes_and_a_good_one_when_it_ends() {
    let tokenizer = fallback();
    let mut stream = tokenizer.stream();
    let mut push = |id| stream.push(id).expect("decodes");
    assert_eq!(push(byte(b'\n')), None);
    assert_eq!(push(byte(b'x')), None);
    assert_eq!(push(word("a")).as_deref(), Some("\nxa"));
    assert_eq!(push(byte(0xc3)), None);
    assert_eq!(push(byte(0xa9)), None);
    assert_eq!(
        push(byte(0x80)).as_deref(),
        Some("\u{fffd}\u{fffd}\u{fffd}")
    );
    assert_eq!(push(byte(b'x')).as_deref(), Some("\u{fffd}"));
    assert_eq!(push(byte(0xe5)).as_deref(), Some("\u{fffd}"));
    assert_eq!(push(word("a")).as_deref(), Some("a"));
}

#[test]
fn long_texts_agree() {
    let tokenizer = fallback();
    let mut state = 1u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let mixed: Vec<u32> = (0..3000)
        .map(|_| draw(FIRST_WORD + WORDS.len() as u32))
        .collect();
    agrees(&tokenizer, &mixed);
    let newlines = vec![byte(b'\n'); 3000];
    agrees(&tokenizer, &newlines);
    let mut late = newlines.clone();
    late.push(byte(0xff));
    late.extend(&newlines);
    late.push(word("a"));
    agrees(&tokenizer, &late);
    let random: Vec<u32> = (0..3000).map(|_| draw(258)).collect();
    agrees(&byte_level(), &random);
    let stray: Vec<u32> = (0..3000)
        .map(|at| if at % 3 == 0 { 0xe2 } else { 0xff })
        .collect();
    agrees(&byte_level(), &stray);
    let emoji: Vec<u32> = "\u{1f642}"
        .bytes()
        .cycle()
        .take(3001)
        .map(u32::from)
        .collect();
    let shown = byte_level().token_to_id("\u{f0}").expect("the byte 240");
    assert_eq!(shown, 0xf0, "ids are bytes");
    agrees(&byte_level(), &emoji);
}

proptest! {
    #[test]
    fn streams_agree_with_decoding_at_once(
        ids in prop::collection::vec(prop_oneof![0u32..270, Just(byte(b'\n')), Just(byte(0xc3)), Just(byte(0xa9)), 258u32..264], 0..60),
    ) {
        agrees(&fallback(), &ids);
    }

    #[test]
    fn byte_level_streams_agree(
        ids in prop::collection::vec(prop_oneof![0u32..260, 0xe2u32..0xf5, 0x80u32..0xc0], 0..120),
    ) {
        agrees(&byte_level(), &ids);
    }
}
