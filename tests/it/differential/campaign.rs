//! Runs conversations one after the other, each with its own servers, until there were enough commands.

use std::time::Duration;

use super::minimise::{self, Conversation};
use crate::peers;
use crate::server::Program;

/// How long a reply may take; a server that takes longer has forgotten it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same while a conversation is made short, which may take a hundred attempts.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// A kind of conversations: how they are made and held.
pub(super) trait Protocol {
    /// The unit that is left out when a conversation is made short.
    type Piece: Clone;

    /// The server whose replies are the rule.
    fn oracle(&self) -> Program;

    /// The rows of the table of differences from this oracle: the number and the reason of each.
    fn rows(&self) -> Vec<(usize, &'static str)>;

    /// A conversation of about so many commands.
    fn conversation(&self, seed: u64, commands: usize) -> Conversation<Self::Piece>;

    /// Holds a conversation with fresh servers, which have so much time for a reply. `Err` describes the first
    /// disagreement.
    fn hold(&self, conversation: &Conversation<Self::Piece>, seed: u64, patience: Duration) -> Result<Report, String>;

    /// A piece as a person reads it.
    fn shown(&self, piece: &Self::Piece) -> String;
}

/// Counts of one conversation or of many.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) requests: usize,
    /// How often each row of the table of differences was used.
    pub(super) used: Vec<u64>,
}

/// So many commands make a conversation.
const COMMANDS_OF_CONVERSATION: usize = 2_000;

/// So many commands use each row of the table of differences.
const COUNTED: usize = 1_000_000;

/// Holds conversations, as [`run`], if the oracle is here. If there were enough commands, each row must have been of use.
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

/// Holds conversations of at least `commands` commands in all, the first one of `seed`, unless `CORECACHED_COMMANDS` and
/// `CORECACHED_SEED` say otherwise. Panics at the first disagreement, with a conversation as short as was found that
/// shows it.
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
