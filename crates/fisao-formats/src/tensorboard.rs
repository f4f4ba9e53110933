//! TensorBoard event files: curves, texts and histograms of a run, for everything that reads what TensorBoard reads.
//!
//! A file is a sequence of records in TFRecord framing, and a record one `tensorflow.Event` in protocol buffers, after
//! `tensorboard/summary/writer` 2.21 and the messages of `tensorboard/compat/proto`, of which only the fields that
//! are written here are known here; `fixtures/tensorboard` holds the same records as that library writes them.
//!
//! Departures: a file's name carries no host and no process, so that runs can be compared byte by byte, and nothing is
//! buffered, so that whoever looks sees what was measured up to now.

mod event;
mod histogram;
mod protobuf;
mod record;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use self::event::{Content, Event, Value};
use self::histogram::Histogram;
use crate::FormatError;

/// What the name of every event file begins with; TensorBoard looks for `tfevents` in it.
pub const EVENT_FILE_PREFIX: &str = "events.out.tfevents.";
/// What ours end with, where others have the names of host and process.
const SUFFIX: &str = ".fisao";

/// Appends to an event file of its own. Each record is written by one call and is on its way to the disk when the call
/// returns: a run that is killed loses no step it has reported and leaves at most one broken record, the last, which
/// TensorBoard passes over.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Begins an event file in a folder, which is made if absent. Its name says when that was, in Unix seconds, or a
    /// later second where the folder has event files of this one or of the future: TensorBoard reads them in the
    /// order of their names.
    ///
    /// # Errors
    /// The folder cannot be made or read, or the file not be written.
    pub fn create(folder: &Path, now: SystemTime) -> Result<Self, FormatError> {
        // Readers take the first start of a run for its beginning, and only later ones for an interruption.
        Self::begin(folder, 0, now)
    }

    /// Begins another event file of a run that goes on with step `first_step` (from 0). Whoever reads the folder
    /// forgets the steps from that one on that earlier files hold: TensorBoard's slow loader all at once, its fast one
    /// (the default where it is installed) tag by tag, as new values arrive.
    ///
    /// # Errors
    /// The folder cannot be made or read, or the file not be written.
    pub fn resume(folder: &Path, first_step: u64, now: SystemTime) -> Result<Self, FormatError> {
        Self::begin(folder, first_step, now)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records one number, which TensorBoard keeps in single precision; NaN and infinities are shown as such.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(
        &mut self,
        tag: &str,
        step: u64,
        wall_time: SystemTime,
        value: f64,
    ) -> Result<(), FormatError> {
        self.scalars(step, wall_time, [(tag, value)])
    }

    /// Records all numbers of one step, by their tags, in one record; none, if there are none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        wall_time: SystemTime,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), FormatError> {
        #[expect(clippy::cast_possible_truncation, reason = "TensorBoard's scalars have 32 bits")]
        let scalar = |(tag, value)| (tag, Value::Scalar(value as f32));
        self.summary(step, wall_time, values.into_iter().map(scalar).collect())
    }

    /// Records a text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn text(
        &mut self,
        tag: &str,
        step: u64,
        wall_time: SystemTime,
        text: &str,
    ) -> Result<(), FormatError> {
        self.summary(step, wall_time, vec![(tag, Value::Text(text))])
    }

    /// Records how values are spread, in 30 bins of equal width from the smallest to the largest. Values that are not
    /// finite are left out; where none is left nothing is recorded.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn histogram(
        &mut self,
        tag: &str,
        step: u64,
        wall_time: SystemTime,
        values: &[f64],
    ) -> Result<(), FormatError> {
        let histogram = Histogram::of(values).map(|histogram| (tag, Value::Histogram(histogram)));
        self.summary(step, wall_time, histogram.into_iter().collect())
    }

    fn summary(
        &mut self,
        step: u64,
        wall_time: SystemTime,
        values: Vec<(&str, Value<'_>)>,
    ) -> Result<(), FormatError> {
        if values.is_empty() {
            return Ok(());
        }
        self.append(&[Event { wall_time, step, content: Content::Summary(values) }])
    }

    fn begin(folder: &Path, first_step: u64, now: SystemTime) -> Result<Self, FormatError> {
        fs::create_dir_all(folder).map_err(|error| FormatError::io("create", folder, error))?;
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let seconds = latest(folder)?.map_or(seconds, |latest| seconds.max(latest + 1));
        // Ten digits, so that the order of names is the order of times.
        let path = folder.join(format!("{EVENT_FILE_PREFIX}{seconds:010}{SUFFIX}"));
        // Never truncates what another process began in the meantime.
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(|error| FormatError::io("write", &path, error))?;
        let mut writer = Self { file, path };
        let event = |step, content| Event { wall_time: now, step, content };
        let version = event(0, Content::FileVersion("brain.Event:2"));
        writer.append(&[version, event(first_step, Content::SessionStart)])?;
        Ok(writer)
    }

    fn append(&mut self, events: &[Event<'_>]) -> Result<(), FormatError> {
        let records: Vec<u8> =
            events.iter().flat_map(|event| record::framed(&event.encoded())).collect();
        // One call for all of it, so that an interruption cannot leave half of it.
        self.file.write_all(&records).map_err(|error| FormatError::io("write", &self.path, error))
    }
}

/// The last second that an event file of the folder is named after, ours or another's.
fn latest(folder: &Path) -> Result<Option<u64>, FormatError> {
    let failed = |error| FormatError::io("read", folder, error);
    let mut latest = None;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let seconds = name.to_str().and_then(|name| name.strip_prefix(EVENT_FILE_PREFIX));
        let seconds = seconds.and_then(|rest| rest.split('.').next()?.parse().ok());
        // Beyond ten digits it is no time, and ours could not be sorted after it.
        latest = latest.max(seconds.filter(|&seconds: &u64| seconds < 9_999_999_999));
    }
    Ok(latest)
}
