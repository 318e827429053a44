//! Which servers a command speaks to, and how it reaches them: addresses, TLS and logins from the command line.

use super::failure::Failure;
use corecached::nodes::NodeList;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PORT: u16 = 11211;
/// Longest wait for an answer, unless `--timeout` says otherwise.
const TIMEOUT_SECONDS: f64 = 5.0;
/// Where Debian and others keep the authorities that the machine trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The flags that all commands have which speak to servers.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Servers")]
pub(super) struct ServerArgs {
    /// Servers, as HOST, HOST:PORT, [IPv6]:PORT or the path of a Unix socket. May be repeated, or be a list with commas.
    /// Default: $MEMCACHED_SERVERS, else 127.0.0.1:11211
    #[arg(long = "server", visible_alias = "servers", value_name = "ADDRESS", value_delimiter = ',')]
    servers: Vec<String>,
    #[command(flatten)]
    way: WayArgs,
}

/// The flags about the way to a server.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Servers")]
pub(super) struct WayArgs {
    /// Connect by TLS, and check the server's certificate against the authorities of this machine
    #[arg(long)]
    tls: bool,
    /// Connect by TLS, and check the server's certificate against the authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Log in under this name (servers with -Y)
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The first line of this file is the password of --user
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Longest wait for a connection or an answer, in seconds [default: 5, of check 1]
    #[arg(long, value_name = "SECONDS", value_parser = super::show::seconds)]
    timeout: Option<Duration>,
}

/// The flags about the way to a server that is read, where it differs from the way to others.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Servers")]
pub(super) struct SourceArgs {
    /// Reach A without TLS and without a login, although these flags are there for B
    #[arg(long, conflicts_with_all = ["from_tls", "from_tls_ca", "from_user"])]
    from_plain: bool,
    /// As --tls, for A alone. With one of these flags, those above are for B alone
    #[arg(long)]
    from_tls: bool,
    /// As --tls-ca, for A alone
    #[arg(long, value_name = "FILE")]
    from_tls_ca: Option<PathBuf>,
    /// As --user, for A alone
    #[arg(long, value_name = "NAME", requires = "from_password_file")]
    from_user: Option<String>,
    /// As --password-file, for A alone
    #[arg(long, value_name = "FILE", requires = "from_user")]
    from_password_file: Option<PathBuf>,
}

/// One server and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As the user wrote it.
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) login: Option<Login>,
    pub(super) timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// The password is left out: it must reach no log.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl ServerArgs {
    /// The servers, at least one.
    pub(super) fn targets(&self) -> Result<Vec<Target>, Failure> {
        self.targets_within(Duration::from_secs_f64(TIMEOUT_SECONDS))
    }

    /// The same, with another default of `--timeout`.
    pub(super) fn targets_within(&self, timeout: Duration) -> Result<Vec<Target>, Failure> {
        let names = self.names();
        let targets = names.into_iter().map(|name| (Address::parse(&name), name));
        let targets = targets.map(|(address, name)| Ok((name, address.map_err(Failure::Usage)?)));
        self.way.reached(targets.collect::<Result<_, Failure>>()?, timeout)
    }

    /// The nodes of a file of `--nodes`. Their names count where TLS compares them with certificates, else their addresses.
    pub(super) fn nodes(&self, list: &NodeList) -> Result<Vec<Target>, Failure> {
        let has_tls = self.way.tls || self.way.tls_ca.is_some();
        let address = |(name, address, port): (&str, IpAddr, u16)| {
            let host = if has_tls { name.to_owned() } else { address.to_string() };
            (format!("{name}:{port}"), Address::Tcp { host, port })
        };
        self.way.reached(list.iter().map(address).collect(), Duration::from_secs_f64(TIMEOUT_SECONDS))
    }

    /// The addresses of the servers as they were written.
    fn names(&self) -> Vec<String> {
        let named: Vec<String> = self.servers.iter().filter(|name| !name.is_empty()).cloned().collect();
        match std::env::var("MEMCACHED_SERVERS") {
            _ if !named.is_empty() => named,
            Ok(list) if !list.trim().is_empty() => split(&list),
            _ => vec![format!("127.0.0.1:{PORT}")],
        }
    }
}

impl WayArgs {
    /// The way to the server that is read.
    pub(super) fn for_source(&self, source: &SourceArgs) -> WayArgs {
        let SourceArgs { from_plain, from_tls, from_tls_ca, from_user, from_password_file } = source.clone();
        if !from_plain && !from_tls && from_tls_ca.is_none() && from_user.is_none() {
            return self.clone();
        }
        let (user, password_file) = (from_user, from_password_file);
        WayArgs { tls: from_tls, tls_ca: from_tls_ca, user, password_file, timeout: self.timeout }
    }

    /// Servers that are arguments themselves, as `corecached copy A B` has them.
    pub(super) fn named(&self, names: &[String]) -> Result<Vec<Target>, Failure> {
        let servers = names.iter().map(|name| Ok((name.clone(), Address::parse(name).map_err(Failure::Usage)?)));
        self.reached(servers.collect::<Result<_, Failure>>()?, Duration::from_secs_f64(TIMEOUT_SECONDS))
    }

    /// Servers by name and address, with the way to them.
    fn reached(&self, servers: Vec<(String, Address)>, timeout: Duration) -> Result<Vec<Target>, Failure> {
        let tls = self.tls_config()?;
        let login = self.login()?;
        let timeout = self.timeout.unwrap_or(timeout);
        let target = |(name, address)| Target { name, address, tls: tls.clone(), login: login.clone(), timeout };
        Ok(servers.into_iter().map(target).collect())
    }

    fn tls_config(&self) -> Result<Option<Arc<ClientConfig>>, Failure> {
        let path = match &self.tls_ca {
            Some(path) => path.as_path(),
            None if self.tls => Path::new(SYSTEM_AUTHORITIES),
            None => return Ok(None),
        };
        let unreadable = |error: &dyn fmt::Display| Failure::Usage(format!("--tls-ca {}: {error}", path.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            // The bundle of a system may hold a certificate that rustls does not understand. The others still serve.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(unreadable(&"it has no certificate of an authority"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unreadable(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }

    fn login(&self) -> Result<Option<Login>, Failure> {
        let (Some(user), Some(path)) = (&self.user, &self.password_file) else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("--password-file {}: {error}", path.display())))?;
        let password = text.lines().next().unwrap_or_default().to_owned();
        Ok(Some(Login { user: user.clone(), password }))
    }
}

fn split(list: &str) -> Vec<String> {
    let names = list.split(|letter: char| letter == ',' || letter.is_whitespace());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Address {
    fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            return Ok(Address::Unix(path.into()));
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
            // An IPv6 address without brackets has no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => PORT,
            Some(port) => port.parse().map_err(|_| format!("\"{text}\": \"{port}\" is no port"))?,
        };
        match host {
            "" => Err(format!("\"{text}\" names no host")),
            host => Ok(Address::Tcp { host: host.to_owned(), port }),
        }
    }

    /// Whether the server runs on this machine, as far as the address tells.
    pub(super) fn is_here(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_a_port_or_a_path() {
        let tcp = |host: &str, port| Ok(Address::Tcp { host: host.into(), port });
        assert_eq!(Address::parse("cache"), tcp("cache", 11211));
        assert_eq!(Address::parse("cache:1"), tcp("cache", 1));
        assert_eq!(Address::parse("::1"), tcp("::1", 11211));
        assert_eq!(Address::parse("[::1]"), tcp("::1", 11211));
        assert_eq!(Address::parse("[::1]:12"), tcp("::1", 12));
        assert_eq!(Address::parse("/run/c.sock"), Ok(Address::Unix("/run/c.sock".into())));
        assert_eq!(Address::parse("unix:/run/c.sock"), Ok(Address::Unix("/run/c.sock".into())));
        assert_eq!(Address::parse("cache:x"), Err("\"cache:x\": \"x\" is no port".into()));
        assert_eq!(Address::parse("cache:70000"), Err("\"cache:70000\": \"70000\" is no port".into()));
        assert_eq!(Address::parse(":11211"), Err("\":11211\" names no host".into()));
    }

    #[test]
    fn a_list_of_servers_has_commas_or_spaces() {
        assert_eq!(split("a:1, b:2\n/c,,"), ["a:1", "b:2", "/c"]);
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_surely_here() {
        let is_here = |text| Address::parse(text).expect("an address").is_here();
        assert!(is_here("127.0.0.2:1") && is_here("[::1]:1") && is_here("localhost") && is_here("/run/c"));
        assert!(!is_here("10.0.0.1") && !is_here("cache"));
    }
}
