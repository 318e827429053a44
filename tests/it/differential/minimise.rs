//! Makes a conversation as short as possible while it still shows a disagreement.

/// Bursts of pieces. The client waits for all replies to a burst before it sends the next.
pub(super) type Conversation<P> = Vec<Vec<P>>;

/// Most attempts to leave out a part.
const ATTEMPTS_MAX: usize = 300;

/// Returns the shortest conversation that it finds for which `shows` is true. `shows` must be true for `conversation`.
/// The function leaves out parts, first large and then small ones, while `shows` stays true (Zeller's ddmin).
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

/// Groups the pieces into their bursts.
fn bursts<P: Clone>(pieces: &[(usize, P)]) -> Conversation<P> {
    let groups = pieces.chunk_by(|first, second| first.0 == second.0);
    groups.map(|group| group.iter().map(|(_, piece)| piece.clone()).collect()).collect()
}
