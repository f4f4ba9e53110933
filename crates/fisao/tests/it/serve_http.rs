//! `fisao serve --http`: OpenAI's protocol, verdicts, limits and the page.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fisao_testkit::skipped::report_skipped;
use serde_json::{Value, json};

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

/// A server of a model and its verifier, ended with this.
struct Server {
    place: Workplace,
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A model of random weights, with its verifier.
    fn start(more: &[&str]) -> Self {
        let place = Workplace::furnished();
        write_calibration(&place);
        place.write("words.txt", "dog\ncat\nbench\nimage\n");
        let pair = ["--model", "llava", "--verifier", "clip", "--vocabulary", "words.txt"];
        Self::of(place, &[&pair[..], more].concat())
    }

    fn of(place: Workplace, more: &[&str]) -> Self {
        let mut child = Command::new(place.command().get_program())
            .current_dir(place.path("."))
            .args(["serve", "--http", "127.0.0.1:0", "--calibration", "calibration.json"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = said.by_ref().map_while(Result::ok).find_map(|line| {
            line.strip_prefix("listening on http://")?.trim_end_matches('/').parse().ok()
        });
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || said.for_each(drop));
        let address = address.expect("it says where it listens");
        Self { place, child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    }

    /// Status and body of what bytes are answered with.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        // It may answer, and close, before everything is sent.
        let _ = stream.write_all(request);
        response(stream)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    fn post_with(&self, path: &str, body: &str, headers: &str) -> (u16, String) {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        self.raw(&[head.as_bytes(), body.as_bytes()].concat())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.post_with(path, &body.to_string(), "");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn image(&self) -> String {
        STANDARD.encode(std::fs::read(self.place.path("pictures/a.png")).unwrap())
    }

    /// A question about the first picture.
    fn question(&self, more: &Value) -> Value {
        let url = format!("data:image/png;base64,{}", self.image());
        let content = json!([
            { "type": "text", "text": "<image> Describe." },
            { "type": "image_url", "image_url": { "url": url } },
        ]);
        let mut question = json!({ "messages": [{ "role": "user", "content": content }], "temperature": 0, "max_tokens": 6 });
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        question
    }

    fn chat(&self, more: &Value) -> (u16, Value) {
        self.post("/v1/chat/completions", &self.question(more))
    }

    fn caption(&self, more: &[&str]) -> Value {
        let arguments = [
            "caption",
            "--model",
            "llava",
            "--images",
            "pictures/a.png",
            "--prompt",
            "<image> Describe.",
        ];
        let length = ["--max-new-tokens", "6", "--format", "json"];
        let printed = self.place.succeed(&[&arguments[..], &length, more].concat());
        serde_json::from_str(&printed).unwrap()
    }
}

fn response(mut stream: TcpStream) -> (u16, String) {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    (status, body)
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        text.push_str(rest.get(..size).unwrap_or_default());
        body = rest.get(size + 2..).unwrap_or_default();
    }
    text
}

fn content(choice: &Value) -> &str {
    choice["message"]["content"].as_str().unwrap()
}

#[test]
fn answers_are_the_captions_of_the_command() {
    let server = Server::start(&[]);
    let (status, greedy) = server.chat(&json!({ "logprobs": true }));
    let printed = server.caption(&[]);
    assert_eq!(status, 200, "{greedy}");
    assert_eq!(content(&greedy["choices"][0]), printed["caption"].as_str().unwrap());
    let tokens = |value: &Value, key: &str| -> Vec<Value> {
        let tokens = value.as_array().unwrap().iter();
        tokens.filter(|token| token[key] != "").map(|token| token["logprob"].clone()).collect()
    };
    let logprobs = tokens(&greedy["choices"][0]["logprobs"]["content"], "token");
    assert_eq!(logprobs, tokens(&printed["tokens"], "text"));
    assert_eq!(greedy["usage"]["completion_tokens"], printed["tokens"].as_array().unwrap().len());

    let (_, sampled) = server.chat(&json!({ "temperature": 1, "seed": 7, "n": 3 }));
    let printed = server.caption(&["--temperature", "1", "--seed", "7"]);
    assert_eq!(content(&sampled["choices"][0]), printed["caption"].as_str().unwrap());
    assert_eq!(sampled["choices"].as_array().unwrap().len(), 3);
}

/// What is decoded beside it does not change an answer.
/// In their order, and with the words around them where they stand.
#[test]
fn question_about_several_images_is_answered_as_by_the_command() {
    let place = Workplace::furnished();
    place.write_qwen_vl(false);
    write_calibration(&place);
    place.write("words.txt", "dog\ncat\n");
    let pair = ["--model", "qwen3_vl", "--verifier", "clip", "--allow-mismatched-verifier"];
    let server = Server::of(place, &[&pair[..], &["--vocabulary", "words.txt"]].concat());
    let picture = |name: &str| {
        let bytes = std::fs::read(server.place.path("pictures").join(name)).unwrap();
        let url = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
        json!({ "type": "image_url", "image_url": { "url": url } })
    };
    let ask = |content: Value, more: Value| {
        let mut question = json!({ "messages": [{ "role": "user", "content": content }], "temperature": 0, "max_tokens": 6 });
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/chat/completions", &question)
    };
    let text = json!({ "type": "text", "text": "Compare." });
    let (first, second) = (picture("a.png"), picture("b.png"));
    let printed = server.place.succeed(&[
        "caption",
        "--together",
        "--model",
        "qwen3_vl",
        "--images",
        "pictures/a.png",
        "pictures/b.png",
        "--prompt",
        "Compare.",
        "--max-new-tokens",
        "6",
        "--format",
        "json",
    ]);
    let command: Value = serde_json::from_str(&printed).unwrap();
    let (status, answer) = ask(json!([first, second, text]), json!({}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(content(&answer["choices"][0]), command["caption"].as_str().unwrap());
    let tokens = |answer: &Value| answer["choices"][0]["logprobs"].clone();
    let logprobs = json!({ "logprobs": true });
    let apart = ask(json!([first, text, second]), logprobs.clone()).1;
    let before = ask(json!([first, second, text]), logprobs).1;
    assert_ne!(tokens(&apart), tokens(&before), "the text between the images stands there");
    let (status, refused) =
        ask(json!([first, second, text]), json!({ "fisao": { "verify": true } }));
    assert_eq!(status, 400, "{refused}");
    assert!(
        refused["error"]["message"].as_str().unwrap().contains("against one image"),
        "{refused}"
    );
}

#[test]
fn answers_do_not_depend_on_what_else_is_asked() {
    let server = Server::start(&[]);
    let ask = |seed: u64| {
        let (status, answer) =
            server.chat(&json!({ "temperature": 1, "seed": seed, "max_tokens": 3 + seed % 5 }));
        assert_eq!(status, 200, "{answer}");
        content(&answer["choices"][0]).to_owned()
    };
    let alone: Vec<String> = (0..12).map(ask).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|seed| scope.spawn(move || ask(seed))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn streamed_answer_is_the_whole_one_in_pieces_with_its_verdicts() {
    let server = Server::start(&[]);
    let verify = json!({ "verify": true });
    let (_, whole) = server.chat(&json!({ "fisao": verify }));
    let asked = server.question(
        &json!({ "fisao": verify, "stream": true, "stream_options": { "include_usage": true } }),
    );
    let (status, text) = server.post_with("/v1/chat/completions", &asked.to_string(), "");
    assert_eq!(status, 200);
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let pieces: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(pieces, content(&whole["choices"][0]));
    let mentions: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["fisao"]["mentions"].as_array())
        .flatten()
        .collect();
    let of_whole: Vec<&Value> =
        whole["choices"][0]["fisao"]["mentions"].as_array().unwrap().iter().collect();
    assert_eq!(mentions, of_whole);
    let sample =
        json!({ "image": { "base64": server.image() }, "caption": content(&whole["choices"][0]) });
    let (_, verdict) = server.post("/v1/verify", &json!({ "samples": [sample] }));
    assert_eq!(whole["choices"][0]["fisao"]["mentions"], verdict["samples"][0]["mentions"]);
    let last = chunks.last().unwrap();
    assert_eq!(last["usage"], whole["usage"]);
    assert_eq!(last["choices"], json!([]));
}

#[test]
fn stop_text_ends_an_answer_and_is_no_part_of_it() {
    let server = Server::start(&[]);
    let (_, whole) = server.chat(&json!({}));
    let text = content(&whole["choices"][0]).to_owned();
    let middle: String = text.chars().skip(text.chars().count() / 2).take(2).collect();
    let (_, cut) = server.chat(&json!({ "stop": [middle.clone(), "never"] }));
    assert_eq!(content(&cut["choices"][0]), &text[..text.find(&middle).unwrap()]);
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
}

#[test]
fn bad_requests_are_refused_and_harm_nobody_else() {
    let server = Server::start(&["--body-mb", "1"]);
    let chat = "/v1/chat/completions";
    let (status, error) = server.post(chat, &json!({ "messages": [], "top_k": 1 }));
    assert_eq!((status, &error["error"]["code"]), (400, &json!("invalid-params")));
    assert!(error["error"]["message"].as_str().unwrap().contains("top_k"));
    let (status, error) = server.chat(&json!({ "max_tokens": 100_000 }));
    assert_eq!((status, &error["error"]["code"]), (413, &json!("too-large")), "{error}");
    let broken = json!({ "image": { "base64": STANDARD.encode("no image") }, "names": ["dog"] });
    assert_eq!(server.post("/v1/score", &broken).1["error"]["code"], "invalid-image");
    let file = json!({ "image": { "path": "pictures/a.png" }, "names": ["dog"] });
    assert!(
        server.post("/v1/score", &file).1["error"]["message"]
            .as_str()
            .unwrap()
            .contains("reads no files")
    );
    assert_eq!(server.post_with(chat, "{", "").0, 400);
    assert_eq!(server.post_with(chat, &"x".repeat(2 << 20), "").0, 413);
    assert_eq!(server.get("/nowhere").0, 404);
    assert_eq!(server.get(chat).0, 405);
    assert_eq!(server.raw(b"\x16\x03\x01 garbage\r\n\r\n").0, 400);

    // Half a body, a connection that says nothing, and one that goes away while it is answered.
    let mut half = server.connect();
    half.write_all(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    let _silent = server.connect();
    let asked = server.question(&json!({ "stream": true })).to_string();
    let mut gone = server.connect();
    write!(
        gone,
        "POST {chat} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{asked}",
        asked.len()
    )
    .unwrap();
    drop(gone);
    for _ in 0..200 {
        let mut hasty = server.connect();
        hasty.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    }
    assert_eq!(server.chat(&json!({})).0, 200);
    assert_eq!(server.get("/healthz"), (200, "ok\n".to_owned()));
    let metrics = server.get("/metrics").1;
    assert!(
        metrics.contains("fisao_requests_total{path=\"/v1/chat/completions\",status=\"200\"} "),
        "{metrics}"
    );
}

#[test]
fn token_is_asked_for_everywhere_but_on_the_page() {
    let server = Server::start(&["--token", "secret"]);
    assert_eq!(server.get("/v1/models").0, 401);
    assert_eq!(server.get("/metrics").0, 401);
    assert_eq!(server.chat(&json!({})).0, 401);
    let with = |token: &str| {
        let asked = server.question(&json!({})).to_string();
        server
            .post_with(
                "/v1/chat/completions",
                &asked,
                &format!("Authorization: Bearer {token}\r\n"),
            )
            .0
    };
    assert_eq!((with("secret"), with("secreT"), with("")), (200, 401, 401));
    assert_eq!(server.get("/healthz").0, 200);
    assert!(server.get("/").1.contains("<title>FiSAO"));
}

#[test]
fn too_many_at_once_are_sent_away() {
    let server = Server::start(&["--queue", "1"]);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let server = &server;
        let ask = move || server.chat(&json!({ "n": 60, "temperature": 1, "max_tokens": 40 })).0;
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    // Whoever was answered has left the queue by then.
    for _ in 0..50 {
        assert_eq!(server.chat(&json!({ "max_tokens": 2 })).0, 200);
    }
}

/// What is under way is answered to its end; then the process ends well.
#[cfg(unix)]
#[test]
fn server_that_is_told_to_stop_finishes_what_is_under_way() {
    let mut server = Server::start(&[]);
    let asked =
        server.question(&json!({ "n": 16, "temperature": 1, "max_tokens": 50 })).to_string();
    let mut stream = server.connect();
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{asked}", asked.len()).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (status, text) = response(stream);
    assert_eq!(status, 200, "{text}");
    let begun = Instant::now();
    assert!(server.child.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_mins(1));
    assert!(TcpStream::connect(server.address).is_err());
}

/// A person's clicks, in a browser without a window.
#[test]
fn page_works_in_a_browser() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fisao-serve/tests/page/click.py");
    let place = Workplace::new();
    place.succeed(&["scenes", "export", "scenes", "--split", "test", "--count", "64"]);
    let calibrate =
        ["calibrate", "--images", "scenes/images", "--annotations", "scenes/instances.json"];
    place.succeed(&[&calibrate[..], &["--output", "calibration.json"]].concat());
    let server = Server::of(place, &[]);
    let image = server.place.path("scenes/images/test-000000.png");
    let run = Command::new("python3")
        .arg(script)
        .arg(format!("http://{}", server.address))
        .arg(image)
        .output();
    match run {
        Err(error) => report_skipped("page_works_in_a_browser", &format!("no Python: {error}")),
        Ok(output) if output.status.code() == Some(77) => {
            report_skipped("page_works_in_a_browser", "no Chromium on PATH");
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
        }
    }
}
