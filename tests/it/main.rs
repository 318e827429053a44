//! Integration tests: the finished program behind a socket, and the real memcached beside it.
//!
//! Everything here speaks to a server as its users do: over TCP or a Unix socket, in bytes. What a command answers is
//! written down as data, in `conversations/*.txt`, and the same files run on corecached with one worker, with several,
//! and on memcached where it is installed, Debian 12's and 1.6.45: the file is the oracle, and a difference fails the
//! test.
//!
//! Nothing sleeps for time to pass, and every server is stopped however its test ends. Every read has a deadline, which
//! ends what hangs and says nothing of speed: it is many times what a busy machine needs.
//! Peers (memcached, memccapable, Python clients) that are not installed are reported as `skipped: …` on standard
//! error; with `CORECACHED_REQUIRE_PEERS=1` a missing peer is a failure, but for memcached 1.6.45, which Debian will not
//! have for ever.

mod conversation;
mod server;

mod client;
mod packet;
mod peers;
mod waiting;

mod agents;
mod authentication;
mod clients;
mod connections;
mod conversations;
mod counters;
mod differential;
mod dumps;
mod flags;
mod libmemcached;
mod limits;
mod long_gets;
mod memccapable;
mod monitors;
mod mtop;
mod pages;
mod process;
mod proxies;
mod restart;
mod rude_clients;
mod rude_packets;
mod secrets;
mod shapes;
mod signals;
mod source;
mod statistics;
mod tls;
mod udp;
mod uploads;
mod watch;
