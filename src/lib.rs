//! corecached: a memcached-protocol cache server, shared nothing, one event loop per core.
//!
//! ```text
//!  main ─ server ─ process ─ config          start, stop, what is kept, what the system is told, settings
//!         │
//!      worker/        one event loop per core: the only place that ties things together
//!     ┌───┼─────────────┐
//!     │ command/        │                    what an operation means, on one shard
//!     │   │       │     │
//!  net/  protocol/  store/                   three pillars; none imports another
//!  bytes  words     items
//!     └───┬─┴─────────┘
//!  auth  clock  hash  counters  exit         small, no I/O, depend on nothing
//! ```
//!
//! A test (`tests/it/source`) holds every module to this list of its imports; none is imported from above its own line:
//!
//! ```text
//!  main:     server, config, exit
//!  server:   process, worker, admin, command, config, net, protocol, store, auth, clock, counters, hash, exit
//!  process:  config, exit
//!  worker:   admin, command, config, net, protocol, store, watch, clock, counters, hash
//!  admin:    command, config, net, protocol, store, watch, auth, clock, counters
//!  command:  protocol, store, watch, clock
//!  config:   net, protocol, exit
//!  net:
//!  protocol:
//!  store:    clock, hash
//!  watch:
//!  auth:
//!  clock:
//!  counters:
//!  hash:
//!  exit:
//! ```
//!
//! What always holds:
//! 1. `store/`, `protocol/` and `net/` import neither each other nor anything above them. Words and items meet in
//!    `command/`, everything meets in `worker/`.
//! 2. Below `worker/` nobody reads a clock, starts a thread, or logs an operation.
//! 3. No lock and no shared counter on the path of a request, but one of each for a value that is longer than the read
//!    buffer takes (`worker/uploads.rs`). Shards are handed between cores in `worker/mailbox/` alone; counters are plain
//!    stores that others may read.
//! 4. A shard is touched only by the holder of its lease.
//! 5. One operation, one key, one hash; the bits of it that choose shard, bucket and tag are disjoint (`hash.rs`).
//! 6. Replies leave in the order of requests (`worker/pending.rs`).
//! 7. Everything that can grow has a limit in [`config::Config`].
//! 8. What is posted is never dropped, and a reply never waits for room.
//! 9. No input from a client can panic a worker.
//!
//! `unsafe` is in `store/arena.rs`, `store/item.rs` and `worker/mailbox/`, behind safe functions.
//!
//! To read it in order, follow a `get`: [`worker`] reads the socket, [`protocol::text`] finds the words (or
//! [`protocol::binary`]: the first byte of a connection decides), [`worker::serve`] groups and routes them, [`command`]
//! executes them on the [`store`], [`protocol::encode`] writes the reply.

pub mod config;
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
pub mod watch;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
