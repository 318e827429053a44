//! Asks memcached request by request. Changes its replies where they differ from corecached's on purpose.

use std::path::Path;
use std::time::Duration;

use memchr::memmem;

use super::compare::Answer;
use super::differences::{Difference, Rule};
use super::frame::Request;
use super::wire::{End, Wire};
use crate::client::shown;

pub(super) struct Oracle {
    wire: Wire,
    /// The expected replies to the burst.
    answers: Vec<Answer>,
    /// Questions that the oracle must still ask memcached.
    pending: Vec<Pending>,
    /// Number of questions so far, on all connections.
    asked: u64,
    /// The reason why the oracle could not ask memcached.
    failure: Option<String>,
    differences: &'static [Difference],
    /// How often each row of the table of differences was used.
    pub(super) used: Vec<u64>,
}

/// A question and the index of its answer.
struct Pending {
    request: Request,
    repairs: Vec<&'static Rule>,
    answer: usize,
}

/// Whether memcached closes the connection at once and loses the replies that it has not sent yet.
fn must_wait(request: &Request) -> bool {
    memmem::find(request.line(), b"HTTP/").is_some()
}

/// Whether the request changes a number. memcached pads a shorter number to the length of the old one, unless it still
/// has to send the old one.
fn computes(request: &Request) -> bool {
    matches!(request.command(), "incr" | "decr" | "ma")
}

impl Oracle {
    pub(super) fn connect(socket: &Path, patience: Duration, differences: &'static [Difference]) -> Oracle {
        let mut oracle = Oracle {
            wire: Wire::connect(socket, patience),
            answers: Vec::new(),
            pending: Vec::new(),
            asked: 0,
            failure: None,
            differences,
            used: vec![0; differences.len()],
        };
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
        assert_eq!(self.ask(b""), b"");
    }

    /// The replies that a server must give to these requests, up to the one that ends the connection. `Err` says why
    /// the oracle could not ask memcached.
    pub(super) fn answers(&mut self, requests: &[Request]) -> Result<Vec<Answer>, String> {
        for request in requests {
            if must_wait(request) || computes(request) && self.holds_values() {
                self.settle();
            }
            if self.is_over() {
                break;
            }
            self.answer(request);
        }
        self.settle();
        let answers = std::mem::take(&mut self.answers);
        self.failure.take().map_or(Ok(answers), Err)
    }

    /// Records the expected reply if a row gives it. Otherwise it adds a question for memcached. The oracle asks the
    /// questions for many requests at once, unless a row of the table must look in between.
    fn answer(&mut self, request: &Request) {
        let mut instead = request.clone();
        let mut repairs = Vec::new();
        let mut reasons = Vec::new();
        let mut said = None;
        for (row, Difference { reason, rule }) in self.differences.iter().enumerate() {
            let applies = match rule {
                Rule::Says(says) => {
                    said = says(&instead);
                    said.is_some()
                }
                Rule::Ask(ask) => ask(&instead, &mut |bytes| self.ask(bytes)).map(|other| instead = other).is_some(),
                Rule::Rewrite { applies, .. } | Rule::Look { applies, .. } => applies(request),
            };
            if applies {
                self.used[row] += 1;
                reasons.push(*reason);
                repairs.push(rule);
            }
            if said.is_some() {
                break;
            }
        }
        let looks = repairs.iter().any(|rule| matches!(rule, Rule::Look { .. }));
        let text = said.unwrap_or_default().as_bytes().to_vec();
        self.answers.push(Answer { bytes: text, closed: false, reasons });
        if said.is_none() {
            self.pending.push(Pending { request: instead, repairs, answer: self.answers.len() - 1 });
        }
        if looks && said.is_none() {
            self.settle();
        }
    }

    /// Whether memcached may still have to send values.
    fn holds_values(&self) -> bool {
        let is_retrieval = |pending: &Pending| pending.request.line().trim_ascii_start().starts_with(b"g");
        self.pending.iter().any(|pending| is_retrieval(pending) || pending.request.command() == "mg")
    }

    fn is_over(&self) -> bool {
        self.failure.is_some() || self.answers.last().is_some_and(|answer| answer.closed)
    }

    /// Asks the pending questions.
    fn settle(&mut self) {
        if self.pending.is_empty() || self.is_over() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let questions: Vec<&[u8]> = pending.iter().map(|pending| &pending.request.bytes[..]).collect();
        let replies = self.exchange(&questions);
        for (Pending { request, repairs, answer }, (mut text, closed)) in pending.into_iter().zip(replies) {
            for rule in repairs {
                text = match rule {
                    Rule::Rewrite { rewrite, .. } => rewrite(text),
                    Rule::Look { rewrite, .. } => rewrite(&request, text, &mut |bytes| self.ask(bytes)),
                    Rule::Says(_) | Rule::Ask(_) => text,
                };
            }
            self.answers[answer].bytes = text;
            if closed {
                self.answers[answer].closed = true;
                self.answers.truncate(answer + 1);
            }
        }
    }

    /// The unchanged reply to `bytes`, which are whole requests.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.settle();
        if self.is_over() {
            return Vec::new();
        }
        self.exchange(&[bytes]).pop().map(|(reply, _)| reply).unwrap_or_default()
    }

    /// The reply to each question, and whether memcached then closed the connection.
    fn exchange(&mut self, questions: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        let mut barriers = Vec::new();
        for question in questions {
            self.asked += 1;
            bytes.extend_from_slice(question);
            bytes.extend_from_slice(format!("md ~ O{}\r\n", self.asked).as_bytes());
            barriers.push(format!("NF O{}\r\n", self.asked));
        }
        self.wire.send(bytes);
        let (mut received, end) = self.wire.read_until(barriers.last().expect("there are questions").as_bytes());
        if end == End::Complete {
            received.extend_from_slice(barriers[barriers.len() - 1].as_bytes());
        }
        let mut rest = &received[..];
        let mut replies = Vec::new();
        for (question, barrier) in questions.iter().zip(&barriers) {
            let Some(at) = memmem::find(rest, barrier.as_bytes()) else {
                if end != End::Closed {
                    let (question, reply) = (shown(question), shown(rest));
                    self.failure =
                        Some(format!("  asked     {question}\n  replied   {reply}, and so on: it ends elsewhere\n"));
                }
                replies.push((rest.to_vec(), true));
                break;
            };
            replies.push((rest[..at].to_vec(), false));
            rest = &rest[at + barrier.len()..];
        }
        replies
    }
}
