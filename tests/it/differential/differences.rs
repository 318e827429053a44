//! The requests that memcached answers otherwise than corecached, and the replies that corecached must give, in a table
//! for each version. corecached follows the rules of 1.6.45, so its table has only the differences on purpose. The
//! table of 1.6.18 gives the replies of 1.6.45.
//!
//! A row names its requests as narrowly as possible, and tells how to find the right reply. For that, it asks memcached
//! another request or more requests. If the reply does not depend on stored items, it asks nothing. So a row excuses
//! nothing. The long run fails for a row that is never used.

use super::frame::{self, KEY_MAX, Request, WORDS_MAX};
use crate::server::Program;

/// Asks memcached something for a row that needs to know more.
pub(super) type Ask<'a> = &'a mut dyn FnMut(&[u8]) -> Vec<u8>;

pub(super) struct Difference {
    pub(super) reason: &'static str,
    pub(super) rule: Rule,
}

pub(super) enum Rule {
    /// The reply is this. The oracle does not ask memcached.
    Says(fn(&Request) -> Option<&'static str>),
    /// The oracle asks memcached this request instead. Later rows get the request as earlier rows changed it.
    Ask(fn(&Request, Ask<'_>) -> Option<Request>),
    /// Changes memcached's reply.
    Rewrite { applies: fn(&Request) -> bool, rewrite: fn(Vec<u8>) -> Vec<u8> },
    /// Changes memcached's reply. It also gets the request that memcached was asked. The oracle asks nothing else
    /// before.
    Look { applies: fn(&Request) -> bool, rewrite: fn(&Request, Vec<u8>, Ask<'_>) -> Vec<u8> },
}

use Rule::{Ask as AskInstead, Look, Rewrite, Says};

const ERROR: &str = "ERROR\r\n";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

/// Whether only one of this version and corecached has this name in `stats` or `stats settings`.
pub(super) fn is_of_one(oracle: Program, name: &str) -> bool {
    let mut rows = NAMES.iter().filter(|(_, reason)| oracle == Program::Memcached || *reason != SINCE);
    rows.any(|(names, _)| names.split(' ').any(|other| other == name))
}

/// Names of `stats` and `stats settings` that only one of the versions has, or only Debian's build.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("slab_reassign_evictions_nomem slab_reassign_busy_nomem", SINCE),
    ("slab_reassign_last_busy_status client_flags_size", SINCE),
    ("ext_item_size ext_item_age ext_low_ttl ext_recache_rate ext_wbuf_size", "Debian's has a disk tier"),
    ("ext_compact_under ext_drop_under ext_max_sleep ext_max_frag ext_drop_unread", "Debian's has a disk tier"),
    ("slab_automove_freeratio", "Debian's has a disk tier"),
    ("ssl_enabled ssl_chain_cert ssl_key ssl_verify_mode ssl_keyformat ssl_ciphers", "Debian's has TLS"),
    ("ssl_ca_cert ssl_wbuf_size ssl_session_cache ssl_kernel_tls ssl_min_version", "Debian's has TLS"),
    ("proxy_enabled proxy_uring_enabled", "Debian's 1.6.45 has a proxy"),
];

const SINCE: &str = "1.6.18 has another name for it, or does not have it yet";

/// The table of a version. The first row with `Says` that applies is the last one that the oracle reads.
pub(super) fn of(oracle: Program) -> &'static [Difference] {
    if oracle == Program::Newest { ON_PURPOSE } else { DIFFERENCES }
}

/// The differences from 1.6.45.
const ON_PURPOSE: &[Difference] = &[
    LONG_KEY,
    KEY_NOREPLY,
    Difference {
        reason: "1.6.45 executes mg before it complains of its opaque: md does not",
        rule: AskInstead(|request, _| {
            let long = request.command() == "mg" && request.flag(b'O').is_some_and(|opaque| opaque.len() > OPAQUE_MAX);
            long.then(|| Request::of(&[b"md", &request.line()[2..]].concat(), b""))
        }),
    },
    Difference {
        reason: "1.6.45 looks at the size of a value before it complains of the opaque: a short value stands for it",
        rule: AskInstead(|request, _| {
            let long = request.command() == "ms" && request.flag(b'O').is_some_and(|opaque| opaque.len() > OPAQUE_MAX);
            (long && request.rest().len() > VALUE_LARGE).then(|| {
                let mut words = request.words();
                words[2] = b"1";
                Request::of(&words.join(&b' '), b"x\r\n")
            })
        }),
    },
    Difference {
        reason: "where the number gets longer, 1.6.45 gives the number of E to the item that was: it makes one up itself",
        rule: AskInstead(|request, _| {
            let is_it = request.command() == "ma" && frame::is_u64(&request.flag(b'E')?[1..]);
            if is_it { replace_flag(request, b'E', |_| ignored(request)) } else { None }
        }),
    },
];

const KEY_NOREPLY: Difference = Difference {
    reason: "memcached takes the key of `delete noreply` for the word, and its client waits: a word more tells it apart",
    rule: AskInstead(|request, _| {
        let is_it = request.command() == "delete" && request.words()[1..] == [b"noreply"];
        is_it.then(|| Request::of(b"delete noreply 0", b""))
    }),
};

const LONG_KEY: Difference = Difference {
    reason: "memcached has fetched and touched what stands before a key that is too long: here, what is refused does nothing, and has no second line",
    rule: Says(|request| {
        let keys = match request.command() {
            "get" | "gets" => 1,
            "gat" | "gats" if frame::is_i32(request.words().get(1)?) => 2,
            _ => return None,
        };
        let mut words = request.line().split(|&byte| byte == b' ').filter(|word| !word.is_empty()).skip(keys);
        words.any(|key| key.len() > KEY_MAX).then_some(BAD_FORMAT)
    }),
};

/// The differences from 1.6.18.
const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "1.6.18 says ERROR to a line of less than three bytes before its newline",
        rule: Says(|request| (request.bytes.len() < 4).then_some(BAD_FORMAT)),
    },
    Difference {
        reason: "1.6.18 ends a line at a NUL: another byte stands for it, or nothing where it ends a number",
        rule: AskInstead(|request, _| {
            if !request.line().contains(&0) {
                return None;
            }
            let mut number = 0;
            let mut line = Vec::new();
            for word in request.line().split(|&byte| byte == b' ') {
                let ends_number = request.is_storage() && (number == 2 || number == 3);
                let len = word.iter().position(|&byte| byte == 0).filter(|&len| ends_number && len > 0);
                let kept = &word[..len.unwrap_or(word.len())];
                line.extend(kept.iter().map(|&byte| if byte == 0 { STANDS_FOR_NUL } else { byte }));
                line.push(b' ');
                number += usize::from(!word.is_empty());
            }
            line.pop();
            Some(Request::of(&line, request.rest()))
        }),
    },
    Difference {
        reason: "1.6.18 knows a browser by its first word, not by its last one",
        rule: AskInstead(|request, _| {
            // A damaged value takes the start of a `GET … HTTP/1.1` along. This line is the rest of it.
            let words = request.words();
            let is_rest = matches!(words[..], [b"ET" | b"T" | b"/", .., last] if last.starts_with(b"HTTP/"));
            is_rest.then(|| Request::of(b"GET / HTTP/1.1", b""))
        }),
    },
    Difference {
        reason: "1.6.18 takes no offence at spaces before a command on keys",
        rule: Says(|request| {
            let words = request.words();
            let command = str::from_utf8(words.first()?).ok()?;
            let refused = words_wanted(command) > 0 && command != "verbosity"
                || matches!(command, "mn" | "me" | "stats" | "version" | "quit" | "watch");
            (request.line()[0] == b' ' && refused).then_some(if request.noreply() { "" } else { ERROR })
        }),
    },
    Difference {
        reason: "1.6.18 says ERROR where a mandatory word is missing",
        rule: Says(|request| (request.words().len() < words_wanted(request.command())).then_some(BAD_FORMAT)),
    },
    Difference {
        reason: "1.6.18 honours noreply, and takes more for a number, where the length is none",
        rule: Says(|request| {
            let bad = request.is_storage() && frame::value_len(request.words()[4]).is_none();
            bad.then_some(BAD_FORMAT)
        }),
    },
    Difference {
        reason: "1.6.18 reads the value as a command where the rest of the line is wrong",
        rule: Says(|request| {
            let words = request.words();
            let wrong = request.is_storage()
                && (words[1].len() > KEY_MAX
                    || !frame::is_unsigned(words[2])
                    || !frame::is_signed(words[3])
                    || request.command() == "cas" && !words.get(5).is_some_and(|cas| frame::is_u64(cas)));
            wrong.then_some(if request.noreply() { "" } else { BAD_FORMAT })
        }),
    },
    Difference {
        reason: "1.6.18 says ERROR to surplus words",
        rule: AskInstead(|request, _| {
            let most = match request.command() {
                "cas" => 7,
                "set" | "add" | "replace" | "append" | "prepend" => 6,
                "incr" | "decr" | "touch" => 4,
                "flush_all" | "verbosity" | "cache_memlimit" => 3,
                _ => return None,
            };
            let words = request.words();
            let all = request.line().split(|&byte| byte == b' ').filter(|word| !word.is_empty()).count();
            (all > most).then(|| {
                let mut kept = words[..most - 1].to_vec();
                // Only the last word makes a request quiet. A `noreply` that becomes the last word must not do so.
                if !request.noreply() && kept.last() == Some(&&b"noreply"[..]) {
                    kept[most - 2] = b"x";
                }
                kept.extend(request.noreply().then_some(&b"noreply"[..]));
                Request::of(&kept.join(&b' '), request.rest())
            })
        }),
    },
    Difference {
        reason: "1.6.18 refuses words behind the key of a delete, but for a 0",
        rule: AskInstead(|request, _| {
            let mut kept = request.words();
            (request.command() == "delete" && kept.len() > 2).then(|| {
                kept.truncate(2);
                kept.extend(request.noreply().then_some(&b"noreply"[..]));
                Request::of(&kept.join(&b' '), b"")
            })
        }),
    },
    Difference {
        reason: "1.6.18 reads a verbosity as C does: what is no number stands for what is more than digits",
        rule: AskInstead(|request, _| {
            let mut words = request.words();
            let level = *words.get(1).filter(|_| request.command() == "verbosity")?;
            let plain = level.len() <= 11 && level.iter().all(u8::is_ascii_digit);
            let fits = plain && str::from_utf8(level).is_ok_and(|level| level.parse::<u32>().is_ok());
            (!fits && frame::is_unsigned(level)).then(|| {
                words[1] = b"x";
                Request::of(&words.join(&b' '), b"")
            })
        }),
    },
    Difference {
        reason: "1.6.18 takes no minus alone for a number: a 0 stands for it",
        rule: AskInstead(|request, _| {
            let at = match request.command() {
                "gat" | "gats" | "flush_all" => 1,
                "touch" | "ms" => 2,
                _ if request.is_storage() => 4,
                _ => return None,
            };
            let mut words = request.words();
            let is_alone = words.get(at) == Some(&&b"-"[..]);
            is_alone.then(|| {
                words[at] = b"0";
                Request::of(&words.join(&b' '), request.rest())
            })
        }),
    },
    Difference {
        reason: "1.6.18 takes more for a number in gat",
        rule: Says(|request| {
            let is_gat = matches!(request.command(), "gat" | "gats");
            (is_gat && !frame::is_i32(request.words()[1])).then_some("CLIENT_ERROR invalid exptime argument\r\n")
        }),
    },
    Difference {
        reason: "1.6.18 takes more for a number in incr, decr and touch: what is none stands for it",
        rule: AskInstead(|request, _| {
            let is_number = match request.command() {
                "incr" | "decr" => frame::is_u64,
                "touch" => frame::is_i32,
                _ => return None,
            };
            let mut words = request.words();
            let bad = words[2] != b"noreply" && !is_number(words[2]);
            words[2] = b"x";
            bad.then(|| Request::of(&words.join(&b' '), b""))
        }),
    },
    Difference {
        reason: "1.6.18 takes more for a number in the argument of a flag: what is none stands for it",
        rule: AskInstead(|request, _| {
            let bad = |letter: u8, is_number: fn(&[u8]) -> bool| {
                let argument = &request.flag(letter)?[1..];
                (argument == b"-" || !is_number(argument)).then_some(letter)
            };
            let signed = b"TNR".iter().find_map(|&letter| bad(letter, frame::is_i32));
            let unsigned = b"CEDJ".iter().find_map(|&letter| bad(letter, frame::is_u64));
            let letter = signed.or(unsigned).or_else(|| bad(b'F', frame::is_u32))?;
            let is_zero = b"TNR".contains(&letter) && request.flag(letter) == Some(&[letter, b'-']);
            replace_flag(request, letter, |_| vec![letter, if is_zero { b'0' } else { b'x' }])
        }),
    },
    Difference {
        reason: "1.6.18 has another complaint about a flag that is neither letter nor digit",
        rule: Says(|request| (request.is_meta() && !request.flags_have_letters()).then_some(BAD_FORMAT)),
    },
    Difference {
        reason: "1.6.18 takes more for the length of ms",
        rule: Says(|request| {
            let bad =
                request.command() == "ms" && request.words().get(2).is_some_and(|len| frame::value_len(len).is_none());
            bad.then_some(BAD_FORMAT)
        }),
    },
    Difference {
        reason: "1.6.18 takes one flag less: the last one is left out, as an earlier one is wrong",
        rule: AskInstead(|request, _| {
            let words = request.words();
            let most = request.is_meta() && request.command() != "me" && words.len() == META_WORDS_MAX;
            most.then(|| Request::of(&words[..META_WORDS_MAX - 1].join(&b' '), request.rest()))
        }),
    },
    KEY_NOREPLY,
    LONG_KEY,
    Difference {
        reason: "1.6.18 takes more for a number in flush_all",
        rule: Says(|request| {
            let words = request.words();
            let argument = words.get(1).filter(|_| words[0] == b"flush_all")?;
            let good = frame::is_i32(argument) || *argument == b"noreply" && words.len() == 2;
            let said = if request.noreply() { "" } else { "CLIENT_ERROR invalid exptime argument\r\n" };
            (!good).then_some(said)
        }),
    },
    Difference {
        reason: "1.6.18 has no window and no free ratio for the mover of pages",
        rule: Says(|request| {
            let is_it = matches!(
                request.words()[..],
                [b"slabs", b"automove", b"window", b"20", ..] | [b"slabs", b"automove", b"freeratio", b"0.1", ..]
            );
            is_it.then_some(if request.noreply() { "" } else { "OK\r\n" })
        }),
    },
    Difference {
        reason: "1.6.18 has other words for what the mover of pages does not understand",
        rule: Says(|request| {
            let words = request.words();
            if let [b"slabs", b"reassign", classes @ ..] = &words[..]
                && classes.len() == 2
                && classes.iter().all(|class| frame::strto(class).is_some())
                && !classes.iter().all(|class| frame::is_i32(class))
            {
                return Some(BAD_FORMAT);
            }
            let [b"slabs", b"automove", argument, rest @ ..] = &words[..] else { return None };
            let is_number = |word: &[u8]| str::from_utf8(word).is_ok_and(|word| word.parse::<f64>().is_ok());
            let said = match *argument {
                b"ratio" | b"window" => return None,
                b"freeratio" if rest.first().is_some_and(|ratio| is_number(ratio)) => return None,
                b"freeratio" => ERROR,
                level if level.len() <= 11 && level.iter().all(u8::is_ascii_digit) => return None,
                _ => BAD_FORMAT,
            };
            Some(if request.noreply() { "" } else { said })
        }),
    },
    Difference {
        reason: "1.6.18 answers shutdown even with noreply",
        rule: Says(|request| (request.words().first() == Some(&&b"shutdown"[..]) && request.noreply()).then_some("")),
    },
    Difference {
        reason: "1.6.18 says ERROR: shutdown",
        rule: Rewrite {
            applies: |request| request.words().first() == Some(&&b"shutdown"[..]),
            rewrite: |reply| {
                let is_it = reply == b"ERROR: shutdown not enabled\r\n";
                if is_it { b"SERVER_ERROR: shutdown not enabled\r\n".to_vec() } else { reply }
            },
        },
    },
    Difference {
        reason: "1.6.18 has other words for too many flags",
        rule: Says(|request| {
            let many = request.is_meta() && request.words().len() > META_WORDS_MAX;
            match request.command() {
                "ma" if many => Some("CLIENT_ERROR invalid or duplicate flag\r\n"),
                "mg" | "ms" | "md" if many && request.words()[1].len() <= KEY_MAX => {
                    Some("CLIENT_ERROR options flags are too long\r\n")
                }
                _ => None,
            }
        }),
    },
    Difference {
        reason: "1.6.18 has other words for a key that is too long in ma",
        rule: Says(|request| {
            let long = request.command() == "ma" && request.words()[1].len() > KEY_MAX;
            long.then_some("CLIENT_ERROR invalid or duplicate flag\r\n")
        }),
    },
    Difference {
        reason: "1.6.18 reads the value as a command where the key of ms is too long",
        rule: Says(|request| {
            let long = request.command() == "ms" && request.words()[1].len() > KEY_MAX;
            (long && !request.rest().is_empty()).then_some(BAD_FORMAT)
        }),
    },
    Difference {
        reason: "1.6.18 has no E: there it makes up the number itself",
        rule: AskInstead(|request, _| {
            replace_flag(request, b'E', |explicit| {
                if frame::is_unsigned(&explicit[1..]) {
                    return ignored(request);
                }
                // An `E` without a number fails like another flag without a number.
                let other = b"CTNR".iter().find(|letter| request.flag(**letter).is_none());
                vec![*other.unwrap_or(&b'C'), b'x']
            })
        }),
    },
    Difference {
        reason: "1.6.18 has no x; but for md it means nothing",
        rule: AskInstead(|request, _| replace_flag(request, b'x', |_| ignored(request))),
    },
    Difference {
        reason: "since 1.6.18 only the first byte of a mode counts",
        rule: AskInstead(|request, _| {
            let mode = request.flag(b'M').filter(|mode| mode.len() != 2)?.to_vec();
            replace_flag(request, b'M', |_| if mode.len() == 1 { b"M!".to_vec() } else { mode[..2].to_vec() })
        }),
    },
    Difference {
        reason: "1.6.18 takes a C in mg, and ignores it",
        rule: AskInstead(|request, ask| {
            let compare = request.flag(b'C').filter(|_| request.command() == "mg")?.to_vec();
            let compare = str::from_utf8(&compare[1..]).ok()?.parse::<u64>().ok()?;
            let found = meta_debug(request, ask);
            let cas = format!(" cas={compare} ");
            let withheld = found.windows(cas.len()).any(|bytes| bytes == cas.as_bytes());
            withheld.then(|| replace_flag(request, b'v', |_| ignored(request))).flatten()
        }),
    },
    Difference {
        reason: "1.6.18 has the same words for every mistake in md",
        rule: Look {
            applies: |request| request.command() == "md",
            rewrite: |asked, reply, ask| {
                if reply != b"CLIENT_ERROR invalid or duplicate flag\r\n" {
                    return reply;
                }
                ask(&[b"mg", &asked.bytes[2..]].concat())
            },
        },
    },
    Difference {
        reason: "1.6.18 has no N in ms: it makes nothing where nothing is",
        rule: Look {
            applies: |request| {
                let mode = request.flag(b'M').map(|mode| mode.get(1).copied());
                request.command() == "ms"
                    && request.flag(b'N').is_some()
                    && matches!(mode, Some(Some(b'A' | b'P' | b'a' | b'p')))
            },
            rewrite: |asked, reply, ask| {
                if !reply.starts_with(b"NS") || meta_debug(asked, ask) != b"EN\r\n" {
                    return reply;
                }
                let vivify = asked.flag(b'N').unwrap_or_default()[1..].to_vec();
                let without = |flag: &&&[u8]| !matches!(flag[0], b'N' | b'M' | b'T');
                let flags: Vec<&[u8]> = asked.flags().iter().filter(without).copied().collect();
                let words = asked.words();
                let line = [&words[..3].join(&b' ')[..], b" ", &flags.join(&b' ')[..], b" T", &vivify[..]].concat();
                ask(&Request::of(&line, asked.rest()).bytes)
            },
        },
    },
    Difference {
        reason: "1.6.18 has no s in ms",
        rule: Look {
            applies: |request| request.command() == "ms" && request.flag(b's').is_some(),
            rewrite: |asked, reply, ask| {
                let is_status = ["HD", "NS", "EX", "NF"].iter().any(|status| reply.starts_with(status.as_bytes()));
                if !is_status {
                    return reply;
                }
                let base64 = if asked.flag(b'b').is_some() { &b" b"[..] } else { b"" };
                // If the server did not store the item, it reports the size of the value that the client sent.
                let sent = format!("s{}", asked.rest().len() - 2);
                let longer =
                    reply.starts_with(b"HD") && matches!(asked.flag(b'M'), Some(b"MA" | b"MP" | b"Ma" | b"Mp"));
                let found = longer.then(|| ask(&[b"mg ", asked.words()[1], b" s u", base64, b"\r\n"].concat()));
                let found = found.as_deref().and_then(|found| found.strip_prefix(b"HD ")?.strip_suffix(b"\r\n"));
                let size = found.unwrap_or(sent.as_bytes());
                // The words of the reply stand in the order of the flags.
                let words_of = |flag: &&[u8]| match flag[0] {
                    b'O' | b'c' => 1,
                    b'k' if !base64.is_empty() => 2,
                    b'k' => 1,
                    _ => 0,
                };
                let flags = asked.flags();
                let before: usize = flags.iter().take_while(|flag| flag[0] != b's').map(words_of).sum();
                let mut words: Vec<&[u8]> = reply[..reply.len() - 2].split(|&byte| byte == b' ').collect();
                words.insert(1 + before, size);
                [&words.join(&b' ')[..], b"\r\n"].concat()
            },
        },
    },
    Difference {
        reason: "1.6.18 tells of what ma creates, even with q",
        rule: Rewrite {
            applies: |request| {
                request.command() == "ma" && request.flag(b'N').is_some() && request.flag(b'q').is_some()
            },
            rewrite: |reply| {
                let success = reply.starts_with(b"HD") || reply.starts_with(b"VA ");
                if success { Vec::new() } else { reply }
            },
        },
    },
    Difference {
        reason: "1.6.18 does not ask for one word more before it looks at b in me",
        rule: AskInstead(|request, _| {
            let words = request.words();
            let alone = request.command() == "me" && words.len() == 3 && words[2] == b"b";
            alone.then(|| Request::of(&words[..2].join(&b' '), b""))
        }),
    },
    Difference {
        reason: "1.6.18 wants the whole word after stats",
        rule: AskInstead(|request, _| {
            let words = request.words();
            let short = words.get(1).filter(|_| request.command() == "stats")?;
            let whole = ["reset", "detail", "settings", "cachedump", "conns"].into_iter();
            let word = whole.map(str::as_bytes).find(|word| word.starts_with(short) && word != short)?;
            Some(Request::of(&[&[&b"stats"[..], word], &words[2..]].concat().join(&b' '), b""))
        }),
    },
    Difference {
        reason: "1.6.18 answers an unknown command even with noreply",
        rule: Rewrite {
            applies: |request| {
                let known = words_wanted(request.command()) > 0 || matches!(request.command(), "stats" | "watch");
                request.noreply() && !known
            },
            rewrite: |reply| if reply == ERROR.as_bytes() { Vec::new() } else { reply },
        },
    },
    Difference {
        reason: "1.6.18 shows the time left with the wrong sign in me",
        rule: Rewrite {
            applies: |request| request.command() == "me",
            rewrite: |reply| {
                let at = reply.windows(6).position(|bytes| bytes == b" exp=-").map(|at| at + 5);
                match at {
                    Some(at) if !reply[at..].starts_with(b"-1 ") => [&reply[..at], &reply[at + 1..]].concat(),
                    _ => reply,
                }
            },
        },
    },
    Difference {
        reason: "1.6.18 is not 1.6.45",
        rule: Rewrite {
            applies: |request| request.command() == "version",
            rewrite: |reply| {
                if reply == b"VERSION 1.6.18\r\n" { b"VERSION 1.6.45\r\n".to_vec() } else { reply }
            },
        },
    },
    Difference {
        reason: "1.6.18 ends a line at a NUL: back from the byte that stood for it",
        rule: Rewrite {
            applies: |request| request.line().contains(&0),
            rewrite: |reply| {
                let back = |byte| if byte == STANDS_FOR_NUL { 0 } else { byte };
                reply.into_iter().map(back).collect()
            },
        },
    },
];

/// A value that is too large for the cache has more bytes than this.
const VALUE_LARGE: usize = 1_000_000;

/// Longest opaque, with its letter.
pub(super) const OPAQUE_MAX: usize = 32;

/// Most words of a meta command.
const META_WORDS_MAX: usize = 20;

/// The oracle sends this byte to 1.6.18 in place of a NUL. No key and no value contains it.
pub(super) const STANDS_FOR_NUL: u8 = 0x7f;

/// What 1.6.18 replies to `me` with the key of a meta command. This changes nothing in memcached.
fn meta_debug(request: &Request, ask: Ask<'_>) -> Vec<u8> {
    let base64 = if request.flag(b'b').is_some() { &b" b"[..] } else { b"" };
    ask(&[b"me ", request.words()[1], base64, b"\r\n"].concat())
}

/// The least number of words of a command on keys, and 0 for other commands.
fn words_wanted(command: &str) -> usize {
    match command {
        "get" | "gets" | "delete" | "verbosity" | "mg" | "md" | "ma" | "ms" => 2,
        "gat" | "gats" | "incr" | "decr" | "touch" => 3,
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => 5,
        _ => 0,
    }
}

/// A flag without meaning that the request does not have yet. Empty if the request has all of them.
fn ignored(request: &Request) -> Vec<u8> {
    let letter = b"PL".iter().find(|letter| request.flag(**letter).is_none());
    letter.copied().into_iter().collect()
}

/// The request with each flag of this letter replaced by the result of `other`, which may be empty. `None` if the
/// request has no such flag.
fn replace_flag(request: &Request, letter: u8, other: impl Fn(&[u8]) -> Vec<u8>) -> Option<Request> {
    if !request.is_meta() || request.flag(letter).is_none() {
        return None;
    }
    let first_flag = request.words().len() - request.flags().len();
    let all = request.line().split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let words: Vec<Vec<u8>> = all
        .enumerate()
        .map(|(index, word)| {
            let is_it = (first_flag..WORDS_MAX).contains(&index) && word[0] == letter;
            if is_it { other(word) } else { word.to_vec() }
        })
        .filter(|word| !word.is_empty())
        .collect();
    Some(Request::of(&words.join(&b' '), request.rest()))
}
