//! Copies of hot items, and the replies that are made of them without the shard: see [`crate::store::copies`].

use super::meta::{KeyForm, echo, put_number, tokens};
use super::reply::Reply;
use super::request::Request;
use super::shard::Shard;
use crate::clock::{NEVER, Now};
use crate::protocol::packet::{self, Head, opcode};
use crate::protocol::{Operation, Verb, encode, flag};
use crate::store::copies::Validity;
use crate::store::slab::ClassId;

/// The longest value that is copied, in bytes.
pub const COPIED_MAX: usize = 4 << 10;

/// The flags with which `mg` changes nothing, and shows only what stays the same until the item changes.
const READING: u64 =
    flag(b'v') | flag(b'k') | flag(b'f') | flag(b's') | flag(b't') | flag(b'c') | flag(b'q') | flag(b'O');

/// Whether a copy can answer an operation: it is a fetch that changes nothing.
#[inline]
pub fn only_reads(operation: &Operation) -> bool {
    matches!(operation.verb, Verb::Get | Verb::Gets | Verb::MetaGet | Verb::BinaryGet) && !may_change(operation)
}

/// Whether an operation may change the item with its key, or remove it. Where it is not certain, this says yes: that costs
/// no more than a new copy.
#[inline]
pub(super) fn may_change(operation: &Operation) -> bool {
    match operation.verb {
        Verb::Get | Verb::Gets | Verb::MetaDebug | Verb::End | Verb::BinarySay | Verb::Say | Verb::Admin => false,
        Verb::BinaryGet => !matches!(operation.mode, opcode::GET | opcode::GETQ | opcode::GETK | opcode::GETKQ),
        Verb::MetaGet => operation.flags & !READING != 0,
        _ => true,
    }
}

/// A copy of an item.
#[derive(Clone, Debug)]
pub struct Copied {
    key: Box<[u8]>,
    value: Box<[u8]>,
    client_flags: u32,
    cas: u64,
    exptime: u32,
    class: ClassId,
    validity: Validity,
}

impl Copied {
    /// A copy of the live item with this key, for somebody who reads it now: the item is marked as fetched. None: there is no
    /// such item, or it cannot be answered from a copy.
    pub fn of(shard: &mut Shard, hash: u64, key: &[u8]) -> Option<Copied> {
        // With `stats detail`, the shard counts each fetch by its prefix.
        if shard.prefixes.as_ref().is_some_and(|prefixes| prefixes.on) {
            return None;
        }
        let id = shard.store.find(hash, key).ok()?.id;
        if shard.store.is_due(id) {
            return None;
        }
        let class = shard.store.class_of(id);
        let item = shard.store.item(id);
        let value: Box<[u8]> = item.value().filter(|value| value.len() <= COPIED_MAX)?.into();
        let (client_flags, cas, exptime) = (item.client_flags(), item.cas(), item.exptime());
        let validity = shard.store.validity(hash, id)?;
        shard.store.bump(id);
        Some(Copied { key: key.into(), value, client_flags, cas, exptime, class, validity })
    }

    /// Whether this is a copy of the item with this key, and holds at this time.
    #[inline]
    pub fn holds(&self, key: &[u8], now: Now) -> bool {
        &*self.key == key && self.validity.holds(now)
    }

    /// The key of the item.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The length of the value, in bytes.
    pub fn value_len(&self) -> usize {
        self.value.len()
    }

    /// The deadline: a count of the clock, or [`NEVER`].
    pub fn exptime(&self) -> u32 {
        self.exptime
    }

    /// What the shard needs to count reads of the copy.
    pub fn origin(&self) -> (ClassId, Validity) {
        (self.class, self.validity.clone())
    }

    /// Appends the reply to one key of a `get`, without the end of the command.
    #[inline]
    pub fn get(&self, reply: &mut Reply) {
        encode::value(&mut reply.out, &self.key, self.client_flags, None, &self.value);
    }

    /// Appends the reply to an operation for which [`only_reads`] is true.
    pub fn answer(&self, request: &Request<'_>, now: Now, reply: &mut Reply) {
        match request.operation.verb {
            Verb::MetaGet => self.meta_get(request, now, reply),
            Verb::BinaryGet => self.binary_get(request.operation, reply),
            Verb::Gets => {
                encode::value(&mut reply.out, &self.key, self.client_flags, Some(self.cas), &self.value);
            }
            _ => self.get(reply),
        }
    }

    fn meta_get(&self, request: &Request<'_>, now: Now, reply: &mut Reply) {
        let with_value = request.operation.has(b'v');
        if with_value {
            reply.out.put(b"VA ");
            reply.out.put_u64(self.value.len() as u64);
        } else {
            reply.out.put(b"HD");
        }
        for token in tokens(request) {
            match token[0] {
                b's' => put_number(reply, b" s", self.value.len() as u64),
                b'f' => put_number(reply, b" f", self.client_flags.into()),
                b'c' => put_number(reply, b" c", self.cas),
                b't' if self.exptime == NEVER => reply.out.put(b" t-1"),
                b't' => put_number(reply, b" t", (self.exptime - now.0).into()),
                _ => echo(request, token, KeyForm::Text, reply),
            }
        }
        reply.out.put(b"\r\n");
        if with_value {
            reply.out.put(&self.value);
            reply.out.put(b"\r\n");
        }
    }

    fn binary_get(&self, operation: &Operation, reply: &mut Reply) {
        let with_key = matches!(operation.mode, opcode::GETK | opcode::GETKQ);
        let key = if with_key { &*self.key } else { b"" };
        let Copied { client_flags, cas, .. } = *self;
        let item = packet::Item { client_flags, cas, key, value: &self.value, value_len: self.value.len() };
        packet::item(&mut reply.out, Head::new(operation), &item);
    }
}
