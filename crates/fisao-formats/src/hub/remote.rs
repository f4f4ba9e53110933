//! The Hub itself: what a model holds, and the download of one file.
//!
//! A server may be a mirror that nobody vouches for. So what it says becomes a path only where it is a plain name, the token
//! goes to the Hub's own address alone, no more is written than was announced, waiting has an end, and content is held against
//! its digest where the Hub tells one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, LOCATION, RANGE};
use ureq::http::uri::Authority;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::cache::ModelCache;
use super::id::is_path_part;
use super::{HubError, HubId, HubSettings};
use crate::FormatError;
use crate::digest::{git_blob_file, sha256_file};

/// How often a download that is truncated is taken up again without a byte more than before.
const RETRIES: u32 = 2;
/// Addresses that a request may be sent on to.
const HOPS: usize = 8;
/// Bytes of the longest listing, and how long it may take in all.
const LONGEST_LISTING: u64 = 1 << 25;
const LISTING_PATIENCE: Duration = Duration::from_mins(2);
/// Bytes of the longest file that is called by its Git object; the Hub keeps longer ones apart.
const LONGEST_GIT_FILE: u64 = 1 << 26;
/// Digits of digests in hexadecimal.
const SHA256_DIGITS: usize = 64;
const SHA1_DIGITS: usize = 40;
/// Bytes read at a time.
const PIECE: usize = 1 << 18;

/// A model at one commit, and its files.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<ListedFile>,
}

/// One file of a model.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    pub(super) name: String,
    /// Bytes, where the Hub says.
    pub(super) size: Option<u64>,
    /// The Hub's name for its content, which is the blob's name in the cache, where the Hub says.
    pub(super) etag: Option<String>,
}

impl Listing {
    pub(super) fn file(&self, name: &str) -> Option<&ListedFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

#[derive(Deserialize)]
struct RawListing {
    sha: String,
    #[serde(default)]
    siblings: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    sha256: Option<String>,
}

impl From<RawFile> for ListedFile {
    fn from(raw: RawFile) -> Self {
        let etag = match raw.lfs {
            Some(lfs) => lfs.sha256,
            None => raw.blob_id,
        };
        Self { name: raw.rfilename, size: raw.size, etag }
    }
}

/// What a download says: that it waits for another process, or how many bytes of how many are there.
pub(super) enum Step {
    Waiting,
    At { done: u64, total: u64 },
}

/// A connection to the Hub about one model.
pub(super) struct Remote<'a> {
    agent: Agent,
    settings: &'a HubSettings,
    id: &'a HubId,
}

/// An answer, at the end of its redirects.
struct Answer {
    response: Response<Body>,
    /// What the Hub itself said, which may have sent the request on.
    told: HeaderMap,
}

impl Answer {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.told.get(name)?.to_str().ok()
    }

    /// The Hub's name for the content.
    fn etag(&self) -> Option<&str> {
        let etag = self.header("x-linked-etag").or_else(|| self.header("etag"))?;
        Some(etag.trim_start_matches("W/").trim_matches('"'))
    }

    /// First byte that a part begins with, and how long the whole is, as far as it is told.
    fn range(&self) -> Option<(u64, Option<u64>)> {
        let range = self.response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
        let (first, rest) = range.strip_prefix("bytes ")?.split_once('-')?;
        let whole = rest.split_once('/').and_then(|(_, whole)| whole.parse().ok());
        Some((first.parse().ok()?, whole))
    }

    /// Whether its body starts at a byte: a whole file starts at byte 0, a part at the first byte of its Content-Range.
    fn continues(&self, from: u64) -> bool {
        match self.status() {
            206 => self.range().map_or(from == 0, |(first, _)| first == from),
            _ => from == 0,
        }
    }

    /// Bytes of the whole file, where that follows from the answer.
    fn whole(&self, from: u64) -> Option<u64> {
        match (self.status(), self.range()) {
            (206, Some((_, whole))) => whole,
            _ => self.response.body().content_length().map(|rest| from.saturating_add(rest)),
        }
    }

    /// Whether it was packed against what was asked.
    fn is_packed(&self) -> bool {
        let encoding = self.response.headers().get(CONTENT_ENCODING);
        encoding.is_some_and(|encoding| encoding != "identity")
    }
}

/// One file on its way, and how far it is.
struct Arriving<'a> {
    file: &'a str,
    url: String,
    etag: String,
    done: u64,
    /// Bytes of the whole; 0 where it is not known yet.
    total: u64,
    report: &'a mut dyn FnMut(Step),
}

impl<'a> Remote<'a> {
    pub(super) fn new(settings: &'a HubSettings, id: &'a HubId) -> Self {
        let config = Agent::config_builder()
            // Redirects are followed here, so that the token stays with the Hub.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // A part of a packed file would be no part of the file.
            .accept_encoding("identity")
            .user_agent(concat!("fisao/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(settings.patience))
            .timeout_connect(Some(settings.patience))
            .timeout_recv_response(Some(settings.patience))
            .timeout_per_read(Some(settings.patience))
            .build();
        Self { agent: config.into(), settings, id }
    }

    /// Asks for the commit that the revision is now, and its files.
    pub(super) fn listing(&self) -> Result<Listing, HubError> {
        let (endpoint, repository) = (&self.settings.endpoint, self.id.repository());
        let revision = self.id.revision().replace('/', "%2F");
        let url = format!("{endpoint}/api/models/{repository}/revision/{revision}?blobs=true");
        let mut answer = self.get(LISTING, &url, 0)?;
        if answer.status() != 200 {
            return Err(self.refused(answer.status(), answer.header("x-error-code")));
        }
        let body = answer.response.body_mut().with_config().limit(LONGEST_LISTING);
        let text = body.read_to_vec().map_err(|error| self.failed(LISTING, error))?;
        read_listing(&text).map_err(|reason| self.strange(LISTING, reason))
    }

    /// Brings one file of a commit into the cache. `commit` and the file's name are plain names.
    pub(super) fn download(
        &self,
        cache: &ModelCache<'_>,
        commit: &str,
        file: &ListedFile,
        report: &mut dyn FnMut(Step),
    ) -> Result<(), HubError> {
        let (endpoint, repository) = (&self.settings.endpoint, self.id.repository());
        let url = format!("{endpoint}/{repository}/resolve/{commit}/{}", file.name);
        let etag = if let Some(etag) = &file.etag {
            etag.clone()
        } else {
            // A mirror that lists names alone.
            let answer = self.get(&file.name, &url, 0)?;
            self.check_status(&answer, &file.name)?;
            answer.etag().unwrap_or_default().to_owned()
        };
        if !is_path_part(&etag) {
            let called = shown(&etag);
            return Err(self.strange(&file.name, format!("its content is called `{called}`")));
        }
        let blob = cache.blob(&etag);
        let blobs = blob.parent().expect("blobs lie in a folder");
        // No content is called by a name that begins with a dot, so these are nobody else's.
        let beside = |ending: &str| blobs.join(format!(".{etag}.{ending}"));
        let unwritable = |error| HubError::from(FormatError::io("write", blobs, error));
        fs::create_dir_all(blobs).map_err(unwritable)?;
        let lock = beside("lock");
        remove_link(&lock).map_err(unwritable)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let lock = lock.map_err(unwritable)?;
        let locked = is_locked(lock.try_lock(), || {
            report(Step::Waiting);
            lock.lock()
        });
        // Where files cannot be locked, two processes may do the same work, each for itself.
        let part =
            if locked { beside("part") } else { beside(&format!("{}.part", std::process::id())) };
        remove_link(&part).map_err(unwritable)?;
        let total = file.size.unwrap_or(0);
        let mut arriving = Arriving { file: &file.name, url, etag, done: 0, total, report };
        if !is_whole(&blob, file.size) {
            self.receive(&mut arriving, commit, &part)?;
            // A name that a power cut leaves without its content would be believed for ever.
            File::open(&part).and_then(|file| file.sync_all()).map_err(unwritable)?;
            fs::rename(&part, &blob).map_err(unwritable)?;
        }
        cache.unlink_dangling(commit, &file.name);
        let path = cache.snapshot(commit).join(&file.name);
        if path.exists() && !is_whole(&path, file.size) {
            // A copy, where links are not to be had.
            fs::remove_file(&path).map_err(unwritable)?;
        }
        if cache.link(commit, &file.name, &arriving.etag) {
            Ok(())
        } else {
            let reason = std::io::Error::other("the file cannot be linked into the snapshot");
            Err(FormatError::io("write", &path, reason).into())
        }
    }

    /// Fills the part of a file that is not there yet, as often as it takes, and checks the whole.
    fn receive(
        &self,
        arriving: &mut Arriving<'_>,
        commit: &str,
        part: &Path,
    ) -> Result<(), HubError> {
        let mut retries = 0;
        let mut farthest = fs::metadata(part).map_or(0, |data| data.len());
        loop {
            arriving.done = fs::metadata(part).map_or(0, |data| data.len());
            let error = match self.receive_rest(arriving, commit, part) {
                Ok(()) => break,
                Err(error) => error,
            };
            if arriving.done > farthest {
                (farthest, retries) = (arriving.done, 0);
            }
            if retries >= RETRIES || !may_pass(&error) {
                return Err(error);
            }
            retries += 1;
            std::thread::sleep(Duration::from_secs(u64::from(retries)));
        }
        self.check_content(arriving, part)
    }

    /// One attempt at it.
    fn receive_rest(
        &self,
        arriving: &mut Arriving<'_>,
        commit: &str,
        part: &Path,
    ) -> Result<(), HubError> {
        let file = arriving.file;
        if arriving.total > 0 && arriving.done == arriving.total {
            return Ok(());
        }
        if arriving.total > 0 && arriving.done > arriving.total {
            discard(part, arriving)?;
        }
        let mut answer = self.get(file, &arriving.url, arriving.done)?;
        if answer.status() == 416 || answer.status() == 206 && !answer.continues(arriving.done) {
            // What is there is not a beginning of what the Hub has.
            discard(part, arriving)?;
            answer = self.get(file, &arriving.url, 0)?;
        }
        self.check_status(&answer, file)?;
        if answer.header("x-repo-commit").is_some_and(|found| found != commit) {
            return Err(self.strange(file, "it is of another commit".to_owned()));
        }
        if answer.is_packed() {
            return Err(
                self.strange(file, "it is packed, though it was asked not to be".to_owned())
            );
        }
        // An answer that does not go on begins anew; what is there waits until its length is right.
        let from = if answer.continues(arriving.done) { arriving.done } else { 0 };
        match (answer.whole(from), arriving.total) {
            (Some(length), 0) => arriving.total = length,
            (None, 0) => {
                return Err(self.strange(file, "it does not say how long it is".to_owned()));
            }
            (Some(length), total) if length > total || from == 0 && arriving.done > length => {
                let reason = format!("{length} bytes are announced for {total}");
                return Err(self.strange(file, reason));
            }
            _ => {}
        }
        if from < arriving.done {
            discard(part, arriving)?;
        }
        self.write_rest(arriving, answer.response.into_body(), part)
    }

    /// Appends a body to what is there.
    fn write_rest(
        &self,
        arriving: &mut Arriving<'_>,
        body: Body,
        part: &Path,
    ) -> Result<(), HubError> {
        let unwritable = |error| self.not_written(arriving.file, arriving.total, error);
        let mut written =
            OpenOptions::new().create(true).append(true).open(part).map_err(unwritable)?;
        let (start, told) = (arriving.done, body.content_length().is_some());
        let mut body = body.into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(self.broken_off(arriving, reason(&error, self.settings.patience)));
                }
            };
            if arriving.done + read as u64 > arriving.total {
                let total = arriving.total;
                discard(part, arriving)?;
                let reason = format!("more than the {total} bytes that were announced");
                return Err(self.strange(arriving.file, reason));
            }
            let unwritable = |error| self.not_written(arriving.file, arriving.total, error);
            written.write_all(&piece[..read]).map_err(unwritable)?;
            arriving.done += read as u64;
            (arriving.report)(Step::At { done: arriving.done, total: arriving.total });
        }
        if arriving.done < arriving.total {
            let error = self.broken_off(arriving, "the connection was closed".to_owned());
            // An answer that says it is complete may be something else altogether, and one that says nothing of its length may
            // have been cut; only the latter is worth keeping, where a digest will tell.
            if told || !is_digest(&arriving.etag) {
                let (file, total) = (arriving.file, arriving.total);
                let shortened = written.set_len(start);
                shortened.map_err(|error| self.not_written(file, total, error))?;
                arriving.done = start;
            }
            return Err(error);
        }
        Ok(())
    }

    /// An answer that gives the file, or a part of it.
    fn check_status(&self, answer: &Answer, file: &str) -> Result<(), HubError> {
        match answer.status() {
            200 | 206 => Ok(()),
            status @ (401 | 403) => Err(self.gated(status)),
            status => Err(self.unusual(status, file)),
        }
    }

    /// Holds a whole file against its length and the digest that is its name: SHA-256 of large files, Git's own of small ones.
    fn check_content(&self, arriving: &mut Arriving<'_>, part: &Path) -> Result<(), HubError> {
        let length =
            fs::metadata(part).map_err(|error| FormatError::io("read", part, error))?.len();
        if length != arriving.total {
            // Somebody else has written to it.
            discard(part, arriving)?;
            let reason = format!("{length} bytes of {} are there", arriving.total);
            return Err(self.strange(arriving.file, reason));
        }
        let announced = &arriving.etag;
        let found = match announced.len() {
            _ if !is_hexadecimal(announced) => return Ok(()),
            SHA256_DIGITS => sha256_file(part)?,
            SHA1_DIGITS if length <= LONGEST_GIT_FILE => git_blob_file(part)?,
            _ => return Ok(()),
        };
        if found == *announced {
            return Ok(());
        }
        let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
        let (file, announced) = (arriving.file.to_owned(), announced.as_str().into());
        discard(part, arriving)?;
        Err(HubError::WrongContent { id, endpoint, file, announced, found: found.into() })
    }

    /// Asks for an address, from a byte on, and follows where it is sent on to. The token goes to the Hub's own address only.
    fn get(&self, file: &str, url: &str, from: u64) -> Result<Answer, HubError> {
        let home = self.uri(file, &self.settings.endpoint)?;
        let mut at = self.uri(file, url)?;
        let mut told = None;
        for _ in 0..HOPS {
            let mut request = self.agent.get(&at);
            if file == LISTING {
                request = request.config().timeout_recv_body(Some(LISTING_PATIENCE)).build();
            }
            let own = at.scheme() == home.scheme() && at.authority() == home.authority();
            if let Some(token) = self.settings.token.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| self.failed(file, error))?;
            // What the Hub itself said last, and not a server that it sent the request on to.
            if own || told.is_none() {
                told = Some(response.headers().clone());
            }
            if !response.status().is_redirection() {
                return Ok(Answer { told: told.unwrap_or_default(), response });
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let location = location.ok_or_else(|| {
                self.strange(file, "it is said to be elsewhere, and not where".to_owned())
            })?;
            at = self.sent_on(file, &at, location)?;
        }
        Err(self.strange(file, format!("it was sent on more than {HOPS} times")))
    }

    /// Where a redirect leads: an address, or a path of the same server.
    fn sent_on(&self, file: &str, from: &Uri, location: &str) -> Result<Uri, HubError> {
        let to = if location.starts_with('/') && !location.starts_with("//") {
            let (scheme, authority) = (from.scheme_str(), from.authority());
            let (scheme, authority) = (scheme.unwrap_or("https"), authority.map(Authority::as_str));
            self.uri(file, &format!("{scheme}://{}{location}", authority.unwrap_or_default()))?
        } else {
            self.uri(file, location)?
        };
        if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
            let to = shown(&to.to_string());
            return Err(self.strange(file, format!("it is sent on to {to}, without encryption")));
        }
        Ok(to)
    }

    fn uri(&self, file: &str, url: &str) -> Result<Uri, HubError> {
        let uri = url.parse::<Uri>().ok();
        let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        uri.filter(|uri| uri.authority().is_some())
            .ok_or_else(|| self.strange(file, format!("`{}` is no address", shown(url))))
    }

    /// An answer other than 200 to the first question, which is about the model as a whole.
    fn refused(&self, status: u16, code: Option<&str>) -> HubError {
        let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
        match (status, code) {
            (_, Some("RevisionNotFound")) => HubError::NoSuchRevision { id, endpoint },
            (401 | 403, Some("GatedRepo")) => self.gated(status),
            (401 | 403, _) => {
                HubError::Refused { id, endpoint, status, token: self.settings.token.is_some() }
            }
            (404, _) => HubError::NoSuchModel { id, endpoint },
            _ => self.unusual(status, LISTING),
        }
    }

    fn gated(&self, status: u16) -> HubError {
        let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
        HubError::Gated { id, endpoint, status }
    }

    fn unusual(&self, status: u16, file: &str) -> HubError {
        if status >= 500 || status == 429 {
            let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
            return HubError::Server { id, endpoint, file: file.to_owned(), status };
        }
        self.strange(file, format!("HTTP {status}"))
    }

    /// A request that got no answer.
    fn failed(&self, file: &str, error: ureq::Error) -> HubError {
        let reason = match error {
            ureq::Error::StatusCode(status) => return self.unusual(status, file),
            ureq::Error::HostNotFound => "there is no host of that name".to_owned(),
            ureq::Error::Timeout(_) => silence(self.settings.patience),
            ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
                silence(self.settings.patience)
            }
            ureq::Error::Io(error) => error.to_string(),
            ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::Tls(_)
            | ureq::Error::Rustls(_) => error.to_string(),
            error => return self.strange(file, error.to_string()),
        };
        HubError::Unreachable {
            id: self.id.clone(),
            endpoint: self.settings.endpoint.clone(),
            reason,
            missing: file.to_owned(),
        }
    }

    fn strange(&self, file: &str, reason: String) -> HubError {
        let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
        HubError::Strange { id, endpoint, file: file.to_owned(), reason }
    }

    fn broken_off(&self, arriving: &Arriving<'_>, reason: String) -> HubError {
        let (id, file) = (self.id.clone(), arriving.file.to_owned());
        let (done, total) = (arriving.done, arriving.total);
        HubError::BrokenOff { id, file, done, total, reason }
    }

    fn not_written(&self, file: &str, total: u64, source: std::io::Error) -> HubError {
        let (id, cache) = (self.id.clone(), self.settings.cache.clone());
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                HubError::DiskFull { id, cache, file: file.to_owned(), total, source }
            }
            _ => FormatError::io("write", &cache, source).into(),
        }
    }
}

/// Reads a listing; the commit becomes a path, and is a plain name.
fn read_listing(text: &[u8]) -> Result<Listing, String> {
    let raw: RawListing = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !is_path_part(&raw.sha) {
        return Err(format!("the commit is `{}`", shown(&raw.sha)));
    }
    let files = raw.siblings.into_iter().map(ListedFile::from).collect();
    Ok(Listing { commit: raw.sha, files })
}

/// What the first question asks for.
const LISTING: &str = "the list of files";

fn silence(patience: Duration) -> String {
    format!("not a byte came in {} seconds", patience.as_secs_f64())
}

/// Why a body could not be read on.
fn reason(error: &std::io::Error, patience: Duration) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    let late =
        error.kind() == ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)));
    if late { silence(patience) } else { error.to_string() }
}

/// What a server said, for a terminal.
fn shown(text: &str) -> String {
    text.escape_debug().take(200).collect()
}

/// Whether a name of content is its SHA-256 or that of a Git object, so that what was kept of it can be checked.
fn is_digest(etag: &str) -> bool {
    matches!(etag.len(), SHA256_DIGITS | SHA1_DIGITS) && is_hexadecimal(etag)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file is locked, if need be by waiting. Some file systems know no locks.
#[expect(clippy::needless_pass_by_value, reason = "it is the result of trying to lock")]
fn is_locked(tried: Result<(), TryLockError>, wait: impl FnOnce() -> std::io::Result<()>) -> bool {
    match tried {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => wait().is_ok(),
        Err(TryLockError::Error(_)) => false,
    }
}

/// Makes sure that what is written next is a file of this folder: a link that lies there would lead elsewhere.
fn remove_link(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if !data.is_file() => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Begins a file anew.
fn discard(part: &Path, arriving: &mut Arriving<'_>) -> Result<(), FormatError> {
    arriving.done = 0;
    match fs::remove_file(part) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FormatError::io("remove", part, error))
        }
        _ => Ok(()),
    }
}

/// Whether a blob is there, of the size that the Hub tells.
fn is_whole(blob: &Path, size: Option<u64>) -> bool {
    fs::metadata(blob).is_ok_and(|data| size.is_none_or(|size| data.len() == size))
}

/// Whether an error may be over when the same is tried again.
fn may_pass(error: &HubError) -> bool {
    match error {
        HubError::BrokenOff { .. } | HubError::Unreachable { .. } => true,
        HubError::Server { status, .. } => *status >= 500,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use fisao_testkit::fuzz::Form;

    use super::*;

    fn settings() -> HubSettings {
        HubSettings {
            cache: "/cache".into(),
            endpoint: "http://hub.example".to_owned(),
            token: None,
            offline: false,
            patience: Duration::from_secs(30),
        }
    }

    #[test]
    fn download_proceeds_unlocked_where_locks_are_unsupported() {
        let no_locks = || std::io::Error::from(ErrorKind::Unsupported);
        assert!(is_locked(Ok(()), || unreachable!("it is not waited for")));
        assert!(is_locked(Err(TryLockError::WouldBlock), || Ok(())));
        assert!(!is_locked(Err(TryLockError::WouldBlock), || Err(no_locks())));
        assert!(!is_locked(Err(TryLockError::Error(no_locks())), || unreachable!("nor here")));
    }

    #[test]
    fn small_files_are_verified_against_their_git_blob_hash() {
        let (settings, id) = (settings(), "owner/name".parse().unwrap());
        let remote = Remote::new(&settings, &id);
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        let mut report = |_: Step| {};
        // `git hash-object` of a file that holds "hello\n".
        for (content, sound) in [("hello\n", true), ("hellO\n", false)] {
            fs::write(&part, content).unwrap();
            let etag = "ce013625030ba8dba906f756967f9e9ca394464a".to_owned();
            let (file, url) = ("config.json", String::new());
            let mut arriving = Arriving { file, url, etag, done: 6, total: 6, report: &mut report };
            let checked = remote.check_content(&mut arriving, &part);
            assert_eq!((checked.is_ok(), part.exists()), (sound, sound));
        }
    }

    #[test]
    fn damaged_listings_are_read_safely_or_rejected() {
        let listing = br#"{"id": "a/b", "sha": "0123abcd", "siblings": [
            {"rfilename": "config.json", "size": 12, "blobId": "ce013625030ba8dba906f756967f9e9ca394464a"},
            {"rfilename": "model.safetensors", "size": 99, "lfs": {"sha256": "00ff", "size": 99}}]}"#;
        assert_eq!(read_listing(listing).unwrap().files.len(), 2);
        for input in fisao_testkit::fuzz::inputs(Form::Json, &[listing.to_vec()], 0, 2000) {
            if let Ok(listing) = read_listing(&input) {
                assert!(is_path_part(&listing.commit), "{}", listing.commit);
            }
        }
    }

    #[test]
    fn full_disk_and_unwritable_cache_are_reported_differently() {
        let (settings, id) = (settings(), "owner/name".parse().unwrap());
        let remote = Remote::new(&settings, &id);
        let told =
            |kind: ErrorKind| remote.not_written("model.safetensors", 99, kind.into()).to_string();
        let full = told(ErrorKind::StorageFull);
        let expected = "no room for model.safetensors of `owner/name` (99 bytes) in /cache: ";
        assert!(full.starts_with(expected), "{full}");
        assert!(told(ErrorKind::PermissionDenied).starts_with("cannot write /cache: "));
    }

    #[test]
    fn unknown_host_is_reported() {
        let (settings, id) = (settings(), "owner/name".parse().unwrap());
        let remote = Remote::new(&settings, &id);
        assert_eq!(
            remote.failed(LISTING, ureq::Error::HostNotFound).to_string(),
            "cannot reach http://hub.example: there is no host of that name"
        );
    }

    #[test]
    fn redirects_must_be_http_and_keep_encryption() {
        let (settings, id) = (settings(), "owner/name".parse().unwrap());
        let remote = Remote::new(&settings, &id);
        let from = |from: &str, to: &str| {
            let found = remote.sent_on("file", &from.parse().unwrap(), to);
            found.map(|uri| uri.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(from("http://a:80/x?y", "/z?q").unwrap(), "http://a:80/z?q");
        assert_eq!(from("http://a/x", "https://b/z").unwrap(), "https://b/z");
        for to in ["file:///etc/passwd", "//b/z", "", "z", "ftp://b/z"] {
            assert!(from("http://a/x", to).unwrap_err().contains("is no address"), "{to}");
        }
        let plain = from("https://a/x", "http://b/z").unwrap_err();
        assert!(plain.contains("without encryption"), "{plain}");
    }
}
