//! Random conversations, thousands of commands each, with memcached and with corecached: what they reply must be the same,
//! byte for byte, but for what the tables of differences know.
//!
//! `text.rs` holds those of the classic and the meta protocol, `binary/` those in packets, each with a table of its own.
//!
//! ```text
//!  seed ─ generate ─ bursts ─┬─ in random pieces ────────────────── corecached ─┐
//!                            └─ frame ─ request by request ─── memcached        ├─ compare
//!                                           └──── differences ──────────────────┘
//! ```
//!
//! A conversation in which they disagree is made as short as may be, and printed.
//!
//! Each test runs as many commands as fit beside other tests. `CORECACHED_COMMANDS=1000000` runs so many;
//! `CORECACHED_SEED=…` begins with another conversation, such as one that has failed. Run it by
//! `cargo test --profile fast`, which is as fast as a release build and builds in a fraction of its time.

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
