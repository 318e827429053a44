//! Makes a conversation short that shows something.

/// Bursts of pieces. The client waits for all replies to a burst before it sends the next.
pub(super) type Conversation<P> = Vec<Vec<P>>;

/// Rounds without any success that are tried with smaller and smaller parts, before it is left at that.
const ATTEMPTS_MAX: usize = 300;

/// The shortest conversation found for which `shows` holds, as it does for this one: parts are left out, first large,
/// then small ones, as long as it still holds (Zeller's ddmin).
pub(super) fn minimise<P: Clone>(
    conversation: Conversation<P>,
    mut shows: impl FnMut(&Conversation<P>) -> bool,
) -> Conversation<P> {
    let mut pieces: Vec<(usize, P)> = Vec::new();
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
fn bursts<P: Clone>(pieces: &[(usize, P)]) -> Conversation<P> {
    let groups = pieces.chunk_by(|first, second| first.0 == second.0);
    groups.map(|group| group.iter().map(|(_, piece)| piece.clone()).collect()).collect()
}
