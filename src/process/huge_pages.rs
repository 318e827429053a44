//! Huge pages of shared memory, which the system allows apart from those of other memory.

use std::fs;

/// Where the system says when shared memory gets huge pages.
pub const SHARED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// What the system says about huge pages of shared memory if a process does not get any by asking for them: `never` or `deny`.
/// `None`: it gets them, or the system does not say.
pub fn shared_are_refused() -> Option<String> {
    refusal(&fs::read_to_string(SHARED).ok()?)
}

fn refusal(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (chosen, _) = rest.split_once(']')?;
    matches!(chosen, "never" | "deny").then(|| chosen.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_word_is_in_brackets() {
        for (text, refused) in [
            ("always within_size advise [never] deny force\n", Some("never")),
            ("always within_size advise never [deny] force\n", Some("deny")),
            ("always within_size [advise] never deny force\n", None),
            ("[always] within_size advise never deny force\n", None),
            ("", None),
            ("never", None),
        ] {
            assert_eq!(refusal(text).as_deref(), refused, "{text}");
        }
    }
}
