//! A Hugging Face Hub on the loopback interface: it lists and serves the files it was given, keeps
//! account of what it was asked, and fails where it is told to.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;

/// The commit that every model is at, until it is changed.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong when a file, or the listing under the name `""`, is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// This status, and this `X-Error-Code`.
    Status(u16, Option<&'static str>),
    /// The connection closes after so many bytes.
    Cut(usize),
    /// The connection closes after so many bytes the first time; then all is well.
    CutOnce(usize),
    /// The answer is complete after so many bytes, as a proxy may leave it.
    Short(usize),
    /// The answer of something that is no Hub.
    Strange,
    /// The listing, and the file itself, call the content by this name.
    Called(&'static str),
    /// The answer is sent on to this address.
    SentOn(&'static str),
    /// The answer is sent on, and does not say where.
    SentOnNowhere,
    /// Bytes that are not those of the file, as many as they should be.
    Changed,
    /// Asked for a part, all of it is sent, as servers do that know no parts.
    Whole,
    /// Asked for a part, another one is sent, and said to be.
    OtherPart,
    /// The answer says nothing of its length, and has so many bytes more than it should.
    Longer(usize),
    /// Nothing comes after so many bytes, and the connection stays open.
    Silent(usize),
}

struct Site {
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
    faults: HashMap<String, Fault>,
    requests: Vec<String>,
    tokens: Vec<Option<String>>,
}

/// A Hub with one model, `owner/tiny`, for as long as the test runs.
pub(crate) struct FakeHub {
    address: SocketAddr,
    site: Arc<Mutex<Site>>,
}

impl FakeHub {
    /// A Hub whose model consists of the files of a folder.
    pub(crate) fn serving(folder: &Path) -> Self {
        let files = fs::read_dir(folder).expect("the folder is there").map(|entry| {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("the file can be read"))
        });
        let site = Arc::new(Mutex::new(Site {
            commit: COMMIT.to_owned(),
            files: files.collect(),
            faults: HashMap::new(),
            requests: Vec::new(),
            tokens: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port is known");
        let served = Arc::clone(&site);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = Arc::clone(&served);
                // A client that hangs up is what some tests are about.
                std::thread::spawn(move || answer(&stream, &site, address));
            }
        });
        Self { address, site }
    }

    /// What `HF_ENDPOINT` is to be.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Fails from now on, when the file is asked for.
    pub(crate) fn fail(&self, file: &str, fault: Fault) {
        self.site().faults.insert(file.to_owned(), fault);
    }

    /// Works again.
    pub(crate) fn recover(&self) {
        self.site().faults.clear();
    }

    /// Adds or replaces a file.
    pub(crate) fn put(&self, file: &str, content: impl Into<Vec<u8>>) {
        self.site().files.insert(file.to_owned(), content.into());
    }

    /// Removes a file; returns what it held.
    pub(crate) fn remove(&self, file: &str) -> Vec<u8> {
        self.site().files.remove(file).expect("the file is there")
    }

    /// Moves the model to another commit.
    pub(crate) fn commit(&self, commit: &str) {
        commit.clone_into(&mut self.site().commit);
    }

    /// What was asked since the last call: `list`, or a file's name, each once.
    pub(crate) fn requests(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut self.site().requests);
        requests.sort_unstable();
        requests.dedup();
        requests
    }

    /// The `Authorization` header of every request.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.site().tokens.clone()
    }

    fn site(&self) -> std::sync::MutexGuard<'_, Site> {
        self.site.lock().expect("no thread panics with the site in its hands")
    }
}

/// A name for some content, as the Hub's are for large files.
pub(crate) fn etag(content: &[u8]) -> String {
    fisao_formats::digest::sha256_bytes(content)
}

fn answer(stream: &TcpStream, site: &Mutex<Site>, address: SocketAddr) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())))
        .collect();
    let mut site = site.lock().expect("no thread panics with the site in its hands");
    let path = target.split('?').next()?;
    let listed = path.starts_with("/api/models/owner/tiny/revision/");
    let resolved = format!("/owner/tiny/resolve/{}/", site.commit);
    let name = path.strip_prefix(&resolved).or_else(|| path.strip_prefix("/storage/"));
    let name = if listed { "" } else { name.unwrap_or("?") };
    site.requests.push(if listed { "list".to_owned() } else { name.to_owned() });
    site.tokens.push(headers.get("authorization").cloned());

    let known = listed || site.files.contains_key(name);
    let missing = (!known).then_some(Fault::Status(404, None));
    match site.faults.get(name).copied().or(missing) {
        Some(Fault::Status(status, code)) => {
            let code = code.map(|code| format!("X-Error-Code: {code}"));
            respond(stream, &format!("{status} Refused"), code.into_iter().collect(), b"", 0)
        }
        Some(Fault::Strange) => {
            let page = b"<html>Welcome to this hotel</html>";
            respond(stream, "200 OK", Vec::new(), page, page.len())
        }
        Some(Fault::SentOn(to)) => {
            let head = vec![format!("Location: {to}")];
            respond(stream, "302 Found", head, b"", 0)
        }
        Some(Fault::SentOnNowhere) => respond(stream, "302 Found", Vec::new(), b"", 0),
        Some(Fault::Longer(more)) => {
            let mut body = site.files[name].clone();
            body.resize(body.len() + more, b'x');
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").ok()?;
            stream.write_all(&body).ok()
        }
        Some(Fault::Silent(bytes)) => {
            let content = if listed { listing(&site) } else { site.files[name].clone() };
            drop(site);
            let sent = &content[..bytes.min(content.len())];
            respond(stream, "200 OK", Vec::new(), sent, content.len())?;
            std::thread::sleep(std::time::Duration::from_mins(1));
            None
        }
        fault if listed => {
            assert!(fault.is_none(), "a listing can be refused or strange");
            let listing = listing(&site);
            let kind = "Content-Type: application/json".to_owned();
            respond(stream, "200 OK", vec![kind], &listing, listing.len())
        }
        // Large files live elsewhere: the Hub says what they are and sends the client on.
        _ if is_large(name) && path.starts_with(&resolved) => {
            let content = &site.files[name];
            let head = vec![
                format!("X-Repo-Commit: {}", site.commit),
                format!("X-Linked-Etag: \"{}\"", etag(content)),
                format!("X-Linked-Size: {}", content.len()),
                format!("Location: http://{address}/storage/{name}"),
            ];
            respond(stream, "302 Found", head, b"", 0)
        }
        _ => send_file(stream, &mut site, name, headers.get("range")),
    }
}

/// Sends the part of a file that is asked for, or less, or claims less.
fn send_file(
    stream: &TcpStream,
    site: &mut Site,
    name: &str,
    asked: Option<&String>,
) -> Option<()> {
    let mut content = site.files[name].clone();
    if matches!(site.faults.get(name), Some(Fault::Changed)) {
        content[0] ^= 1;
    }
    let content = &content;
    let fault = site.faults.get(name).copied();
    if let (Some(Fault::Whole), Some(_)) = (fault, asked) {
        return respond(stream, "200 OK", Vec::new(), content, content.len());
    }
    let (mut from, to) = range(asked, content.len());
    if let (Some(Fault::OtherPart), Some(_)) = (fault, asked) {
        from = from.saturating_sub(7);
    }
    let mut head =
        vec![format!("X-Repo-Commit: {}", site.commit), format!("ETag: \"{}\"", etag(content))];
    if from >= content.len() {
        return respond(stream, "416 Range Not Satisfiable", head, b"", 0);
    }
    head.push(format!("Content-Range: bytes {from}-{}/{}", to - 1, content.len()));
    let whole = to - from;
    // The first byte alone is how clients ask for the length; that always works.
    let (sent, claimed) = match site.faults.get(name) {
        Some(Fault::Cut(bytes) | Fault::CutOnce(bytes)) if whole > 1 => (*bytes, whole),
        Some(Fault::Short(bytes)) if whole > 1 => (*bytes, *bytes),
        _ => (whole, whole),
    };
    let body = &content[from..from + sent.min(whole)];
    let done = respond(stream, "206 Partial Content", head, body, claimed);
    if matches!(site.faults.get(name), Some(Fault::CutOnce(_))) && whole > 1 {
        site.faults.remove(name);
    }
    done
}

fn is_large(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
}

fn listing(site: &Site) -> Vec<u8> {
    let siblings = site.files.iter().map(|(name, content)| {
        let mut called = etag(content);
        if let Some(Fault::Called(other)) = site.faults.get(name) {
            (*other).clone_into(&mut called);
        }
        let mut file = json!({ "rfilename": name, "size": content.len(), "blobId": called });
        if is_large(name) {
            file["blobId"] = "pointer".into();
            file["lfs"] = json!({ "sha256": called, "size": content.len() });
        }
        file
    });
    json!({ "id": "owner/tiny", "sha": site.commit, "siblings": siblings.collect::<Vec<_>>() })
        .to_string()
        .into_bytes()
}

/// First byte and the byte after the last of `bytes=3-7` or `bytes=3-`.
fn range(header: Option<&String>, length: usize) -> (usize, usize) {
    let (from, to) =
        header.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
    let to = to.parse::<usize>().map_or(length, |last| (last + 1).min(length));
    (from.parse().unwrap_or(0), to)
}

/// Sends an answer that claims to be `length` bytes long.
fn respond(
    mut stream: &TcpStream,
    status: &str,
    mut head: Vec<String>,
    body: &[u8],
    length: usize,
) -> Option<()> {
    head.insert(0, format!("HTTP/1.1 {status}"));
    head.extend([format!("Content-Length: {length}"), "Connection: close\r\n\r\n".to_owned()]);
    stream.write_all(head.join("\r\n").as_bytes()).ok()?;
    stream.write_all(body).ok()
}
