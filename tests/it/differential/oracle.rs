//! memcached 1.6.18, asked one request at a time, and what 1.6.45 would say instead where that is known to differ.

use std::path::Path;
use std::time::Duration;

use super::differences::{DIFFERENCES, Rule};
use super::frame::Request;
use super::wire::{End, Wire};

/// A connection to memcached.
pub(super) struct Oracle {
    wire: Wire,
    asked: u64,
    /// How often each row of the table of differences was of use.
    pub(super) used: Vec<u64>,
}

/// What must come.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) text: Vec<u8>,
    /// The connection ends with it.
    pub(super) closed: bool,
    /// Reasons of the rows of the table that had a say.
    pub(super) reasons: Vec<&'static str>,
}

impl Oracle {
    pub(super) fn connect(socket: &Path, patience: Duration) -> Oracle {
        let mut oracle = Oracle { wire: Wire::connect(socket, patience), asked: 0, used: vec![0; DIFFERENCES.len()] };
        oracle.settle_protocol();
        oracle
    }

    /// After memcached has closed.
    pub(super) fn reconnect(&mut self, socket: &Path, patience: Duration) {
        self.wire = Wire::connect(socket, patience);
        self.settle_protocol();
    }

    /// The first byte tells the protocol of a connection.
    fn settle_protocol(&mut self) {
        assert_eq!(self.ask(b""), (Vec::new(), false));
    }

    /// What a server must answer to a request.
    pub(super) fn answer(&mut self, request: &Request) -> Answer {
        let mut instead = request.clone();
        let mut rewritings: Vec<Rewriting<'_>> = Vec::new();
        let mut reasons = Vec::new();
        for (row, difference) in DIFFERENCES.iter().enumerate() {
            let applies = match &difference.rule {
                Rule::Says(says) => match says(&instead) {
                    Some(text) => {
                        self.used[row] += 1;
                        reasons.push(difference.reason);
                        return Answer { text: text.as_bytes().to_vec(), closed: false, reasons };
                    }
                    None => false,
                },
                Rule::Ask(ask) => match ask(&instead, &mut |bytes| self.ask(bytes).0) {
                    Some(other) => {
                        instead = other;
                        true
                    }
                    None => false,
                },
                Rule::Rewrite { applies, rewrite } => {
                    let applies = applies(request);
                    if applies {
                        rewritings.push((*rewrite, row));
                    }
                    applies
                }
            };
            if applies {
                self.used[row] += 1;
                reasons.push(difference.reason);
            }
        }
        let (mut text, closed) = self.ask(&instead.bytes);
        for (rewrite, _) in rewritings {
            text = rewrite(request, &instead, text, &mut |bytes| self.ask(bytes).0);
        }
        Answer { text, closed, reasons }
    }

    /// The bare reply to bytes that are whole requests, and whether that was the end of the connection.
    fn ask(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.asked += 1;
        let question = format!("md ~ O{}\r\n", self.asked);
        self.wire.send_now(&[bytes, question.as_bytes()].concat());
        let (reply, end) = self.wire.read_until(format!("NF O{}\r\n", self.asked).as_bytes());
        let shown = bytes[..bytes.len().min(300)].escape_ascii();
        assert!(end != End::Silent, "memcached does not answer \"{shown}\", but for \"{}\"", reply.escape_ascii());
        (reply, end == End::Closed)
    }
}

type Rewriting<'a> = (fn(&Request, &Request, Vec<u8>, &mut dyn FnMut(&[u8]) -> Vec<u8>) -> Vec<u8>, usize);
