//! A client: it makes up requests, and checks every byte of the replies.

use super::model::{Action, CallId, Item, Key, Mode, Outcome, Setting, Text};
use super::{Profile, Random};
use crate::net::simulated::Wire;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// The way in which a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The client stays.
    Open,
    /// The client has sent `quit`.
    Quit,
    /// The client sends no more. Its last command may be incomplete.
    Finished,
    /// The client has broken the connection.
    Reset,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) worker: usize,
    pub(super) fate: Fate,
    /// The client reads nothing until everything else has come to rest.
    pub(super) stalls: bool,
    wire: Arc<Mutex<Wire>>,
    unsent: VecDeque<u8>,
    /// The bytes of all requests that the client has made up.
    thought: u64,
    /// The bytes that it has sent.
    sent: u64,
    received: Vec<u8>,
    requests: VecDeque<Request>,
    next_opaque: u32,
    /// The CAS values that the client has seen, by key.
    shown: HashMap<usize, u64>,
}

/// A request whose reply has not come in full.
#[derive(Debug)]
struct Request {
    form: Form,
    /// The keys and calls that have no reply yet.
    calls: VecDeque<(usize, CallId)>,
    /// The argument of the `O` flag of a meta command.
    opaque: u32,
    /// The place of its end: the value of `thought` after it.
    end: u64,
}

/// The form of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `VALUE` for each key that is found, then `END`.
    Values,
    /// One word, or a number.
    Word,
    /// No reply: `noreply`.
    Nothing,
    /// The reply to a meta command. With `q` there may be none.
    Meta { quiet: bool, verb: u8 },
    /// A line that begins with one of these.
    Line(&'static [&'static str]),
    /// Lines until `END`.
    Lines,
    /// `OK` and lines until `END`, or an error.
    Dump,
    /// One of these lines, which ends calls on many keys.
    Flush(&'static [&'static str]),
}

impl Form {
    fn may_be_silent(self) -> bool {
        matches!(self, Form::Nothing | Form::Meta { quiet: true, .. })
    }
}

/// The first part of the received bytes.
enum Found {
    /// Less than a part of a reply.
    Incomplete,
    /// A part of a reply, with its length in bytes.
    Part(usize),
    /// The last part of a reply, with its length in bytes.
    End(usize),
}

/// The keys, and the calls on them.
#[derive(Debug)]
pub(super) struct Histories {
    pub(super) keys: Vec<Key>,
    next_call: CallId,
}

impl Histories {
    pub(super) fn new(keys: usize) -> Histories {
        Histories { keys: (0..keys).map(|_| Key::new()).collect(), next_call: 1 }
    }

    /// Whether a key has so many calls under way that some should end first.
    fn is_crowded(&self, key: usize, profile: &Profile) -> bool {
        self.keys[key].calls() >= if profile.tight { 3 } else { 6 }
    }

    fn begin(&mut self, key: usize, client: u64, action: Action, since: u32) -> (usize, CallId) {
        let id = self.next_call;
        self.next_call += 1;
        self.keys[key].begin(id, client, action, since);
        (key, id)
    }
}

/// Everything that a client needs to make up a request.
#[derive(Debug)]
pub(super) struct Scene<'s> {
    pub(super) histories: &'s mut Histories,
    pub(super) random: &'s Random,
    pub(super) profile: &'s Profile,
    /// The earliest second in which the request may be executed.
    pub(super) since: u32,
}

impl Scene<'_> {
    fn begin(&mut self, key: usize, client: u64, action: Action) -> (usize, CallId) {
        self.histories.begin(key, client, action, self.since)
    }
}

/// Whether the value of a key is a counter.
fn is_counter(key: usize) -> bool {
    key.is_multiple_of(4)
}

/// The prefixes of keys. A flush of one includes those that begin with it.
const PREFIXES: [&str; 4] = ["", "a:", "a:b:", "c:"];

/// The start of a key whose deletion flushes a prefix.
pub(super) const FLUSH_KEY: &str = "!";

/// The name of a key. Some are long.
fn name(key: usize) -> String {
    let kind = if is_counter(key) { "n" } else { "k" };
    format!("{}{kind}{key}{}", PREFIXES[key / 4 % 4], ".".repeat(if key % 7 == 6 { 200 } else { key % 5 }))
}

impl Client {
    pub(super) fn new(id: u64, worker: usize, wire: Arc<Mutex<Wire>>) -> Client {
        Client {
            id,
            worker,
            fate: Fate::Open,
            stalls: false,
            wire,
            unsent: VecDeque::new(),
            thought: 0,
            sent: 0,
            received: Vec::new(),
            requests: VecDeque::new(),
            next_opaque: 1,
            shown: HashMap::new(),
        }
    }

    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().expect("nobody panics with a wire in hand")
    }

    /// The number of requests without a complete reply.
    pub(super) fn outstanding(&self) -> usize {
        self.requests.len()
    }

    fn say(&mut self, form: Form, calls: Vec<(usize, CallId)>, opaque: u32, parts: &[&[u8]]) {
        for part in parts {
            self.unsent.extend(*part);
            self.thought += part.len() as u64;
        }
        self.requests.push_back(Request { form, calls: calls.into(), opaque, end: self.thought });
    }

    /// Makes up a request.
    pub(super) fn think(&mut self, scene: &mut Scene<'_>) {
        let Scene { random, profile, .. } = *scene;
        let key = self.choose(scene);
        let named = name(key);
        let noreply = random.below(8) == 0;
        let exptime = match random.below(12) {
            0 => random.below(40) as i32 + 1,
            1 if random.below(4) == 0 => -1,
            _ => 0,
        };
        match random.below(if profile.administers { 103 } else { 96 }) {
            0..2 if profile.flushes => self.think_of_flushing(scene, noreply),
            0..28 => self.think_of_values(scene),
            28..56 => self.think_of_storing(scene, key, exptime, noreply),
            56..62 => {
                let call = scene.begin(key, self.id, Action::Delete);
                self.say_word(call, noreply, format!("delete {named}"), None);
            }
            62..66 => {
                let call = scene.begin(key, self.id, Action::Touch(exptime));
                self.say_word(call, noreply, format!("touch {named} {exptime}"), None);
            }
            66..76 => {
                let key = self.counter(key, scene);
                let (up, delta) = (random.below(2) == 0, random.below(1000) as u64);
                let call = scene.begin(key, self.id, Action::Count { up, delta });
                let verb = if up { "incr" } else { "decr" };
                self.say_word(call, noreply, format!("{verb} {} {delta}", name(key)), None);
            }
            76..96 => self.think_of_meta(scene, key, exptime),
            96 => {
                let calls = (0..scene.histories.keys.len()).map(|key| scene.begin(key, self.id, Action::Flush));
                let calls = calls.collect();
                self.say(Form::Flush(&["OK"]), calls, 0, &[b"flush_all\r\n"]);
            }
            97 => {
                let what = ["settings", "items", "slabs", "conns", "sizes", ""];
                let what = what[random.below(if profile.asks_for_times { 6 } else { 5 })];
                self.say(Form::Lines, Vec::new(), 0, &[format!("stats {what}\r\n").as_bytes()]);
            }
            98 => {
                let (from, to) = (random.below(40) as i64 - 1, random.below(40));
                let line = format!("slabs reassign {from} {to}\r\n");
                let replies = &["OK", "BUSY", "BADCLASS", "NOSPARE", "SAME"];
                self.say(Form::Line(replies), Vec::new(), 0, &[line.as_bytes()]);
            }
            99 => {
                let line = format!("slabs automove {}\r\n", random.below(3));
                self.say(Form::Line(&["OK"]), Vec::new(), 0, &[line.as_bytes()]);
            }
            100 => self.say(Form::Dump, Vec::new(), 0, &[b"lru_crawler metadump all\r\n"]),
            101 => self.say(Form::Line(&["OK", "BUSY"]), Vec::new(), 0, &[b"lru_crawler crawl all\r\n"]),
            _ if profile.tight => {
                let line = format!("cache_memlimit {}\r\n", 4 + random.below(profile.pages as usize));
                self.say(Form::Line(&["OK", "MEMLIMIT_TOO_SMALL"]), Vec::new(), 0, &[line.as_bytes()]);
            }
            _ => self.say(Form::Line(&["VERSION"]), Vec::new(), 0, &[b"version\r\n"]),
        }
    }

    /// Chooses a key of all clients, or one of this client, with equal chances. It avoids a shared key with many calls
    /// under way, because these calls could have too many orders.
    fn choose(&self, scene: &Scene<'_>) -> usize {
        let Scene { histories, random, profile, .. } = scene;
        let key = random.below(profile.shared_keys);
        if random.below(2) == 0 && !histories.is_crowded(key, profile) {
            return key;
        }
        self.own(profile) + random.below(profile.own_keys)
    }

    /// The first key of this client.
    fn own(&self, profile: &Profile) -> usize {
        profile.shared_keys + (self.id as usize % profile.own_sets) * profile.own_keys
    }

    /// A counter near a key.
    fn counter(&self, key: usize, scene: &Scene<'_>) -> usize {
        let Scene { histories, profile, .. } = scene;
        let key = key / 4 * 4;
        let is_shared = key < profile.shared_keys;
        if is_shared && histories.is_crowded(key, profile) { self.own(profile) } else { key }
    }

    fn say_word(&mut self, call: (usize, CallId), noreply: bool, mut line: String, value: Option<&[u8]>) {
        line.push_str(if noreply { " noreply\r\n" } else { "\r\n" });
        let form = if noreply { Form::Nothing } else { Form::Word };
        match value {
            None => self.say(form, vec![call], 0, &[line.as_bytes()]),
            Some(value) => self.say(form, vec![call], 0, &[line.as_bytes(), value, b"\r\n"]),
        }
    }

    fn think_of_values(&mut self, scene: &mut Scene<'_>) {
        let random = scene.random;
        let count = if random.below(3) > 0 { 1 } else { 1 + random.below(30) };
        let mut keys: Vec<usize> = (0..count).map(|_| self.choose(scene)).collect();
        let mut known = std::collections::HashSet::new();
        keys.retain(|&key| known.insert(key));
        let names: Vec<String> = keys.iter().map(|&key| name(key)).collect();
        let exptime = random.below(50);
        let (verb, action) = match random.below(8) {
            0..5 => ("get".to_owned(), Action::Get),
            5..7 => ("gets".to_owned(), Action::Get),
            _ if random.below(2) == 0 => (format!("gat {exptime}"), Action::GetAndTouch(exptime as i32)),
            _ => (format!("gats {exptime}"), Action::GetAndTouch(exptime as i32)),
        };
        let calls = keys.into_iter().map(|key| scene.begin(key, self.id, action)).collect();
        self.say(Form::Values, calls, 0, &[format!("{verb} {}\r\n", names.join(" ")).as_bytes()]);
    }

    /// Flushes a prefix, in one of the forms that there are for it.
    fn think_of_flushing(&mut self, scene: &mut Scene<'_>, noreply: bool) {
        let random = scene.random;
        let prefix = PREFIXES[1 + random.below(3)];
        let stale = random.below(3) == 0;
        let action = if stale { Action::Renumber } else { Action::Flush };
        let keys = (0..scene.histories.keys.len()).filter(|&key| name(key).starts_with(prefix));
        let calls = keys.map(|key| scene.begin(key, self.id, action)).collect();
        let word = prefix.trim_end_matches(':');
        let (mode, end) = (if stale { " stale" } else { "" }, if noreply { " noreply" } else { "" });
        let (form, line) = match random.below(4) {
            1 => (Form::Lines, format!("stats flush_prefix {prefix}{mode}")),
            2 if !stale => (
                if noreply { Form::Nothing } else { Form::Flush(&["DELETED"]) },
                format!("delete {FLUSH_KEY}{prefix}{end}"),
            ),
            3 if !stale => (Form::Flush(&["HD"]), format!("md {FLUSH_KEY}{word}")),
            _ => {
                (if noreply { Form::Nothing } else { Form::Flush(&["OK"]) }, format!("flush_prefix {word}{mode}{end}"))
            }
        };
        self.say(form, calls, 0, &[line.as_bytes(), b"\r\n"]);
    }

    fn think_of_storing(&mut self, scene: &mut Scene<'_>, key: usize, exptime: i32, noreply: bool) {
        let Scene { random, profile, .. } = *scene;
        let named = name(key);
        let flags = random.below(3) as u32 * 7;
        if random.below(30 + profile.item_size_max / 400) == 0 {
            let too_large = profile.item_size_max + random.below(100);
            let value = vec![b'x'; too_large];
            let (verb, forget) = if random.below(2) == 0 { ("set", true) } else { ("add", false) };
            let call = scene.begin(key, self.id, Action::StoreTooLarge { forget });
            return self.say_word(call, noreply, format!("{verb} {named} 0 0 {too_large}"), Some(&value));
        }
        let (value, text) = value_for(key, random, profile);
        if random.below(30) == 0 {
            let line = format!("set {named} 0 0 {}{}\r\n", value.len(), if noreply { " noreply" } else { "" });
            let form = if noreply { Form::Nothing } else { Form::Line(&["CLIENT_ERROR bad data chunk"]) };
            return self.say(form, Vec::new(), 0, &[line.as_bytes(), &value, b"xx"]);
        }
        let (verb, mode) = mode(key, random);
        let compare = (verb == "cas").then(|| self.shown.get(&key).copied().unwrap_or(1 << 60));
        let action = Action::Store { mode, text, flags, exptime, compare };
        let call = scene.begin(key, self.id, action);
        let cas = compare.map_or_else(String::new, |cas| format!(" {cas}"));
        let line = format!("{verb} {named} {flags} {exptime} {}{cas}", value.len());
        self.say_word(call, noreply, line, Some(&value));
    }

    fn think_of_meta(&mut self, scene: &mut Scene<'_>, key: usize, exptime: i32) {
        let Scene { random, profile, .. } = *scene;
        let named = name(key);
        self.next_opaque += 1;
        let opaque = self.next_opaque;
        let quiet = random.below(2) == 0;
        let q = if quiet { " q" } else { "" };
        let verb = b"gsdan"[random.below(5)];
        let form = |quiet| Form::Meta { quiet, verb };
        match verb {
            b'g' => {
                let action = if exptime == 0 { Action::Get } else { Action::GetAndTouch(exptime) };
                let touch = if exptime == 0 { String::new() } else { format!(" T{exptime}") };
                let call = scene.begin(key, self.id, action);
                let line = format!("mg {named} v f c O{opaque}{touch}{q}\r\n");
                self.say(form(quiet), vec![call], opaque, &[line.as_bytes()]);
            }
            b's' => {
                // If memory is short, the server may send a reply that does not name its request.
                let (quiet, q) = if profile.tight { (false, "") } else { (quiet, q) };
                let (value, text) = value_for(key, random, profile);
                let (verb, mode) = mode(key, random);
                let compare = (verb == "cas").then(|| self.shown.get(&key).copied().unwrap_or(1 << 60));
                let flags = random.below(3) as u32 * 9;
                let call = scene.begin(key, self.id, Action::Store { mode, text, flags, exptime, compare });
                let m = match mode {
                    Mode::Set => "S",
                    Mode::Add => "E",
                    Mode::Replace => "R",
                    Mode::Append => "A",
                    Mode::Prepend => "P",
                };
                let cas = compare.map_or_else(String::new, |cas| format!(" C{cas}"));
                let line = format!("ms {named} {} F{flags} T{exptime} M{m}{cas} c O{opaque}{q}\r\n", value.len());
                self.say(form(quiet), vec![call], opaque, &[line.as_bytes(), &value, b"\r\n"]);
            }
            b'd' => {
                let call = scene.begin(key, self.id, Action::Delete);
                let line = format!("md {named} O{opaque}{q}\r\n");
                self.say(form(quiet), vec![call], opaque, &[line.as_bytes()]);
            }
            b'a' => {
                let key = self.counter(key, scene);
                let (up, delta) = (random.below(2) == 0, random.below(1000) as u64);
                let call = scene.begin(key, self.id, Action::Count { up, delta });
                let line = format!("ma {} v D{delta} M{} O{opaque}{q}\r\n", name(key), if up { "I" } else { "D" });
                self.say(form(quiet), vec![call], opaque, &[line.as_bytes()]);
            }
            _ => self.say(Form::Line(&["MN"]), Vec::new(), 0, &[b"mn\r\n"]),
        }
    }

    /// Sends `quit`.
    pub(super) fn quit(&mut self) {
        self.unsent.extend(b"quit\r\n");
        self.fate = Fate::Quit;
    }

    /// Sends no more, not even the rest of a request.
    pub(super) fn finish(&mut self) {
        self.unsent.clear();
        self.fate = Fate::Finished;
        self.wire().finish();
    }

    /// Breaks the connection.
    pub(super) fn reset(&mut self, histories: &mut Histories) {
        self.unsent.clear();
        self.received.clear();
        self.requests.clear();
        self.fate = Fate::Reset;
        self.wire().reset();
        histories.keys.iter_mut().for_each(|key| key.forsake(self.id));
    }

    /// Sends up to `count` bytes, as far as the wire has room. Returns whether it sent any.
    pub(super) fn send(&mut self, count: usize, room: usize) -> bool {
        let mut wire = self.wire();
        if wire.closed || self.unsent.is_empty() {
            return false;
        }
        let count = count.min(self.unsent.len()).min(room.saturating_sub(wire.inbound.len()));
        if count == 0 {
            return false;
        }
        let (front, back) = self.unsent.as_slices();
        wire.arrive(&front[..count.min(front.len())]);
        wire.arrive(&back[..count.saturating_sub(front.len())]);
        drop(wire);
        self.unsent.drain(..count);
        self.sent += count as u64;
        true
    }

    /// Takes up to `count` bytes that have arrived, and checks them. Returns whether any had arrived.
    pub(super) fn receive(
        &mut self,
        count: usize,
        histories: &mut Histories,
        setting: Setting,
    ) -> Result<bool, String> {
        let bytes = self.wire().take(count);
        if bytes.is_empty() {
            return Ok(false);
        }
        self.received.extend(bytes);
        let mut at = 0;
        while at < self.received.len() {
            let received = std::mem::take(&mut self.received);
            let found = self.look(&received[at..], histories, setting);
            self.received = received;
            match found.map_err(|why| self.explain(at, &why))? {
                Found::Incomplete => break,
                Found::Part(len) => at += len,
                Found::End(len) => {
                    at += len;
                    self.end_request(None, histories, setting).map_err(|why| self.explain(at, &why))?;
                }
            }
        }
        self.received.drain(..at);
        Ok(true)
    }

    fn explain(&self, at: usize, why: &str) -> String {
        let shown = &self.received[at..self.received.len().min(at + 200)];
        format!("client {} at {:?} of {:?}: {why}", self.id, shown.escape_ascii().to_string(), self.requests.front())
    }

    /// Completes the first request, and ends its calls.
    fn end_request(
        &mut self,
        seen: Option<Outcome>,
        histories: &mut Histories,
        setting: Setting,
    ) -> Result<(), String> {
        let request = self.requests.pop_front().expect("a request is at an end");
        let missing = (request.form == Form::Values).then_some(Outcome::Value(None));
        for (key, call) in request.calls {
            histories.keys[key].end(call, seen.or(missing), setting)?;
        }
        Ok(())
    }

    /// Whether all replies have come.
    pub(super) fn has_all(&self) -> bool {
        let asked = self.requests.iter().take_while(|request| request.end <= self.sent);
        self.received.is_empty() && asked.map(|request| request.form).all(Form::may_be_silent)
    }

    /// No more bytes come for now. Completes the requests that may have no reply; no others must be left.
    pub(super) fn rest(&mut self, histories: &mut Histories, setting: Setting) -> Result<(), String> {
        if !self.received.is_empty() {
            return Err(self.explain(0, "nothing more comes"));
        }
        while let Some(request) = self.requests.front().filter(|request| request.end <= self.sent) {
            let seen = match request.form {
                Form::Nothing => None,
                Form::Meta { quiet: true, verb } => silence(verb),
                _ => return Err(self.explain(0, "it waits for ever")),
            };
            self.end_request(seen, histories, setting)?;
        }
        if self.fate == Fate::Open && !self.requests.is_empty() {
            return Err(self.explain(0, "its requests cannot be sent"));
        }
        Ok(())
    }

    /// The server has closed the connection, and the client has received everything.
    pub(super) fn end(mut self, histories: &mut Histories, setting: Setting) -> Result<(), String> {
        if self.fate == Fate::Open {
            return Err(format!("the server closes the connection of client {}", self.id));
        }
        self.rest(histories, setting)?;
        // The last request may have been sent in part.
        histories.keys.iter_mut().for_each(|key| key.forsake(self.id));
        Ok(())
    }

    /// Looks for the reply to the first request.
    fn look(&mut self, bytes: &[u8], histories: &mut Histories, setting: Setting) -> Result<Found, String> {
        let Some(line_len) = memchr::memchr(b'\n', bytes) else { return Ok(Found::Incomplete) };
        let line = bytes[..line_len].strip_suffix(b"\r");
        // As in memcached, the lines of a dump end without a return.
        let is_dump = self.requests.front().is_some_and(|request| request.form == Form::Dump);
        let line = line.or(is_dump.then_some(&bytes[..line_len])).ok_or("a line ends without a return")?;
        let line = std::str::from_utf8(line).map_err(|_| "a line is no text")?;
        let line_len = line_len + 1;
        let words: Vec<&str> = line.split(' ').collect();
        loop {
            let request = self.requests.front().ok_or("a reply to nothing")?;
            match request.form {
                Form::Nothing => self.end_request(None, histories, setting)?,
                Form::Meta { quiet: true, verb } if !words.contains(&&*format!("O{}", request.opaque)) => {
                    self.end_request(silence(verb), histories, setting)?;
                }
                _ => break,
            }
        }
        let request = self.requests.front().ok_or("a reply to nothing")?;
        if request.end > self.sent && !line.starts_with("SERVER_ERROR") {
            return Err("a reply to what was not asked".to_owned());
        }
        match request.form {
            Form::Nothing => unreachable!("it is at an end"),
            Form::Values => self.look_at_values(Look { bytes, line, words: &words }, histories, setting),
            Form::Word => {
                let seen = match line {
                    "STORED" => Outcome::Stored(0),
                    "NOT_STORED" => Outcome::NotStored,
                    "EXISTS" => Outcome::Exists,
                    "NOT_FOUND" => Outcome::NotFound,
                    "DELETED" | "TOUCHED" => Outcome::Done,
                    "SERVER_ERROR object too large for cache" => Outcome::TooLarge,
                    _ if line.starts_with("SERVER_ERROR out of memory") => Outcome::OutOfMemory,
                    _ => Outcome::Number(number(line.trim_end())?),
                };
                self.end_request(Some(seen), histories, setting)?;
                Ok(Found::Part(line_len))
            }
            Form::Meta { verb, .. } => self.look_at_meta(verb, Look { bytes, line, words: &words }, histories, setting),
            Form::Line(begins) => {
                let refused = setting.tight && line.starts_with("SERVER_ERROR out of memory");
                if !refused && !begins.iter().any(|begin| line.starts_with(begin)) {
                    return Err(format!("none of {begins:?}"));
                }
                Ok(Found::End(line_len))
            }
            Form::Lines if line == "END" => Ok(Found::End(line_len)),
            Form::Lines if words[0] == "STAT" => Ok(Found::Part(line_len)),
            Form::Lines => Err("no STAT".to_owned()),
            Form::Dump if line == "OK" || line.starts_with("key=") => Ok(Found::Part(line_len)),
            Form::Dump if line == "END" || line.starts_with("BUSY") || line.starts_with("ERROR cannot pipeline") => {
                Ok(Found::End(line_len))
            }
            Form::Dump => Err("no line of a dump".to_owned()),
            Form::Flush(lines) if lines.contains(&line) => Ok(Found::End(line_len)),
            Form::Flush(lines) => Err(format!("none of {lines:?}")),
        }
    }

    /// Looks for a value, or the end of values.
    fn look_at_values(&mut self, look: Look<'_>, histories: &mut Histories, setting: Setting) -> Result<Found, String> {
        let Look { bytes, line, words } = look;
        let line_len = look.line_len();
        let request = self.requests.front_mut().ok_or("a reply to nothing")?;
        if line == "END" {
            return Ok(Found::End(line_len));
        }
        let (named, flags, len, cas) = match *words {
            ["VALUE", named, flags, len] => (named, flags, len, "0"),
            ["VALUE", named, flags, len, cas] => (named, flags, len, cas),
            _ => return Err("no VALUE".to_owned()),
        };
        let (flags, len, cas) = (number(flags)?, number(len)? as usize, number(cas)?);
        if bytes.len() < line_len + len + 2 {
            return Ok(Found::Incomplete);
        }
        let value = &bytes[line_len..line_len + len];
        if &bytes[line_len + len..line_len + len + 2] != b"\r\n" {
            return Err("a value without an end".to_owned());
        }
        loop {
            let (key, call) = request.calls.pop_front().ok_or("a value that was not asked for")?;
            let seen = if name(key) == named {
                if cas != 0 {
                    self.shown.insert(key, cas);
                }
                Some(Item::seen(text_of(key, value)?, flags as u32, cas))
            } else {
                None
            };
            histories.keys[key].end(call, Some(Outcome::Value(seen)), setting)?;
            if seen.is_some() {
                return Ok(Found::Part(line_len + len + 2));
            }
        }
    }

    /// Looks for the reply to a meta command.
    fn look_at_meta(
        &mut self,
        verb: u8,
        look: Look<'_>,
        histories: &mut Histories,
        setting: Setting,
    ) -> Result<Found, String> {
        let Look { bytes, line, words } = look;
        let line_len = look.line_len();
        let request = self.requests.front().ok_or("a reply to nothing")?;
        let flag = |letter: char| words[1..].iter().find_map(|word| word.strip_prefix(letter));
        let cas = flag('c').map_or(Ok(0), number)?;
        let is_ours = flag('O') == Some(&format!("{}", request.opaque));
        if !is_ours && !line.starts_with("SERVER_ERROR out of memory") {
            return Err("a reply to something else".to_owned());
        }
        let key = request.calls[0].0;
        let mut len = line_len;
        let seen = match (words[0], verb) {
            ("VA", b'g' | b'a') => {
                let value_len = number(words.get(1).ok_or("no length")?)? as usize;
                len += value_len + 2;
                if bytes.len() < len {
                    return Ok(Found::Incomplete);
                }
                let value = &bytes[line_len..len - 2];
                if &bytes[len - 2..len] != b"\r\n" {
                    return Err("a value without an end".to_owned());
                }
                match (verb, text_of(key, value)?) {
                    (b'a', Text::Number(number)) => Outcome::Number(number),
                    (_, text) => {
                        let flags = flag('f').map_or(Ok(0), number)? as u32;
                        Outcome::Value(Some(Item::seen(text, flags, cas)))
                    }
                }
            }
            ("EN", b'g') => Outcome::Value(None),
            ("HD", b's') => Outcome::Stored(cas),
            ("HD", b'd') => Outcome::Done,
            ("NS", b's') => Outcome::NotStored,
            ("EX", b's') => Outcome::Exists,
            ("NF", _) => Outcome::NotFound,
            ("SERVER_ERROR", _) => Outcome::OutOfMemory,
            _ => return Err("no reply to a meta command".to_owned()),
        };
        if cas != 0 {
            self.shown.insert(key, cas);
        }
        self.end_request(Some(seen), histories, setting)?;
        Ok(Found::Part(len))
    }
}

/// Received bytes that begin with a line.
#[derive(Clone, Copy, Debug)]
struct Look<'l> {
    bytes: &'l [u8],
    /// The line, without its end.
    line: &'l str,
    words: &'l [&'l str],
}

impl Look<'_> {
    /// The length of the line, with its end.
    fn line_len(&self) -> usize {
        self.line.len() + b"\r\n".len()
    }
}

/// The outcome of a quiet meta command that has no reply.
fn silence(verb: u8) -> Option<Outcome> {
    match verb {
        b'g' => Some(Outcome::Value(None)),
        b's' => Some(Outcome::Stored(0)),
        _ => None,
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn text_of(key: usize, value: &[u8]) -> Result<Text, String> {
    if is_counter(key) {
        let text = std::str::from_utf8(value).map_err(|_| "a counter is no number")?;
        return Ok(Text::Number(number(text.trim_end())?));
    }
    Ok(Text::from_bytes(value))
}

/// Chooses a storage command for a key.
fn mode(key: usize, random: &Random) -> (&'static str, Mode) {
    match random.below(if is_counter(key) { 8 } else { 10 }) {
        0..4 => ("set", Mode::Set),
        4 => ("add", Mode::Add),
        5 => ("replace", Mode::Replace),
        6 | 7 => ("cas", Mode::Set),
        8 => ("append", Mode::Append),
        _ => ("prepend", Mode::Prepend),
    }
}

/// Makes a value. Long values all differ.
fn value_for(key: usize, random: &Random, profile: &Profile) -> (Vec<u8>, Text) {
    if is_counter(key) {
        let number = random.below(100_000) as u64;
        return (number.to_string().into_bytes(), Text::Number(number));
    }
    let len = match random.below(100) {
        0..70 => random.below(60),
        70..88 => random.below(2000),
        88..97 => random.below(profile.long_len / 4),
        _ => random.below(profile.long_len),
    };
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        value.extend(random.next().to_le_bytes());
    }
    value.truncate(len);
    let text = Text::from_bytes(&value);
    (value, text)
}
