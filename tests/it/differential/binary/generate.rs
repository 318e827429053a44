//! Makes conversations in the binary protocol from a seed. They have every command in its usual forms, quiet commands
//! that a noop ends, and packets with each of their parts damaged in turn.
//!
//! In some conversations, other clients use the same keys in the classic and the meta protocol meanwhile.
//!
//! Conversations leave out requests whose replies depend on the server or the moment. These are those of
//! `../generate.rs`, and:
//! - a flush now without CAS values: it may or may not spare items of the same second;
//! - numbers of 2^63 and more: memcached looks for a `-` up to the next NUL, even after the value;
//! - `detail dump` if packets are damaged: memcached counts a set before it has read all of the value;
//! - damaged requests in other protocols: `../generate.rs` makes them.

use super::super::generate::{Generator as Text, Scope};
use super::super::minimise;
use super::super::random::Random;
use super::frame::{HEADER_LEN, KEY_MAX, REQUEST, Request};
use crate::client::shown;
use crate::server::Program;

/// Bursts of pieces. A burst goes to one connection.
pub(super) type Conversation = minimise::Conversation<Piece>;

#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// A packet, or a part of one.
    Packet(Vec<Field>),
    /// The client sends nothing more on this connection.
    End,
    /// A request of the classic or the meta protocol about this key, on another connection. All pieces of its burst are
    /// such requests.
    Line { key: Vec<u8>, fields: Vec<Field> },
}

/// Bytes, or a number that the test knows only when it sends it.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Bytes(Vec<u8>),
    /// The latest CAS value of a key that this server sent, plus an offset.
    Cas {
        key: Vec<u8>,
        offset: i64,
    },
    /// The latest CAS value of a key that this server sent, in digits.
    CasDigits {
        key: Vec<u8>,
    },
    /// A Unix time, this many seconds from now.
    Unix(i64),
}

/// The flags of the servers of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    flags: &'static [&'static str],
    /// The largest item and the largest chunk, if they differ from the default.
    kilobytes: Option<usize>,
    /// Whether items have CAS values.
    cas: bool,
}

const USUAL: Setting = Setting { flags: &[], kilobytes: None, cas: true };

const SETTINGS: &[Setting] = &[
    USUAL,
    Setting { kilobytes: Some(16), ..USUAL },
    Setting { flags: &["-B", "binary"], ..USUAL },
    Setting { flags: &["-C"], cas: false, ..USUAL },
    Setting { flags: &["-F", "-D", "w"], ..USUAL },
];

impl Setting {
    /// The flags for a server, besides those of the run.
    pub(super) fn flags(&self, program: Program) -> Vec<String> {
        let mut flags: Vec<String> = self.flags.iter().map(|&flag| flag.to_owned()).collect();
        if let Some(kilobytes) = self.kilobytes {
            // 1.6.18 counts chunks in bytes.
            let chunk = if program == Program::Memcached { kilobytes << 10 } else { kilobytes };
            flags.extend(["-I".into(), format!("{kilobytes}k"), "-o".into(), format!("slab_chunk_max={chunk}")]);
        }
        flags
    }

    fn item_size_max(&self) -> usize {
        self.kilobytes.unwrap_or(1024) << 10
    }

    /// Whether the item that a packet stores is too large. Of an append, this counts only the value that it adds.
    pub(super) fn is_too_large(&self, request: &Request) -> bool {
        let has_flags = request.extras_len() > 0 && request.bytes[HEADER_LEN..][..4] != [0; 4];
        let value_len = request.body_len() - request.extras_len() - request.key_len();
        let cas_len = if self.cas { 8 } else { 0 };
        let len = ITEM_OVERHEAD + cas_len + request.key_len() + if has_flags { 4 } else { 0 } + value_len;
        len > self.item_size_max()
    }
}

/// The flags of the servers of this conversation. Most conversations have none.
pub(super) fn setting(seed: u64) -> &'static Setting {
    Random::new(!seed).mostly(40, 1, SETTINGS)
}

/// Most packets that the client sends at once.
const BURST_MAX: usize = 100;

/// Bytes of an item besides its key, flags, CAS and value: the header, and the bytes that end key and value.
const ITEM_OVERHEAD: usize = 48 + 1 + 2;

/// Opcodes that the servers do not know.
const UNKNOWN: &[u8] = &[0x1b, 0x1b, 0x1f, 0x25, 0x30, 0x31, 0x3d, 0x40, 0x47, 0x50, 0x7f, 0x80, 0xff];

/// No server has reached this CAS value.
const NO_CAS: u64 = 4_000_000_000_000_000_000;

/// Packets for datagrams, none of them damaged. Each fits into a datagram, and none ends the connection. They have no
/// statistics, because their lengths differ from server to server. They have no flush, because its reply may come after
/// the reply to the next datagram.
pub(super) fn datagrams(seed: u64, count: usize) -> Vec<Piece> {
    let mut generator = Generator::new(seed);
    generator.damage = 0;
    let mut packets = Vec::new();
    while packets.len() < count {
        let packet = generator.sound_packet();
        let is_fit = packet.value.len() <= 1000 && !matches!(packet.opcode, 0x07 | 0x08 | 0x10 | 0x17 | 0x18 | 0x1b);
        if is_fit && !UNKNOWN.contains(&packet.opcode) {
            packets.push(generator.piece(packet));
        }
    }
    packets
}

pub(super) fn conversation(seed: u64, commands: usize) -> Conversation {
    let mut generator = Generator::new(seed);
    let (mut bursts, mut count) = (Vec::new(), 0);
    while count < commands {
        let burst = generator.burst();
        count += burst.len();
        bursts.push(burst);
    }
    bursts
}

/// A packet in its parts. Its header may be false.
#[derive(Clone, Debug, Default)]
struct Packet {
    opcode: u8,
    cas: Option<Field>,
    extras: Vec<Field>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The false parts of its header.
    lies: Vec<Lie>,
}

#[derive(Clone, Copy, Debug)]
enum Lie {
    Magic(u8),
    KeyLen(u16),
    ExtrasLen(u8),
    DataType(u8),
    Reserved(u16),
    BodyLen(u32),
    /// The client sends only this many bytes.
    Cut(usize),
}

struct Generator {
    random: Random,
    /// Makes values, and requests in the other protocols.
    text: Text,
    keys: Vec<Vec<u8>>,
    /// Percentage of packets that are damaged.
    damage: usize,
    /// Percentage of packets that are quiet, among those that can be.
    quiet: usize,
    /// Whether the burst has a damaged packet. The server may then read other bytes as a length, so no CAS value that
    /// differs between the servers may follow.
    damaged: bool,
    /// Whether other clients use other protocols meanwhile.
    mixed: bool,
    flushes: bool,
    item_size_max: usize,
    cas_len: usize,
}

fn is_flush(opcode: u8) -> bool {
    matches!(opcode, 0x08 | 0x18)
}

fn bytes(bytes: impl AsRef<[u8]>) -> Field {
    Field::Bytes(bytes.as_ref().to_vec())
}

impl Generator {
    fn new(seed: u64) -> Generator {
        let mut random = Random::new(seed);
        let setting = setting(seed);
        let text = Text::new(seed, Scope { arithmetic: true, newest: false });
        let mut keys = text.keys.clone();
        let mixed = !setting.flags.contains(&"binary") && random.percent(30);
        for _ in 0..if mixed { 0 } else { random.below(4) } {
            let most = *random.one_of(&[8, 40, KEY_MAX]);
            let length = 1 + random.below(most);
            keys.push(random.bytes(length));
        }
        let damage = *random.one_of(&[0, 0, 1, 5, 20, 60]);
        // If one prefix is the beginning of another and both share a place in memcached's table, memcached takes the
        // one for the other. So no key has an empty prefix.
        keys.iter_mut().filter(|key| b":w".contains(&key[0])).for_each(|key| key[0] = b'k');
        keys.iter_mut().flatten().filter(|byte| **byte == b'-').for_each(|byte| *byte = b'_');
        if mixed {
            keys.iter_mut().flatten().filter(|byte| b"\0\r".contains(byte)).for_each(|byte| *byte = b'_');
        }
        let quiet = *random.one_of(&[10, 30, 80]);
        let flushes = setting.cas && random.percent(50);
        let item_size_max = setting.item_size_max();
        let cas_len = if setting.cas { 8 } else { 0 };
        Generator { random, text, keys, damage, quiet, damaged: false, mixed, flushes, item_size_max, cas_len }
    }

    fn burst(&mut self) -> Vec<Piece> {
        self.damaged = false;
        if self.mixed && self.random.percent(40) {
            return (0..1 + self.random.below(8)).map(|_| self.line()).collect();
        }
        let most = *self.random.mostly(60, 1, &[10, BURST_MAX, 1]);
        let count = 1 + self.random.below(most);
        let mut pieces = Vec::new();
        while pieces.len() < count {
            match self.random.below(200) {
                0..10 => self.quiet_run(&mut pieces),
                10 if self.damage > 0 => {
                    self.nonsense(&mut pieces);
                    break;
                }
                _ => {
                    let packet = self.packet();
                    let ends = packet.lies.iter().any(|lie| matches!(lie, Lie::Cut(_))) && self.random.percent(80);
                    pieces.push(self.piece(packet));
                    if ends {
                        pieces.push(Piece::End);
                        break;
                    }
                }
            }
        }
        pieces
    }

    /// Quiet commands, and a noop whose reply shows that the server has executed them.
    fn quiet_run(&mut self, pieces: &mut Vec<Piece>) {
        let quiet = std::mem::replace(&mut self.quiet, 100);
        for _ in 0..1 + self.random.below(20) {
            let packet = match self.random.below(10) {
                0..5 => self.retrieval(),
                5..8 => self.storage(),
                8 => self.arithmetic(),
                _ => self.delete(),
            };
            pieces.push(self.piece(packet));
        }
        self.quiet = quiet;
        pieces.push(self.piece(Packet { opcode: 0x0a, ..Packet::default() }));
    }

    fn packet(&mut self) -> Packet {
        let mut packet = self.sound_packet();
        if self.random.percent(self.damage) {
            self.damage(&mut packet);
        }
        packet
    }

    fn sound_packet(&mut self) -> Packet {
        let plain = |opcode| Packet { opcode, ..Packet::default() };
        let mut packet = match self.random.below(200) {
            0..64 => self.storage(),
            64..120 => self.retrieval(),
            120..132 => self.delete(),
            132..158 => self.arithmetic(),
            158..176 => self.touch(),
            176..182 => plain(0x0a),
            182..184 => plain(0x0b),
            184..187 => self.flush(),
            187..192 => self.stat(),
            192..195 => self.unknown(),
            195..197 => Packet { extras: vec![bytes([0, 0, 0, 1])], ..plain(0x1b) },
            197..199 => self.sasl(),
            _ => plain(if self.is_quiet() { 0x17 } else { 0x07 }),
        };
        if packet.cas.is_none() && self.random.percent(3) {
            // Some commands ignore this CAS value, others do not.
            packet.cas = Some(self.cas(&packet.key.clone()));
        }
        if self.random.percent(3) {
            packet.lies.push(Lie::DataType(self.random.below(256) as u8));
        }
        if self.random.percent(3) {
            packet.lies.push(Lie::Reserved(self.random.below(1 << 16) as u16));
        }
        packet
    }

    fn is_quiet(&mut self) -> bool {
        self.random.percent(self.quiet)
    }

    /// The first opcode, or the second one if the packet is quiet.
    fn opcode(&mut self, (loud, quiet): (u8, u8)) -> u8 {
        if self.is_quiet() { quiet } else { loud }
    }

    fn storage(&mut self) -> Packet {
        let forms = [(0x01, 0x11), (0x01, 0x11), (0x02, 0x12), (0x03, 0x13), (0x0e, 0x19), (0x0f, 0x1a)];
        let form = *self.random.one_of(&forms);
        let (key, flags) = (self.key(), self.client_flags());
        let joins = matches!(form.0, 0x0e | 0x0f);
        let extras = if joins { Vec::new() } else { vec![bytes(flags.to_be_bytes()), self.exptime()] };
        let value = self.value(key.len(), if joins { 0 } else { flags });
        let cas = self.random.percent(20).then(|| self.cas(&key));
        Packet { opcode: self.opcode(form), cas, extras, key, value, lies: Vec::new() }
    }

    fn retrieval(&mut self) -> Packet {
        let form = *self.random.one_of(&[(0x00, 0x09), (0x0c, 0x0d)]);
        Packet { opcode: self.opcode(form), key: self.key(), ..Packet::default() }
    }

    fn delete(&mut self) -> Packet {
        let key = self.key();
        let cas = self.random.percent(30).then(|| self.cas(&key));
        Packet { opcode: self.opcode((0x04, 0x14)), cas, key, ..Packet::default() }
    }

    fn arithmetic(&mut self) -> Packet {
        let form = *self.random.one_of(&[(0x05, 0x15), (0x06, 0x16)]);
        let key = self.key();
        let cas = self.random.percent(15).then(|| self.cas(&key));
        let (delta, initial) = (self.number(), self.number());
        let exptime = if self.random.percent(40) { bytes([0xff; 4]) } else { self.exptime() };
        let extras = vec![bytes(delta.to_be_bytes()), bytes(initial.to_be_bytes()), exptime];
        Packet { opcode: self.opcode(form), cas, extras, key, ..Packet::default() }
    }

    fn touch(&mut self) -> Packet {
        let form = *self.random.one_of(&[(0x1c, 0x1c), (0x1d, 0x1e), (0x23, 0x24)]);
        Packet { opcode: self.opcode(form), extras: vec![self.exptime()], key: self.key(), ..Packet::default() }
    }

    fn flush(&mut self) -> Packet {
        // Some flushes are due now. Others are due after the end of the conversation, or at a time before the server
        // started, which means never.
        let never = &[1000, 5000, 0x7fff_ffff, 0xffff_ffff, 2_592_001, 1_000_000_000];
        let times: &[u32] = if self.flushes { &[0] } else { never };
        let time = *self.random.one_of(times);
        let bare = self.flushes && self.random.percent(50);
        let extras = if bare { Vec::new() } else { vec![bytes(time.to_be_bytes())] };
        Packet { opcode: self.opcode((0x08, 0x18)), extras, ..Packet::default() }
    }

    fn stat(&mut self) -> Packet {
        let usual = ["", "items", "slabs", "sizes", "settings", "reset", "detail on", "detail off", "detail dump"];
        let odd =
            ["bogus", "detail", "detail ", "conns", "cachedump 1 0", "resetting", "settingsx", "i", "detail dumpx"];
        let all = if self.random.percent(80) { usual } else { odd };
        let key = *self.random.one_of(&all[..if self.damage > 0 { 8 } else { 9 }]);
        Packet { opcode: 0x10, key: key.into(), ..Packet::default() }
    }

    fn unknown(&mut self) -> Packet {
        let opcode = *self.random.one_of(UNKNOWN);
        let (mut packet, length) = (Packet { opcode, ..Packet::default() }, self.random.below(40));
        match self.random.below(4) {
            0 => {}
            1 => packet.value = self.random.bytes(length * length),
            2 => packet.extras = vec![bytes(self.random.bytes(length))],
            _ => {
                packet.extras = vec![bytes(self.random.bytes(length / 4))];
                packet.key = self.key();
                packet.value = self.random.bytes(length);
            }
        }
        packet
    }

    fn sasl(&mut self) -> Packet {
        let opcode = *self.random.one_of(&[0x20, 0x21, 0x22]);
        let mechanism = *self.random.one_of(&["PLAIN", "CRAM-MD5", "a mechanism of more than thirty-two bytes"]);
        let message = *self.random.one_of(&["", "\0user\0secret"]);
        let (key, value) = if opcode == 0x20 { ("", "") } else { (mechanism, message) };
        Packet { opcode, key: key.into(), value: value.into(), ..Packet::default() }
    }

    /// Damages one part of the packet.
    fn damage(&mut self, packet: &mut Packet) {
        self.damaged = true;
        packet.cas = packet.cas.take().map(|_| bytes(NO_CAS.to_be_bytes()));
        if is_flush(packet.opcode) {
            // Damage may not turn this flush into one at another time.
            let lies = [Lie::ExtrasLen(1), Lie::KeyLen(1), Lie::BodyLen(1), Lie::BodyLen(5), Lie::Magic(0x81)];
            packet.lies.push(*self.random.one_of(&lies));
            return;
        }
        let extras_len: usize = packet.extras.iter().map(Field::len).sum();
        let (key_len, value_len) = (packet.key.len(), packet.value.len());
        let body_len = extras_len + key_len + value_len;
        match self.random.below(20) {
            0 | 1 => {
                let length = *self.random.one_of(&[0, 1, 3, 4, 5, 7, 8, 9, 12, 19, 20, 21, 24, 255]);
                packet.extras = vec![bytes(self.random.bytes(length))];
            }
            2 => packet.lies.push(Lie::ExtrasLen(*self.random.one_of(&[0, 1, 4, 8, 20, 21, 255]))),
            3 => packet.key.clear(),
            4 => packet.key = b"key".repeat(*self.random.one_of(&[84, 84, 100, 300])),
            5 => {
                let lengths = [0, 1, KEY_MAX, KEY_MAX + 1, 0xffff, key_len + 1, body_len, body_len + 1];
                packet.lies.push(Lie::KeyLen(*self.random.one_of(&lengths) as u16));
            }
            // Some or all of the next packet becomes a part of this one.
            6 => {
                let more = *self.random.one_of(&[1, 2, HEADER_LEN, HEADER_LEN + 1, HEADER_LEN * 2, 100, 5000]);
                packet.lies.push(Lie::BodyLen((body_len + more) as u32));
            }
            7 | 8 => {
                // If a value is all blanks, memcached looks for a number in the bytes after it.
                packet.value.iter_mut().filter(|byte| byte.is_ascii_whitespace()).for_each(|byte| *byte = b'_');
                let fewer = *self.random.one_of(&[1, 1, 2, value_len, value_len + 1, value_len + key_len, body_len]);
                packet.lies.push(Lie::BodyLen(body_len.saturating_sub(fewer) as u32));
            }
            9 => {
                let beyond = [1 << 30, (1 << 30) + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 2_000_000, 30_000_000];
                packet.lies.push(Lie::BodyLen(*self.random.one_of(&beyond)));
            }
            10 => packet.lies.push(Lie::Magic(*self.random.one_of(&[0x81, 0, b'g', 0x7f, 0xff, b'\n']))),
            11 => {
                let opcode = self.random.below(256) as u8;
                packet.opcode = if is_flush(opcode) { 0x1f } else { opcode };
            }
            // The packet gets a value that it may not have, or the next packet in place of its value.
            12 => packet.value = self.random.bytes(5),
            13 | 14 => {
                let mut inner = self.sound_packet();
                inner.cas = None;
                let Piece::Packet(fields) = self.piece(inner) else { unreachable!("a packet is one") };
                packet.value = resolve(&fields, 0, |_| None);
            }
            // The rest of the packet never comes, or the next bytes take its place.
            _ => packet.lies.push(Lie::Cut(self.random.below(HEADER_LEN + body_len))),
        }
    }

    /// Adds bytes that are no packet.
    fn nonsense(&mut self, pieces: &mut Vec<Piece>) {
        let junk = match self.random.below(4) {
            0 => b"get a\r\n".repeat(1 + self.random.below(8)),
            1 => vec![0; 1 + self.random.below(50)],
            2 => vec![REQUEST; 1 + self.random.below(100)],
            _ => {
                let length = 1 + self.random.below(100);
                self.random.bytes(length)
            }
        };
        pieces.push(Piece::Packet(vec![bytes(junk)]));
        if self.random.percent(50) {
            pieces.push(Piece::End);
        }
    }

    /// The packet in the form that the client sends.
    fn piece(&mut self, packet: Packet) -> Piece {
        let extras_len: usize = packet.extras.iter().map(Field::len).sum();
        let body_len = extras_len + packet.key.len() + packet.value.len();
        let mut head = vec![REQUEST, packet.opcode];
        head.extend((packet.key.len() as u16).to_be_bytes());
        head.extend([extras_len as u8, 0, 0, 0]);
        head.extend((body_len as u32).to_be_bytes());
        head.extend(self.random.bytes(4));
        let mut cut = usize::MAX;
        for lie in packet.lies {
            match lie {
                Lie::Magic(byte) => head[0] = byte,
                Lie::KeyLen(len) => head[2..4].copy_from_slice(&len.to_be_bytes()),
                Lie::ExtrasLen(len) => head[4] = len,
                Lie::DataType(byte) => head[5] = byte,
                Lie::Reserved(number) => head[6..8].copy_from_slice(&number.to_be_bytes()),
                Lie::BodyLen(len) => head[8..12].copy_from_slice(&len.to_be_bytes()),
                Lie::Cut(len) => cut = len,
            }
        }
        let mut fields = vec![Field::Bytes(head), packet.cas.unwrap_or_else(|| bytes([0; 8]))];
        fields.extend(packet.extras);
        fields.extend([Field::Bytes(packet.key), Field::Bytes(packet.value)]);
        if cut != usize::MAX {
            let mut all = resolve(&fields, 0, |_| None);
            all.truncate(cut);
            fields = vec![Field::Bytes(all)];
        }
        Piece::Packet(fields)
    }

    /// An undamaged request of the classic or the meta protocol.
    fn line(&mut self) -> Piece {
        let key = self.random.one_of(&self.keys).clone();
        let value = self.value(key.len(), 0);
        let value = if value.len() > 1000 { b"short".to_vec() } else { value };
        let flags = self.client_flags();
        let time = *self.random.one_of(&["0", "0", "0", "1000", "100000", "-1"]);
        let number = *self.random.one_of(&[1, 10, 99, 100_000]);
        let len = value.len();
        let mode = *self.random.one_of(&["S", "E", "R", "A", "P"]);
        // The words before the key, the words after it, and whether a CAS and a value follow.
        let (command, rest, cas, has_value) = match self.random.below(20) {
            0..3 => ("set", format!("{flags} {time} {len}"), "", true),
            3 => ("add", format!("{flags} {time} {len}"), "", true),
            4 => (*self.random.one_of(&["append", "prepend", "replace"]), format!("{flags} {time} {len}"), "", true),
            5 => ("cas", format!("{flags} {time} {len}"), " ", true),
            6..10 => ("gets", String::new(), "", false),
            10 => ("incr", number.to_string(), "", false),
            11 => ("decr", number.to_string(), "", false),
            12 => ("touch", time.to_owned(), "", false),
            13 => ("delete", String::new(), "", false),
            14 => ("mg", "v f c s".to_owned(), "", false),
            15 => ("mg", format!("v c f T{time}"), "", false),
            16 => ("ms", format!("{len} c T{time} F{flags} M{mode}"), "", true),
            17 => ("ms", format!("{len} c F{flags}"), " C", true),
            18 => ("ma", format!("v c D{number} M{}", if flags == 0 { "I" } else { "D" }), "", false),
            _ => ("md", (if flags == 0 { "I T1000" } else { "" }).to_owned(), " C", false),
        };
        let mut fields = vec![bytes([command.as_bytes(), b" ", &key, b" ", rest.as_bytes()].concat())];
        if !cas.is_empty() {
            fields.extend([bytes(cas), Field::CasDigits { key: key.clone() }]);
        }
        fields.push(bytes("\r\n"));
        if has_value {
            fields.push(bytes([&value, &b"\r\n"[..]].concat()));
        }
        Piece::Line { key, fields }
    }

    /// One of the keys, or a key that no server has.
    fn key(&mut self) -> Vec<u8> {
        if self.random.percent(8) { b"nothing".to_vec() } else { self.random.one_of(&self.keys).clone() }
    }

    fn client_flags(&mut self) -> u32 {
        *self.random.one_of(&[0, 0, 1, 5, 0xffff, 0x1_0000, 0xdead_beef, 0xffff_ffff])
    }

    /// An expiry time that is long past or far ahead, or 0. It is unsigned in this protocol.
    fn exptime(&mut self) -> Field {
        let times: [u32; 12] =
            [0, 0, 0, 0, 1000, 5000, 2_592_000, 2_592_001, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
        if self.random.percent(8) && !self.damaged {
            return Field::Unix(*self.random.one_of(&[-100_000, -1000, 1000, 100_000]));
        }
        bytes(self.random.one_of(&times).to_be_bytes())
    }

    fn number(&mut self) -> u64 {
        *self.random.one_of(&[1, 1, 2, 10, 99, 0, 100_000, 1 << 32, 1_000_000_000_000])
    }

    /// A CAS value that the server has sent, a number near it, or another one.
    fn cas(&mut self, key: &[u8]) -> Field {
        if self.damaged || self.random.percent(10) {
            return bytes(self.random.one_of(&[NO_CAS, u64::MAX, 1 << 63]).to_be_bytes());
        }
        let offset = *self.random.one_of(&[0, 0, 0, 0, 0, 0, -1, 1_000_000]);
        Field::Cas { key: key.to_vec(), offset }
    }

    /// A value. A few have about the largest size that the server stores, to the byte.
    fn value(&mut self, key_len: usize, flags: u32) -> Vec<u8> {
        let flags_len = if flags == 0 { 0 } else { 4 };
        let small = self.item_size_max < 1 << 20;
        if self.random.below(1000) < if small { 100 } else { 1 } {
            let most = self.item_size_max - ITEM_OVERHEAD - self.cas_len - key_len - flags_len;
            let length = match self.random.below(4) {
                0 => most + self.random.below(4) - 2,
                1 => most - self.random.below(300),
                2 => most + self.random.below(5000),
                _ => most / 2 + self.random.below(100),
            };
            return vec![b'0' + self.random.below(10) as u8; length];
        }
        let mut value = self.text.value();
        value.iter_mut().filter(|byte| **byte == b'-').for_each(|byte| *byte = b'_');
        if value.iter().all(u8::is_ascii_digit) {
            value.truncate(9);
        }
        value
    }
}

impl Field {
    fn len(&self) -> usize {
        match self {
            Field::Bytes(bytes) => bytes.len(),
            Field::Cas { .. } => 8,
            Field::CasDigits { key } => unreachable!("a packet has no digits of {key:?}"),
            Field::Unix(_) => 4,
        }
    }
}

impl Piece {
    /// The piece in readable form.
    pub(super) fn shown(&self) -> String {
        let (fields, mut text) = match self {
            Piece::End => return "(no more)".to_owned(),
            Piece::Packet(fields) => (fields, Request { bytes: resolve(fields, 0, |_| None), is_cut: false }.shown()),
            Piece::Line { fields, .. } => (fields, shown(&resolve(fields, 0, |_| None))),
        };
        for field in fields {
            match field {
                Field::Bytes(_) => {}
                Field::Cas { key, offset } => text += &format!(" (with the CAS of {} {offset:+})", shown(key)),
                Field::CasDigits { key } => text += &format!(" (with the CAS of {})", shown(key)),
                Field::Unix(offset) => text += &format!(" (with now {offset:+})"),
            }
        }
        text
    }
}

/// The bytes of a packet for one of the servers. `cas_of` gives the CAS values that this server has sent.
pub(super) fn resolve(fields: &[Field], now: i64, cas_of: impl Fn(&[u8]) -> Option<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        match field {
            Field::Bytes(some) => bytes.extend_from_slice(some),
            Field::Cas { key, offset } => {
                let cas = cas_of(key).unwrap_or(NO_CAS).saturating_add_signed(*offset);
                // A server does not compare a CAS value of 0.
                bytes.extend_from_slice(&if cas == 0 { NO_CAS } else { cas }.to_be_bytes());
            }
            Field::CasDigits { key } => bytes.extend_from_slice(cas_of(key).unwrap_or(NO_CAS).to_string().as_bytes()),
            Field::Unix(offset) => bytes.extend_from_slice(&((now + offset) as u32).to_be_bytes()),
        }
    }
    bytes
}
