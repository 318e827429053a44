//! A connection of a scraper or a browser: one request, one response, nothing that blocks.

use super::http::{self, REQUEST_BYTES_MAX, Request, Response, Status};
use crate::net::stream::Stream;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// How long each step may take: the request, the wait for the shards, the response.
pub(super) const STEP_MAX: Duration = Duration::from_secs(2);
/// The most bytes behind a request that are read, so that the client sees the response and not a reset.
const DISCARDED_MAX: usize = 256 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    step: Step,
    /// When the step began.
    since: Instant,
    pub(super) accepted: Instant,
}

#[derive(Debug)]
enum Step {
    /// The request comes in.
    Reading(Vec<u8>),
    /// The request waits for what it asks about.
    Waiting(Request),
    /// The response goes out, of which so many bytes are sent.
    Writing(Vec<u8>, usize),
    /// The response is sent. What the client still sends is thrown away: so many bytes so far.
    Ending(usize),
}

/// The state of a connection after it went as far as it could.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// A request has come in. Answer it with [`Connection::respond`], now or later.
    Asks,
    /// It waits: for the client, or for its response.
    Waits,
    /// It is over.
    Over,
}

impl Connection {
    pub(super) fn new(stream: Stream, now: Instant) -> Connection {
        Connection { stream, step: Step::Reading(Vec::new()), since: now, accepted: now }
    }

    /// The request that waits for its response, and since when.
    pub(super) fn request(&self) -> Option<(&Request, Instant)> {
        match &self.step {
            Step::Waiting(request) => Some((request, self.since)),
            _ => None,
        }
    }

    /// When [`Connection::expire`] has work.
    pub(super) fn deadline(&self) -> Instant {
        self.since + STEP_MAX
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn advance(&mut self, now: Instant) -> Progress {
        loop {
            let next = match &mut self.step {
                Step::Reading(input) => match read_request(&mut self.stream, input) {
                    Ok(None) => return Progress::Waits,
                    Ok(Some(Ok(request))) => {
                        self.enter(Step::Waiting(request), now);
                        return Progress::Asks;
                    }
                    Ok(Some(Err(status))) => Ok(Step::Writing(Response::bare(status).bytes(false), 0)),
                    Err(error) => Err(error),
                },
                Step::Waiting(_) => return Progress::Waits,
                Step::Writing(output, sent) => match send(&mut self.stream, output, sent) {
                    Ok(true) => self.stream.end_writing().map(|()| Step::Ending(0)),
                    Ok(false) => return Progress::Waits,
                    Err(error) => Err(error),
                },
                Step::Ending(discarded) => match discard(&mut self.stream, discarded) {
                    Ok(false) => return Progress::Waits,
                    Ok(true) => return Progress::Over,
                    Err(error) => Err(error),
                },
            };
            match next {
                Ok(step) => self.enter(step, now),
                Err(_) => return Progress::Over,
            }
        }
    }

    /// Sends the response to the request that waits.
    pub(super) fn respond(&mut self, response: &Response, now: Instant) -> Progress {
        let Step::Waiting(request) = &self.step else { return Progress::Waits };
        let output = response.bytes(request.is_head);
        self.enter(Step::Writing(output, 0), now);
        self.advance(now)
    }

    /// The step takes too long: tells a client whose request is incomplete, and closes the others.
    pub(super) fn expire(&mut self, now: Instant) -> Progress {
        match &self.step {
            Step::Reading(input) if !input.is_empty() => {
                self.enter(Step::Writing(Response::bare(Status::Timeout).bytes(false), 0), now);
                self.advance(now)
            }
            _ => Progress::Over,
        }
    }

    fn enter(&mut self, step: Step, now: Instant) {
        self.step = step;
        self.since = now;
    }
}

/// Reads what has come. `None`: the request is not complete.
fn read_request(stream: &mut Stream, input: &mut Vec<u8>) -> io::Result<Option<Result<Request, Status>>> {
    let mut buffer = [0; 2048];
    loop {
        let room = (REQUEST_BYTES_MAX + 1).saturating_sub(input.len()).clamp(1, buffer.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match http::parse(input) {
            Ok(None) => {}
            Ok(Some(request)) => return Ok(Some(Ok(request))),
            Err(status) => return Ok(Some(Err(status))),
        }
    }
}

/// Sends what there is room for. True: all is sent.
fn send(stream: &mut Stream, output: &[u8], sent: &mut usize) -> io::Result<bool> {
    while *sent < output.len() {
        match stream.write(&output[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Reads and forgets. True: the client sends nothing more, or too much.
fn discard(stream: &mut Stream, discarded: &mut usize) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    while *discarded < DISCARDED_MAX {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => *discarded += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
