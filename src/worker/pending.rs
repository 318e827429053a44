//! The replies of one connection leave in the order of its requests, although some of them come later than others.
//!
//! As long as the worker executes every operation at once, replies go straight to the output. An operation that was posted to
//! another shard leaves a gap. Replies behind a gap are kept here until the last gap is filled.
//!
//! ```text
//! output …│gap 0│ bytes │gap 1│gap 2│ bytes
//! ```

use super::batch::Part;
use crate::command::Reply;

/// The gaps in the replies of a connection, and the replies between them. Takes no memory while there are no gaps.
#[derive(Debug, Default)]
pub struct Pending(Option<Box<Gaps>>);

#[derive(Debug, Default)]
struct Gaps {
    gaps: Vec<Gap>,
    /// The number of gaps that are not filled.
    waiting: usize,
    /// The most bytes that can still come for those gaps.
    expected: usize,
    /// The replies behind the first gap, without gaps.
    between: Reply,
    /// The replies that fill gaps, in the order in which they came.
    filled: Reply,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// The number of bytes of `between` before this gap.
    at: usize,
    /// The part of `filled` that fills the gap.
    from: usize,
    to: usize,
    /// The most bytes that can come for the gap.
    expected: usize,
}

impl Pending {
    /// Whether replies may go straight to the output.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a gap is not filled yet.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|gaps| gaps.waiting > 0)
    }

    /// The place of the next reply: the output, or behind the last gap.
    #[inline]
    pub fn sink<'a>(&'a mut self, output: &'a mut Reply) -> &'a mut Reply {
        match &mut self.0 {
            None => output,
            Some(gaps) => &mut gaps.between,
        }
    }

    /// The bytes that are kept here, with those of pinned values, and the bytes that can still come for the gaps.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |gaps| gaps.between.len() + gaps.filled.len() + gaps.expected)
    }

    /// The number of gaps since the last [`Pending::move_to`].
    #[cfg(all(test, not(loom)))]
    pub(super) fn gaps(&self) -> usize {
        self.0.as_ref().map_or(0, |gaps| gaps.gaps.len())
    }

    /// Leaves a gap for a reply of at most `expected` bytes that comes later. Returns the number of the gap.
    pub fn gap(&mut self, expected: usize) -> usize {
        let gaps = self.0.get_or_insert_default();
        gaps.gaps.push(Gap { at: gaps.between.out.len(), from: 0, to: 0, expected });
        gaps.waiting += 1;
        gaps.expected += expected;
        gaps.gaps.len() - 1
    }

    /// Fills a gap.
    ///
    /// # Panics
    /// If [`Pending::gap`] has not returned this number since the last [`Pending::move_to`].
    pub fn fill(&mut self, gap: usize, reply: Part<'_>) {
        let gaps = self.0.as_mut().expect("a reply comes for a gap");
        let start = gaps.filled.out.len();
        gaps.filled.append(reply.reply, reply.from, reply.to);
        let gap = &mut gaps.gaps[gap];
        gap.from = start;
        gap.to = gaps.filled.out.len();
        gaps.expected -= gap.expected;
        gaps.waiting -= 1;
    }

    /// Moves all replies to the output, once all gaps are filled.
    pub fn move_to(&mut self, output: &mut Reply) {
        let Some(gaps) = self.0.take() else { return };
        assert_eq!(gaps.waiting, 0, "replies wait for the gaps before them");
        let mut at = 0;
        for gap in &gaps.gaps {
            output.append(&gaps.between, at, gap.at);
            output.append(&gaps.filled, gap.from, gap.to);
            at = gap.at;
        }
        output.append(&gaps.between, at, gaps.between.out.len());
    }

    /// Gives up all replies. The caller unpins the values in them.
    pub fn take_all(&mut self) -> Vec<Reply> {
        self.0.take().map_or_else(Vec::new, |gaps| vec![gaps.between, gaps.filled])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        let mut reply = Reply::default();
        reply.out.put(text.as_bytes());
        reply
    }

    #[test]
    fn replies_leave_in_the_order_of_their_requests() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut pending = Pending::default();
            let mut output = Reply::default();
            pending.sink(&mut output).out.put(b"a");
            let gaps = [pending.gap(1), pending.gap(1)];
            pending.sink(&mut output).out.put(b"d");
            let gaps = [gaps[0], gaps[1], pending.gap(1)];
            pending.sink(&mut output).out.put(b"f");
            let source = text("-b-c-e-");
            for (filled, which) in order.into_iter().enumerate() {
                assert!(pending.is_waiting());
                assert_eq!(pending.len(), b"d".len() + b"f".len() + filled + (3 - filled));
                pending.fill(gaps[which], Part { reply: &source, from: which * 2 + 1, to: which * 2 + 2 });
            }
            pending.move_to(&mut output);
            assert_eq!(output.out.bytes(), b"abcdef");
            assert!(pending.is_empty());
        }
    }
}
