//! Makes a conversation short that shows something.

use super::generate::{Conversation, Part, Piece};
use crate::client::shown;

/// Rounds without any success that are tried with smaller and smaller parts, before it is left at that.
const ATTEMPTS_MAX: usize = 300;

/// The shortest conversation found for which `shows` holds, as it does for this one: parts are left out, first large,
/// then small ones, as long as it still holds (Zeller's ddmin).
pub(super) fn minimise(conversation: Conversation, mut shows: impl FnMut(&Conversation) -> bool) -> Conversation {
    let mut pieces: Vec<(usize, Piece)> = Vec::new();
    for (burst, content) in conversation.into_iter().enumerate() {
        pieces.extend(content.into_iter().map(|piece| (burst, piece)));
    }
    let mut attempts = 0;
    let mut count = pieces.len().div_ceil(2);
    while count > 0 && attempts < ATTEMPTS_MAX {
        let mut at = 0;
        while at < pieces.len() && attempts < ATTEMPTS_MAX {
            let mut fewer = pieces.clone();
            fewer.drain(at..(at + count).min(pieces.len()));
            attempts += 1;
            if !fewer.is_empty() && shows(&bursts(&fewer)) {
                pieces = fewer;
            } else {
                at += count;
            }
        }
        count = if count == 1 { 0 } else { count.div_ceil(2) };
    }
    bursts(&pieces)
}

/// Pieces of one burst stay together.
fn bursts(pieces: &[(usize, Piece)]) -> Conversation {
    let groups = pieces.chunk_by(|first, second| first.0 == second.0);
    groups.map(|group| group.iter().map(|(_, piece)| piece.clone()).collect()).collect()
}

/// A conversation as a person reads it.
pub(super) fn printed(conversation: &Conversation) -> String {
    let mut text = String::new();
    for burst in conversation {
        for Piece(parts) in burst {
            text.push_str("  sent     ");
            for part in joined(parts) {
                match &part {
                    Part::Bytes(bytes) => text.push_str(&format!(" {}", shown(bytes))),
                    Part::Cas { key, offset } => text.push_str(&format!(" <CAS of {} {offset:+}>", shown(key))),
                    Part::Unix(offset) => text.push_str(&format!(" <now {offset:+}>")),
                }
            }
            text.push('\n');
        }
        text.push_str("  (replies awaited)\n");
    }
    text
}

/// The same, with bytes in a row as one part.
fn joined(parts: &[Part]) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Bytes(bytes)), Part::Bytes(more)) => bytes.extend_from_slice(more),
            _ => joined.push(part.clone()),
        }
    }
    joined
}
