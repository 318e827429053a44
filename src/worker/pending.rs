//! The replies of one connection leave in the order of its requests, although some come later than others.
//!
//! As long as all operations are executed where they are met, replies go straight to the output. An operation that was
//! posted to another shard leaves a gap; replies behind a gap are kept here until the last gap is filled.
//!
//! ```text
//! output …│gap 0│ bytes │gap 1│gap 2│ bytes
//! ```

use crate::command::Reply;

/// Gaps in the replies of a connection, and what lies between them. Takes no memory while there are none.
#[derive(Debug, Default)]
pub struct Pending(Option<Box<Gaps>>);

#[derive(Debug, Default)]
struct Gaps {
    gaps: Vec<Gap>,
    /// Gaps that are not filled.
    waiting: usize,
    /// Bytes that may come for those, at most.
    expected: usize,
    /// The replies behind the first gap, without gaps.
    between: Reply,
    /// What fills gaps, in the order in which it came.
    filled: Reply,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Bytes of `between` that come before this gap.
    at: usize,
    /// What fills it: a part of `filled`.
    from: usize,
    to: usize,
    /// Bytes that may come for it, at most.
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

    /// Where the next reply belongs: the output, or behind the last gap.
    #[inline]
    pub fn sink<'a>(&'a mut self, output: &'a mut Reply) -> &'a mut Reply {
        match &mut self.0 {
            None => output,
            Some(gaps) => &mut gaps.between,
        }
    }

    /// Bytes that are kept here, with those of pinned values, and bytes that may still come for the gaps.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |gaps| gaps.between.len() + gaps.filled.len() + gaps.expected)
    }

    /// Gaps since everything was last moved on.
    #[cfg(all(test, not(loom)))]
    pub(super) fn gaps(&self) -> usize {
        self.0.as_ref().map_or(0, |gaps| gaps.gaps.len())
    }

    /// Leaves a gap for a reply of at most `expected` bytes that comes later; gives its number.
    pub fn gap(&mut self, expected: usize) -> usize {
        let gaps = self.0.get_or_insert_default();
        gaps.gaps.push(Gap { at: gaps.between.out.len(), from: 0, to: 0, expected });
        gaps.waiting += 1;
        gaps.expected += expected;
        gaps.gaps.len() - 1
    }

    /// Fills a gap with a part of a reply, from one byte to another.
    ///
    /// # Panics
    /// If [`Pending::gap`] did not give this number since the last [`Pending::settle`].
    pub fn fill(&mut self, gap: usize, reply: &Reply, from: usize, to: usize) {
        let gaps = self.0.as_mut().expect("a reply comes for a gap");
        let start = gaps.filled.out.len();
        gaps.filled.append(reply, from, to);
        let gap = &mut gaps.gaps[gap];
        gap.from = start;
        gap.to = gaps.filled.out.len();
        gaps.expected -= gap.expected;
        gaps.waiting -= 1;
    }

    /// Moves everything to the output, once no gap is left.
    pub fn settle(&mut self, output: &mut Reply) {
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

    /// Gives up all replies, for the values that are pinned in them.
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
                pending.fill(gaps[which], &source, which * 2 + 1, which * 2 + 2);
            }
            pending.settle(&mut output);
            assert_eq!(output.out.bytes(), b"abcdef");
            assert!(pending.is_empty());
        }
    }
}
