//! corecached: a memcached-protocol cache server, shared nothing, one event loop per core.
//!
//! ```text
//!  main
//!   ├ tool/              commands beside the server: top, stat and others; not in this library, sees servers through sockets
//!   └ server/            start and stop: listeners, memory, threads, warm restart
//!      ├ process/        what the system is told: user, limits, files, daemon
//!      ├ observer/       the metrics address: Prometheus, health, figures as JSON; it only reads
//!      └ worker/         one event loop per core: the only place that ties sockets, words and items together
//!         └ admin/       commands that concern the whole server: statistics, tuning, dumps, login
//!            ├ command/  what an operation on a key means, on one shard
//!            └ config/   flags, their defaults and their checks
//!               │
//!               ├ net/       bytes ┐
//!               ├ protocol/  words ├ three pillars; none imports another
//!               └ store/     items ┘
//!                  └ measure  watch  auth  nodes  ttl  clock  counters  hash  exit      small; they do no I/O
//! ```
//!
//! A module imports only from modules further down, and exactly from those that this list names. The test `source` reads
//! the list and the source, and fails where they differ:
//!
//! ```text
//!  main:     tool, server, config, exit
//!  tool:     process, config, auth, nodes, exit
//!  server:   process, observer, worker, admin, command, config, net, protocol, store, measure, auth, nodes, ttl, clock, counters, hash, exit
//!  process:  exit
//!  observer: worker, admin, command, config, net, protocol, store, measure, auth, counters
//!  worker:   admin, command, config, net, protocol, store, measure, watch, auth, clock, counters, hash
//!  admin:    command, config, net, protocol, store, measure, watch, auth, nodes, clock, counters
//!  command:  protocol, store, watch, ttl, clock
//!  config:   net, protocol, store, measure, ttl, exit
//!  net:
//!  protocol:
//!  store:    clock, hash
//!  measure:  counters
//!  watch:
//!  auth:
//!  nodes:
//!  ttl:      clock
//!  clock:
//!  counters:
//!  hash:
//!  exit:
//! ```
//!
//! What always holds:
//! 1. `store/`, `protocol/` and `net/` import neither each other nor anything above them. `command/` brings words and items
//!    together; `worker/` brings everything together.
//! 2. Below `worker/` no code reads a clock for an operation on a key, starts a thread, or logs an operation.
//! 3. The path of a request has no lock and no shared counter. There are two exceptions. A value that is longer than the
//!    read buffer takes one lock and one counter (`worker/uploads.rs`). An operation of the sample, one in 128, takes the
//!    lock of its worker's samples, or is not counted if somebody reads them (`worker/sampler.rs`). Only `worker/mailbox/` hands shards from core to
//!    core. One thread writes each counter, with plain stores; others may read it.
//! 4. Only the holder of a shard's lease touches the shard. A worker answers for a hot item from a copy of its own, as long as
//!    the shard has not changed the item (`store/copies.rs`).
//! 5. An operation has one key, and a key is hashed once; different bits of the hash choose shard, bucket and tag
//!    (`hash.rs`).
//! 6. Replies leave in the order of requests (`worker/pending.rs`).
//! 7. Everything that can grow has a limit in [`config::Config`].
//! 8. Posted mail is never dropped, and a reply never waits for room.
//! 9. No input from a client can make a worker panic.
//!
//! Only `store/arena.rs`, `store/item.rs` and `worker/mailbox/` use `unsafe`, behind safe functions.
//!
//! # Where to begin reading
//!
//! The life of a `get`: [`worker`] reads the socket; [`protocol::text`] finds the words ([`protocol::binary`] if the first
//! byte of the connection is that of a packet); [`worker::serve`] groups the operations and routes them to shards;
//! [`command`] executes them on the [`store`]; [`protocol::encode`] writes the replies.
//!
//! The life of a long value, which does not fit the read buffer: the parser reports the command line alone
//! ([`protocol::Step::Data`]). [`worker::uploads`] admits the value or makes its connection wait, so that all such values
//! together stay below a limit. [`command::reserve`] takes memory in the shard, and the worker copies the bytes there as
//! they come. When the value is complete, [`command::commit`] makes it the item of its key and writes the reply.
//!
//! The life of a whole-cache command, such as `stats` or `flush_all`: the parser passes the line on unread
//! ([`protocol::Verb::Admin`]). [`admin::plan`] reads it and returns an [`admin::Action`]. If that is a query, the worker
//! posts it to the others as mail ([`worker::broadcast`]); [`admin::answer()`] answers it for each shard. The last answer
//! returns to the connection that asked, and [`admin`] merges all answers and writes the reply.

pub mod config;
pub mod observer;
pub mod process;
pub mod server;
pub mod worker;

pub mod admin;
pub mod command;

pub mod net;
pub mod protocol;
pub mod store;

pub mod auth;
pub mod clock;
pub mod counters;
pub mod exit;
pub mod hash;
pub mod measure;
pub mod nodes;
pub mod ttl;
pub mod watch;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
