//! One connection: it sends requests, receives replies, and matches the two.
//!
//! ```text
//! send ─► out ─► socket ─► buffer of the thread ─► parser ─► the first request of `waiting`
//!                            ▲        │
//!                            └─partial┘  an unfinished line waits here for its rest
//! ```
//!
//! Replies come in the order of requests. Within a get of several keys, the server chooses the order of the values
//! (proxies change it), so the client searches the open keys for each value. Keys that are open when the reply ends are
//! misses.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use crate::keys::Keys;
use crate::reply::{Broken, Parser, Reply};
use crate::request;
use crate::tally::Tally;
use crate::wire::Wire;
use crate::workload::{Operation, Protocol};

/// The part of the plan that a client needs.
pub struct Rules {
    pub protocol: Protocol,
    pub keys: Keys,
    /// Check length and bytes of every value.
    pub verify: bool,
    /// Collect the keys that gets did not find.
    pub cache_aside: bool,
}

/// An established connection.
pub struct Client {
    wire: Wire,
    /// Encoded requests. The socket has taken the bytes before `written`. Invariant: written <= out.len().
    out: Vec<u8>,
    written: usize,
    parser: Parser,
    partial: Vec<u8>,
    waiting: VecDeque<Request>,
    /// Keys without a reply. Invariant: their number is the sum of `open` over all `waiting`.
    ids: VecDeque<u64>,
    /// The value whose data is arriving.
    value: Option<Value>,
    /// Keys that gets did not find; the caller takes them.
    pub missed: Vec<u64>,
}

struct Request {
    operation: Operation,
    keys: u32,
    open: u32,
    /// Nanoseconds since the start.
    since: u64,
}

struct Value {
    /// `None` if the client does not check the data (any more).
    id: Option<u64>,
    offset: usize,
    /// A meta get of one key ends with its value, and a RESP get with that of its last key: no other line follows.
    ends_request: bool,
}

/// Tells whether the socket may hold more bytes.
pub enum Received {
    /// The socket was empty.
    Nothing,
    /// The read did not fill the buffer, so the socket is empty now, or closed.
    Some,
    /// The read filled the buffer, so the socket may hold more.
    Full,
}

impl Client {
    pub fn new(wire: Wire) -> Client {
        Client {
            wire,
            out: Vec::new(),
            written: 0,
            parser: Parser::default(),
            partial: Vec::new(),
            waiting: VecDeque::new(),
            ids: VecDeque::new(),
            value: None,
            missed: Vec::new(),
        }
    }

    /// Requests without a complete reply.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that the socket has not taken yet.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Adds a get of all `ids` to the output. Latency counts from `since`.
    pub fn send_get(&mut self, rules: &Rules, ids: &[u64], since: u64) {
        request::get(rules.protocol, &rules.keys, ids, &mut self.out);
        self.ids.extend(ids);
        let keys = ids.len() as u32;
        self.waiting.push_back(Request { operation: Operation::Get, keys, open: keys, since });
    }

    /// Adds a set to the output.
    pub fn send_set(&mut self, rules: &Rules, id: u64, ttl: u32, since: u64) {
        request::set(rules.protocol, &rules.keys, id, ttl, &mut self.out);
        self.ids.push_back(id);
        self.waiting.push_back(Request { operation: Operation::Set, keys: 1, open: 1, since });
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self) -> Result<(), String> {
        self.wire.push().map_err(|error| format!("writing failed: {error}"))?;
        while self.unsent() > 0 {
            match self.wire.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("writing failed: {error}")),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once into `buffer`, which all connections of a thread share, and counts the replies. `Err` says why the
    /// connection is unusable now.
    pub fn receive(
        &mut self,
        rules: &Rules,
        buffer: &mut [u8],
        epoch: Instant,
        tally: &mut Tally,
    ) -> Result<Received, String> {
        let carried = self.partial.len();
        let filled = match self.wire.read(&mut buffer[carried..]) {
            Ok(0) => return Err("the server closed it".into()),
            Ok(count) => carried + count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Received::Full),
            Err(error) => return Err(format!("reading failed: {error}")),
        };
        let now = epoch.elapsed().as_nanos() as u64;
        tally.look(now);
        buffer[..carried].copy_from_slice(&self.partial);
        let mut rest = &buffer[..filled];
        loop {
            match self.parser.next(rules.protocol, &mut rest) {
                Ok(Some(ref reply)) => self.answer(rules, reply, now, tally)?,
                Ok(None) => break,
                Err(Broken(why)) => return Err(format!("it sent a {why}")),
            }
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        Ok(if filled == buffer.len() { Received::Full } else { Received::Some })
    }

    #[inline]
    fn answer(&mut self, rules: &Rules, reply: &Reply<'_>, now: u64, tally: &mut Tally) -> Result<(), String> {
        if let Reply::Data { bytes, last } = reply {
            self.data(rules, bytes, tally);
            if *last && self.value.take().is_some_and(|value| value.ends_request) {
                self.complete(now, tally);
            }
            return Ok(());
        }
        let Some(request) = self.waiting.front() else {
            return Err(format!("it sent, although nothing was asked, {}", describe(reply)));
        };
        match (request.operation, reply) {
            (Operation::Get, Reply::Value { key, length }) => self.value(rules, *key, *length, tally),
            (Operation::Get, Reply::End) => {
                let open = request.open as usize;
                tally.misses += open as u64;
                if rules.cache_aside {
                    self.missed.extend(self.ids.iter().take(open));
                }
                self.complete(now, tally);
            }
            (Operation::Get, Reply::Several(count)) if rules.protocol == Protocol::Resp && request.keys > 1 => {
                if *count != request.keys as usize {
                    return Err(format!("{}: it sent {}", self.describe_request(rules), describe(reply)));
                }
            }
            (Operation::Get, Reply::Missing) => self.missing(rules, now, tally),
            (Operation::Set, Reply::Stored) => {
                tally.stored += 1;
                self.complete(now, tally);
            }
            (_, Reply::Other(_)) => {
                tally.error(|| format!("{}: {}", self.describe_request(rules), describe(reply)));
                // Each of several meta gets may fail; the server still answers the mn behind them.
                if rules.protocol != Protocol::Meta || request.keys == 1 {
                    self.complete(now, tally);
                }
            }
            (operation, _) => {
                tally.wrong(|| format!("{}: unexpected {}", self.describe_request(rules), describe(reply)));
                if let Reply::Value { .. } = reply {
                    self.value = Some(Value { id: None, offset: 0, ends_request: operation == Operation::Set });
                } else {
                    self.complete(now, tally);
                }
            }
        }
        Ok(())
    }

    /// Takes the first line of a value. The first waiting request is a get.
    #[inline]
    fn value(&mut self, rules: &Rules, key: Option<&[u8]>, length: usize, tally: &mut Tally) {
        let request = self.waiting.front_mut().expect("the caller has looked");
        let open = request.open as usize;
        let place = match key {
            Some(key) => rules.keys.id(key).and_then(|id| self.ids.iter().take(open).position(|other| *other == id)),
            None => (open == 1 || rules.protocol == Protocol::Resp).then_some(0),
        };
        let ends_request = match rules.protocol {
            Protocol::Classic => false,
            Protocol::Meta => request.keys == 1,
            Protocol::Resp => open == 1,
        };
        let id = place.and_then(|place| if place == 0 { self.ids.pop_front() } else { self.ids.remove(place) });
        self.value = Some(Value { id, offset: 0, ends_request });
        let Some(id) = id else {
            let key = key.unwrap_or_default().escape_ascii();
            tally.wrong(|| format!("{}: a value of \"{key}\", which was not asked for", self.describe_request(rules)));
            return;
        };
        request.open -= 1;
        tally.hits += 1;
        let expected = rules.keys.value_length(id);
        if rules.verify && length != expected {
            self.value = Some(Value { id: None, offset: 0, ends_request });
            tally.wrong(|| format!("value of {}: {length} bytes instead of {expected}", rules.keys.text(id)));
        }
    }

    /// Counts a miss of the first open key. Replies of RESP are in the order of the keys, and the request, a get, still
    /// waits for this one.
    fn missing(&mut self, rules: &Rules, now: u64, tally: &mut Tally) {
        tally.misses += 1;
        let id = self.ids.pop_front().expect("a RESP get is complete when no key is open");
        if rules.cache_aside {
            self.missed.push(id);
        }
        let request = self.waiting.front_mut().expect("the caller has looked");
        request.open -= 1;
        if request.open == 0 {
            self.complete(now, tally);
        }
    }

    #[inline]
    fn data(&mut self, rules: &Rules, bytes: &[u8], tally: &mut Tally) {
        let Some(value) = self.value.as_mut().filter(|_| rules.verify) else { return };
        let Some(id) = value.id else { return };
        if let Err((place, expected)) = rules.keys.check_value(id, value.offset, bytes) {
            value.id = None;
            let found = bytes[place - value.offset];
            let key = rules.keys.text(id);
            tally.wrong(|| format!("value of {key}: byte {place} is {found:#04x} instead of {expected:#04x}"));
        }
        value.offset += bytes.len();
    }

    fn complete(&mut self, now: u64, tally: &mut Tally) {
        let request = self.waiting.pop_front().expect("only a request that waits is completed");
        self.ids.drain(..request.open as usize);
        tally.complete(request.operation, request.since, now);
    }

    fn describe_request(&self, rules: &Rules) -> String {
        let Some(request) = self.waiting.front() else { return "no request".into() };
        let key = self.ids.front().map(|id| rules.keys.text(*id)).unwrap_or_default();
        match request {
            Request { operation: Operation::Set, .. } => format!("set of {key}"),
            Request { keys: 1, .. } => format!("get of {key}"),
            Request { keys, open, .. } => format!("get of {keys} keys, {open} of them open, next {key}"),
        }
    }
}

fn describe(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Value { key, length } => {
            format!("value of \"{}\", {length} bytes", key.unwrap_or_default().escape_ascii())
        }
        Reply::Data { bytes, .. } => format!("{} bytes of data", bytes.len()),
        Reply::End => "end of a get".into(),
        Reply::Several(count) => format!("an array of {count} replies"),
        Reply::Missing => "reply for a missing key".into(),
        Reply::Stored => "confirmation of a set".into(),
        Reply::Other(line) => format!("\"{}\"", line[..line.len().min(200)].escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Socket;
    use std::io::Write;

    fn rules(protocol: Protocol, value_size: usize) -> Rules {
        let keys = Keys::new(100, 6, (value_size, value_size), 1).expect("valid");
        Rules { protocol, keys, verify: true, cache_aside: true }
    }

    /// A client sends requests by `ask`, and then reads `replies` in two parts, cut at `cut`. Returns its counts, or
    /// why it failed.
    fn converse(rules: &Rules, ask: fn(&mut Client, &Rules), replies: &[u8], cut: usize) -> String {
        let (ours, mut theirs) = Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a pair");
        ours.set_nonblocking(true).expect("an open socket");
        let mut client = Client::new(Wire::new(ours, None));
        ask(&mut client, rules);
        client.flush().expect("an empty socket");
        let (mut tally, mut buffer) = (Tally::new(), vec![0; 1 << 16]);
        for part in [&replies[..cut], &replies[cut..]] {
            theirs.write_all(part).expect("an empty socket");
            if let Err(why) = client.receive(rules, &mut buffer, Instant::now(), &mut tally) {
                return why;
            }
        }
        let open: u32 = client.waiting.iter().map(|request| request.open).sum();
        assert_eq!(client.ids.len(), open as usize);
        format!(
            "{} done, {} waiting, {} hits, {} stored, {} errors, {} wrong, missed {:?}",
            tally.completed,
            client.in_flight(),
            tally.hits,
            tally.stored,
            tally.errors,
            tally.wrong,
            client.missed
        )
    }

    fn check(protocol: Protocol, ask: fn(&mut Client, &Rules), replies: &str, expected: &str) {
        for cut in 0..=replies.len() {
            assert_eq!(converse(&rules(protocol, 0), ask, replies.as_bytes(), cut), expected, "cut at {cut}");
        }
    }

    #[test]
    fn replies_find_their_requests() {
        check(
            Protocol::Classic,
            |client, rules| {
                client.send_get(rules, &[1, 2, 3], 0);
                client.send_set(rules, 4, 0, 0);
                client.send_get(rules, &[5], 0);
                client.send_get(rules, &[6], 0);
            },
            "VALUE key:02 0 0\r\n\r\nEND\r\nSTORED\r\nEND\r\n",
            "3 done, 1 waiting, 1 hits, 1 stored, 0 errors, 0 wrong, missed [1, 3, 5]",
        );
        check(
            Protocol::Meta,
            |client, rules| {
                client.send_get(rules, &[1, 2, 3], 0);
                client.send_set(rules, 4, 0, 0);
            },
            "VA 0 kkey:02\r\n\r\nMN\r\nHD\r\n",
            "2 done, 0 waiting, 1 hits, 1 stored, 0 errors, 0 wrong, missed [1, 3]",
        );
        check(
            Protocol::Meta,
            |client, rules| (1..4).for_each(|id| client.send_get(rules, &[id], 0)),
            "VA 0\r\n\r\nEN\r\nVA 0\r\n\r\n",
            "3 done, 0 waiting, 2 hits, 0 stored, 0 errors, 0 wrong, missed [2]",
        );
    }

    #[test]
    fn keys_in_any_order_and_more_than_once() {
        check(
            Protocol::Classic,
            |client, rules| client.send_get(rules, &[1, 2, 1, 3], 0),
            "VALUE key:03 0 0\r\n\r\nVALUE key:01 0 0\r\n\r\nVALUE key:01 0 0\r\n\r\nEND\r\n",
            "1 done, 0 waiting, 3 hits, 0 stored, 0 errors, 0 wrong, missed [2]",
        );
    }

    #[test]
    fn errors_end_the_request_that_they_answer() {
        check(
            Protocol::Classic,
            |client, rules| {
                client.send_set(rules, 1, 0, 0);
                client.send_get(rules, &[2, 3], 0);
                client.send_set(rules, 4, 0, 0);
            },
            "SERVER_ERROR out of memory storing object\r\nERROR\r\nSTORED\r\n",
            "3 done, 0 waiting, 0 hits, 1 stored, 2 errors, 0 wrong, missed []",
        );
        check(
            Protocol::Meta,
            |client, rules| client.send_get(rules, &[1, 2], 0),
            "SERVER_ERROR busy\r\nVA 0 kkey:02\r\n\r\nMN\r\n",
            "1 done, 0 waiting, 1 hits, 0 stored, 1 errors, 0 wrong, missed [1]",
        );
    }

    #[test]
    fn replies_of_resp_find_their_requests() {
        check(
            Protocol::Resp,
            |client, rules| {
                client.send_get(rules, &[1], 0);
                client.send_get(rules, &[2], 0);
                client.send_set(rules, 3, 0, 0);
                client.send_get(rules, &[4, 5, 4, 6], 0);
                client.send_get(rules, &[7, 8], 0);
                client.send_get(rules, &[9], 0);
            },
            "$-1\r\n$0\r\n\r\n+OK\r\n*4\r\n$0\r\n\r\n$-1\r\n$0\r\n\r\n$-1\r\n*2\r\n$-1\r\n$0\r\n\r\n",
            "5 done, 1 waiting, 4 hits, 1 stored, 0 errors, 0 wrong, missed [1, 5, 6, 7]",
        );
        check(
            Protocol::Resp,
            |client, rules| {
                client.send_set(rules, 1, 0, 0);
                client.send_get(rules, &[2, 3], 0);
                client.send_get(rules, &[4], 0);
            },
            "-OOM command not allowed\r\n-ERR busy\r\n$0\r\n\r\n",
            "3 done, 0 waiting, 1 hits, 0 stored, 2 errors, 0 wrong, missed []",
        );
        check(
            Protocol::Resp,
            |client, rules| {
                client.send_get(rules, &[1], 0);
                client.send_set(rules, 2, 0, 0);
                client.send_set(rules, 3, 0, 0);
                client.send_get(rules, &[4], 0);
            },
            "+OK\r\n$0\r\n\r\n$-1\r\n*1\r\n",
            "4 done, 0 waiting, 0 hits, 0 stored, 0 errors, 4 wrong, missed []",
        );
    }

    #[test]
    fn a_resp_array_of_another_length_ends_the_connection() {
        let ask: fn(&mut Client, &Rules) = |client, rules| client.send_get(rules, &[1, 2], 0);
        for replies in ["*1\r\n", "*3\r\n"] {
            let why = converse(&rules(Protocol::Resp, 0), ask, replies.as_bytes(), 0);
            assert!(why.contains("it sent an array of"), "{why}");
        }
        let why = converse(&rules(Protocol::Resp, 0), ask, b"ERROR\r\n", 0);
        assert_eq!(why, "it sent a line that is not RESP: \"ERROR\"");
    }

    #[test]
    fn every_byte_of_a_resp_value_is_checked() {
        let rules = rules(Protocol::Resp, 12);
        let mut reply = b"*2\r\n$12\r\n".to_vec();
        rules.keys.write_value(1, &mut reply);
        reply.extend_from_slice(b"\r\n$12\r\n");
        let start = reply.len();
        rules.keys.write_value(2, &mut reply);
        reply.extend_from_slice(b"\r\n");
        for (place, wrong) in [(None, 0), (Some(start), 1), (Some(start + 11), 1)] {
            let mut reply = reply.clone();
            place.into_iter().for_each(|place: usize| reply[place] ^= 0x80);
            for cut in 0..=reply.len() {
                let expected = format!("1 done, 0 waiting, 2 hits, 0 stored, 0 errors, {wrong} wrong, missed []");
                assert_eq!(converse(&rules, |client, rules| client.send_get(rules, &[1, 2], 0), &reply, cut), expected);
            }
        }
    }

    #[test]
    fn answers_to_other_questions_are_wrong() {
        check(
            Protocol::Classic,
            |client, rules| {
                client.send_get(rules, &[1], 0);
                client.send_get(rules, &[2], 0);
                client.send_set(rules, 3, 0, 0);
            },
            "VALUE key:07 0 0\r\n\r\nEND\r\nSTORED\r\nVALUE key:03 0 0\r\n\r\n",
            "3 done, 0 waiting, 0 hits, 0 stored, 0 errors, 3 wrong, missed [1]",
        );
        let nothing = rules(Protocol::Classic, 0);
        let unasked = converse(&nothing, |_, _| (), b"ERROR Too many open connections\r\n", 0);
        assert_eq!(unasked, "it sent, although nothing was asked, \"ERROR Too many open connections\"");
    }

    #[test]
    fn every_byte_of_a_value_is_checked() {
        let rules = rules(Protocol::Classic, 12);
        let mut reply = b"VALUE key:01 0 12\r\n".to_vec();
        let start = reply.len();
        rules.keys.write_value(1, &mut reply);
        reply.extend_from_slice(b"\r\nEND\r\n");
        let check = |reply: &[u8], wrong: usize| {
            for cut in 0..=reply.len() {
                let expected = format!("1 done, 0 waiting, 1 hits, 0 stored, 0 errors, {wrong} wrong, missed []");
                assert_eq!(converse(&rules, |client, rules| client.send_get(rules, &[1], 0), reply, cut), expected);
            }
        };
        check(&reply, 0);
        for place in [start, start + 7, start + 8, start + 11] {
            reply[place] ^= 0x80;
            check(&reply, 1);
            reply[place] ^= 0x80;
        }
        let short = [b"VALUE key:01 0 11\r\n", &reply[start..start + 11], b"\r\nEND\r\n"].concat();
        check(&short, 1);
    }
}
