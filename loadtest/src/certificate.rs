//! A certificate for servers that loadtest starts, and clients that trust it. Every [`Certificate`] is new, and
//! dropping it deletes its files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, KeyPair};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};

/// Sessions that a client keeps, at most.
const SESSIONS_MAX: usize = 10_000;

/// A self-signed P-256 certificate for localhost, in files.
#[derive(Debug)]
pub struct Certificate {
    folder: PathBuf,
    own: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Result<Certificate, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("loadtest-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().map_err(|error| format!("no key: {error}"))?;
        let signed = CertificateParams::new(names).and_then(|params| params.self_signed(&key));
        let signed = signed.map_err(|error| format!("no certificate: {error}"))?;
        let fail = |error| format!("{}: {error}", folder.display());
        fs::create_dir(&folder).map_err(fail)?;
        let certificate = Certificate { own: signed.der().clone(), folder: folder.clone() };
        fs::write(folder.join("cert.pem"), signed.pem()).map_err(fail)?;
        let file = fs::File::options().write(true).create_new(true).mode(0o600).open(folder.join("key.pem"));
        file.and_then(|mut file| file.write_all(key.serialize_pem().as_bytes())).map_err(fail)?;
        Ok(certificate)
    }

    /// The flags, besides `-Z`, that give the certificate to a server. The text begins with a space.
    pub fn flags(&self) -> String {
        let folder = self.folder.display();
        format!(" -o ssl_chain_cert={folder}/cert.pem,ssl_key={folder}/key.pem")
    }

    /// A client that trusts only this certificate. It makes full handshakes, or resumes its sessions if `resumes` is
    /// set.
    pub fn client(&self, resumes: bool) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.clone()).map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption =
            if resumes { Resumption::store(Arc::new(Sessions::default())) } else { Resumption::disabled() };
        Ok(config)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // An error leaves a certificate that nobody uses.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sessions that servers have offered and no connection has resumed yet. The store of rustls has room for eight, but
/// many connections at once need one each.
#[derive(Debug, Default)]
struct Sessions(Mutex<Vec<Tls13ClientSessionValue>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Vec<Tls13ClientSessionValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        let mut sessions = self.lock();
        if sessions.len() < SESSIONS_MAX {
            sessions.push(session);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().pop()
    }
}
