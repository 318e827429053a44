//! A UDP socket that systemd has bound. All workers share it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::client::Client;
use crate::server::{Address, CORECACHED};

/// A server that got a TCP and a UDP socket from its parent. Dropping it ends the server.
struct Handed {
    child: Child,
    tcp: SocketAddr,
    udp: SocketAddr,
}

impl Handed {
    /// Starts a server with the sockets as descriptors 3 and 4, as systemd does. The shell gets them as its standard
    /// input and output.
    fn start(flags: &str) -> Handed {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addresses = (tcp.local_addr().expect("it is bound"), udp.local_addr().expect("it is bound"));
        let script =
            format!("LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" -u root -p 1 {flags} 3<&0 4>&1 </dev/null >/dev/null");
        let child = Command::new("sh")
            .args(["-c", &script, CORECACHED])
            .stdin(OwnedFd::from(tcp))
            .stdout(OwnedFd::from(udp))
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        Handed { child, tcp: addresses.0, udp: addresses.1 }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        // Both calls fail only if the server has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_socket_of_systemd_is_served_by_all_workers() {
    // With a port for each worker, each key belongs to one worker. Then only one worker reads the single socket.
    for (flags, gates) in [("-t 1", 1), ("-t 3", 3), ("-t 3 --port-per-core", 1)] {
        let server = Handed::start(flags);
        let mut askers: Vec<Asker> = (0..40).map(|_| Asker::new(server.udp)).collect();
        for round in 0..20 {
            for (at, asker) in askers.iter_mut().enumerate() {
                asker.send(format!("set key{at} 0 0 2\r\n{round:02}\r\nget key{at}\r\n").as_bytes());
            }
            for (at, asker) in askers.iter().enumerate() {
                // Each reply comes once, whichever worker reads the request.
                assert_eq!(shown(&asker.receive()[2..]), shown(&whole("STORED\r\n")), "{flags}");
                let value = whole(&format!("VALUE key{at} 0 2\r\n{round:02}\r\nEND\r\n"));
                assert_eq!(shown(&asker.receive()[2..]), shown(&value), "{flags}");
            }
        }
        assert!(askers.iter_mut().all(|asker| asker.received_until_now().is_empty()));
        let mut client = Client::connect(&Address::Tcp(server.tcp));
        let sockets = client.ask_list("stats conns").iter().filter(|line| line.ends_with(":UDP UDP")).count();
        assert_eq!(sockets, gates, "{flags}");
        assert_eq!(client.stat("curr_connections"), 1 + gates as u64, "{flags}");
        let requests = client.ask_list("stats udp");
        assert!(requests.contains(&format!("STAT udp_requests {}", 40 * 21)), "{flags}: {requests:?}");
    }
}
