//! Asks memcached many requests at once. Changes its replies where they differ from corecached's on purpose.

use std::path::Path;
use std::time::Duration;

use super::super::compare::Answer;
use super::super::wire::{End, Wire};
use super::differences::{DIFFERENCES, Rule};
use super::frame::{HEADER_LEN, REQUEST, Request, reply};
use super::generate::Setting;
use super::noop;
use crate::client::shown;
use crate::server::Program;

pub(super) struct Oracle {
    version: Program,
    setting: &'static Setting,
    wire: Wire,
    asked: u32,
    /// How often each row of the table of differences was used.
    pub(super) used: Vec<u64>,
}

/// A question and the index of its request.
struct Pending {
    index: usize,
    question: Vec<u8>,
}

impl Oracle {
    pub(super) fn connect(version: Program, setting: &'static Setting, socket: &Path, patience: Duration) -> Oracle {
        let wire = Wire::connect(socket, patience);
        let mut oracle = Oracle { version, setting, wire, asked: 0, used: vec![0; DIFFERENCES.len()] };
        oracle.settle_protocol();
        oracle
    }

    /// Connects again after memcached has closed the connection.
    pub(super) fn reconnect(&mut self, socket: &Path, patience: Duration) {
        self.wire = Wire::connect(socket, patience);
        self.settle_protocol();
    }

    /// Sends a request, because the first byte on a connection determines its protocol.
    fn settle_protocol(&mut self) {
        let settled = self.exchange(Vec::new());
        assert!(settled == Ok((Vec::new(), End::Complete)), "memcached does not answer a noop");
    }

    /// The replies that a server must give to these requests. At most the last one of them ends the connection. `Err`
    /// says why the oracle could not ask memcached.
    pub(super) fn answers(&mut self, requests: &[Request]) -> Result<Vec<Answer>, String> {
        let mut answers = vec![Answer::default(); requests.len()];
        let mut pending = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            let (question, answer) = self.question(request);
            answers[index] = answer;
            let Some(question) = question else { continue };
            let is_held =
                |other: &Pending| holds_value(&requests[other.index]) && requests[other.index].key() == request.key();
            if must_wait(request) || request.has_header() && computes(request) && pending.iter().any(is_held) {
                self.settle(&mut pending, requests, &mut answers)?;
            }
            pending.push(Pending { index, question });
        }
        self.settle(&mut pending, requests, &mut answers)?;
        for (request, answer) in requests.iter().zip(&mut answers).filter(|pair| !pair.1.reasons.is_empty()) {
            for difference in DIFFERENCES.iter().filter(|difference| answer.reasons.contains(&difference.reason)) {
                if let Rule::Rewrites { rewrite, .. } = difference.rule {
                    answer.bytes = rewrite(request, &answer.bytes);
                }
            }
        }
        Ok(answers)
    }

    /// The question for memcached, if there is one, and the part of the answer that the table gives.
    fn question(&mut self, request: &Request) -> (Option<Vec<u8>>, Answer) {
        let mut answer = Answer::default();
        let mut question = Some(request.bytes.clone());
        if !request.has_header() || request.bytes[0] != REQUEST {
            return (question, answer);
        }
        for (row, difference) in DIFFERENCES.iter().enumerate().filter(|row| row.1.of.contains(&self.version)) {
            let applies = match &difference.rule {
                Rule::Says(says) => says(request).map(|said| {
                    answer.bytes = said;
                    answer.closed = true;
                    question = None;
                }),
                Rule::Asks(asks) => asks(request).map(|instead| question = Some(instead)),
                Rule::Rewrites { applies, .. } => applies(request, self.setting).then_some(()),
            };
            if applies.is_some() {
                self.used[row] += 1;
                answer.reasons.push(difference.reason);
            }
        }
        (question, answer)
    }

    /// Asks memcached the pending questions.
    fn settle(
        &mut self,
        pending: &mut Vec<Pending>,
        requests: &[Request],
        answers: &mut [Answer],
    ) -> Result<(), String> {
        let Some(last) = pending.last().map(|last| last.index) else { return Ok(()) };
        let bytes = pending.iter().flat_map(|pending| pending.question.iter().copied()).collect();
        let (replies, end) = if requests[last].is_cut {
            self.wire.send(bytes);
            self.wire.finish();
            self.wire.read_until(NEVER)
        } else {
            self.exchange(bytes)?
        };
        let mut rest = &replies[..];
        for Pending { index, .. } in pending.drain(..) {
            let count = share(&requests[index], rest);
            answers[index].bytes = rest[..count].to_vec();
            rest = &rest[count..];
        }
        if !rest.is_empty() {
            return Err(format!("memcached says what is no reply to what it was asked: {}\n", shown(rest)));
        }
        answers[last].closed = end == End::Closed;
        if answers[last].closed != requests[last].is_last() {
            return Err(format!("memcached closes, or does not, at {}\n", requests[last].shown()));
        }
        Ok(())
    }

    /// The replies to these requests.
    fn exchange(&mut self, mut bytes: Vec<u8>) -> Result<(Vec<u8>, End), String> {
        self.asked += 1;
        let (question, reply) = noop(self.asked);
        bytes.extend(question);
        self.wire.send(bytes);
        let (replies, end) = self.wire.read_until(&reply);
        if end == End::Silent {
            return Err(format!("memcached says no more than {}\n", shown(&replies)));
        }
        Ok((replies, end))
    }
}

/// Whether memcached closes the connection at once and loses the replies that it has not sent yet.
fn must_wait(request: &Request) -> bool {
    const QUITQ: u8 = 0x17;
    let is_quiet = request.is_cut || request.bytes[0] != REQUEST;
    is_quiet || request.is_last() && (request.opcode() == QUITQ || request.has_large_head())
}

/// No server sends this reply.
const NEVER: &[u8] = &[0xff; HEADER_LEN];

/// Whether the request changes a number. memcached pads a shorter number to the length of the old one, unless it still
/// has to send the old one.
fn computes(request: &Request) -> bool {
    matches!(request.opcode(), 0x05 | 0x06 | 0x15 | 0x16)
}

/// Whether memcached may still have to send an item in reply to this request.
fn holds_value(request: &Request) -> bool {
    matches!(request.opcode(), 0x00 | 0x09 | 0x0c | 0x0d | 0x1c..=0x1e | 0x23 | 0x24)
}

/// Number of bytes at the start of `replies` that belong to this request. Replies repeat its opcode and its number.
fn share(request: &Request, replies: &[u8]) -> usize {
    let mut count = 0;
    if !request.has_header() {
        return count;
    }
    while let Some(packet) = reply(&replies[count..]) {
        let is_reply = packet[1] == request.opcode() && packet[12..16] == request.bytes[12..16];
        if !is_reply {
            break;
        }
        count += packet.len();
        if !request.is_stat() || packet.len() == HEADER_LEN || packet[6..8] != [0, 0] {
            break;
        }
    }
    count
}
