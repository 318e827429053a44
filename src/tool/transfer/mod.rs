//! Items on their way from a server or a file to a file or to servers: what `dump`, `load` and `copy` share.
//!
//! ```text
//!  source            the items of a server: its list of keys, then their values in batches at a rate
//!   └ walk order fetch pace
//!  store             items into servers, where their keys are not taken yet
//!   └ ketama         which of several servers has a key
//!  text              the form of a file
//!   └ item           a key in the words of a request
//!  tally ended options interrupt     figures and progress, ends, flags, signals
//! ```
//!
//! What a transfer holds in memory does not depend on the number of items: some batches, the largest value, and with
//! `--by-access` the buffer of [`order`].

pub(super) mod ended;
pub(super) mod interrupt;
pub(super) mod item;
pub(super) mod options;
pub(super) mod pace;
pub(super) mod source;
pub(super) mod store;
pub(super) mod tally;
pub(super) mod text;

mod fetch;
mod ketama;
mod order;
mod walk;
