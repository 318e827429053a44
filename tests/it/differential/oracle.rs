//! Asks memcached request by request, and changes its replies where they differ from corecached's on purpose.

use std::path::Path;
use std::time::Duration;

use memchr::memmem;

use super::compare::Answer;
use super::differences::{Difference, Rule};
use super::frame::Request;
use super::wire::{End, Wire};
use crate::client::shown;

/// A connection to memcached.
pub(super) struct Oracle {
    wire: Wire,
    /// The answers to the burst.
    answers: Vec<Answer>,
    /// Questions that memcached must still be asked.
    pending: Vec<Pending>,
    /// Questions so far, on all connections.
    asked: u64,
    /// The reason why asking failed.
    failure: Option<String>,
    differences: &'static [Difference],
    /// How often each row of the table of differences was used.
    pub(super) used: Vec<u64>,
}

/// A question, for the answer of this index.
struct Pending {
    request: Request,
    repairs: Vec<&'static Rule>,
    answer: usize,
}

/// Whether memcached closes at once and loses replies that it has not sent yet.
fn must_wait(request: &Request) -> bool {
    memmem::find(request.line(), b"HTTP/").is_some()
}

/// A shorter number is padded to the length of the longer one unless memcached still has to send the latter.
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

    /// After memcached has closed.
    pub(super) fn reconnect(&mut self, socket: &Path, patience: Duration) {
        self.wire = Wire::connect(socket, patience);
        self.settle_protocol();
    }

    /// The first byte tells the protocol of a connection.
    fn settle_protocol(&mut self) {
        assert_eq!(self.ask(b""), b"");
    }

    /// What a server must answer to each of these requests, up to the one that ends the connection. `Err` says why
    /// memcached could not be asked.
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

    /// Notes what must come, or has it noted when memcached is asked next: that is done for many requests at once, as
    /// far as no row of the table has to look in between.
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

    /// Whether values may be on their way to us.
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

    /// The bare reply to bytes that are whole requests.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.settle();
        if self.is_over() {
            return Vec::new();
        }
        self.exchange(&[bytes]).pop().map(|(reply, _)| reply).unwrap_or_default()
    }

    /// The replies to each of these, and whether that was the end of the connection.
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
