//! The result of `stampede`: a table, and whether the protections hold.

use std::fmt::Write;

use super::protection::Protection;

/// See the top of the file.
#[derive(Debug)]
pub struct Verdict {
    /// For each protection, how often the database was asked for each end of the value.
    pub counts: Vec<(Protection, Vec<usize>)>,
    pub clients: usize,
    pub interrupted: bool,
}

impl Verdict {
    /// Whether every protection was put to the test, and had the database asked once for each end of the value.
    pub fn holds(&self) -> bool {
        !self.interrupted && self.counts.iter().all(|(protection, herds)| Verdict::is_good(*protection, herds))
    }

    fn is_good(protection: Protection, herds: &[usize]) -> bool {
        !herds.is_empty() && (protection == Protection::Nothing || herds.iter().all(|&asked| asked == 1))
    }

    pub fn text(&self) -> String {
        let mut text = format!("{} clients for each key\n", self.clients);
        let _ = writeln!(text, "{:<9}{:<27}{:>7}{:>7}{:>15}", "key", "protection", "ends", "asked", "most for one");
        for (protection, herds) in &self.counts {
            let (asked, most) = (herds.iter().sum::<usize>(), herds.iter().max().unwrap_or(&0));
            let (name, how, ends) = (protection.name(), protection.describe(), herds.len());
            let mark = if Verdict::is_good(*protection, herds) { "" } else { "  FAILS" };
            let _ = writeln!(text, "{name:<9}{how:<27}{ends:>7}{asked:>7}{most:>15}{mark}");
        }
        if self.interrupted {
            text.push_str("interrupted\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_for_each_end_is_allowed() {
        let verdict = |protection, herds: &[usize], interrupted| {
            let verdict = Verdict { counts: vec![(protection, herds.to_vec())], clients: 100, interrupted };
            assert_eq!(verdict.text().contains("FAILS"), !verdict.holds() && !interrupted);
            verdict.holds()
        };
        assert!(verdict(Protection::Nothing, &[90, 100], false));
        assert!(verdict(Protection::Early, &[1, 1], false));
        assert!(!verdict(Protection::Early, &[1, 2], false));
        assert!(!verdict(Protection::Win, &[], false));
        assert!(!verdict(Protection::Nothing, &[], false));
        assert!(!verdict(Protection::Stale, &[1], true));
    }
}
