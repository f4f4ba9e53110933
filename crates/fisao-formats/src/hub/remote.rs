//! The Hub itself: what a model holds, and the download of one file.

use std::io::ErrorKind;
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use serde::Deserialize;

use super::cache::ModelCache;
use super::id::is_path_part;
use super::{HubError, HubId, HubSettings};
use crate::FormatError;

/// How long the Hub may take to accept a connection, and again to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a download that breaks off is taken up again.
const RETRIES: u32 = 2;

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
    api: Api,
    settings: &'a HubSettings,
    id: &'a HubId,
}

impl<'a> Remote<'a> {
    pub(super) fn new(settings: &'a HubSettings, id: &'a HubId) -> Result<Self, HubError> {
        let api = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_user_agent("fisao", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build();
        let remote = |api| Self { api, settings, id };
        api.map(remote).map_err(|error| {
            let endpoint = settings.endpoint.clone();
            HubError::Strange {
                id: id.clone(),
                endpoint,
                file: "a connection".to_owned(),
                reason: error.to_string(),
            }
        })
    }

    /// Asks for the commit that the revision is now, and its files.
    pub(super) fn listing(&self, cache: &ModelCache<'_>) -> Result<Listing, HubError> {
        let request = self
            .api
            .repo(cache.repo(self.id.revision()))
            .info_request()
            .query("blobs", "true")
            .config()
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build();
        let mut response = request.call().map_err(|error| self.failed(LISTING, error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
            return Err(self.refused(status, code));
        }
        let text = response.body_mut().read_to_string();
        let text = text.map_err(|error| self.failed(LISTING, error))?;
        let raw: RawListing = serde_json::from_str(&text)
            .map_err(|error| self.strange(LISTING, error.to_string()))?;
        if !is_path_part(&raw.sha) {
            return Err(self.strange(LISTING, format!("the commit is `{}`", raw.sha)));
        }
        let files = raw.siblings.into_iter().map(ListedFile::from).collect();
        Ok(Listing { commit: raw.sha, files })
    }

    /// Brings one file of a commit into the cache.
    pub(super) fn download(
        &self,
        cache: &ModelCache<'_>,
        commit: &str,
        file: &ListedFile,
        report: &mut dyn FnMut(Step),
    ) -> Result<(), HubError> {
        let path = cache.snapshot(commit).join(&file.name);
        let repo = self.api.repo(cache.repo(commit));
        let mut bytes = Bytes { done: 0, total: file.size.unwrap_or(0), report };
        let (mut retries, mut waited) = (0, false);
        while !path.exists() {
            cache.unlink_dangling(commit, &file.name);
            let before = bytes.done;
            let error = match repo.download_with_progress(&file.name, &mut bytes) {
                Ok(_) => break,
                // Another process made the link in the meantime.
                Err(ApiError::IoError(error)) if error.kind() == ErrorKind::AlreadyExists => break,
                Err(error) => error,
            };
            match error {
                // hf-hub waits some seconds for the lock; a large file takes longer.
                ApiError::LockAcquisition(_) => {
                    if !std::mem::replace(&mut waited, true) {
                        (bytes.report)(Step::Waiting);
                    }
                }
                // All of it had arrived when an earlier download ended, or more than all.
                ApiError::InvalidResume if self.discard_part(cache, commit, &file.name) => {}
                ApiError::RequestError(error)
                    if is_status(&error, 416) && self.discard_part(cache, commit, &file.name) => {}
                error => {
                    retries = if bytes.done > before { 0 } else { retries };
                    if retries >= RETRIES || !may_pass(&error) {
                        return Err(self.not_downloaded(&file.name, &bytes, error));
                    }
                    retries += 1;
                    std::thread::sleep(Duration::from_secs(u64::from(retries)));
                }
            }
        }
        if !path.exists() {
            return Err(self.strange(&file.name, "it is of another commit".to_owned()));
        }
        self.check_length(&path, &file.name, &bytes)
    }

    /// hf-hub believes in what arrived; a proxy may have cut it.
    fn check_length(
        &self,
        path: &std::path::Path,
        file: &str,
        bytes: &Bytes<'_>,
    ) -> Result<(), HubError> {
        let found =
            std::fs::metadata(path).map_err(|error| FormatError::io("read", path, error))?;
        if bytes.total == 0 || found.len() == bytes.total {
            return Ok(());
        }
        if let Ok(blob) = path.canonicalize() {
            let _ = std::fs::remove_file(blob);
        }
        let _ = std::fs::remove_file(path);
        Err(HubError::BrokenOff {
            id: self.id.clone(),
            file: file.to_owned(),
            done: found.len(),
            total: bytes.total,
            reason: "the connection was closed".to_owned(),
        })
    }

    fn discard_part(&self, cache: &ModelCache<'_>, commit: &str, file: &str) -> bool {
        let url = self.api.repo(cache.repo(commit)).url(file);
        self.api.metadata(&url).is_ok_and(|metadata| cache.discard_part(metadata.etag()))
    }

    /// An answer other than 200 to the first question, which is about the model as a whole.
    fn refused(&self, status: u16, code: Option<&str>) -> HubError {
        let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
        match (status, code) {
            (_, Some("RevisionNotFound")) => HubError::NoSuchRevision { id, endpoint },
            (401 | 403, Some("GatedRepo")) => HubError::Gated { id, endpoint, status },
            (401 | 403, _) => {
                HubError::Refused { id, endpoint, status, token: self.settings.token.is_some() }
            }
            (404, _) => HubError::NoSuchModel { id, endpoint },
            _ => self.unusual(status, LISTING),
        }
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
            ureq::Error::Io(error) => error.to_string(),
            ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(_)
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

    fn not_downloaded(&self, file: &str, bytes: &Bytes<'_>, error: ApiError) -> HubError {
        let id = self.id.clone();
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(status @ (401 | 403)) => {
                    HubError::Gated { id, endpoint: self.settings.endpoint.clone(), status }
                }
                error => self.failed(file, error),
            },
            ApiError::IoError(source) => self.not_written(file, bytes, source),
            error => self.strange(file, error.to_string()),
        }
    }

    /// Reading the answer and writing the file fail alike; the kind of error tells them apart.
    fn not_written(&self, file: &str, bytes: &Bytes<'_>, source: std::io::Error) -> HubError {
        let (id, cache) = (self.id.clone(), self.settings.cache.clone());
        let (file, total) = (file.to_owned(), bytes.total);
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                HubError::DiskFull { id, cache, file, total, source }
            }
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::NotFound => FormatError::io("write", &cache, source).into(),
            _ => {
                let reason = source.to_string();
                HubError::BrokenOff { id, file, done: bytes.done, total, reason }
            }
        }
    }
}

/// What the first question asks for.
const LISTING: &str = "the list of files";

fn is_status(error: &ureq::Error, wanted: u16) -> bool {
    matches!(error, ureq::Error::StatusCode(status) if *status == wanted)
}

/// Whether an error may be over when the same is tried again.
fn may_pass(error: &ApiError) -> bool {
    match error {
        ApiError::RequestError(error) => match &**error {
            ureq::Error::StatusCode(status) => *status >= 500,
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
            _ => false,
        },
        ApiError::IoError(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::UnexpectedEof
                | ErrorKind::TimedOut
                | ErrorKind::BrokenPipe
                | ErrorKind::Other
        ),
        _ => false,
    }
}

/// Counts the bytes of one file. hf-hub begins anew, at what is there already, when it resumes.
struct Bytes<'a> {
    done: u64,
    total: u64,
    report: &'a mut dyn FnMut(Step),
}

impl hf_hub::api::Progress for &mut Bytes<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.report)(Step::At { done: self.done, total: self.total });
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> HubSettings {
        HubSettings {
            cache: "/cache".into(),
            endpoint: "http://hub.example".to_owned(),
            token: None,
            offline: false,
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_connection() {
        let (settings, id) = (settings(), "owner/name".parse().unwrap());
        let remote = Remote::new(&settings, &id).unwrap();
        let bytes = Bytes { done: 10, total: 99, report: &mut |_| {} };
        let told = |kind: ErrorKind| {
            let error = ApiError::IoError(kind.into());
            remote.not_downloaded("model.safetensors", &bytes, error).to_string()
        };
        let full = told(ErrorKind::StorageFull);
        let expected = "no room for model.safetensors of `owner/name` (99 bytes) in /cache: ";
        assert!(full.starts_with(expected), "{full}");
        assert!(told(ErrorKind::UnexpectedEof).contains("broke off at 10 of 99 bytes"));
        assert!(told(ErrorKind::PermissionDenied).starts_with("cannot write /cache: "));
    }

    #[test]
    fn a_host_that_cannot_be_found_is_said_so() {
        let (settings, id) = (settings(), "owner/name".parse().unwrap());
        let remote = Remote::new(&settings, &id).unwrap();
        assert_eq!(
            remote.failed(LISTING, ureq::Error::HostNotFound).to_string(),
            "cannot reach http://hub.example: there is no host of that name"
        );
    }
}
