//! Items into servers: quiet `ms` in batches, in the mode that stores a key only where it is not taken (`ME`). What a
//! server has is newer, and stays.
//!
//! memcached, and corecached as it does, drops the item of a key when a new one is too large for it or finds no memory,
//! even in this mode. So an item that is surely too large is not sent, and where one could be refused, the server is asked
//! for the key first.

use super::ended::Trouble;
use super::item::{Item, KeyForm, exptime_of, key_form, put, put_key, unix_now};
use super::ketama::Ring;
use super::tally::Counts;
use crate::tool::client::Connection;
use crate::tool::target::{Address, Target};
use std::collections::VecDeque;
use std::io;

/// Most bytes of a batch. The last item may exceed them.
const BATCH_BYTES: usize = 256 << 10;
/// Batches of a server that are on their way at the same time.
const IN_FLIGHT_MAX: usize = 4;
/// A server may need so many bytes for an item besides key and value.
const HEADER_BYTES_MAX: u64 = 128;
/// The least limit that a server can have (`-I`): for one that does not tell its limit.
const ITEM_SIZE_LEAST: u64 = 1 << 10;

/// The servers that get the items.
#[derive(Debug)]
pub(in crate::tool) struct Store {
    ring: Ring,
    /// Most items of a batch.
    batch_items: u64,
    nodes: Vec<Node>,
    /// The number of the last item that was put.
    last: u64,
}

#[derive(Debug)]
struct Node {
    name: String,
    connection: Connection,
    /// Largest item in bytes, with its header, if the server tells it.
    item_size_max: Option<u64>,
    /// It has refused an item for lack of memory.
    lacks_memory: bool,
    /// Requests that have not been sent.
    request: Vec<u8>,
    batch: Batch,
    in_flight: VecDeque<Batch>,
}

/// Items without an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    /// The number of the first one.
    first: u64,
    items: u64,
    bytes: u64,
}

impl Store {
    /// Connects to the servers, for batches of so many items. More than one share the keys as libmemcached's ketama has it.
    ///
    /// # Errors
    /// Those of the connections.
    pub(in crate::tool) fn open(targets: &[Target], batch_items: usize) -> Result<Store, Trouble> {
        let nodes = targets.iter().map(|target| Node::open(target).map_err(Trouble::of(&target.name)));
        let nodes = nodes.collect::<Result<Vec<Node>, Trouble>>()?;
        let names: Vec<(String, u16)> = targets.iter().map(|target| host_and_port(&target.address)).collect();
        let ring = Ring::new(names.iter().map(|(host, port)| (host.as_str(), *port)));
        Ok(Store { ring, batch_items: batch_items as u64, nodes, last: 0 })
    }

    /// Stores an item, now or with the next ones. `number` counts items from 1.
    ///
    /// # Errors
    /// Those of the connections, and what a server should not say.
    pub(in crate::tool) fn put(&mut self, item: &Item<'_>, number: u64, counts: &mut Counts) -> Result<(), Trouble> {
        self.last = number;
        let at = if self.nodes.len() == 1 { 0 } else { self.ring.server(item.key) };
        let node = &mut self.nodes[at];
        let mut put = node.put(item, number, counts);
        if put.is_ok() && (node.batch.items >= self.batch_items || node.request.len() >= BATCH_BYTES) {
            put = node.send(counts);
        }
        put.map_err(Trouble::of(&node.name))
    }

    /// Sends what is left, and waits for all answers.
    ///
    /// # Errors
    /// Those of the connections, and what a server should not say.
    pub(in crate::tool) fn finish(&mut self, counts: &mut Counts) -> Result<(), Trouble> {
        for node in &mut self.nodes {
            let settled = node.send(counts).and_then(|()| node.settle(0, counts));
            settled.map_err(Trouble::of(&node.name))?;
        }
        Ok(())
    }

    /// So many of the first items are surely stored, or were refused.
    pub(in crate::tool) fn settled(&self) -> u64 {
        let open = self.nodes.iter().filter_map(Node::first_open).min();
        open.map_or(self.last, |first| first - 1)
    }
}

/// The name under which libmemcached hashes a server.
fn host_and_port(address: &Address) -> (String, u16) {
    match address {
        Address::Tcp { host, port } => (host.clone(), *port),
        Address::Unix(path) => (path.display().to_string(), 0),
    }
}

impl Node {
    fn open(target: &Target) -> io::Result<Node> {
        let mut connection = Connection::open(target)?;
        let settings = connection.stats("settings").ok().flatten();
        let item_size_max = settings.and_then(|settings| settings.text("item_size_max")?.parse().ok());
        Ok(Node {
            name: target.name.clone(),
            // The answer to a question that is refused may still come: a new connection has none.
            connection: if item_size_max.is_none() { Connection::open(target)? } else { connection },
            item_size_max,
            lacks_memory: false,
            request: Vec::new(),
            batch: Batch::default(),
            in_flight: VecDeque::new(),
        })
    }

    fn put(&mut self, item: &Item<'_>, number: u64, counts: &mut Counts) -> io::Result<()> {
        let Some(form) = key_form(item.key) else {
            counts.unnameable += 1;
            return Ok(());
        };
        if self.item_size_max.is_some_and(|most| item.bytes() > most) {
            counts.too_large += 1;
            return Ok(());
        }
        let may_be_refused =
            self.lacks_memory || item.bytes() + HEADER_BYTES_MAX > self.item_size_max.unwrap_or(ITEM_SIZE_LEAST);
        if may_be_refused && self.has(item.key, form, counts)? {
            counts.already_there += 1;
            return Ok(());
        }
        if self.batch.items == 0 {
            self.batch.first = number;
        }
        let request = &mut self.request;
        request.extend_from_slice(b"ms ");
        put_key(request, item.key, form);
        put(request, format_args!(" {}{} F{}", item.value.len(), form.flag(), item.flags));
        let exptime = exptime_of(item.left, unix_now());
        if exptime > 0 {
            put(request, format_args!(" T{exptime}"));
        }
        request.extend_from_slice(b" ME q\r\n");
        request.extend_from_slice(item.value);
        request.extend_from_slice(b"\r\n");
        self.batch.items += 1;
        self.batch.bytes += item.bytes();
        Ok(())
    }

    /// Whether the server has the key now.
    fn has(&mut self, key: &[u8], form: KeyForm, counts: &mut Counts) -> io::Result<bool> {
        self.send(counts)?;
        self.settle(0, counts)?;
        self.request.extend_from_slice(b"mg ");
        put_key(&mut self.request, key, form);
        put(&mut self.request, format_args!("{} s u\r\n", form.flag()));
        self.connection.send_bytes(&self.request)?;
        self.request.clear();
        match self.connection.raw_line()? {
            b"EN" => Ok(false),
            line if line.starts_with(b"HD") => Ok(true),
            line if line.ends_with(b"access denied") => {
                Err(io::Error::other("the user may not look whether a key is there, as a large item needs it"))
            }
            line => Err(refusal(line)),
        }
    }

    fn send(&mut self, counts: &mut Counts) -> io::Result<()> {
        if self.batch.items == 0 {
            return Ok(());
        }
        self.settle(IN_FLIGHT_MAX - 1, counts)?;
        self.request.extend_from_slice(b"mn\r\n");
        // If this fails, a part of the batch may have come through.
        self.in_flight.push_back(std::mem::take(&mut self.batch));
        self.connection.send_bytes(&self.request)?;
        self.request.clear();
        self.request.shrink_to(2 * BATCH_BYTES);
        Ok(())
    }

    /// Reads the answers to the oldest batches, until so many are left.
    fn settle(&mut self, left: usize, counts: &mut Counts) -> io::Result<()> {
        while self.in_flight.len() > left {
            let mut stored = self.in_flight[0].items;
            loop {
                let line = self.connection.raw_line()?;
                let refused = match line {
                    b"MN" => break,
                    b"NS" => &mut counts.already_there,
                    b"SERVER_ERROR object too large for cache" => &mut counts.too_large,
                    line if line.starts_with(b"SERVER_ERROR out of memory") => {
                        self.lacks_memory = true;
                        &mut counts.no_memory
                    }
                    line if line.starts_with(b"SERVER_ERROR ") => &mut counts.refused,
                    line => return Err(refusal(line)),
                };
                *refused += 1;
                stored = stored.checked_sub(1).ok_or_else(|| io::Error::other("it answers what was not asked"))?;
            }
            let batch = self.in_flight.pop_front().expect("there is one");
            counts.items += stored;
            // Answers do not name the items. If some were refused, the bytes of the others are an estimate.
            counts.bytes += (batch.bytes as f64 * stored as f64 / batch.items as f64) as u64;
        }
        Ok(())
    }

    /// The number of the first item without an answer.
    fn first_open(&self) -> Option<u64> {
        let waiting = (self.batch.items > 0).then_some(self.batch.first);
        self.in_flight.front().map(|batch| batch.first).or(waiting)
    }
}

fn refusal(line: &[u8]) -> io::Error {
    let text: String = String::from_utf8_lossy(line).replace(char::is_control, "\u{fffd}").chars().take(200).collect();
    io::Error::other(match text.as_str() {
        _ if text.contains("unauthenticated") => "the server wants a login: --user and --password-file".to_owned(),
        _ if text.contains("access denied") => "the user may not write these keys".to_owned(),
        "ERROR" => "it knows no meta commands (\"ms\"), which this needs".to_owned(),
        _ => format!("to \"ms\" it says \"{text}\""),
    })
}
