//! Samples: the same for the same seed, exactly as long as asked, with the answer in them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use sparse_accelerate_checkpoint::Tokenizer;
use sparse_accelerate_engine::attention::parse_attentions;
use sparse_accelerate_eval::{
    AnswersPlan, Corpus, EvalError, Format, NEEDLE, Questions, RULER, Sample, Sources, Task, Which,
    parse_tasks,
};
use support::{POSITIONS, corpus, directory, prose, sources, tokenizer};

fn which(length: usize, depth: Option<f64>, sample: usize) -> Which {
    Which {
        length,
        depth,
        sample,
    }
}

/// Every task that needs nothing but the text, at a length of its own.
fn tasks() -> impl Iterator<Item = Task> {
    RULER
        .into_iter()
        .chain(NEEDLE)
        .filter(|task| task.name != "qa")
}

fn text(dir: &sparse_accelerate_checkpoint::ModelDir, sample: &Sample) -> String {
    dir.tokenizer().decode(&sample.ids, false).unwrap()
}

#[test]
fn equal_seeds_give_equal_samples_and_others_do_not() {
    let (_folder, dir) = directory(true);
    let corpus = corpus(&dir, 400);
    let sources = sources(&corpus, &dir);
    for task in tasks() {
        let at = which(4000, None, 0);
        let make = |seed, at: &Which| task.sample(&sources, at, seed).expect(task.name);
        let first = make(7, &at);
        assert_eq!(first, make(7, &at), "{}", task.name);
        for other in [make(8, &at), make(7, &which(4000, None, 1))] {
            assert_ne!(first.ids, other.ids, "{}", task.name);
            assert_ne!(first.seed, other.seed, "{}", task.name);
        }
    }
}

#[test]
fn prompts_are_as_long_as_asked_and_never_longer() {
    let (_folder, dir) = directory(true);
    let corpus = corpus(&dir, 400);
    let sources = sources(&corpus, &dir);
    for task in tasks() {
        for length in [3000, 4000, POSITIONS] {
            if task.name == "cwe" && length == POSITIONS {
                continue; // its lists are longer from 4096 on, and a byte is a token here
            }
            let sample = task.sample(&sources, &which(length, None, 0), 3);
            let sample = sample.expect(task.name);
            let room = length - task.max_tokens;
            // One more unit would not fit: a word, a line of noise, a needle, three entries of a list.
            let unit = match task.name {
                "niah_single_1" | "vt" => 100,
                "niah_multikey_2" => 110,
                "niah_multikey_3" => 140,
                "cwe" => 30,
                "fwe" => 40,
                _ => 20,
            };
            let got = sample.ids.len();
            assert!(
                got <= room && got + unit > room,
                "{} {length}: {got}",
                task.name
            );
        }
    }
}

#[test]
fn what_is_expected_is_in_the_prompt_and_the_answer_is_begun() {
    let (_folder, dir) = directory(true);
    let corpus = corpus(&dir, 400);
    let sources = sources(&corpus, &dir);
    for task in tasks() {
        let sample = task.sample(&sources, &which(4000, None, 2), 5).unwrap();
        let text = text(&dir, &sample);
        for expected in &sample.expected {
            assert!(text.contains(expected), "{}: {expected}", task.name);
        }
        let (question, answer) = text.rsplit_once(']').expect("the template's end");
        assert!(question.starts_with('['), "{}", task.name);
        assert!(!answer.starts_with(' ') && answer.len() > 10, "{answer}");
        let counts = match task.name {
            "niah_multivalue" | "niah_multiquery" | "needle_multivalue" => 4,
            "vt" => 5,
            "cwe" => 10,
            "fwe" => 3,
            _ => 1,
        };
        assert_eq!(sample.expected.len(), counts, "{}", task.name);
    }
}

#[test]
fn a_needle_stands_between_sentences_at_its_depth() {
    let (_folder, dir) = directory(false);
    let corpus = corpus(&dir, 400);
    let sources = sources(&corpus, &dir);
    for depth in [0.0, 0.25, 0.5, 1.0] {
        let at = which(6000, Some(depth), 0);
        let sample = NEEDLE[0].sample(&sources, &at, 11).unwrap();
        assert_eq!(sample.depth, Some(depth));
        let text = text(&dir, &sample);
        let start = text.find("afterwards.\n").unwrap() + 12;
        let end = text.rfind("\nWhat is the special magic number").unwrap();
        let needle = text[start..].find("One of the special").unwrap();
        let found = needle as f64 / (end - start) as f64;
        assert!((found - depth).abs() < 0.03, "{depth}: at {found}");
        let before = text[..start + needle].trim_end();
        assert!(
            before.ends_with('.'),
            "{depth}: after {:?}",
            &before[before.len() - 20..]
        );
        assert!(text.contains(&format!("is: {}. ", sample.expected[0])) || depth == 1.0);
    }
}

#[test]
fn no_other_needle_has_the_key_that_is_asked_for() {
    let (_folder, dir) = directory(false);
    let corpus = corpus(&dir, 10);
    let sources = sources(&corpus, &dir);
    let task = parse_tasks("niah_multikey_2", &RULER).unwrap()[0];
    for seed in 0..20 {
        let sample = task.sample(&sources, &which(8000, None, 0), seed).unwrap();
        let text = text(&dir, &sample);
        let (_, asked) = text.rsplit_once("magic number for ").unwrap();
        let key = asked.split(' ').next().unwrap();
        assert_eq!(text.matches(&format!("for {key} is: ")).count(), 1, "{key}");
    }
}

#[test]
fn the_most_frequent_coded_words_are_those_expected() {
    let (_folder, dir) = directory(false);
    let corpus = corpus(&dir, 10);
    let task = parse_tasks("fwe", &RULER).unwrap()[0];
    let sample = task
        .sample(&sources(&corpus, &dir), &which(6000, None, 0), 1)
        .unwrap();
    let text = text(&dir, &sample);
    let mut counts = std::collections::HashMap::new();
    for word in text.split(' ').filter(|word| word.len() == 6) {
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| -count);
    let top: Vec<&str> = counts[..3].iter().map(|(word, _)| *word).collect();
    assert_eq!(top, sample.expected);
    assert!(counts[2].1 > counts[3].1, "{counts:?}");
}

#[test]
fn a_text_too_short_says_both_numbers() {
    let (_folder, dir) = directory(false);
    let corpus = corpus(&dir, 40);
    let have = corpus.ids().len();
    let sources = sources(&corpus, &dir);
    let error = NEEDLE[0]
        .sample(&sources, &which(6000, Some(0.5), 0), 1)
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("has {have} tokens")), "{text}");
    assert!(text.contains("length 6000"), "{text}");
    // A text just long enough is used from its beginning.
    let enough = have + 200;
    let sample = NEEDLE[0].sample(&sources, &which(enough, Some(0.5), 0), 1);
    assert!(sample.is_ok(), "{sample:?}");
    let cwe = parse_tasks("cwe", &RULER).unwrap()[0];
    let error = cwe.sample(&sources, &which(4000, None, 0), 1).unwrap_err();
    assert!(matches!(error, EvalError::TooFewWords { .. }), "{error}");
}

#[test]
fn a_length_too_short_for_a_task_says_the_least() {
    let (_folder, dir) = directory(false);
    let corpus = corpus(&dir, 400);
    let error = NEEDLE[0]
        .sample(&sources(&corpus, &dir), &which(100, None, 0), 1)
        .unwrap_err();
    let EvalError::TooShort { least, .. } = error else {
        panic!("{error}");
    };
    let at = which(least + 40, None, 0);
    assert!(NEEDLE[0].sample(&sources(&corpus, &dir), &at, 1).is_ok());
}

#[test]
fn plans_refuse_what_cannot_be_asked() {
    let (_folder, dir) = directory(false);
    let corpus = corpus(&dir, 400);
    let sources = sources(&corpus, &dir);
    let plan = AnswersPlan {
        attentions: parse_attentions("dense").unwrap(),
        tasks: NEEDLE.to_vec(),
        lengths: vec![2048, 4096],
        depths: vec![0.5],
        samples: 1,
        seed: 0,
    };
    assert!(plan.check(&sources, POSITIONS).is_ok());
    let long = plan.check(&sources, 4095).unwrap_err().to_string();
    assert!(
        long.contains("4096") && long.contains("4095 positions"),
        "{long}"
    );
    let with = |change: fn(&mut AnswersPlan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        plan.check(&sources, POSITIONS).unwrap_err().to_string()
    };
    assert!(with(|plan| plan.samples = 0).contains("samples is 0"));
    assert!(with(|plan| plan.depths = vec![1.5]).contains("depths is 1.5"));
    let unknown = parse_tasks("vt,niah", &RULER).unwrap_err().to_string();
    assert!(
        unknown.contains("`niah`") && unknown.contains("niah_single_1"),
        "{unknown}"
    );
}

#[test]
fn a_tokenizer_that_rewrites_the_text_is_refused_with_the_place() {
    let lower = Tokenizer::from_json(&tokenizer(r#"{"type": "Lowercase"}"#)).unwrap();
    let error = Corpus::new("notes", "ab é Cd", &lower).unwrap_err();
    let EvalError::RoundTrip { byte, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*byte, 6);
    assert!(
        error.to_string().contains("\"Cd\" there, \"cd\" back"),
        "{error}"
    );
    assert!(Corpus::new("notes", "ab é cd", &lower).is_ok());
}

#[test]
fn questions_come_from_a_file_and_only_from_there() {
    let (folder, dir) = directory(false);
    let corpus = corpus(&dir, 10);
    let qa = parse_tasks("qa", &RULER).unwrap()[0];
    let none = qa
        .sample(&sources(&corpus, &dir), &which(2000, None, 0), 1)
        .unwrap_err();
    assert!(
        none.field() == Some("questions") && none.to_string().contains("no questions were given"),
        "{none}"
    );

    let path = folder.path().join("questions.jsonl");
    let line = |i: usize| {
        format!(
            "{{\"document\": \"{}\", \"question\": \"Who wrote book {i}?\", \"answers\": [\"Author {i}\"]}}\n",
            format!("Book {i} is by Author {i}. ").repeat(10).trim_end()
        )
    };
    fs::write(&path, (0..30).map(line).collect::<String>()).unwrap();
    let questions = Questions::read(&path).unwrap();
    let sources = Sources {
        questions: Some(&questions),
        ..sources(&corpus, &dir)
    };
    let sample = qa.sample(&sources, &which(3000, None, 0), 1).unwrap();
    let text = text(&dir, &sample);
    assert!(text.contains("Document 1:\nBook"), "{text}");
    assert!(text.contains(&format!("is by {}.", sample.expected[0])));
    assert!(text.ends_with("Answer:"));
    let error = qa.sample(&sources, &which(20_000, None, 0), 1).unwrap_err();
    assert!(matches!(error, EvalError::TextTooShort { .. }), "{error}");

    fs::write(&path, format!("{}{{\"document\": 1}}\n", line(0))).unwrap();
    let error = Questions::read(&path).unwrap_err();
    assert!(
        matches!(error, EvalError::Questions { line: 2, .. }),
        "{error}"
    );
}

#[test]
fn raw_and_chat_prompts_differ_by_the_template() {
    let (_folder, dir) = directory(true);
    let decode = |ids: Vec<u32>| dir.tokenizer().decode(&ids, false).unwrap();
    assert_eq!(
        decode(Format::new(&dir, false).message("hi").unwrap()),
        "[hi]"
    );
    assert_eq!(decode(Format::new(&dir, true).message("hi").unwrap()), "hi");
    assert!(
        prose(2).contains('”'),
        "bytes that are no ASCII are part of the tests"
    );
}

#[test]
fn an_answer_of_several_values_may_take_several_lines() {
    let (_folder, dir) = directory(true);
    let corpus = corpus(&dir, 400);
    let sources = sources(&corpus, &dir);
    for task in NEEDLE {
        let sample = task.sample(&sources, &which(4000, None, 0), 7).unwrap();
        let one = sample.expected.len() == 1;
        assert_eq!(task.stop.contains(&"\n"), one, "{}", task.name);
    }
}
