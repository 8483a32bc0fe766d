//! Chat templates as the reference renders them: its tags, filters and functions, special tokens, line ends, order of maps, and a
//! budget of work.

mod support;

use sparse_accelerate_checkpoint::{ChatDate, ChatMessage, ChatTemplate, TextError};

fn render(template: &str) -> Result<String, TextError> {
    let tokens = [("bos_token", "<s>"), ("pad_token", "<pad>")];
    let messages = [
        ChatMessage::new("user", "say \"hi\" to <b>Tom & 'Ann'</b>, caf\u{e9}\n"),
        ChatMessage::new("assistant", "yo"),
    ];
    ChatTemplate::new(template, tokens.into_iter().collect())?.render(
        &messages,
        true,
        ChatDate::Fixed,
    )
}

fn rendered(template: &str) -> String {
    render(template).unwrap_or_else(|error| panic!("{template}: {error}"))
}

#[test]
fn generation_tags_print_what_they_hold() {
    let template = "{% for m in messages %}\n{{ m.role }}:\n  {% if m.role == 'assistant' %}\n  {%- generation %}\n{{ m.content }}\n  \
                    {% endgeneration -%}\n  {% endif %}\n{% endfor %}\n";
    assert_eq!(rendered(template), "user:\nassistant:\nyo\n");
    let scoped = "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}";
    assert_eq!(rendered(scoped), "21");
    let error = render("{% generation %}a").expect_err("never closed");
    assert!(matches!(error, TextError::TemplateSyntax { .. }), "{error}");
}

#[test]
fn line_ends_are_those_of_jinja() {
    let template = "{% for m in messages %}\r\n[{{ m.role }}]\r\n{% endfor %}\r\nend\r\n";
    assert_eq!(rendered(template), "[user]\n[assistant]\nend");
    assert_eq!(rendered("a\rb{{ 'c\r\nd' }}{{ '\\r\\n' }}"), "a\nbc\nd\r\n");
}

#[test]
fn blocks_are_trimmed() {
    assert_eq!(
        rendered("  {% if true %}\n  a\n  {% endif %}\nb\n\n"),
        "  a\nb\n"
    );
    assert_eq!(rendered("x  {% if true %}\na{% endif %}"), "x  a");
    assert_eq!(rendered("  {%+ if true %}a{% endif %}"), "  a");
}

#[test]
fn json_is_that_of_python() {
    for (expression, expected) in [
        (
            "messages[0]",
            "{\"role\": \"user\", \"content\": \"say \\\"hi\\\" to <b>Tom & 'Ann'</b>, caf\u{e9}\\n\"}",
        ),
        (
            "{'b': 1, 'a': [1, 2.5, true, none], 'c': {}}",
            "{\"b\": 1, \"a\": [1, 2.5, true, null], \"c\": {}}",
        ),
        (
            "{2: [], none: 0, true: 1.0}",
            "{\"2\": [], \"null\": 0, \"true\": 1.0}",
        ),
        ("'\\x08\\x0c\\t/\\x01\\x7f'", "\"\\b\\f\\t/\\u0001\u{7f}\""),
        (
            "[1e16, 0.00001, 123456789012345680.0, 0.1]",
            "[1e+16, 1e-05, 1.2345678901234568e+17, 0.1]",
        ),
    ] {
        assert_eq!(
            rendered(&format!("{{{{ {expression}|tojson }}}}")),
            expected
        );
    }
    for (arguments, expected) in [
        (
            "indent=2",
            "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": \"\u{e9}\u{1f642}\"\n}",
        ),
        (
            "indent='--'",
            "{\n--\"b\": [\n----1,\n----{}\n--],\n--\"a\": \"\u{e9}\u{1f642}\"\n}",
        ),
        ("true", "{\"b\": [1, {}], \"a\": \"\\u00e9\\ud83d\\ude42\"}"),
        (
            "ensure_ascii=true",
            "{\"b\": [1, {}], \"a\": \"\\u00e9\\ud83d\\ude42\"}",
        ),
        (
            "separators=(',', ':')",
            "{\"b\":[1,{}],\"a\":\"\u{e9}\u{1f642}\"}",
        ),
        (
            "sort_keys=true",
            "{\"a\": \"\u{e9}\u{1f642}\", \"b\": [1, {}]}",
        ),
    ] {
        let template = format!(
            "{{% set x = {{'b': [1, {{}}], 'a': '\u{e9}\u{1f642}'}} %}}{{{{ x|tojson({arguments}) }}}}"
        );
        assert_eq!(rendered(&template), expected, "{arguments}");
    }
    for wrong in [
        "nothing|tojson",
        "1|tojson(indent=1000)",
        "1|tojson(colour=1)",
    ] {
        let error = render(&format!("{{{{ {wrong} }}}}")).expect_err(wrong);
        assert!(matches!(error, TextError::TemplateRender { .. }), "{error}");
    }
}

#[test]
fn maps_keep_their_order() {
    let map = "{% set x = {'z': 1, 'a': 2, 'm': 3} %}{% for k, v in x.items() %}{{ k }}{{ v }}{% endfor %}";
    assert_eq!(rendered(map), "z1a2m3");
    assert_eq!(
        rendered("{% for k in messages[0] %}{{ k }} {% endfor %}"),
        "role content "
    );
}

#[test]
fn dates_are_written_as_asked() {
    assert_eq!(
        rendered(
            "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y, %A %-d %B %H:%M') }}{% endif %}"
        ),
        "26 Jul 2024, Friday 26 July 00:00"
    );
    assert_eq!(
        rendered("{{ strftime_now('%H:%M:%S.%f 100%% %_d %0d %j') }}"),
        "00:00:00.000000 100% 26 26 208"
    );
    for wrong in [
        "strftime_now('%Q')",
        "strftime_now('%v')",
        "strftime_now('%3f')",
        "strftime_now('%.f')",
        "strftime_now('%')",
        "strftime_now('%z')",
        "strftime_now()",
    ] {
        assert!(render(&format!("{{{{ {wrong} }}}}")).is_err(), "{wrong}");
    }
    let template = ChatTemplate::new("{{ strftime_now('%Y') }}", [].into_iter().collect());
    let year = template
        .and_then(|template| template.render(&[], false, ChatDate::Today))
        .expect("renders");
    assert!(year.parse::<u32>().is_ok_and(|year| year > 2024), "{year}");
}

#[test]
fn exceptions_are_raised_with_their_words() {
    let error = render("{{ raise_exception('roles must alternate') }}").expect_err("raised");
    assert!(
        error.to_string().contains("roles must alternate"),
        "{error}"
    );
}

#[test]
fn special_tokens_are_variables() {
    assert_eq!(
        rendered("{{ bos_token }}{{ pad_token }}{{ sep_token }}"),
        "<s><pad>"
    );
}

#[test]
fn a_template_that_works_for_ever_or_goes_too_deep_is_refused() {
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'x\\ny'|indent(10000000000) }}",
        "{{ 'abc'[::-9223372036854775808] }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    ] {
        let error = render(template).expect_err(template);
        assert!(matches!(error, TextError::TemplateRender { .. }), "{error}");
    }
    for deep in ["not ", "-", "1 if 1 else "] {
        let error = render(&format!("{{{{ {}1 }}}}", deep.repeat(20_000))).expect_err(deep);
        assert!(matches!(error, TextError::TemplateSyntax { .. }), "{error}");
        let fine = render(&format!("{{{{ {}1 }}}}", deep.repeat(900)));
        assert!(fine.is_ok(), "{fine:?}");
    }
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
    assert!(render(nested).is_ok_and(|text| text.len() == 20_000));
    let long = ChatMessage::new("user", "word ".repeat(400_000));
    let template =
        "{% for m in messages %}{{ m.content|trim }}{{ m.content.strip()|tojson }}{% endfor %}";
    let template = ChatTemplate::new(template, [].into_iter().collect()).expect("compiles");
    let prompt = template.render(&[long], true, ChatDate::Fixed);
    assert!(prompt.expect("renders").len() > 3_900_000);
}
