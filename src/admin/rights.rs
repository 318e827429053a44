//! The rights that commands for the whole server need (`--users`).
//!
//! Everybody may `quit`, and ask for the `version` and the nodes. Statistics without keys need *read* or *admin*. Who may
//! write a prefix may flush it. Everything else needs *admin*, also what this list does not know.

use super::line::means;
use crate::auth::user::{Rights, User};
use crate::protocol::administration::AdminCommand;
use crate::protocol::binary;
use crate::protocol::encode::Output;
use crate::protocol::packet::{self, HEADER_LEN, Head, Header, Status, opcode};
use crate::protocol::token::Tokens;

/// Statistics without keys. `settings` and `conns` may be cut short.
const KEYLESS: &[&[u8]] = &[b"items", b"slabs", b"sizes", b"udp", b"uploads", b"leases", b"latency", b"evictions"];

/// What a user may do with a command for the whole server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The command is executed.
    Allowed,
    /// It is refused.
    Refused,
    /// It is a `flush_all` of a user with prefixes that may write but is no admin: it concerns the user's keys alone.
    OwnKeys,
}

/// Judges a command line. `delimiter` is the one of `-D`.
pub fn judge(line: &[u8], user: &User, delimiter: u8) -> Verdict {
    let tokens = Tokens::new(line);
    let Some((&word, arguments)) = tokens.all().split_first() else { return Verdict::Allowed };
    let is_allowed = match AdminCommand::named(word) {
        Some(AdminCommand::Quit | AdminCommand::Version | AdminCommand::Config) => true,
        Some(AdminCommand::Stats) => may_see(arguments, user, delimiter),
        Some(AdminCommand::FlushAll) => return judge_flush(user),
        Some(AdminCommand::FlushPrefix) => may_flush(arguments, user, delimiter),
        // With `-o flush_prefix_key`. The key was judged as those of other commands.
        None if matches!(word, b"delete" | b"md") => user.rights.have(Rights::WRITE),
        _ => user.rights.have(Rights::ADMIN),
    };
    if is_allowed { Verdict::Allowed } else { Verdict::Refused }
}

/// Judges a packet, as [`judge`] a line.
pub fn judge_packet(packet: &[u8], user: &User, delimiter: u8) -> Verdict {
    let header = header(packet);
    let is_allowed = match header.opcode {
        opcode::VERSION | opcode::SASL_LIST | opcode::SASL_AUTH | opcode::SASL_STEP => true,
        opcode::FLUSH | opcode::FLUSHQ => return judge_flush(user),
        opcode::DELETE | opcode::DELETEQ => user.rights.have(Rights::WRITE),
        opcode::STAT => {
            let key = &packet[HEADER_LEN..];
            let words: Vec<&[u8]> = key.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
            // A word may go on behind its end here.
            may_see(if key.starts_with(b"settings") { &[b"settings"] } else { &words }, user, delimiter)
        }
        _ => user.rights.have(Rights::ADMIN),
    };
    if is_allowed { Verdict::Allowed } else { Verdict::Refused }
}

fn judge_flush(user: &User) -> Verdict {
    if user.rights.have(Rights::ADMIN) {
        Verdict::Allowed
    } else if user.rights.have(Rights::WRITE) && !user.prefixes.is_empty() {
        Verdict::OwnKeys
    } else {
        Verdict::Refused
    }
}

/// Whether a user may flush a prefix, the first argument.
fn may_flush(arguments: &[&[u8]], user: &User, delimiter: u8) -> bool {
    let prefix = [arguments.first().copied().unwrap_or_default(), &[delimiter]].concat();
    user.rights.have(Rights::ADMIN) || user.rights.have(Rights::WRITE) && user.owns(&prefix)
}

/// Whether a user may see statistics.
fn may_see(arguments: &[&[u8]], user: &User, delimiter: u8) -> bool {
    if let [b"flush_prefix", arguments @ ..] = arguments {
        return may_flush(arguments, user, delimiter);
    }
    let is_keyless = match arguments.first() {
        None => true,
        // `stats c` is `stats cachedump`.
        Some(word) => {
            KEYLESS.contains(word) || means(word, "settings") || means(word, "conns") && !means(word, "cachedump")
        }
    };
    user.rights.have(Rights::ADMIN) || is_keyless && user.rights.have(Rights::READ)
}

/// The refusal of a command line, which `noreply` hides as it hides other replies.
pub fn refusal(line: &[u8]) -> &'static [u8] {
    let tokens = Tokens::new(line);
    let word = tokens.all().first().and_then(|word| AdminCommand::named(word));
    let always_replies = matches!(word, Some(AdminCommand::Stats | AdminCommand::Watch | AdminCommand::RefreshCerts));
    if tokens.noreply() && !always_replies { b"" } else { b"CLIENT_ERROR access denied\r\n" }
}

/// The refusal of a packet.
pub fn packet_refusal(packet: &[u8]) -> Vec<u8> {
    let Header { opcode, opaque, .. } = header(packet);
    let mut out = Output::default();
    packet::failure(&mut out, Head { opcode, opaque }, Status::AUTH_ERROR);
    out.take()
}

fn header(packet: &[u8]) -> Header {
    debug_assert_eq!(packet.first(), Some(&binary::REQUEST));
    packet.first_chunk().and_then(Header::read).expect("the parser has read this header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::directory::Directory;
    use crate::auth::file;
    use std::sync::Arc;

    fn user(words: &str) -> Arc<User> {
        let line = format!("u - {words} tls-name=x");
        let users = Directory::new(file::read(line.as_bytes()).expect("a good file")).expect("random bytes");
        users.named("u").expect("a user")
    }

    #[track_caller]
    fn check(line: &str, [reads, writes, admins]: [bool; 3]) {
        for (words, expected) in [("read", reads), ("write", writes), ("admin", admins)] {
            assert_eq!(judge(line.as_bytes(), &user(words), b':') == Verdict::Allowed, expected, "{line}: {words}");
        }
    }

    #[test]
    fn commands_for_the_server_need_admin() {
        for line in ["version", "quit"] {
            check(line, [true; 3]);
        }
        for line in [
            "stats",
            "stats items",
            "stats slabs",
            "stats s",
            "stats settings",
            "stats conns",
            "stats co",
            "stats sizes",
            "stats latency histogram",
            "stats evictions",
            "stats udp",
            "stats uploads",
            "stats leases",
        ] {
            check(line, [true, false, true]);
        }
        for line in [
            "stats reset",
            "stats r",
            "stats detail dump",
            "stats d",
            "stats cachedump 1 1",
            "stats c 1 1",
            "stats hotkeys",
            "stats bigkeys",
            "stats slow",
            "stats prefixes",
            "stats anything",
            "flush_all",
            "flush_all 10",
            "verbosity 1",
            "cache_memlimit 100",
            "shutdown",
            "slabs automove 0",
            "lru mode flat",
            "lru_crawler metadump all",
            "watch",
            "lru_crawler mgdump hash",
            "refresh_certs",
            "debugtime p",
            "misbehave",
        ] {
            check(line, [false, false, true]);
        }
    }

    #[test]
    fn a_user_with_prefixes_flushes_its_own_keys() {
        for (words, expected) in [
            ("read prefix=a:", Verdict::Refused),
            ("read write prefix=a:", Verdict::OwnKeys),
            ("read write", Verdict::Refused),
            ("write admin prefix=a:", Verdict::Allowed),
        ] {
            assert_eq!(judge(b"flush_all 10 noreply", &user(words), b':'), expected, "{words}");
            let mut packet = [0; HEADER_LEN];
            (packet[0], packet[1]) = (binary::REQUEST, opcode::FLUSHQ);
            assert_eq!(judge_packet(&packet, &user(words), b':'), expected, "{words}");
        }
    }

    #[test]
    fn who_may_write_a_prefix_may_flush_it() {
        for (words, [own, deeper, other]) in [
            ("read", [false; 3]),
            ("write", [true; 3]),
            ("admin", [true; 3]),
            ("write prefix=a:", [true, true, false]),
            ("write prefix=a:x", [false, false, false]),
            ("read prefix=a:", [false; 3]),
        ] {
            for (prefix, expected) in [("a", own), ("a:", own), ("a:b", deeper), ("ab", other), ("", other)] {
                for line in [format!("flush_prefix {prefix} stale"), format!("stats flush_prefix {prefix}")] {
                    let verdict = judge(line.as_bytes(), &user(words), b':');
                    let expected = if prefix.is_empty() { words == "admin" || words == "write" } else { expected };
                    assert_eq!(verdict == Verdict::Allowed, expected, "{line}: {words}");
                }
            }
        }
    }

    #[test]
    fn statistics_in_packets_need_the_same_rights() {
        for (key, reads) in [
            ("", true),
            ("items", true),
            ("settings", true),
            ("settingsx", true),
            ("reset", false),
            ("resetx", false),
            ("detail dump", false),
            ("other", false),
        ] {
            let mut packet = vec![0; HEADER_LEN];
            (packet[0], packet[1]) = (binary::REQUEST, opcode::STAT);
            packet.extend_from_slice(key.as_bytes());
            assert_eq!(judge_packet(&packet, &user("read"), b':') == Verdict::Allowed, reads, "{key}");
            assert_eq!(judge_packet(&packet, &user("admin"), b':'), Verdict::Allowed, "{key}");
        }
    }

    #[test]
    fn noreply_hides_a_refusal() {
        assert_eq!(refusal(b"flush_all noreply"), b"");
        assert_eq!(refusal(b"flush_all"), b"CLIENT_ERROR access denied\r\n");
        assert_eq!(refusal(b"stats reset noreply"), b"CLIENT_ERROR access denied\r\n");
    }
}
