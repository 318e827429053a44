//! Proxies between memcached and its clients: nginx with its memcached module, nutcracker (twemproxy) before three
//! servers, and HAProxy before two.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::clients::{PYMEMCACHE, run_script};
use crate::peers;
use crate::server::{Address, Program, Server, free_ports, new_folder};

/// How long a proxy may take to accept its first client or to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running proxy, with its configuration in a folder of its own.
struct Proxy {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Proxy {
    /// Starts a program on a free port, with a configuration file. `arguments` and `configuration` get the folder and
    /// the port.
    fn start(
        program: &Path,
        arguments: impl Fn(&str, u16) -> Vec<String>,
        configuration: impl Fn(&str, u16) -> String,
    ) -> Proxy {
        let folder = new_folder();
        // These programs cannot choose a free port and report it.
        let port = free_ports(1)[0];
        let file = folder.join("configuration");
        let path = folder.to_str().expect("a temporary folder has a plain name");
        fs::write(&file, configuration(path, port)).expect("a file in a folder of ours");
        let printed = fs::File::create(folder.join("printed")).expect("a file in a folder of ours");
        let child = peers::command(program)
            .args(arguments(path, port))
            .stdin(Stdio::null())
            .stdout(printed.try_clone().expect("a second handle"))
            .stderr(printed)
            .spawn();
        let mut proxy = Proxy { child: child.expect("this program was found"), folder, port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(proxy.address()).is_err() {
            let ended = proxy.child.try_wait().expect("the child is ours");
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {}", proxy.printed());
            std::thread::sleep(LOOK_AGAIN);
        }
        proxy
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("printed")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both calls fail only if the program has ended already. The program has no children that would outlive it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the proxy printed\n{}", self.printed());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn nutcracker_spreads_keys_over_three_servers() {
    nutcracker(Program::Corecached);
}

#[test]
fn nutcracker_spreads_keys_over_three_memcached() {
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            nutcracker(memcached);
        }
    }
}

fn nutcracker(program: Program) {
    let Some(path) = peers::program("nutcracker") else { return };
    let servers: Vec<Server> = (0..3).map(|_| Server::on_tcp(program, &["-t", "2"])).collect();
    // nutcracker makes its ring from these names. With addresses instead, the shares would differ from run to run.
    let named = |(at, server): (usize, &Server)| format!("    - {}:1 server-{at}", server.tcp());
    let list: Vec<String> = servers.iter().enumerate().map(named).collect();
    // nutcracker needs a port for monitoring. It gets the same port at another address of the loopback.
    let arguments = |folder: &str, port: u16| {
        format!("-a 127.0.0.2 -s {port} -o {folder}/printed -p {folder}/pid -c {folder}/configuration")
            .split(' ')
            .map(str::to_owned)
            .collect()
    };
    let proxy = Proxy::start(&path, arguments, |_, port| {
        format!(
            "pool:\n  listen: 127.0.0.1:{port}\n  hash: md5\n  distribution: ketama\n  timeout: 10000\n  \
             preconnect: true\n  server_connections: 1\n  server_retry_timeout: 1\n  auto_eject_hosts: false\n  \
             servers:\n{}\n",
            list.join("\n")
        )
    });
    run_script(&PYMEMCACHE, "nutcracker_pool.py", &[proxy.port], servers, &[]);
}

#[test]
fn haproxy_checks_and_goes_over_to_the_other_server() {
    haproxy(Program::Corecached);
}

#[test]
fn haproxy_checks_memcached_and_goes_over_to_the_other_server() {
    if peers::has_memcached() {
        haproxy(Program::Memcached);
    }
}

/// HAProxy asks each server for its version again and again, and sends clients to the first one that answers. On a busy
/// machine one answer may be late. Only three missing answers in a row mean that a server has gone.
fn haproxy(program: Program) {
    let Some(path) = peers::program("haproxy") else { return };
    let servers: Vec<Server> = (0..2).map(|_| Server::on_tcp(program, &["-t", "2"])).collect();
    let [first, second] = [servers[0].tcp(), servers[1].tcp()];
    let proxy = Proxy::start(&path, with_configuration("-f"), |_, port| {
        format!(
            "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 20s\n  timeout server 20s\n\
             listen cache\n  bind 127.0.0.1:{port}\n  option tcp-check\n  tcp-check connect\n  \
             tcp-check send version\\r\\n\n  tcp-check expect rstring ^VERSION\\ 1\\.6\\.[0-9]+\\r\\n$\n  \
             timeout check 10s\n  default-server check inter 100ms fall 3 rise 1 on-marked-down shutdown-sessions\n  \
             server first {first}\n  server second {second} backup\n"
        )
    });
    let through = || Client::connect(&Address::Tcp(proxy.address()));
    let mut client = through();
    assert_eq!(client.ask("set key 0 0 5\r\nfirst"), "STORED");
    let mut behind = servers[0].client();
    assert_eq!(behind.ask("get key"), "VALUE key 0 5");
    // HAProxy makes one check after another, and the server counts none of them as an error.
    let deadline = Instant::now() + PATIENCE;
    let before = servers[1].client().stat("total_connections");
    while servers[1].client().stat("total_connections") < before + 20 {
        assert!(Instant::now() < deadline, "it does not check the server that waits");
        std::thread::sleep(LOOK_AGAIN);
    }
    assert_eq!(client.ask("get key"), "VALUE key 0 5");

    // The first server ends, and the second one takes over.
    let mut servers = servers;
    drop(servers.remove(0));
    loop {
        let mut client = through();
        let sent = client.try_send(b"set key 0 0 6\r\nsecond\r\n");
        if sent.is_ok() && client.line().is_ok_and(|line| line == b"STORED\r\n") {
            break;
        }
        assert!(Instant::now() < deadline, "it does not go over: {}", proxy.printed());
        std::thread::sleep(LOOK_AGAIN);
    }
    assert_eq!(servers[0].client().ask("get key"), "VALUE key 0 6");
}

#[test]
fn nginx_serves_pages_from_it() {
    nginx(Program::Corecached);
}

#[test]
fn nginx_serves_pages_from_memcached() {
    for memcached in [Program::Memcached, Program::Newest] {
        if peers::has(memcached) {
            nginx(memcached);
        }
    }
}

/// nginx alone serves the pages that an application has put into the cache. It sends other requests to the application.
fn nginx(program: Program) {
    let Some(path) = peers::program("nginx") else { return };
    let server = Server::on_tcp(program, &["-t", "2"]);
    let proxy =
        Proxy::start(&path, with_configuration("-c"), |folder, port| nginx_configuration(folder, port, server.tcp()));

    let mut cache = server.client();
    let mut put = |key: &str, flags: u32, value: &[u8]| {
        cache.send(format!("set {key} {flags} 0 {}\r\n", value.len()));
        cache.send(value);
        cache.send("\r\n");
        cache.expect("STORED\r\n");
    };
    let page = b"<p>a page</p>\r\nEND\r\n".to_vec();
    let large: Vec<u8> = (0..900_000_u32).map(|i| (i * 31 % 251) as u8).collect();
    put("/page", 0, &page);
    put("/empty", 0, b"");
    put("/large", 0, &large);
    let zipped = b"\x1f\x8b: of no account to nginx".to_vec();
    put("/zipped", 2, &zipped);
    put("/a%2520b", 0, b"nginx escapes what an address has escaped");

    // Many requests come one after the other. nginx keeps its connection to the server.
    for _ in 0..50 {
        assert_eq!(get(proxy.address(), "/page"), (200, String::new(), page.clone()));
    }
    assert_eq!(get(proxy.address(), "/empty"), (200, String::new(), Vec::new()));
    assert_eq!(get(proxy.address(), "/large"), (200, String::new(), large));
    assert_eq!(get(proxy.address(), "/nothing"), (404, String::new(), b"of the application".to_vec()));
    assert_eq!(get(proxy.address(), "/a%20b").2, b"nginx escapes what an address has escaped");
    // The flags of the value tell nginx that the page is compressed.
    assert_eq!(get(proxy.address(), "/zipped"), (200, "gzip".to_owned(), zipped));

    // From here on, many clients ask at the same time, each on a connection of its own.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(get(proxy.address(), "/page").2, page);
                    assert_eq!(get(proxy.address(), "/nothing").0, 404);
                }
            });
        }
    });
    let mut cache = server.client();
    assert!(cache.stat("get_hits") >= 450 && cache.stat("get_misses") >= 400);
    assert!(cache.stat("total_connections") < 200, "nginx does not keep its connections");
}

/// The arguments for a program that takes its configuration file with `flag`.
fn with_configuration(flag: &str) -> impl Fn(&str, u16) -> Vec<String> {
    let flag = flag.to_owned();
    move |folder, _| vec![flag.clone(), format!("{folder}/configuration")]
}

fn nginx_configuration(folder: &str, port: u16, cache: SocketAddr) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .join("\n    ");
    format!(
        "daemon off;
master_process off;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temporary}
    upstream cache {{ server {cache}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            set $memcached_key $request_uri;
            memcached_pass cache;
            memcached_gzip_flag 2;
            memcached_read_timeout 20s;
            default_type text/html;
            error_page 404 = @application;
        }}
        location @application {{ return 404 'of the application'; }}
    }}
}}
"
    )
}

/// The status, the `Content-Encoding` and the body of the HTTP reply for this path.
fn get(address: SocketAddr, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a connected socket takes this option");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap_or_else(|error| panic!("{path}: {error} after {} bytes", reply.len()));
    let end = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a reply has an end of its head");
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let encoding = head.lines().find_map(|line| line.strip_prefix("Content-Encoding: ")).unwrap_or_default();
    (status, encoding.to_owned(), reply[end + 4..].to_vec())
}
