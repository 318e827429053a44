//! Runs conversations one after the other, each with its own servers, until it has run enough commands.

use std::time::Duration;

use super::minimise::{self, Conversation};
use crate::peers;
use crate::server::Program;

/// A server that takes longer than this for a reply sends none.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same while the test makes a conversation short, which may take a hundred attempts.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// A kind of conversations: how to make them and run them.
pub(super) trait Protocol {
    /// The unit that the test leaves out when it makes a conversation short.
    type Piece: Clone;

    /// The server whose replies the test takes as correct.
    fn oracle(&self) -> Program;

    /// The rows of the table of differences from this oracle, each with its number and its reason.
    fn rows(&self) -> Vec<(usize, &'static str)>;

    /// A conversation of about this many commands.
    fn conversation(&self, seed: u64, commands: usize) -> Conversation<Self::Piece>;

    /// Runs a conversation with fresh servers. `patience` is the time that a server has for a reply. `Err` describes
    /// the first disagreement.
    fn hold(&self, conversation: &Conversation<Self::Piece>, seed: u64, patience: Duration) -> Result<Report, String>;

    /// A piece in readable form.
    fn shown(&self, piece: &Self::Piece) -> String;
}

/// Counts of one conversation or of many.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) requests: usize,
    /// How often each row of the table of differences was used.
    pub(super) used: Vec<u64>,
}

/// Commands of one conversation.
const COMMANDS_OF_CONVERSATION: usize = 2_000;

/// After this many commands, each row of the table of differences must have been used.
const COUNTED: usize = 1_000_000;

/// Does the same as [`run`] if the oracle is installed. After enough commands, it fails for a row that was never used.
pub(super) fn check<P: Protocol>(name: &str, protocol: &P, seed: u64, commands: usize) {
    if !peers::has(protocol.oracle()) {
        return;
    }
    let report = run(name, protocol, seed, commands);
    if report.requests < COUNTED {
        return;
    }
    for (row, reason) in protocol.rows() {
        let count = report.used[row];
        eprintln!("{count:8} times: {reason}");
        assert!(count > 0, "a row of the table that is of no use");
    }
}

/// Runs conversations of at least `commands` commands in all, the first one of `seed`. `CORECACHED_COMMANDS` and
/// `CORECACHED_SEED` replace these numbers. Panics at the first disagreement, and shows the shortest conversation with
/// that disagreement that it finds.
fn run<P: Protocol>(name: &str, protocol: &P, seed: u64, commands: usize) -> Report {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let commands = number("CORECACHED_COMMANDS").map_or(commands, |commands| commands as usize);
    let mut seed = number("CORECACHED_SEED").unwrap_or(seed);
    let mut all = Report::default();
    while all.requests < commands {
        let conversation = protocol.conversation(seed, COMMANDS_OF_CONVERSATION.min(commands - all.requests));
        match protocol.hold(&conversation, seed, PATIENCE) {
            Ok(report) => {
                all.requests += report.requests;
                all.used.resize(report.used.len(), 0);
                all.used.iter_mut().zip(report.used).for_each(|(all, some)| *all += some);
            }
            Err(disagreement) => {
                explain(&format!("{name}, CORECACHED_SEED={seed}"), protocol, seed, conversation, &disagreement)
            }
        }
        seed += 1;
    }
    eprintln!("{name}: {} requests, last seed {}", all.requests, seed - 1);
    all
}

fn explain<P: Protocol>(
    name: &str,
    protocol: &P,
    seed: u64,
    conversation: Conversation<P::Piece>,
    disagreement: &str,
) -> ! {
    eprintln!("{name}, before it is made short:\n{disagreement}");
    let short = minimise::minimise(conversation, |shorter| protocol.hold(shorter, seed, IMPATIENCE).is_err());
    let last = protocol.hold(&short, seed, PATIENCE).err();
    let again = if last.is_some() { "" } else { " (not each time; this was the first)" };
    let shown = last.as_deref().unwrap_or(disagreement);
    let mut sent = String::new();
    for burst in &short {
        burst.iter().for_each(|piece| sent.push_str(&format!("  sent      {}\n", protocol.shown(piece))));
        sent.push_str("  (replies awaited)\n");
    }
    panic!("{name}{again}:\n{sent}{shown}");
}
