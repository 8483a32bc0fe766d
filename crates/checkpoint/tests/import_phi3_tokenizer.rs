//! Importing GGUF: the tokenizers of Phi-3 and Phi-4-mini, and that of Phi-4, which is refused.

mod support;

use support::gguf_file::{Meta, sentence_piece_of, tiny_model};
use support::import::{F32, imported, refused};

#[test]
fn the_tokenizer_of_phi_4_is_refused_with_the_way_out() {
    let mut gguf = tiny_model("phi3");
    gguf.set("tokenizer.ggml.pre", Meta::Text("dbrx".into()));
    let error = refused(&gguf).to_string();
    assert!(
        error.contains("dbrx") && error.contains("Hugging Face directory"),
        "{error}"
    );
}

#[test]
fn that_of_phi_4_mini_ends_turns_with_a_token_of_its_own() {
    let mut gguf = tiny_model("phi3");
    gguf.set("tokenizer.ggml.pre", Meta::Text("gpt-4o".into()));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(256));
    let (_dir, model) = imported(&gguf, &F32);
    assert_eq!(model.generation().eos, [256]);
    gguf.set(
        "tokenizer.chat_template",
        Meta::Text("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}".into()),
    );
    let (_dir, model) = imported(&gguf, &F32);
    assert_eq!(model.generation().eos, [256, 257]);
}

#[test]
fn its_marks_take_blanks_after_them_along() {
    let ids = |architecture: &str, end: i32| {
        let mut gguf = sentence_piece_of(architecture);
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend(["\u{2581}", "a", "\u{2581}a"].map(String::from));
        tokens.extend(["<|endoftext|>", "<|user|>", "<|other|>"].map(String::from));
        let types = [&[2, 3, end][..], &[6; 256], &[1; 3], &[3; 3]].concat();
        gguf.set_tokens(&tokens, &types);
        let scores = [&[0.0; 259][..], &[-2.0, -3.0, -1.0], &[0.0; 3]].concat();
        gguf.set("tokenizer.ggml.scores", Meta::F32s(scores));
        gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
        let (_dir, model) = imported(&gguf, &F32);
        let texts = [
            "<|user|>\n a",
            "</s> \na",
            "<s>\na",
            "<|endoftext|>\na",
            "<|other|>\na",
        ];
        texts.map(|text| model.tokenizer().encode(text, true).expect("encodes"))
    };
    // A blank in front of every stretch of text, then the line end as a byte and the letter.
    let kept = |mark: u32| vec![mark, 259, 3 + 10, 260];
    let bare = |mark: u32| vec![mark, 261];
    let [user, end, begin, text, other] = ids("phi3", 4);
    assert_eq!((user, end), (bare(263), bare(2)));
    assert_eq!(
        [begin, text, other],
        [kept(1), kept(262), kept(264)],
        "others keep them"
    );
    // Releases whose `</s>` is special, and other families.
    for (architecture, end) in [("phi3", 3), ("llama", 4)] {
        let [user, _, begin, ..] = ids(architecture, end);
        assert_eq!(user, vec![263, 259, 3 + 10, 261], "{architecture}");
        assert_eq!(begin, kept(1));
    }
}
