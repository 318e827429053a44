//! The replies of one connection leave in the order of its requests, although some come later than others.
//!
//! As long as all operations are executed where they are met, replies go straight to the output. An operation that was
//! posted to another shard leaves a gap; replies behind a gap are kept here until the last gap is filled.
//!
//! ```text
//! output …│gap 0│ bytes │gap 1│gap 2│ bytes
//! ```

use crate::command::Reply;

/// Gaps in the replies of a connection, and what lies between them.
#[derive(Debug, Default)]
pub struct Pending {
    gaps: Vec<Gap>,
    /// Gaps that are not filled.
    waiting: usize,
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
}

impl Pending {
    /// Whether replies may go straight to the output.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Whether a gap is not filled yet.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Where the next reply belongs: the output, or behind the last gap.
    #[inline]
    pub fn sink<'a>(&'a mut self, output: &'a mut Reply) -> &'a mut Reply {
        if self.gaps.is_empty() { output } else { &mut self.between }
    }

    /// Leaves a gap for a reply that comes later; gives its number.
    pub fn gap(&mut self) -> usize {
        self.gaps.push(Gap { at: self.between.out.len(), from: 0, to: 0 });
        self.waiting += 1;
        self.gaps.len() - 1
    }

    /// Fills a gap with a part of a reply, from one byte to another.
    pub fn fill(&mut self, gap: usize, reply: &Reply, from: usize, to: usize) {
        let start = self.filled.out.len();
        self.filled.append(reply, from, to);
        self.gaps[gap].from = start;
        self.gaps[gap].to = self.filled.out.len();
        self.waiting -= 1;
    }

    /// Moves everything to the output, once no gap is left, and gives the memory back.
    pub fn settle(&mut self, output: &mut Reply) {
        assert_eq!(self.waiting, 0, "replies wait for the gaps before them");
        let mut at = 0;
        for gap in &self.gaps {
            output.append(&self.between, at, gap.at);
            output.append(&self.filled, gap.from, gap.to);
            at = gap.at;
        }
        output.append(&self.between, at, self.between.out.len());
        *self = Pending::default();
    }

    /// Gives up all replies, for the values that are pinned in them.
    pub fn take_all(&mut self) -> [Reply; 2] {
        let Pending { between, filled, .. } = std::mem::take(self);
        [between, filled]
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
            let gaps = [pending.gap(), pending.gap()];
            pending.sink(&mut output).out.put(b"d");
            let gaps = [gaps[0], gaps[1], pending.gap()];
            pending.sink(&mut output).out.put(b"f");
            let source = text("-b-c-e-");
            for which in order {
                assert!(pending.is_waiting());
                pending.fill(gaps[which], &source, which * 2 + 1, which * 2 + 2);
            }
            pending.settle(&mut output);
            assert_eq!(output.out.bytes(), b"abcdef");
            assert!(pending.is_empty());
        }
    }
}
