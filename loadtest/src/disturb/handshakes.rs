//! TLS connections, one after the other: a full handshake, one request, its reply, the end.
//!
//! The client believes every server: to check a signature takes longer than a gap of [`crate::tail`].

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;

use super::{Disturber, Kind};
use crate::address::Address;
use crate::wire::{Anybody, Signatures, Wire};

/// The request of each connection, for a missing key, and the length of the reply.
const REQUEST: &[u8] = b"get nothing\r\n";
const REPLY_LEN: usize = 5;

/// Nanoseconds from one beginning to the next.
const EVERY: u64 = 50_000_000;

pub struct Handshakes {
    door: Address,
    visitor: Option<Visitor>,
    awake: bool,
    due: u64,
}

struct Visitor {
    wire: Wire,
    /// Bytes of the reply so far.
    received: usize,
}

impl Handshakes {
    pub fn begin(door: &Address) -> Result<Handshakes, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let anybody = Anybody { provider, signatures: Signatures::Believed };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody));
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::disabled();
        let door = door.clone().with_tls(Some(Arc::new(config)));
        Ok(Handshakes { door, visitor: None, awake: false, due: 0 })
    }

    fn open(&self, registry: &Registry, token: Token) -> Result<Visitor, String> {
        let fail = |error: io::Error| format!("connection to {}: {error}", self.door);
        let socket = self.door.socket_later(0).map_err(fail)?;
        let mut wire = self.door.wire(socket)?;
        wire.prepare(REQUEST).map_err(fail)?;
        self.door.begin(wire.socket()).map_err(fail)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&wire.socket().as_raw_fd()), token, interest).map_err(fail)?;
        Ok(Visitor { wire, received: 0 })
    }
}

impl Disturber for Handshakes {
    fn kind(&self) -> Kind {
        Kind::Handshakes
    }

    fn wake(&mut self) {
        self.awake = true;
    }

    fn step(&mut self, now: u64, registry: &Registry, token: Token) -> Result<u64, String> {
        let Some(visitor) = &mut self.visitor else {
            if now >= self.due {
                self.visitor = Some(self.open(registry, token)?);
                self.due = now.max(self.due + EVERY);
            }
            return Ok(0);
        };
        if !std::mem::take(&mut self.awake) || !visitor.advance().map_err(|error| format!("handshake: {error}"))? {
            return Ok(0);
        }
        self.visitor = None;
        Ok(1)
    }
}

impl Visitor {
    /// Goes on as far as the socket allows. Says whether the reply has come; the connection is then at its end.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(error) = self.wire.socket().take_error()? {
            return Err(error);
        }
        match self.wire.push() {
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            pushed => pushed?,
        }
        let mut buffer = [0; 512];
        match self.wire.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.received += count,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
        if self.received < REPLY_LEN {
            return Ok(false);
        }
        self.wire.farewell()?;
        Ok(true)
    }
}
