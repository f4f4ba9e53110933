//! Models by their name on the Hub.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use fisao_models::lora::LoraConfig;
use fisao_testkit::tiny;
use serde_json::json;

use crate::fake_hub::{COMMIT, FakeHub, Fault, etag};
use crate::fixture::Workplace;

const CAPTION: [&str; 7] =
    ["caption", "--model", "owner/tiny", "--image", "pictures/a.png", "--max-new-tokens", "4"];

fn ask(place: &Workplace, hub: &FakeHub, arguments: &[&str]) -> Output {
    let mut command = place.command();
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", hub.endpoint());
    command.args(arguments).output().expect("the command can be started")
}

fn answer(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the same model says from its folder.
fn expected(place: &Workplace) -> String {
    let arguments = CAPTION.map(|text| if text == "owner/tiny" { "llava" } else { text });
    place.succeed(&arguments)
}

fn repository(place: &Workplace) -> PathBuf {
    place.downloads().join("hub/models--owner--tiny")
}

#[test]
fn model_is_downloaded_once_and_then_read_from_the_cache() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    hub.put("README.md", "# Tiny");
    hub.put("pytorch_model.bin", "pickle");
    assert_eq!(answer(&ask(&place, &hub, &CAPTION)), expected(&place));
    let asked = hub.requests();
    assert!(asked.iter().any(|name| name == "model.safetensors"), "{asked:?}");
    assert!(asked.iter().any(|name| name == "tokenizer.json"), "{asked:?}");
    let unwanted = ["README.md", "pytorch_model.bin"];
    assert!(!asked.iter().any(|name| unwanted.contains(&name.as_str())), "{asked:?}");

    answer(&ask(&place, &hub, &CAPTION));
    assert_eq!(hub.requests(), ["list"]);
    assert_eq!(fs::read_to_string(repository(&place).join("refs/main")).unwrap(), COMMIT);
    let link = repository(&place).join("snapshots").join(COMMIT).join("model.safetensors");
    let weights = fs::read(place.path("llava/model.safetensors")).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../blobs").join(etag(&weights)));

    // The cache alone does, when it has to.
    assert_eq!(place.succeed(&CAPTION), expected(&place));
    hub.fail("", Fault::Status(503, None));
    let output = ask(&place, &hub, &CAPTION);
    assert_eq!(answer(&output), expected(&place));
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(notes.contains("HTTP 503): using the copy in the cache"), "{notes}");
}

#[test]
fn new_commit_downloads_only_changed_files() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    answer(&ask(&place, &hub, &CAPTION));
    hub.requests();
    hub.commit("1111111111111111111111111111111111111111");
    hub.put("generation_config.json", "{ }");
    answer(&ask(&place, &hub, &CAPTION));
    assert_eq!(hub.requests(), ["generation_config.json", "list"]);
    let reference = fs::read_to_string(repository(&place).join("refs/main")).unwrap();
    assert_eq!(reference, "1111111111111111111111111111111111111111");
}

#[test]
fn only_the_shards_of_the_index_are_downloaded() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    let weights = hub.remove("model.safetensors");
    let tensors = fisao_formats::checkpoint::named_tensors(&tiny::tiny_llava(1));
    let map: serde_json::Map<_, _> =
        tensors.into_iter().map(|(name, _)| (name, "model-1-of-1.safetensors".into())).collect();
    hub.put("model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    hub.put("model-1-of-1.safetensors", weights);
    hub.put("model-1-of-2.safetensors", "of an older division");
    assert_eq!(answer(&ask(&place, &hub, &CAPTION)), expected(&place));
    let asked = hub.requests();
    assert!(asked.iter().any(|name| name == "model-1-of-1.safetensors"), "{asked:?}");
    assert!(!asked.iter().any(|name| name == "model-1-of-2.safetensors"), "{asked:?}");
    assert_eq!(place.succeed(&CAPTION), expected(&place));
    // Without its shard the copy is not complete.
    let snapshot = repository(&place).join("snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("model-1-of-1.safetensors")).unwrap();
    let error = place.refuse(&CAPTION);
    assert!(error.contains("does not hold model-1-of-1.safetensors of `owner/tiny`"), "{error}");
}

#[cfg(unix)]
#[test]
fn cache_filled_by_huggingface_hub_is_used() {
    use std::os::unix::fs::symlink;

    let place = Workplace::furnished();
    let repository = repository(&place);
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &repository.join("blobs"), &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for entry in fs::read_dir(place.path("llava")).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        fs::write(repository.join("blobs").join(etag(&content)), &content).unwrap();
        let link = snapshot.join(path.file_name().unwrap());
        symlink(Path::new("../../blobs").join(etag(&content)), link).unwrap();
    }
    assert_eq!(place.succeed(&CAPTION), expected(&place));
    // By commit as well, which has no ref of its own.
    let by_commit = format!("owner/tiny@{COMMIT}");
    let arguments =
        CAPTION.map(|text| if text == "owner/tiny" { by_commit.as_str() } else { text });
    assert_eq!(place.succeed(&arguments), expected(&place));

    fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
    let error = place.refuse(&[&["--quiet"], &CAPTION[..]].concat());
    let home = place.downloads().to_str().unwrap();
    insta::assert_snapshot!(error.replace(home, "[home]"), @r"
    error: HF_HUB_OFFLINE is set, and the cache [home]/hub does not hold tokenizer.json of `owner/tiny`
    hint: unset HF_HUB_OFFLINE and run once with a network; the files are then kept
    ");
}

#[test]
fn token_is_sent_if_set() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    let mut command = place.command();
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", hub.endpoint());
    command.env("HF_TOKEN", "hf_secret").args(CAPTION).output().unwrap();
    let sent = hub.tokens();
    assert!(sent.len() > 5);
    assert!(sent.iter().all(|token| token.as_deref() == Some("Bearer hf_secret")), "{sent:?}");

    let other = Workplace::furnished();
    let hub = FakeHub::serving(&other.path("llava"));
    answer(&ask(&other, &hub, &CAPTION));
    assert!(hub.tokens().iter().all(Option::is_none));
}

#[test]
fn interrupted_download_is_resumed() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    hub.fail("model.safetensors", Fault::CutOnce(1_000));
    assert_eq!(answer(&ask(&place, &hub, &CAPTION)), expected(&place));

    // Across runs, too: the second asks for the rest only, and the last for nothing at all.
    let place = Workplace::furnished();
    hub.fail("model.safetensors", Fault::Cut(0));
    assert_eq!(ask(&place, &hub, &CAPTION).status.code(), Some(1));
    let blobs = repository(&place).join("blobs");
    let weights = fs::read(place.path("llava/model.safetensors")).unwrap();
    let part = blobs.join(format!(".{}.part", etag(&weights)));
    for arrived in [5_000, weights.len()] {
        fs::write(&part, &weights[..arrived]).unwrap();
        hub.recover();
        assert_eq!(answer(&ask(&place, &hub, &CAPTION)), expected(&place));
        assert!(!part.exists());
        fs::remove_file(blobs.join(etag(&weights))).unwrap();
    }
}

#[test]
fn download_restarts_if_the_server_cannot_resume() {
    for fault in [Fault::Whole, Fault::OtherPart] {
        let place = Workplace::furnished();
        let hub = FakeHub::serving(&place.path("llava"));
        let weights = fs::read(place.path("llava/model.safetensors")).unwrap();
        let blobs = repository(&place).join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        // What is there would not fit even if the rest were appended.
        fs::write(blobs.join(format!(".{}.part", etag(&weights))), &weights[1..5_001]).unwrap();
        hub.fail("model.safetensors", fault);
        assert_eq!(answer(&ask(&place, &hub, &CAPTION)), expected(&place));
        assert_eq!(fs::read(blobs.join(etag(&weights))).unwrap(), weights);
    }
}

#[cfg(unix)]
#[test]
fn symlinks_in_the_cache_are_not_written_through() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    let weights = fs::read(place.path("llava/model.safetensors")).unwrap();
    let blobs = repository(&place).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    place.write("precious", "mine");
    for ending in ["part", "lock"] {
        let link = blobs.join(format!(".{}.{ending}", etag(&weights)));
        std::os::unix::fs::symlink(place.path("precious"), link).unwrap();
    }
    assert_eq!(answer(&ask(&place, &hub, &CAPTION)), expected(&place));
    assert_eq!(fs::read_to_string(place.path("precious")).unwrap(), "mine");
}

#[test]
fn verifiers_and_adapters_are_downloaded_by_hub_id() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("clip"));
    let score = ["score", "--image", "pictures/a.png", "--text", "dog", "--verifier"];
    let named = answer(&ask(&place, &hub, &[&score[..], &["owner/tiny"]].concat()));
    assert_eq!(named, place.succeed(&[&score[..], &["clip"]].concat()));

    let place = Workplace::furnished();
    let mut model = tiny::tiny_llava(1);
    let config = LoraConfig { rank: 2, ..LoraConfig::default() };
    model.add_lora(&config, 0).unwrap();
    fs::create_dir(place.path("adapter")).unwrap();
    fisao_formats::adapter::Adapter::of(&model, &config, None)
        .write(&place.path("adapter"))
        .unwrap();
    let hub = FakeHub::serving(&place.path("adapter"));
    let arguments = CAPTION.map(|text| if text == "owner/tiny" { "llava" } else { text });
    answer(&ask(&place, &hub, &[&arguments[..], &["--adapter", "owner/tiny"]].concat()));
    assert_eq!(hub.requests(), ["adapter_config.json", "adapter_model.safetensors", "list"]);
    let output = ask(&place, &hub, &CAPTION);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("`owner/tiny` has no config.json\nhint: it is an adapter"), "{error}");
}

#[test]
fn two_commands_can_download_at_the_same_time() {
    let place = Workplace::furnished();
    let hub = FakeHub::serving(&place.path("llava"));
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| answer(&ask(&place, &hub, &CAPTION))));
        for thread in both {
            assert_eq!(thread.join().unwrap(), expected(&place));
        }
    });
}
