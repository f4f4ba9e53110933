//! Messages between the processes of a command: how they are sent, and what their bytes mean (`MessagePack`, with arrays of numbers as they
//! are in memory).

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A link between this process and the others of a command. Process 0 is the one that runs it.
pub trait Link: Debug + Send + Sync {
    /// Number of this process.
    fn number(&self) -> usize;

    /// How many there are, this one among them.
    fn processes(&self) -> usize;

    /// Sends a message.
    ///
    /// # Errors
    /// [`LinkError`] when the other process cannot be reached.
    fn send(&self, to: usize, message: &[u8]) -> Result<(), LinkError>;

    /// The next message from a process; waits for it.
    ///
    /// # Errors
    /// [`LinkError`] when the other process cannot be reached.
    fn receive(&self, from: usize) -> Result<Vec<u8>, LinkError>;
}

/// A process that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("process {process} cannot be reached: {reason}")]
pub struct LinkError {
    /// Its number.
    pub process: usize,
    /// What is wrong.
    pub reason: String,
}

/// A message that is none.
#[derive(Debug, thiserror::Error)]
#[error("a message between processes cannot be {0}")]
pub struct MessageError(String);

impl MessageError {
    /// One that comes when something else is waited for.
    pub(crate) fn unexpected() -> Self {
        Self("understood: something else was waited for".to_owned())
    }
}

pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    rmp_serde::to_vec_named(message).map_err(|error| MessageError(format!("written: {error}")))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    rmp_serde::from_slice(bytes).map_err(|error| MessageError(format!("read: {error}")))
}

/// Numbers as the bytes they are in memory.
pub(crate) mod as_bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytemuck::cast_slice(values))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<f32>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers of 32 bits as bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<f32>, E> {
                if !bytes.len().is_multiple_of(size_of::<f32>()) {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(bytemuck::pod_collect_to_vec(bytes))
            }
        }

        from.deserialize_bytes(Bytes)
    }

    /// Of several arrays with names.
    pub(crate) mod by_name {
        use std::collections::BTreeMap;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Deserialize)]
        struct Values(#[serde(deserialize_with = "super::deserialize")] Vec<f32>);

        #[derive(Serialize)]
        struct Borrowed<'a>(#[serde(serialize_with = "super::serialize")] &'a [f32]);

        pub(crate) fn serialize<S: Serializer>(
            arrays: &BTreeMap<String, Vec<f32>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_map(arrays.iter().map(|(name, values)| (name, Borrowed(values))))
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<BTreeMap<String, Vec<f32>>, D::Error> {
            let arrays = BTreeMap::<String, Values>::deserialize(from)?;
            Ok(arrays.into_iter().map(|(name, Values(values))| (name, values)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde::{Deserialize, Serialize};

    use super::{as_bytes, decode, encode};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Numbers(#[serde(with = "as_bytes")] Vec<f32>);

    #[test]
    fn numbers_arrive_to_the_bit() {
        let numbers = [0.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::NAN, f32::INFINITY, 0.1];
        let sent = encode(&Numbers(numbers.to_vec())).unwrap();
        let Numbers(received) = decode(&sent).unwrap();
        let bits = |numbers: &[f32]| numbers.iter().map(|one| one.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&received), bits(&numbers));
        assert!(decode::<Numbers>(&sent[..sent.len() - 1]).is_err());
        assert!(decode::<Numbers>(&encode(&[1_u8; 5].as_slice()).unwrap()).is_err());
    }

    #[test]
    #[ignore = "a measurement: how fast messages are made and read"]
    #[expect(clippy::print_stdout, reason = "what was measured")]
    fn speed_of_messages() {
        let numbers = Numbers(vec![0.1; 40 << 20]);
        let mut seconds = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let sent = encode(&numbers).unwrap();
            let received: Numbers = decode(&sent).unwrap();
            seconds.push(started.elapsed().as_secs_f64());
            assert_eq!(received.0.len(), numbers.0.len());
        }
        seconds.sort_by(f64::total_cmp);
        println!("{:.2} GB/s made and read", numbers.0.len() as f64 * 4e-9 / seconds[2]);
    }
}
