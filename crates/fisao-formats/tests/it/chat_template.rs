//! Chat templates against transformers: see `fixtures/chat_templates/generate.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fisao_formats::chat_template::{ChatTemplate, special_tokens};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Expected {
    tokens: Map<String, Value>,
    conversations: BTreeMap<String, Value>,
    cases: Vec<Case>,
    precedence: Vec<Precedence>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    add_generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Precedence {
    files: Vec<String>,
    taken: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat_templates")
}

fn expected() -> Expected {
    let text = fs::read_to_string(fixtures().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn opened(files: &[(&str, &str)]) -> ChatTemplate {
    ChatTemplate::open(folder(files).path()).unwrap().expect("a template")
}

/// The error of a template that is asked for an instruction, without its folder.
fn refused(template: &str) -> String {
    let folder = folder(&[("chat_template.jinja", template)]);
    let template = ChatTemplate::open(folder.path()).unwrap().unwrap();
    let error = template.instruction("Describe the image.", "<image>").unwrap_err();
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn rendered_conversations_match_transformers() {
    let expected = expected();
    assert_eq!(expected.cases.len(), 40);
    for case in expected.cases {
        let path = fixtures().join(&case.template);
        let source = fs::read_to_string(&path).unwrap();
        let template = ChatTemplate::new(source, path, expected.tokens.clone());
        let messages = &expected.conversations[&case.conversation];
        let place = format!("{}, {}", case.template, case.conversation);
        match (template.render(messages, case.add_generation_prompt), case.text, case.error) {
            (Ok(found), Some(text), None) => assert_eq!(found, text, "{place}"),
            (Err(found), None, Some(error)) => {
                let found = found.to_string();
                assert!(found.ends_with(&format!("refuses this conversation: {error}")), "{found}");
            }
            (found, text, error) => panic!("{place}: {found:?} instead of {text:?} or {error:?}"),
        }
    }
}

#[test]
fn template_precedence_matches_transformers() {
    for Precedence { files, taken } in expected().precedence {
        let contents: Vec<(&str, String)> = files
            .iter()
            .map(|name| match name.as_str() {
                "chat_template.jinja" => (name.as_str(), name.clone()),
                json => (json, json!({ "chat_template": json }).to_string()),
            })
            .collect();
        let tokenizer = ("tokenizer_config.json", r#"{"chat_template": "the tokenizer's"}"#);
        let mut contents: Vec<_> =
            contents.iter().map(|(name, text)| (*name, text.as_str())).collect();
        contents.push(tokenizer);
        assert_eq!(opened(&contents).render(&json!([]), true).unwrap(), taken, "{files:?}");
    }
    let template = opened(&[
        ("processor_config.json", r#"{"chat_template": null}"#),
        ("tokenizer_config.json", r#"{"chat_template": "the tokenizer's"}"#),
    ]);
    assert_eq!(template.render(&json!([]), true).unwrap(), "the tokenizer's");
    assert!(template.path().ends_with("tokenizer_config.json"));
    assert_eq!(ChatTemplate::open(folder(&[]).path()).unwrap(), None);
}

#[test]
fn default_of_several_named_templates_is_used() {
    let list = json!({ "chat_template": [
        { "name": "tool_use", "template": "tools" }, { "name": "default", "template": "plain" }] });
    let template = opened(&[("tokenizer_config.json", &list.to_string())]);
    assert_eq!(template.render(&json!([]), true).unwrap(), "plain");
    let list = json!({ "chat_template": [{ "name": "tool_use", "template": "tools" }] });
    let folder = folder(&[("tokenizer_config.json", &list.to_string())]);
    let error = ChatTemplate::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("the chat template is several, of which none is called `default`"));
}

#[test]
fn template_of_wrong_type_is_shown_with_the_allowed_types() {
    for (value, shown) in [
        (json!(5), "5"),
        (json!([{ "name": "default" }]), r#"[{"name":"default"}]"#),
        (json!({ "default": ["a"] }), r#"{"default":["a"]}"#),
        (
            json!([{ "name": "tools" }, { "name": "default", "template": "a" }]),
            r#"[{"name":"tools"},{"name":"default","template":"a"}]"#,
        ),
    ] {
        let file = json!({ "chat_template": value }).to_string();
        let folder = folder(&[("tokenizer_config.json", &file)]);
        let error = ChatTemplate::open(folder.path()).unwrap_err().to_string();
        let said = format!(
            "tokenizer_config.json: the chat template is {shown}, not a text, a list of objects with `name` and `template`, \
             or an object of texts by name"
        );
        assert!(error.ends_with(&said), "{error}");
    }
}

#[test]
fn special_tokens_may_be_strings_or_objects() {
    let written = |config: Value, map: Value| {
        let template = opened(&[
            ("chat_template.jinja", "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}"),
            ("tokenizer_config.json", &config.to_string()),
            ("special_tokens_map.json", &map.to_string()),
        ]);
        template.render(&json!([]), true).unwrap()
    };
    let config = json!({ "bos_token": { "content": "<s>", "lstrip": false }, "eos_token": "</s>" });
    assert_eq!(written(config.clone(), json!({})), "<s>|</s>|");
    let map = json!({ "eos_token": "<end>", "pad_token": { "content": "<pad>" } });
    assert_eq!(written(config.clone(), map.clone()), "<s>|<end>|<pad>");
    let mut config = config;
    config["added_tokens_decoder"] = json!({});
    assert_eq!(written(config, map), "<s>|</s>|");
}

#[test]
fn template_errors_name_the_line_and_the_problem() {
    assert_eq!(
        refused("<image>\n{% if messages %}\n{{ messages[ }}"),
        "chat_template.jinja, line 3: the chat template is not valid: syntax error: unexpected `}`"
    );
    assert_eq!(
        refused("<image>{{ raise_exception('no images, please') }}"),
        "chat_template.jinja: the chat template refuses this conversation: no images, please"
    );
    assert!(
        refused("\n{{ missing.field }}")
            .starts_with("chat_template.jinja, line 2: the chat template fails: ")
    );
    assert_eq!(
        refused("{{ messages[0].content[1].text }}"),
        "chat_template.jinja: the chat template writes 0 image placeholders `<image>` for one \
         image, but one is needed"
    );
    assert!(refused("<image><image>").contains("writes 2 image placeholders"));
}

/// Fields that nobody asks for may be of any length; of those that are, only texts.
#[test]
fn long_lists_in_tokenizer_configurations_are_passed_over_or_rejected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer_config.json");
    let nested = format!("[{}]", vec!["[[0]]"; 200_000].join(","));
    let write = |field: &str| {
        let text = format!("{{\"{field}\": {nested}, \"bos_token\": \"<s>\"}}");
        fs::write(&path, text).expect("writable");
    };
    for field in ["other", "added_tokens_decoder"] {
        write(field);
        let tokens = special_tokens(folder.path()).expect("the rest is fine");
        assert_eq!(tokens["bos_token"], "<s>");
        assert_eq!(ChatTemplate::open(folder.path()).expect("no template"), None);
    }
    write("chat_template");
    let error = ChatTemplate::open(folder.path()).expect_err("too long").to_string();
    assert!(error.contains("`chat_template` is 1200001 bytes long"), "{error}");
}
