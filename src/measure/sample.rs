//! One operation of the sample.

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Purpose {
    Get,
    Set,
    Delete,
    Other,
}

/// The item that an operation left under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledItem {
    /// The length of its value in bytes.
    pub value_len: usize,
    /// The seconds to its deadline; none without one.
    pub ttl: Option<u32>,
}

/// An operation of the sample.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The hash of the key.
    pub hash: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// Of a fetch: whether it hit. None: another worker executes it.
    pub hit: Option<bool>,
    /// The item, if there is one and this worker knows it.
    pub item: Option<SampledItem>,
    /// The bytes of the reply, nearly.
    pub reply_bytes: u64,
}
