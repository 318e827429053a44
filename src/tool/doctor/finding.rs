//! What a check says about the facts that it is given.

use crate::tool::show::count;

/// Something that is not as it should be. The first three are sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What is.
    pub(super) is: String,
    /// What should be.
    pub(super) should: String,
    /// What it costs as it is.
    pub(super) why: String,
    /// What changes it, a line each: commands of a shell, or a word that says where the rest belongs, as `flag: -t 2`.
    /// A remark stands behind `#`, so that a shell takes the whole line.
    pub(super) change: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is well. A few words about what is.
    Well(String),
    Found(Finding),
}

/// Why a check could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Other servers do not tell what the check needs.
    OnlyCorecached,
    /// A few words.
    Because(String),
}

impl Unknown {
    pub(super) fn in_words(&self) -> String {
        match self {
            Unknown::OnlyCorecached => "only corecached tells".to_owned(),
            Unknown::Because(reason) => reason.clone(),
        }
    }
}

pub(super) type Verdict = Result<Outcome, Unknown>;

/// A check: its name, and the function from the facts to the verdict. It reads nothing else.
#[derive(Debug)]
pub(super) struct Check<F> {
    pub(super) name: &'static str,
    pub(super) of: fn(&F) -> Verdict,
}

/// A number of things in words: `1 value`, `34k values`.
pub(super) fn times(number: f64, thing: &str) -> String {
    let ending = if number == 1.0 { "" } else { "s" };
    format!("{} {thing}{ending}", count(number))
}

pub(super) fn well(text: impl Into<String>) -> Verdict {
    Ok(Outcome::Well(text.into()))
}

pub(super) fn because<T>(reason: impl Into<String>) -> Result<T, Unknown> {
    Err(Unknown::Because(reason.into()))
}

/// A verdict of each check, by its name.
pub(super) fn examine<F>(checks: &[Check<F>], facts: &F) -> Vec<(&'static str, Verdict)> {
    checks.iter().map(|check| (check.name, (check.of)(facts))).collect()
}
