//! `corecached help stampede`: how to keep many clients from asking the database at the same time. The scripts are files
//! of the tests, which run them.

use std::fmt::Write;

/// What the page shows of a script ends here. The lines below it test those above.
const TEST: &str = "\n\n\n# ---- the test of the lines above ----\n";

const RULES: &str = "\
Stampedes: a value expires or is deleted, and many clients ask the database for it at once.

TTL RULES: --ttl RULE, as often as there are rules

  corecached --ttl 'jitter=10%' --ttl 'page: jitter=20% max=1d' --ttl 'feed: default=1h early=30s'

The first word is the beginning of the keys that the rule is for; a rule without it is for all other keys. The rule
with the longest prefix decides, alone. Settings, in the order in which they apply; durations are in s, m, h or d:

  default=1h   how long an item with exptime 0 lives
  max=1d       the longest life, also of items with exptime 0
  jitter=10%   a life of 10 seconds or more is up to 10 % shorter, by the hash of the key and the second, so that items
               stored together expire apart. An absolute exptime (Unix time) stays, unless max has cut it
  early=30s    in the last 30 seconds one get, gets or binary get of the item misses: see EARLY MISS

Rules apply whenever a client sets a deadline: to stores, touch, gat, counters that are created, and the flags T and N
of meta commands. They never lengthen what a client asks for, nor revive what it lets expire (a negative exptime). The
flag t, metadump and cachedump show the result.
";

const EARLY: &str = "\
EARLY MISS, for any client: --ttl 'feed: early=30s'

Shortly before the item expires one client misses, asks the database and stores the value; the others get the old value
meanwhile. If it does not come back, the item expires as it would have. Choose two or three times as long as the
database takes. Items that live less than twice as long are left alone. Store with set: add finds the old item.
mg never gets an early miss, and of the clients of mg R and of get together one is chosen. gat gets the value, because
it lengthens the life of the item; after that, as after a touch, another early miss is due near the new end. A stale
item has no early miss. corecached_get_misses_total{reason=\"early\"} counts them.
The item remembers in its deadline whether it lives long enough; this takes one second from every other life.
";

const META: &str = "\
WIN, RECACHE, STALE, for clients of the meta commands (no rule is needed)
";

const NEGATIVE: &str = "\
NEGATIVE CACHING: remember that the database has nothing

corecached_repeated_miss_ratio, and \"stats prefixes\", show whether keys are missed again and again.
";

const END: &str = "\
loadtest stampede counts how often a database is asked with and without these.
";

/// The text of the page.
pub(super) fn page() -> String {
    let scripts = [
        (EARLY, include_str!("../../tests/it/clients/stampede_early.py")),
        (META, include_str!("../../tests/it/clients/stampede_meta.py")),
        (NEGATIVE, include_str!("../../tests/it/clients/stampede_negative.py")),
    ];
    let mut page = RULES.to_owned();
    for (text, script) in scripts {
        let shown = script.split(TEST).next().expect("a text has a first part");
        let _ = writeln!(page, "\n{text}");
        for line in shown.lines() {
            let _ = writeln!(page, "{}", format!("    {line}").trim_end());
        }
    }
    page + "\n" + END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_recipes_and_not_their_tests() {
        let page = page();
        assert_eq!(page.matches("def fetch(cache, key, ask_database):").count(), 3);
        assert!(!page.contains("the test of") && !page.contains("sys.argv"), "{page}");
        assert!(page.lines().all(|line| line.len() <= 124), "{page}");
    }
}
