//! The values of keys, from quiet `mg` in batches. The fetches neither bump the items nor mark them as fetched (`u`), so
//! the server evicts as it would without them.

use super::item::{Item, VALUE_BYTES_MAX, key_form, put, put_key};
use super::tally::Counts;
use super::walk::Listed;
use crate::tool::client::Connection;
use crate::tool::target::Target;
use std::collections::VecDeque;
use std::io;

/// Batches that are on their way at the same time.
const IN_FLIGHT_MAX: usize = 4;

/// A connection that fetches.
#[derive(Debug)]
pub(super) struct Fetcher<'a> {
    target: &'a Target,
    connection: Connection,
    request: Vec<u8>,
    /// Keys without an answer, by batches.
    in_flight: VecDeque<Vec<Listed>>,
    /// The connection that gives back what fetches have won by mistake.
    restoring: Option<Connection>,
}

/// A reply to `mg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    length: usize,
    flags: u32,
    left: Option<u64>,
    cas: u64,
    opaque: usize,
    is_won: bool,
    is_stale: bool,
    /// Another client has been told to fill or to renew it.
    is_taken: bool,
}

impl<'a> Fetcher<'a> {
    pub(super) fn open(target: &'a Target) -> io::Result<Fetcher<'a>> {
        let connection = Connection::open(target)?;
        Ok(Fetcher { target, connection, request: Vec::new(), in_flight: VecDeque::new(), restoring: None })
    }

    /// Whether another batch may be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Asks for the values of a batch. Keys that no request can name are left out and counted.
    pub(super) fn send(&mut self, mut batch: Vec<Listed>, counts: &mut Counts) -> io::Result<()> {
        self.request.clear();
        let listed = batch.len();
        batch.retain(|listed| key_form(&listed.key).is_some());
        counts.unnameable += (listed - batch.len()) as u64;
        for (number, Listed { key, .. }) in batch.iter().enumerate() {
            let form = key_form(key).expect("others were removed");
            self.request.extend_from_slice(b"mg ");
            put_key(&mut self.request, key, form);
            put(&mut self.request, format_args!("{} v f t c u q O{number}\r\n", form.flag()));
        }
        self.request.extend_from_slice(b"mn\r\n");
        self.connection.send_bytes(&self.request)?;
        self.in_flight.push_back(batch);
        Ok(())
    }

    /// Passes the items of the oldest batch on, and counts the others.
    pub(super) fn receive<E: From<io::Error>>(
        &mut self,
        counts: &mut Counts,
        mut pass: impl FnMut(&Item<'_>, &mut Counts) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        // Answers come in the order of the keys: a key that was passed over is gone.
        let mut next = 0;
        let mut won = Vec::new();
        loop {
            let line = self.connection.raw_line()?;
            if line == b"MN" {
                break;
            }
            if line.starts_with(b"SERVER_ERROR ") {
                (counts.unread, next) = (counts.unread + 1, next + 1);
                if next > batch.len() {
                    return Err(unasked().into());
                }
                continue;
            }
            let Some(head) = read(line) else { return Err(refusal(line).into()) };
            let Some(Listed { key, .. }) = batch.get(head.opaque).filter(|_| head.opaque >= next) else {
                return Err(unasked().into());
            };
            counts.gone += (head.opaque - next) as u64;
            next = head.opaque + 1;
            let value = self.connection.block(head.length)?;
            match head {
                Head { is_stale: true, .. } => counts.stale += 1,
                Head { is_taken: true, length: 0, .. } => counts.unfilled += 1,
                Head { left: Some(0), .. } => counts.gone += 1,
                Head { flags, left, .. } => pass(&Item { key, flags, left, value }, counts)?,
            }
            if head.is_won {
                won.push((head.opaque, head.cas));
            }
        }
        counts.gone += batch.len().saturating_sub(next) as u64;
        for (number, cas) in won {
            counts.unrestored += u64::from(!self.give_back(&batch[number].key, cas)?);
        }
        Ok(())
    }

    /// A fetch of a stale item tells the first that asks to renew it, and nobody else. We do not renew it: so we mark the
    /// item as stale again, unless somebody has stored it since, and the next client is told. Returns whether the server
    /// let us.
    fn give_back(&mut self, key: &[u8], cas: u64) -> io::Result<bool> {
        let Some(form) = key_form(key) else { return Ok(false) };
        let connection = match &mut self.restoring {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.target)?),
        };
        let mut request = b"md ".to_vec();
        put_key(&mut request, key, form);
        put(&mut request, format_args!("{} I C{cas}\r\n", form.flag()));
        connection.send_bytes(&request)?;
        Ok(matches!(connection.raw_line()?, b"HD" | b"EX" | b"NF"))
    }
}

/// Reads `VA 5 f0 t-1 c7 O3 W`.
fn read(line: &[u8]) -> Option<Head> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if words.next() != Some("VA") {
        return None;
    }
    let length = words.next()?.parse().ok().filter(|&length| length <= VALUE_BYTES_MAX)?;
    let mut head = Head { length, opaque: usize::MAX, ..Head::default() };
    for word in words {
        let (name, token) = word.split_at_checked(1)?;
        match name {
            "f" => head.flags = token.parse().ok()?,
            "t" if token == "-1" => head.left = None,
            // An item that ends this second may have a negative number.
            "t" => head.left = Some(token.parse::<i64>().ok()?.max(0).cast_unsigned()),
            "c" => head.cas = token.parse().ok()?,
            "O" => head.opaque = token.parse().ok()?,
            "W" => head.is_won = true,
            "X" => head.is_stale = true,
            "Z" => head.is_taken = true,
            _ => return None,
        }
    }
    Some(head)
}

fn unasked() -> io::Error {
    io::Error::other("it answers what was not asked")
}

fn refusal(line: &[u8]) -> io::Error {
    let text: String = String::from_utf8_lossy(line).replace(char::is_control, "\u{fffd}").chars().take(200).collect();
    io::Error::other(match text.as_str() {
        _ if text.contains("unauthenticated") => "the server wants a login: --user and --password-file".to_owned(),
        _ if text.contains("access denied") => "the user may not read these keys".to_owned(),
        "ERROR" => "it knows no meta commands (\"mg\"), which this needs".to_owned(),
        _ => format!("to \"mg\" it says \"{text}\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_and_nothing_else() {
        let head = Head { length: 5, flags: 7, left: None, cas: 9, opaque: 3, ..Head::default() };
        assert_eq!(read(b"VA 5 f7 t-1 c9 O3"), Some(head));
        let stale = Head { left: Some(30), is_won: true, is_stale: true, ..head };
        assert_eq!(read(b"VA 5 f7 t30 c9 O3 W X"), Some(stale));
        assert_eq!(read(b"VA 0 O1 Z").map(|head| (head.is_taken, head.left)), Some((true, None)));
        assert_eq!(read(b"VA 0 t-2 O1").map(|head| head.left), Some(Some(0)));
        for line in [
            "",
            "VA",
            "VA x O1",
            "VA 2000000000 O1",
            "VA 1 O-1",
            "VA 1 fx O1",
            "VA 1  O1",
            "VA 1 y",
            "EN",
            "VALUE a 0 1",
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line}");
        }
        assert!(refusal(b"ERROR").to_string().contains("no meta commands"));
    }
}
