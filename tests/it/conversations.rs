//! Runs every file of `conversations/` with corecached on one worker, with corecached on several workers, and with
//! memcached 1.6.18 and 1.6.45.

use crate::conversation::check;
use crate::peers;
use crate::server::Program;

/// A module per file, so that a failing test names the topic and the server.
macro_rules! topics {
    ($($topic:ident)*) => {
        const TOPICS: &[&str] = &[$(stringify!($topic)),*];

        $(mod $topic {
            const FILE: &str = concat!("tests/it/conversations/", stringify!($topic), ".txt");
            const TEXT: &str = include_str!(concat!("conversations/", stringify!($topic), ".txt"));

            #[test]
            fn on_one_worker() {
                super::check(FILE, TEXT, super::Program::Corecached, &["-t", "1", "-m", "256"]);
            }

            #[test]
            fn on_several_workers() {
                super::check(FILE, TEXT, super::Program::Corecached, &["-t", "4", "-m", "256"]);
            }

            #[test]
            fn on_memcached() {
                if super::peers::has(super::Program::Memcached) {
                    super::check(FILE, TEXT, super::Program::Memcached, &["-t", "2", "-m", "256"]);
                }
            }

            #[test]
            fn on_memcached_1_6_45() {
                if super::peers::has(super::Program::Newest) {
                    super::check(FILE, TEXT, super::Program::Newest, &["-t", "2", "-m", "256"]);
                }
            }
        })*
    };
}

topics! {
    storage
    retrieval
    cas
    arithmetic
    touch_gat
    delete
    flush
    noreply
    errors_text
    numbers
    meta_get
    meta_set
    meta_delete
    meta_arithmetic
    meta_debug_noop
    meta_base64
    meta_dalli
    meta_stale_win
    meta_errors
    admin
    crawler
    pipelining
    binary
    binary_errors
    binary_stat
    login
}

/// The test moves time with `debugtime`. A plain build of corecached has no such command, nor has Debian's memcached.
#[cfg(feature = "debug-commands")]
mod expiry {
    use super::{Program, check};

    const FILE: &str = "tests/it/conversations/expiry.txt";
    const TEXT: &str = include_str!("conversations/expiry.txt");

    #[test]
    fn on_one_worker() {
        check(FILE, TEXT, Program::Corecached, &["-t", "1", "-m", "256"]);
    }

    #[test]
    fn on_several_workers() {
        check(FILE, TEXT, Program::Corecached, &["-t", "4", "-m", "256"]);
    }
}

#[test]
fn no_file_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/conversations");
    for entry in std::fs::read_dir(folder).expect("the folder of the conversations") {
        let name = entry.expect("an entry of the folder").file_name().into_string().expect("plain names");
        let topic = name.strip_suffix(".txt").unwrap_or_else(|| panic!("{name} is not a conversation"));
        assert!(TOPICS.contains(&topic) || topic == "expiry", "{name} is not in the list of topics above");
    }
}
