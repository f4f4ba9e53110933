//! Models by their name on the Hub, when they cannot be had.

use crate::fake_hub::{FakeHub, Fault};
use crate::fixture::Workplace;

const ARGUMENTS: [&str; 5] = ["caption", "--image", "pictures", "--model", "owner/tiny"];

/// The command with as few tokens as the model has room for.
fn caption(place: &Workplace, hub: &FakeHub) -> assert_cmd::Command {
    let mut command = place.command();
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", hub.endpoint());
    command.args(ARGUMENTS).args(["--max-new-tokens", "4"]);
    command
}

/// The error, with the Hub's address and the cache's folder replaced.
fn refuse_with(place: &Workplace, endpoint: &str, model: &str, token: Option<&str>) -> String {
    let mut command = place.command();
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", endpoint).arg("--quiet");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let output = command.args(&ARGUMENTS[..4]).arg(model).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let home = place.downloads().to_str().expect("a temporary folder's name is UTF-8");
    errors.replace(endpoint, "[hub]").replace(home, "[home]")
}

fn refuse(place: &Workplace, hub: &FakeHub) -> String {
    refuse_with(place, &hub.endpoint(), "owner/tiny", None)
}

#[test]
fn missing_private_and_gated_models_are_reported() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    hub.fail("", Fault::Status(404, None));
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: [hub] has no model `owner/tiny`
    hint: check the name; a private model needs HF_TOKEN, set to a token that may read it
    ");
    hub.fail("", Fault::Status(404, Some("RevisionNotFound")));
    insta::assert_snapshot!(refuse_with(&place, &hub.endpoint(), "owner/tiny@v2", None), @r"
    error: [hub]/owner/tiny has no revision `v2`
    hint: [hub]/owner/tiny/tree/main lists its branches and tags
    ");
    hub.fail("", Fault::Status(401, Some("RepoNotFound")));
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: [hub] does not show `owner/tiny` to everyone: it does not exist, or is private (HTTP 401)
    hint: check the name; for a private model set HF_TOKEN to a token that may read it
    ");
    insta::assert_snapshot!(refuse_with(&place, &hub.endpoint(), "owner/tiny", Some("hf_x")), @r"
    error: [hub] does not show `owner/tiny` to the owner of this token (HTTP 401)
    hint: check the name, and that the token in HF_TOKEN is valid and may read the model
    ");
    hub.recover();
    hub.fail("config.json", Fault::Status(403, None));
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: the files of `owner/tiny` are given out only to those who accepted its licence (HTTP 403)
    hint: accept the licence on [hub]/owner/tiny and set HF_TOKEN to a token of the same account
    ");
}

#[test]
fn invalid_model_id_is_rejected_without_a_request() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    insta::assert_snapshot!(refuse_with(&place, &hub.endpoint(), "owner/ti ny", None), @r"
    error: `owner/ti ny` is neither a folder nor the name of a model on the Hugging Face Hub
    hint: give a folder, or a name on the Hub such as owner/name or owner/name@revision
    ");
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn network_and_server_errors_are_distinguished() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    hub.fail("", Fault::Status(500, None));
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: [hub] could not answer for the list of files of `owner/tiny` (HTTP 500)
    hint: this is the Hub's trouble: try again later
    ");
    hub.fail("", Fault::Strange);
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: [hub] does not answer like a Hub when asked for the list of files of `owner/tiny`: expected value at line 1 column 1
    hint: HF_ENDPOINT must name a Hugging Face Hub or a complete mirror of one
    ");
    hub.recover();
    hub.fail("model.safetensors", Fault::Cut(0));
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: the download of model.safetensors of `owner/tiny` was truncated at 0 of 48208 bytes: Peer disconnected
    hint: run the same command again: the download resumes where it stopped
    ");
    hub.fail("model.safetensors", Fault::Short(1_000));
    let error = refuse(&place, &hub);
    assert!(error.contains("was truncated at 1000 of 48208 bytes"), "{error}");
    let blobs = std::fs::read_dir(place.downloads().join("hub/models--owner--tiny/blobs")).unwrap();
    assert!(blobs.flatten().all(|blob| blob.metadata().unwrap().len() != 1_000));

    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("http://127.0.0.1:{port}");
    let error = refuse_with(&Workplace::furnished(), &closed, "owner/tiny", None);
    assert!(error.starts_with("error: cannot reach [hub]: Connection refused"), "{error}");
    let hint = "hint: check the network and HF_ENDPOINT; the cache alone does not do, for it lacks \
                config.json";
    assert!(error.contains(hint), "{error}");
}

/// Everything below a folder, with the folders themselves.
fn contents(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push(path.strip_prefix(folder).unwrap().display().to_string());
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn hostile_hub_cannot_write_outside_the_cache() {
    for name in ["../../../../evil", "/tmp/fisao-evil", "..", "a/b", ".hidden", ""] {
        let place = Workplace::furnished();
        let before = contents(place.path("").as_path());
        let hub = FakeHub::serving(&place.path("llava"));
        hub.fail("config.json", Fault::Called(name));
        let error = refuse(&place, &hub);
        assert!(error.contains("its content is called"), "{name}: {error}");
        assert_eq!(contents(place.path("").as_path()), before, "{name}");
        assert!(!std::path::Path::new("/tmp/fisao-evil").exists());
        let hub = FakeHub::serving(&place.path("llava"));
        hub.commit("../../../../evil");
        let error = refuse(&place, &hub);
        assert!(error.contains("the commit is `../../../../evil`"), "{error}");
        assert_eq!(contents(place.path("").as_path()), before, "{name}");
    }
}

#[test]
fn content_that_differs_from_its_announcement_is_rejected() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    hub.fail("model.safetensors", Fault::Changed);
    let error = refuse(&place, &hub);
    assert!(error.contains("is not what it announced: SHA-256"), "{error}");
    // Nothing of it is believed by the next run.
    hub.recover();
    assert_eq!(caption(&place, &hub).output().unwrap().status.code(), Some(0));

    let place = Workplace::furnished();
    hub.fail("model.safetensors", Fault::Longer(1 << 20));
    let error = refuse(&place, &hub);
    assert!(error.contains("more than the 48208 bytes that were announced"), "{error}");
    let blobs = place.downloads().join("hub/models--owner--tiny/blobs");
    let largest = std::fs::read_dir(blobs).unwrap().flatten().map(|e| e.metadata().unwrap().len());
    assert!(largest.max().unwrap() < 48_208);
}

#[test]
fn silent_connections_time_out() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    // In the middle of the listing, before and in the middle of a small and a large file.
    for (file, bytes) in
        [("", 20), ("config.json", 0), ("config.json", 20), ("model.safetensors", 9)]
    {
        hub.recover();
        hub.fail(file, Fault::Silent(bytes));
        let began = std::time::Instant::now();
        let output = caption(&place, &hub).env("HF_HUB_DOWNLOAD_TIMEOUT", "0.5").output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("not a byte came in 0.5 seconds"), "{file}: {error}");
        assert!(began.elapsed().as_secs() < 30, "{file}: {:?}", began.elapsed());
    }
}

#[test]
fn redirects_are_limited_and_do_not_leak_the_token() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    hub.fail("config.json", Fault::SentOnNowhere);
    let error = refuse(&place, &hub);
    assert!(error.contains("said to be elsewhere, and not where"), "{error}");
    hub.fail("config.json", Fault::SentOn("file:///etc/passwd"));
    let error = refuse(&place, &hub);
    assert!(error.contains("`file:///etc/passwd` is no address"), "{error}");
    // A circle.
    hub.fail("config.json", Fault::SentOn("/storage/config.json"));
    let error = refuse(&place, &hub);
    assert!(error.contains("sent on more than 8 times"), "{error}");

    // Content of another host is taken, and that host learns nothing.
    let storage = FakeHub::serving(&place.path("llava"));
    let address: &'static str =
        Box::leak(format!("{}/storage/config.json", storage.endpoint()).into_boxed_str());
    hub.fail("config.json", Fault::SentOn(address));
    let output = caption(&place, &hub).env("HF_TOKEN", "hf_secret").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(storage.requests(), ["config.json"]);
    assert!(storage.tokens().iter().all(Option::is_none), "{:?}", storage.tokens());
    assert!(hub.tokens().iter().any(Option::is_some));
}

#[test]
fn no_request_is_sent_in_offline_mode() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    let mut command = place.command();
    let output = command.env("HF_ENDPOINT", hub.endpoint()).args(ARGUMENTS).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn unusable_model_is_rejected_before_downloading_weights() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    let weights = hub.remove("model.safetensors");
    hub.put("pytorch_model.bin", "pickle");
    insta::assert_snapshot!(refuse(&place, &hub), @r#"
    error: `owner/tiny` holds its weights only as a Python pickle (pytorch_model.bin), which can run code when opened and is not read
    hint: a safetensors variant may wait among its pull requests: name it as owner/tiny@refs/pr/NUMBER. Or convert it with transformers: AutoModel.from_pretrained("owner/tiny").save_pretrained(folder, safe_serialization=True)
    "#);
    hub.remove("pytorch_model.bin");
    insta::assert_snapshot!(refuse(&place, &hub), @"error: `owner/tiny` has no model.safetensors or model.safetensors.index.json");

    hub.put(
        "model.safetensors.index.json",
        r#"{"weight_map": {"a": "../../../../x.safetensors"}}"#,
    );
    let error = refuse(&place, &hub);
    assert!(error.contains("`../../../../x.safetensors` is not the name of a"), "{error}");
    hub.remove("model.safetensors.index.json");
    hub.put("model.safetensors", weights);

    hub.commit("2222222222222222222222222222222222222222");
    let tokenizer = hub.remove("tokenizer.json");
    insta::assert_snapshot!(refuse(&place, &hub), @r"
    error: `owner/tiny` has no tokenizer.json
    hint: make one with transformers: AutoTokenizer.from_pretrained(name).save_pretrained(folder)
    ");
    hub.put("tokenizer.json", tokenizer);
    hub.commit("3333333333333333333333333333333333333333");
    hub.put("config.json", r#"{"model_type": "whisper"}"#);
    let error = refuse(&place, &hub);
    assert!(
        error.contains("describes a model of type `whisper`, which is not supported"),
        "{error}"
    );
    let clip = FakeHub::serving(&place.path("clip"));
    let error = refuse(&Workplace::furnished(), &clip);
    assert!(
        error.contains("is a `clip` checkpoint, but a `llava` checkpoint is needed"),
        "{error}"
    );
    for hub in [hub, clip] {
        let asked = hub.requests();
        assert!(!asked.iter().any(|name| name.ends_with(".safetensors")), "{asked:?}");
    }
}
