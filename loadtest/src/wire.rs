//! A non-blocking stream of bytes to and from a server: a socket, or TLS over a socket.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme};
use socket2::Socket;

/// Options for TLS to servers.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsFlags {
    /// Speak TLS; requires --tls-ca or --tls-insecure
    #[arg(long)]
    tls: bool,

    /// Trust servers whose certificates come from the authorities in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,

    /// Trust any server
    #[arg(long, requires = "tls", conflicts_with = "tls_ca")]
    tls_insecure: bool,
}

impl TlsFlags {
    /// The TLS configuration for these flags; `None` without `--tls`.
    pub fn config(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        if !self.tls {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = if self.tls_insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody { provider, signatures: Signatures::Checked }))
        } else {
            let path = self.tls_ca.as_ref().ok_or("--tls needs --tls-ca or --tls-insecure")?;
            let fail = |why: String| format!("--tls-ca {}: {why}", path.display());
            let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let certificate = certificate.map_err(|error| fail(error.to_string()))?;
                roots.add(certificate).map_err(|error| fail(error.to_string()))?;
            }
            builder.with_root_certificates(roots)
        };
        Ok(Some(Arc::new(builder.with_no_client_auth())))
    }
}

/// A new TLS session with the server at an address, `host:port` or a path.
pub fn session(config: &Arc<ClientConfig>, address: &str) -> Result<ClientConnection, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).or_else(|_| ServerName::try_from("localhost"));
    let name = name.map_err(|error| error.to_string())?;
    ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())
}

/// A connection. The first reads and writes also do the TLS handshake.
pub struct Wire {
    socket: Socket,
    session: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Takes a non-blocking socket.
    pub fn new(socket: Socket, session: Option<ClientConnection>) -> Wire {
        Wire { socket, session: session.map(Box::new) }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether the finished handshake resumed an earlier session. `None` without TLS.
    pub fn is_resumed(&self) -> Option<bool> {
        let kind = self.session.as_ref()?.handshake_kind()?;
        Some(kind == HandshakeKind::Resumed)
    }

    /// Queues a few bytes, which the first pushes send right after the handshake.
    pub fn prepare(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Err(ErrorKind::Unsupported.into()) };
        session.writer().write_all(bytes)
    }

    /// Tells the server that no more bytes follow.
    pub fn farewell(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
        }
        self.push()
    }

    /// Sends bytes that TLS has encrypted already. Does nothing without TLS.
    pub fn push(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while session.wants_write() {
            match session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes as many bytes as fit. Under TLS, a later `push` may have to send the encrypted rest.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.write(bytes) };
        let count = session.writer().write(bytes)?;
        self.push()?;
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Reads all bytes that have arrived, up to the size of `buffer`. If they do not fill it, the socket is empty, or
    /// at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.read(buffer) };
        let mut filled = 0;
        loop {
            while filled < buffer.len() {
                match session.reader().read(&mut buffer[filled..]) {
                    Ok(0) => return Ok(filled),
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) if filled > 0 => return Ok(filled),
                    Err(error) => return Err(error),
                }
            }
            if filled == buffer.len() {
                return Ok(filled);
            }
            match session.read_tls(&mut self.socket) {
                Ok(_) => {
                    session.process_new_packets().map_err(io::Error::other)?;
                    while session.wants_write() {
                        match session.write_tls(&mut self.socket) {
                            Ok(_) => {}
                            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => return Ok(filled),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Accepts every certificate.
#[derive(Debug)]
pub struct Anybody {
    pub provider: Arc<CryptoProvider>,
    pub signatures: Signatures,
}

/// Whether the client checks that the server's signatures fit its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    Checked,
    Believed,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.signatures {
            Signatures::Checked => {
                verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
            }
            Signatures::Believed => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.signatures {
            Signatures::Checked => {
                verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
            }
            Signatures::Believed => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
