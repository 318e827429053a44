//! Integration tests: they run the finished program, and the real memcached beside it.
//!
//! Each test speaks to a server as its users do: it sends and reads bytes over TCP or a Unix socket. The files
//! `conversations/*.txt` hold the replies to each command as data. The tests run the same files on corecached with one
//! worker, on corecached with several workers, on the memcached of Debian 12 if it is installed, and on memcached
//! 1.6.45 if it is installed. A reply that differs from its file fails the test.
//!
//! No test sleeps for time to pass. A server stops however its test ends. Every read has a deadline, which only ends a
//! test that hangs: it is many times what a busy machine needs.
//!
//! A test whose peer (memcached, memccapable, a Python client) is not installed prints `skipped: …` on standard error.
//! With `CORECACHED_REQUIRE_PEERS=1` it fails instead. Only memcached 1.6.45 may still be missing, because Debian will
//! not keep that version for ever.

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
mod discovery;
mod documents;
mod dumps;
mod flags;
mod flags_file;
mod flush_prefix;
mod libmemcached;
mod limits;
mod long_gets;
mod measures;
mod memccapable;
mod metrics;
mod monitors;
mod mtop;
mod page;
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
mod tool;
mod ttl;
mod udp;
mod uploads;
mod users;
mod watch;
