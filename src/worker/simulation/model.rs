//! The model of a cache: it decides which replies may come. A key is a register, and its history must be linearizable.
//!
//! A call begins when its client makes it up, and ends when its reply comes. It takes effect at one moment between the
//! two, and after the earlier calls of its connection on the same key. The model keeps all orders of the calls under
//! way that agree with the replies so far (after Lowe, "Testing for linearizability", 2017): each is a [`Past`]. If a
//! reply agrees with none of them, the server has made a mistake.

use std::fmt;

/// The number of a call, and of the version that it writes.
pub(super) type CallId = u64;

/// A value, as far as the model needs it for comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// The value of a counter. Trailing spaces do not matter.
    Number(u64),
    Bytes {
        len: u32,
        hash: u64,
    },
}

/// The base of the hash, a polynomial modulo 2^64. The hash of two joined values follows from the hashes of both.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Text {
    pub(super) fn from_bytes(bytes: &[u8]) -> Text {
        let add = |hash: u64, &byte: &u8| hash.wrapping_mul(BASE).wrapping_add(u64::from(byte) + 1);
        Text::Bytes { len: bytes.len() as u32, hash: bytes.iter().fold(0, add) }
    }

    fn then(self, other: Text) -> Text {
        match (self, other) {
            (Text::Bytes { len, hash }, Text::Bytes { len: other_len, hash: other_hash }) => Text::Bytes {
                len: len + other_len,
                hash: hash.wrapping_mul(BASE.wrapping_pow(other_len)).wrapping_add(other_hash),
            },
            _ => unreachable!("nothing is appended to numbers"),
        }
    }
}

/// A value with its flags, its CAS value and its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The call that wrote it.
    pub(super) version: CallId,
    pub(super) text: Text,
    pub(super) flags: u32,
    /// The CAS value, or 0 if no client has seen it.
    pub(super) cas: u64,
    /// The first and the last second in which the item may expire.
    dies: (u32, u32),
}

impl Item {
    /// An item as a client has seen it.
    pub(super) fn seen(text: Text, flags: u32, cas: u64) -> Item {
        Item { version: 0, text, flags, cas, dies: NEVER }
    }
}

const NEVER: (u32, u32) = (u32::MAX, u32::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// The kind of a call, with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    GetAndTouch(i32),
    Touch(i32),
    Store {
        mode: Mode,
        text: Text,
        flags: u32,
        exptime: i32,
        compare: Option<u64>,
    },
    /// The server refuses a value that is too large for an item. `forget`: it also removes the old item.
    StoreTooLarge {
        forget: bool,
    },
    Delete,
    Count {
        up: bool,
        delta: u64,
    },
    Flush,
    /// A flush that makes items stale: they get CAS values that no client has seen.
    Renumber,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Value(Option<Item>),
    /// The model predicts the version of the new item; the client sees its CAS value, or 0.
    Stored(u64),
    NotStored,
    Exists,
    NotFound,
    Done,
    Number(u64),
    TooLarge,
    OutOfMemory,
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
struct Call {
    id: CallId,
    connection: u64,
    action: Action,
    /// The earliest second in which the call may have been executed.
    since: u32,
    /// The connection is broken: the call may be executed or not, and has no reply.
    forsaken: bool,
}

/// One order in which calls may have taken effect.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Past {
    item: Option<Item>,
    /// The calls under way that have taken effect, each with its outcome.
    done: Vec<(CallId, Outcome)>,
}

/// The history of a key.
#[derive(Debug)]
pub(super) struct Key {
    /// The calls under way, in the order in which they began.
    calls: Vec<Call>,
    /// Invariant: not empty, and without duplicates.
    pasts: Vec<Past>,
    /// The last calls that have ended, for the message about a failure.
    ended: Vec<String>,
}

/// The server at the time of a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// The latest second in which a call may have been executed.
    pub(super) now: u32,
    /// Memory is short: any item may be evicted at any time, and any value may be refused.
    pub(super) tight: bool,
    /// Values of about this length may be refused.
    pub(super) len_max: u32,
}

/// The most bytes of an item besides its value.
const OVERHEAD_MAX: u32 = 700;

/// With more pasts than this, the model gives up.
const PASTS_MAX: usize = 20_000;

/// The error of a key with more pasts than `PASTS_MAX`.
pub(super) const UNDECIDED: &str = "there are too many orders that the calls on a key may have had";

impl Key {
    pub(super) fn new() -> Key {
        Key { calls: Vec::new(), pasts: vec![Past { item: None, done: Vec::new() }], ended: Vec::new() }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn begin(&mut self, id: CallId, connection: u64, action: Action, since: u32) {
        self.calls.push(Call { id, connection, action, since, forsaken: false });
    }

    /// Ends a call. `seen` is its outcome, if its reply shows it.
    pub(super) fn end(&mut self, id: CallId, seen: Option<Outcome>, setting: Setting) -> Result<(), String> {
        let call = *self.calls.iter().find(|call| call.id == id).expect("what ends has begun");
        let mut open = std::mem::take(&mut self.pasts);
        let (before, mut at) = (open.clone(), 0);
        while at < open.len() {
            if open.len() > PASTS_MAX {
                return Err(UNDECIDED.into());
            }
            let past = open[at].clone();
            at += 1;
            if let Some(done) = past.done.iter().position(|&(other, _)| other == id) {
                let mut past = past;
                let (_, foretold) = past.done.swap_remove(done);
                if past.agrees(foretold, seen) {
                    past.done.sort_unstable_by_key(|&(id, _)| id);
                    insert(&mut self.pasts, past);
                }
                continue;
            }
            extend(&self.calls, &past, setting, |which, mut next| {
                if which == id {
                    let (_, foretold) = next.done.pop().expect("it was just done");
                    if next.agrees(foretold, seen) {
                        next.done.sort_unstable_by_key(|&(id, _)| id);
                        insert(&mut self.pasts, next);
                    }
                } else {
                    next.done.sort_unstable_by_key(|&(id, _)| id);
                    insert(&mut open, next);
                }
            });
        }
        if self.pasts.is_empty() {
            return Err(self.explain(&call, seen, &before, setting));
        }
        if self.ended.len() >= 40 {
            self.ended.drain(..20);
        }
        self.ended.push(format!("{call:?} at {} {seen:?}", setting.now));
        self.calls.retain(|call| call.id != id);
        Ok(())
    }

    /// Marks the calls of a broken connection. The server may still execute them.
    pub(super) fn forsake(&mut self, connection: u64) {
        for call in self.calls.iter_mut().filter(|call| call.connection == connection) {
            call.forsaken = true;
        }
    }

    /// Ends the calls without a connection, once nothing is under way. The server has executed them by now, or never
    /// will.
    pub(super) fn come_to_rest(&mut self, setting: Setting) -> Result<(), String> {
        if let Some(call) = self.calls.iter().find(|call| !call.forsaken) {
            return Err(format!("nobody replies to {call:?}"));
        }
        let (mut open, mut at) = (std::mem::take(&mut self.pasts), 0);
        while at < open.len() {
            let past = open[at].clone();
            at += 1;
            extend(&self.calls, &past, setting, |_, mut next| {
                next.done.sort_unstable_by_key(|&(id, _)| id);
                insert(&mut open, next);
            });
        }
        for mut past in open {
            past.done.clear();
            insert(&mut self.pasts, past);
        }
        self.calls.clear();
        Ok(())
    }

    fn explain(&self, call: &Call, seen: Option<Outcome>, before: &[Past], setting: Setting) -> String {
        let mut text = format!("no order of calls explains {seen:?} for {call:?} at {}\n", setting.now);
        let mut line = |what: &str, it: &dyn fmt::Debug| text.push_str(&format!("  {what} {it:?}\n"));
        self.ended.iter().for_each(|ended| line("ended:", ended));
        self.calls.iter().for_each(|call| line("under way:", call));
        before.iter().take(8).for_each(|past| line("past:", past));
        text
    }
}

/// Emits each past that follows from this one by one more call. That call is the last one in `done`.
fn extend(calls: &[Call], past: &Past, setting: Setting, mut emit: impl FnMut(CallId, Past)) {
    let is_done = |call: &Call| past.done.iter().any(|&(id, _)| id == call.id);
    for (at, call) in calls.iter().enumerate() {
        let follows = |other: &Call| other.connection == call.connection && !is_done(other);
        if is_done(call) || calls[..at].iter().any(follows) {
            continue;
        }
        execute(call, past.item, setting, |item, outcome| {
            let mut done = past.done.clone();
            done.push((call.id, outcome));
            emit(call.id, Past { item, done });
        });
    }
}

fn insert(pasts: &mut Vec<Past>, past: Past) {
    if !pasts.contains(&past) {
        pasts.push(past);
    }
}

impl Past {
    /// Whether the outcome that was `foretold` is the one that was `seen`. Learns the CAS value of a version.
    fn agrees(&mut self, foretold: Outcome, seen: Option<Outcome>) -> bool {
        match (foretold, seen) {
            (_, None) => true,
            (Outcome::Value(Some(foretold)), Some(Outcome::Value(Some(seen)))) => {
                foretold.text == seen.text
                    && foretold.flags == seen.flags
                    && (seen.cas == 0 || foretold.cas == seen.cas || {
                        foretold.cas == 0 && self.learn(foretold.version, seen.cas)
                    })
            }
            (Outcome::Stored(version), Some(Outcome::Stored(cas))) => cas == 0 || self.learn(version, cas),
            (foretold, Some(seen)) => foretold == seen,
        }
    }

    fn learn(&mut self, version: CallId, cas: u64) -> bool {
        let shown = self.done.iter_mut().filter_map(|(_, outcome)| match outcome {
            Outcome::Value(item) => item.as_mut(),
            _ => None,
        });
        for item in self.item.iter_mut().chain(shown).filter(|item| item.version == version) {
            if item.cas != 0 && item.cas != cas {
                return false;
            }
            item.cas = cas;
        }
        true
    }
}

/// Emits each item and outcome that a call can have.
fn execute(call: &Call, item: Option<Item>, setting: Setting, mut emit: impl FnMut(Option<Item>, Outcome)) {
    let (since, until) = (call.since, setting.now);
    if let Some(item) = item
        && since < item.dies.1
    {
        execute_on(call, Some(item), setting, &mut emit);
    }
    if item.is_none_or(|item| until >= item.dies.0 || setting.tight) {
        execute_on(call, None, setting, &mut emit);
    }
}

fn execute_on(call: &Call, item: Option<Item>, setting: Setting, emit: &mut impl FnMut(Option<Item>, Outcome)) {
    let (since, until, tight) = (call.since, setting.now, setting.tight);
    let dies = |exptime: i32| match exptime {
        0 => NEVER,
        ..0 => (1, 1),
        _ => (since + exptime as u32, until + exptime as u32),
    };
    match call.action {
        Action::Get => emit(item, Outcome::Value(item)),
        Action::GetAndTouch(exptime) => {
            emit(item.map(|item| Item { dies: dies(exptime), ..item }), Outcome::Value(item));
        }
        Action::Touch(exptime) => match item {
            Some(item) => emit(Some(Item { dies: dies(exptime), ..item }), Outcome::Done),
            None => emit(None, Outcome::NotFound),
        },
        Action::Delete => emit(None, if item.is_some() { Outcome::Done } else { Outcome::NotFound }),
        Action::Flush => emit(None, Outcome::Done),
        Action::Renumber => emit(item.map(|item| Item { version: call.id, cas: 0, ..item }), Outcome::Done),
        Action::StoreTooLarge { forget } => emit(item.filter(|_| !forget), Outcome::TooLarge),
        Action::Count { up, delta } => match item {
            Some(Item { text: Text::Number(number), .. }) => {
                let number = if up { number.wrapping_add(delta) } else { number.saturating_sub(delta) };
                let counted = item.map(|item| Item { text: Text::Number(number), version: call.id, cas: 0, ..item });
                emit(counted, Outcome::Number(number));
                if tight {
                    emit(item, Outcome::OutOfMemory);
                }
            }
            Some(_) => unreachable!("only numbers are counted on"),
            None => emit(None, Outcome::NotFound),
        },
        Action::Store { mode, text, flags, exptime, compare } => {
            if tight {
                emit(item, Outcome::OutOfMemory);
                emit(None, Outcome::OutOfMemory);
            }
            let new = Item { version: call.id, text, flags, cas: 0, dies: dies(exptime) };
            let stored = Outcome::Stored(call.id);
            match (item, compare) {
                (None, Some(_)) => return emit(None, Outcome::NotFound),
                // If no client has seen the CAS value of this item, it is not the one in the request.
                (Some(old), Some(cas)) if old.cas != cas => return emit(item, Outcome::Exists),
                _ => {}
            }
            match (mode, item) {
                (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => emit(Some(new), stored),
                (Mode::Append | Mode::Prepend, Some(old)) => {
                    let text = if mode == Mode::Append { old.text.then(text) } else { text.then(old.text) };
                    emit(Some(Item { text, version: call.id, cas: 0, ..old }), stored);
                    let is_long = matches!(text, Text::Bytes { len, .. } if len + OVERHEAD_MAX > setting.len_max);
                    if tight || is_long {
                        emit(item, Outcome::NotStored);
                    }
                }
                (Mode::Add, Some(_)) | (Mode::Replace | Mode::Append | Mode::Prepend, None) => {
                    emit(item, Outcome::NotStored);
                }
            }
        }
    }
}
