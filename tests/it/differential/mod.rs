//! Random conversations of thousands of commands each, with memcached and with corecached. Both must reply with the
//! same bytes, except for the differences in the tables.
//!
//! `text.rs` has the conversations in the classic and the meta protocol, `binary/` those in packets. Each has its own
//! table.
//!
//! ```text
//!  seed ─ generate ─ bursts ─┬─ in random pieces ────────────────── corecached ─┐
//!                            └─ frame ─ request by request ─── memcached        ├─ compare
//!                                           └──── differences ──────────────────┘
//! ```
//!
//! If the servers disagree, the test makes the conversation as short as possible and prints it.
//!
//! A test runs only as many commands as fit beside the other tests. `CORECACHED_COMMANDS=1000000` sets their number.
//! `CORECACHED_SEED=…` sets the first conversation, for example one that has failed. `cargo test --profile fast` is
//! nearly as fast as a release build, and builds in a fraction of its time.

mod campaign;
mod minimise;
mod random;
mod wire;

mod compare;
mod differences;
mod frame;
mod generate;
mod oracle;
mod text;

mod binary;
