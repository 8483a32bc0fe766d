use sparse_accelerate_checkpoint::*;
fn main() {
    let m = ModelDir::open("/work/main/.data/models/smollm2-135m-instruct-f32").unwrap();
    let v: Vec<(String, Vec<u32>)> =
        serde_json::from_str(&std::fs::read_to_string("/tmp/ck_ids.json").unwrap()).unwrap();
    let mut n = 0;
    for (s, ids) in &v {
        assert_eq!(&m.tokenizer().encode(s, true).unwrap(), ids, "{s:?}");
        let mut st = m.tokenizer().stream();
        let mut out = String::new();
        for id in ids {
            out.extend(st.push(*id).unwrap());
        }
        out.extend(st.flush());
        assert_eq!(out, m.tokenizer().decode(ids, true).unwrap());
        n += 1;
    }
    println!("rust ids equal {n}; {:?} {:?}", m.config(), m.generation());
    let t = m.chat_template().unwrap();
    print!(
        "{}",
        t.render(&[ChatMessage::new("user", "Hi <b> 'x'\n")], true)
            .unwrap()
    );
    println!("=====");
    print!(
        "{}",
        t.render(
            &[
                ChatMessage::new("system", "S"),
                ChatMessage::new("user", "U"),
                ChatMessage::new("assistant", "A")
            ],
            false
        )
        .unwrap()
    );
    let start = std::time::Instant::now();
    let mut w = m.weights().unwrap();
    for (n, s) in m.config().expected_tensors() {
        assert!(!w.take(&n, &s).unwrap().has_non_finite());
    }
    w.finish().unwrap();
    println!("walk {:?}", start.elapsed());
}
