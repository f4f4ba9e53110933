//! The messages of `tensorboard/compat/proto` (event, summary, tensor), as far as they are written here.

use std::time::{SystemTime, UNIX_EPOCH};

use super::histogram::Histogram;
use super::protobuf::Message;

/// `tensorflow.Event`.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) wall_time: SystemTime,
    pub(super) step: u64,
    pub(super) content: Content<'a>,
}

/// What an event is about, its `oneof what`.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Format of the file; the first event of each.
    FileVersion(&'a str),
    /// Values by their tags.
    Summary(Vec<(&'a str, Value<'a>)>),
    /// `SessionLog` with status `START`: what was recorded for this step and later ones no longer counts.
    SessionStart,
}

/// One value of a summary.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Scalar(f32),
    Text(&'a str),
    Histogram(Histogram),
}

/// `SessionLog.SessionStatus.START`.
const START: u64 = 1;
/// `DataType.DT_STRING`.
const DT_STRING: u64 = 7;
/// `DataClass.DATA_CLASS_TENSOR`.
const DATA_CLASS_TENSOR: u64 = 2;

impl Event<'_> {
    pub(super) fn encoded(&self) -> Vec<u8> {
        let event = Message::default().double(1, unix_seconds(self.wall_time));
        let event = event.integer(2, self.step);
        let event = match &self.content {
            Content::FileVersion(version) => event.chosen_text(3, version),
            Content::Summary(values) => event.message(5, &summary(values)),
            Content::SessionStart => event.message(7, &Message::default().integer(1, START)),
        };
        event.encoded()
    }
}

/// `tensorflow.Summary`.
fn summary(values: &[(&str, Value<'_>)]) -> Message {
    values.iter().fold(Message::default(), |summary, (tag, value)| {
        let tagged = Message::default().text(1, tag);
        let tagged = match value {
            Value::Scalar(value) => tagged.chosen_float(2, *value),
            Value::Histogram(histogram) => tagged.message(5, &histogram.message()),
            Value::Text(text) => tagged.message(8, &strings(text)).message(9, &text_metadata()),
        };
        summary.message(1, &tagged)
    })
}

/// `tensorflow.TensorProto` of one text and no dimension.
fn strings(text: &str) -> Message {
    let shape = Message::default();
    Message::default().integer(1, DT_STRING).message(2, &shape).chosen_text(8, text)
}

/// `tensorflow.SummaryMetadata` that names who shows texts.
fn text_metadata() -> Message {
    let plugin = Message::default().text(1, "text");
    Message::default().message(1, &plugin).integer(4, DATA_CLASS_TENSOR)
}

/// Seconds since 1970, negative before.
fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
