//! Packets of the binary protocol in words, for `>p` and `<p` in conversations and for other tests.
//!
//! A packet is its command and `field=value` words: `set key=a flags=5 exp=0 val="hello world"`. A command is its name
//! (with `q` if it is quiet) or its opcode, such as `0x50`. A field that the words do not name is 0 or empty. The
//! lengths follow from the other fields, and the opaque number is [`OPAQUE`].
//!
//! | field | in a request | in a reply |
//! |---|---|---|
//! | `flags` `exp` | extras, 4 bytes each | extras, 4 bytes |
//! | `delta` `initial` | extras, 8 bytes each | |
//! | `ext` | extras in hexadecimal | the same |
//! | `key` `val` | with the escapes and variables of conversations | the same; `val` may have `<N>` and `<*>` |
//! | `num` | | a value of 8 bytes |
//! | `cas` | a number or `${name}` | the same, `<N>`, or `<name>` for a variable |
//! | `status` | | a number; the value is then memcached's message for it, unless the words give `val` or `key` |
//! | `opaque` | a number | the same |
//! | `magic` `keylen` `extlen` `bodylen` `datatype` | replaces the true number | |

use crate::client::{Client, Silence};

pub(crate) const OPAQUE: u32 = 0xdead_beef;

const HEADER_LEN: usize = 24;

const COMMANDS: &[(&str, u8)] = &[
    ("get", 0x00),
    ("set", 0x01),
    ("add", 0x02),
    ("replace", 0x03),
    ("delete", 0x04),
    ("incr", 0x05),
    ("decr", 0x06),
    ("quit", 0x07),
    ("flush", 0x08),
    ("getq", 0x09),
    ("noop", 0x0a),
    ("version", 0x0b),
    ("getk", 0x0c),
    ("getkq", 0x0d),
    ("append", 0x0e),
    ("prepend", 0x0f),
    ("stat", 0x10),
    ("setq", 0x11),
    ("addq", 0x12),
    ("replaceq", 0x13),
    ("deleteq", 0x14),
    ("incrq", 0x15),
    ("decrq", 0x16),
    ("quitq", 0x17),
    ("flushq", 0x18),
    ("appendq", 0x19),
    ("prependq", 0x1a),
    ("verbosity", 0x1b),
    ("touch", 0x1c),
    ("gat", 0x1d),
    ("gatq", 0x1e),
    ("sasl_list", 0x20),
    ("sasl_auth", 0x21),
    ("sasl_step", 0x22),
    ("gatk", 0x23),
    ("gatkq", 0x24),
];

const MESSAGES: &[(u16, &str)] = &[
    (0x01, "Not found"),
    (0x02, "Data exists for key."),
    (0x03, "Too large."),
    (0x04, "Invalid arguments"),
    (0x05, "Not stored."),
    (0x06, "Non-numeric server-side value for incr or decr"),
    (0x20, "Auth failure."),
    (0x81, "Unknown command"),
    (0x82, "Out of memory"),
];

/// A parsed reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) opcode: u8,
    pub(crate) status: u16,
    pub(crate) extras: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) opaque: u32,
    pub(crate) cas: u64,
}

impl Packet {
    /// The next packet that a client receives. `Err` has bytes that are no packet.
    pub(crate) fn receive(client: &mut Client) -> Result<Result<Packet, Vec<u8>>, Silence> {
        let header = client.bytes(HEADER_LEN)?;
        let number =
            |from: usize, to: usize| header[from..to].iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        let (key_len, extras_len, body_len) = (number(2, 4) as usize, number(4, 5) as usize, number(8, 12) as usize);
        if header[0] != 0x81 || header[5] != 0 || key_len + extras_len > body_len {
            return Ok(Err(header));
        }
        let mut extras = client.bytes(body_len)?;
        let mut key = extras.split_off(extras_len);
        let value = key.split_off(key_len);
        Ok(Ok(Packet {
            opcode: header[1],
            status: number(6, 8) as u16,
            extras,
            key,
            value,
            opaque: number(12, 16) as u32,
            cas: number(16, 24),
        }))
    }

    /// The packet in the words of a conversation.
    pub(crate) fn shown(&self) -> String {
        let mut words = name(self.opcode);
        if self.status != 0 {
            words += &format!(" status={:#x}", self.status);
        }
        if !self.extras.is_empty() {
            words += &format!(" ext={}", self.extras.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        for (name, bytes) in [("key", &self.key), ("val", &self.value)] {
            let cut = &bytes[..bytes.len().min(100)];
            if !bytes.is_empty() {
                words += &format!(" {name}=\"{}\"", cut.escape_ascii());
            }
            if cut.len() < bytes.len() {
                words += &format!("… ({} bytes)", bytes.len());
            }
        }
        if self.cas != 0 {
            words += &format!(" cas={}", self.cas);
        }
        if self.opaque != OPAQUE {
            words += &format!(" opaque={}", self.opaque);
        }
        words
    }
}

/// A parsed packet in words: its opcode and its fields in order.
pub(crate) struct Words<'a> {
    pub(crate) opcode: u8,
    fields: Vec<(&'a str, &'a str)>,
    text: &'a str,
}

impl<'a> Words<'a> {
    pub(crate) fn of(text: &'a str) -> Words<'a> {
        let mut quoted = false;
        let mut words = text.split(|byte| {
            quoted ^= byte == '"';
            byte == ' ' && !quoted
        });
        let name = words.next().unwrap_or_default();
        let code = match name.strip_prefix("0x") {
            Some(digits) => u8::from_str_radix(digits, 16).ok(),
            None => COMMANDS.iter().find(|&&(other, _)| other == name).map(|&(_, code)| code),
        };
        let field = |word: &'a str| {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("no field=value: {word:?} in {text:?}"));
            (name, value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
        };
        let opcode = code.unwrap_or_else(|| panic!("no such command: {text:?}"));
        Words { opcode, fields: words.map(field).collect(), text }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(other, _)| *other == name).map(|&(_, value)| value)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).map(|value| number(value).unwrap_or_else(|| panic!("{name}={value} in {:?}", self.text)))
    }

    /// The extras that the fields make up.
    pub(crate) fn extras(&self) -> Vec<u8> {
        let mut extras = Vec::new();
        for &(name, value) in &self.fields {
            let number = || number(value).unwrap_or_else(|| panic!("{name}={value} in {:?}", self.text));
            match name {
                "flags" | "exp" => extras.extend((number() as u32).to_be_bytes()),
                "delta" | "initial" => extras.extend(number().to_be_bytes()),
                "ext" => {
                    let byte = |at| u8::from_str_radix(&value[at..at + 2], 16).expect("two hexadecimal digits");
                    extras.extend((0..value.len()).step_by(2).map(byte));
                }
                "key" | "val" | "num" | "cas" | "status" | "opaque" | "magic" | "keylen" | "extlen" | "bodylen"
                | "datatype" => {}
                _ => panic!("no such field: {name} in {:?}", self.text),
            }
        }
        extras
    }

    /// The request as bytes. `expand` resolves escapes and variables.
    pub(crate) fn request(&self, expand: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
        let extras = self.extras();
        let (key, value) = (expand(self.get("key").unwrap_or("")), expand(self.get("val").unwrap_or("")));
        let cas = expand(self.get("cas").unwrap_or("0"));
        let cas = number(&String::from_utf8_lossy(&cas)).unwrap_or_else(|| panic!("cas in {:?}", self.text));
        let lie = |name: &str, truth: usize| self.number(name).unwrap_or(truth as u64);
        let mut bytes = vec![lie("magic", 0x80) as u8, self.opcode];
        bytes.extend((lie("keylen", key.len()) as u16).to_be_bytes());
        bytes.push(lie("extlen", extras.len()) as u8);
        bytes.push(lie("datatype", 0) as u8);
        bytes.extend([0; 2]);
        bytes.extend((lie("bodylen", extras.len() + key.len() + value.len()) as u32).to_be_bytes());
        bytes.extend((lie("opaque", OPAQUE as usize) as u32).to_be_bytes());
        bytes.extend(cas.to_be_bytes());
        [bytes, extras, key, value].concat()
    }

    /// The value that a reply of this status has, if the words do not give it.
    pub(crate) fn message(&self) -> &'static str {
        let status = self.number("status").unwrap_or(0);
        let told = self.get("key").is_some();
        MESSAGES.iter().find(|&&(code, _)| u64::from(code) == status && !told).map_or("", |&(_, message)| message)
    }
}

/// The name of a command, or its opcode.
pub(crate) fn name(opcode: u8) -> String {
    let known = COMMANDS.iter().find(|&&(_, code)| code == opcode);
    known.map_or_else(|| format!("{opcode:#04x}"), |(name, _)| (*name).to_owned())
}

/// The request that these words describe, for tests that need no variables.
pub(crate) fn request(text: &str) -> Vec<u8> {
    Words::of(text).request(|text| text.as_bytes().to_vec())
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
