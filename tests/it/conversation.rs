//! Conversations as data: requests and the replies that must come. The function `check` compares a server's replies
//! with them.
//!
//! ```text
//! # a comment
//! --- a title                  start a new conversation, with a fresh server and a fresh connection
//! @flags -m 8 -F               give the server these flags, besides those of the run
//! @users foo:bar | a:b         start the server with `-Y` and a file of these lines
//! @only corecached 1.6.45      run this only with these of corecached, memcached 1.6.18 and memcached 1.6.45
//! @feature debug-commands      run this only if the program is built with this feature
//! > get a                      send a line and its \r\n; the test sends successive lines in one write
//! >- get a\n                   send just these bytes
//! < END                        expect exactly this line and its \r\n
//! <- END\n                     expect exactly these bytes
//! <n key=a                     expect exactly this line, which ends in \n without \r
//! <~ STAT get_hits 1           skip `STAT` lines until this one
//! = closed                     expect the server to close the connection
//! = nothing                    expect no reply; the next reply proves that none came
//! >p get key=a                 send a packet of the binary protocol, in the words of `packet.rs`
//! <p get flags=0 val=x cas=<N> expect exactly this packet
//! <~p stat key=get_hits val=1  skip `stat` packets until this one
//! @differs 1.6.18 has no x     in the next exchange memcached 1.6.18 or 1.6.45 replies otherwise, for this reason
//! @differs memcached does y    the same for both versions
//! <m END                       memcached's reply instead of all `<` of this exchange; also <m- <mn <m~ <mp =m
//! ```
//!
//! ` | ` ends a line and begins the next, in requests and replies: `> set a 0 0 1 | 5`, `< VALUE a 0 1 | 5 | END`. `@`
//! lines before the first title hold for the whole file. After each conversation the test sends `mn`, or a noop if the
//! conversation ended with a packet. So it finds a surplus reply even in the last exchange.
//!
//! In requests and replies, `\r \n \0 \t \\ \{ \< \xNN` are escapes, `{a*251}` is 251 times `a`, and `${name}` is a
//! variable. In replies, `<N>` is any number, `<name>` is a number that becomes the variable `name`, and `<*>` is
//! anything. `<98..100>` is a number in this range, for a number that a passing second may change.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::client::{Client, Silence, shown};
use crate::packet::{self, Packet, Words};
use crate::server::{Program, Server, TemporaryFile};

/// Reads the conversations of `file` and runs each of them with `program` and `flags`. Panics if a reply differs. The
/// message lists every conversation that differs.
pub(crate) fn check(file: &str, text: &str, program: Program, flags: &[&str]) {
    let conversations = parse(file, text);
    let failures: Vec<String> = conversations
        .iter()
        .filter(|conversation| conversation.only.is_empty() || conversation.only.contains(&program))
        .filter(|conversation| conversation.feature.as_deref().is_none_or(feature_is_built))
        .filter_map(|conversation| hold(file, conversation, program, flags).err())
        .collect();
    assert!(failures.is_empty(), "{} conversations failed\n\n{}", failures.len(), failures.join("\n"));
}

/// Whether the programs are built with this Cargo feature.
fn feature_is_built(name: &str) -> bool {
    match name {
        "debug-commands" => cfg!(feature = "debug-commands"),
        _ => panic!("no such feature: {name}"),
    }
}

/// One title and the lines up to the next title.
#[derive(Clone, Debug, Default)]
struct Conversation {
    title: String,
    flags: Vec<String>,
    /// The lines of the file for `-Y`. `None`: the server has no such file.
    users: Option<Vec<String>>,
    /// The programs to run the conversation with. Empty: all programs.
    only: Vec<Program>,
    feature: Option<String>,
    exchanges: Vec<Exchange>,
}

/// Successive sends, and the successive expectations that follow them.
#[derive(Clone, Debug, Default)]
struct Exchange {
    /// The programs that reply otherwise than corecached.
    differing: &'static [Program],
    sends: Vec<Send>,
    expected: Vec<Expected>,
    /// The replies of these programs. Invariant: empty if and only if `differing` is.
    expected_of_memcached: Vec<Expected>,
}

#[derive(Clone, Debug)]
struct Send {
    line: usize,
    text: String,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Line,
    Bytes,
    Packet,
}

#[derive(Clone, Debug)]
struct Expected {
    line: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Line(String),
    NewlineOnly(String),
    Bytes(String),
    Until(String),
    Packet(String),
    UntilPacket(String),
    Closed,
    Nothing,
}

/// Reads a file of conversations. A line that has none of the forms above fails the test.
fn parse(file: &str, text: &str) -> Vec<Conversation> {
    let mut whole_file = Conversation::default();
    let mut conversations: Vec<Conversation> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let wrong = |why: &str| -> ! { panic!("{file}:{number}: {why}: {line:?}") };
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if mark == "---" {
            conversations.push(Conversation { title: rest.to_owned(), ..whole_file.clone() });
            continue;
        }
        let current = match conversations.last_mut() {
            Some(current) => current,
            None if mark.starts_with('@') => &mut whole_file,
            None => wrong("an exchange before the first title"),
        };
        match mark {
            "@flags" => current.flags.extend(rest.split_whitespace().map(str::to_owned)),
            "@users" => current.users = Some(rest.split(" | ").map(str::to_owned).collect()),
            "@feature" => current.feature = Some(rest.to_owned()),
            "@only" => {
                let programs = rest.split_whitespace().map(|name| match name {
                    "corecached" => Program::Corecached,
                    "1.6.18" => Program::Memcached,
                    "1.6.45" => Program::Newest,
                    _ => wrong("no such program"),
                });
                current.only = programs.collect();
            }
            "@differs" => {
                let differing: &[Program] = match rest.split_once(' ').map(|(subject, _)| subject) {
                    Some("1.6.18") => &[Program::Memcached],
                    Some("1.6.45") => &[Program::Newest],
                    Some("memcached") => &[Program::Memcached, Program::Newest],
                    _ => wrong("who differs, and how"),
                };
                current.exchanges.push(Exchange { differing, ..Exchange::default() });
            }
            ">" | ">-" | ">p" => {
                let goes_on = current.exchanges.last().is_some_and(|exchange| exchange.expected.is_empty());
                if !goes_on {
                    current.exchanges.push(Exchange::default());
                }
                let exchange = current.exchanges.last_mut().expect("there is one now");
                let form = match mark {
                    ">" => Form::Line,
                    ">-" => Form::Bytes,
                    _ => Form::Packet,
                };
                let texts: Vec<&str> = if form == Form::Bytes { vec![rest] } else { rest.split(" | ").collect() };
                let send = |&text: &&str| Send { line: number, text: text.to_owned(), form };
                exchange.sends.extend(texts.iter().map(send));
            }
            _ => {
                let Some(exchange) = current.exchanges.last_mut().filter(|exchange| !exchange.sends.is_empty()) else {
                    wrong("an expectation before anything is sent");
                };
                let of_memcached = mark.as_bytes().get(1) == Some(&b'm');
                let what = match mark.replacen('m', "", 1).as_str() {
                    "<" => rest.split(" | ").map(|line| What::Line(line.to_owned())).collect(),
                    "<-" => vec![What::Bytes(rest.to_owned())],
                    "<n" => vec![What::NewlineOnly(rest.to_owned())],
                    "<~" => vec![What::Until(rest.to_owned())],
                    "<p" => rest.split(" | ").map(|packet| What::Packet(packet.to_owned())).collect(),
                    "<~p" => vec![What::UntilPacket(rest.to_owned())],
                    "=" if rest == "closed" => vec![What::Closed],
                    "=" if rest == "nothing" => vec![What::Nothing],
                    _ => wrong("not a line of a conversation"),
                };
                let expected = what.into_iter().map(|what| Expected { line: number, what });
                if of_memcached {
                    exchange.expected_of_memcached.extend(expected);
                } else {
                    exchange.expected.extend(expected);
                }
            }
        }
    }
    for conversation in &conversations {
        for exchange in &conversation.exchanges {
            let place = exchange.sends.first().map_or(0, |send| send.line);
            let has_other = !exchange.expected_of_memcached.is_empty();
            assert!(has_other != exchange.differing.is_empty(), "{file}:{place}: `<m` and `@differs` come together");
            assert!(!exchange.expected.is_empty(), "{file}:{place}: nothing is expected of corecached");
        }
    }
    conversations
}

/// Runs one conversation with a fresh server. `Err` is the message about the first difference.
fn hold(file: &str, conversation: &Conversation, program: Program, flags: &[&str]) -> Result<(), String> {
    let mut all_flags = flags.to_vec();
    all_flags.extend(conversation.flags.iter().map(String::as_str));
    let users = conversation.users.as_ref().map(|lines| TemporaryFile::new(&(lines.join("\n") + "\n")));
    if let Some(file) = &users {
        all_flags.extend(["-Y", file.path()]);
    }
    let mut server = Server::on_unix_socket(program, &all_flags);
    let mut client = server.client();
    let mut variables = BTreeMap::new();
    let mut closed = false;

    for exchange in &conversation.exchanges {
        let mut request = Vec::new();
        for send in &exchange.sends {
            let place = format!("{file}:{}", send.line);
            match send.form {
                Form::Line => request.extend([expand(&place, &send.text, &variables), b"\r\n".to_vec()].concat()),
                Form::Bytes => request.extend(expand(&place, &send.text, &variables)),
                Form::Packet => request.extend(Words::of(&send.text).request(|text| expand(&place, text, &variables))),
            }
        }
        let differs = exchange.differing.contains(&program);
        let expectations = if differs { &exchange.expected_of_memcached } else { &exchange.expected };
        // A thread sends while this one reads, because a server need not read as long as nobody reads its replies. The
        // server may also close before it has read everything. The replies that it sent before still count.
        let mut sender = client.second_handle();
        let bytes = request.clone();
        let sent = std::thread::spawn(move || sender.try_send(&bytes));

        for expected in expectations {
            closed |= matches!(expected.what, What::Closed);
            let place = format!("{file}:{}", expected.line);
            meet(&place, &expected.what, &mut client, &mut variables).map_err(|(wanted, got)| {
                let mut message = String::new();
                let _ = writeln!(message, "{place}: {} ({program:?} {})", conversation.title, all_flags.join(" "));
                let _ = writeln!(message, "  sent      {}", shown(&request));
                let _ = writeln!(message, "  expected  {wanted}");
                let _ = writeln!(message, "  got       {got}");
                message + &last_words(&mut server)
            })?;
        }
        // The thread sends all of the request before the next exchange begins, unless the connection has ended.
        let _ = sent.join().expect("sending does not panic");
    }
    if !closed {
        // A surplus reply comes before the reply to this request.
        let sends = conversation.exchanges.iter().flat_map(|exchange| &exchange.sends);
        let last = match sends.last().map(|send| send.form) {
            Some(Form::Packet) => {
                let _ = client.try_send(&packet::request("noop"));
                let place = format!("{file}: the noop at the end");
                meet(&place, &What::Packet("noop".to_owned()), &mut client, &mut variables).map_err(|(_, got)| got)
            }
            _ => {
                let _ = client.try_send(b"mn\r\n");
                let line = client.line();
                if line == Ok(b"MN\r\n".to_vec()) { Ok(()) } else { Err(read(line, &client)) }
            }
        };
        if let Err(got) = last {
            return Err(format!(
                "{file}: after the end of \"{}\" ({program:?} {}), nothing was expected\n  got       {got}\n",
                conversation.title,
                all_flags.join(" ")
            ));
        }
    }
    Ok(())
}

/// The server's latest output, and its exit status if it has ended, for a failure message.
fn last_words(server: &mut Server) -> String {
    let mut words = server.ended().map_or(String::new(), |status| format!("  ended     {status}\n"));
    let printed = server.printed();
    let lines: Vec<&str> = printed.lines().rev().take(10).collect();
    lines.iter().rev().for_each(|line| words.push_str(&format!("  printed   {line}\n")));
    words
}

type Variables = BTreeMap<String, String>;

/// Reads the reply for one expectation. `Err` has the expected and the actual reply in readable form.
fn meet(place: &str, what: &What, client: &mut Client, variables: &mut Variables) -> Result<(), (String, String)> {
    match what {
        What::Nothing => Ok(()),
        What::Closed => match client.bytes(1) {
            Err(Silence::Closed) => Ok(()),
            other => Err(("the end of the connection".to_owned(), read(other, client))),
        },
        What::Bytes(text) => {
            let wanted = expand(place, text, variables);
            match client.bytes(wanted.len()) {
                Ok(got) if got == wanted => Ok(()),
                other => Err((shown(&wanted), read(other, client))),
            }
        }
        What::Line(text) => match client.line() {
            Ok(line) if matches_line(place, text, &line, variables) => Ok(()),
            other => Err((format!("\"{text}\\r\\n\""), read(other, client))),
        },
        What::NewlineOnly(text) => match client.line() {
            Ok(line) if matches_text(place, text, line.strip_suffix(b"\n").unwrap_or(&line), variables) => Ok(()),
            other => Err((format!("\"{text}\\n\""), read(other, client))),
        },
        What::Packet(text) => match Packet::receive(client) {
            Ok(Ok(packet)) if matches_packet(place, text, &packet, variables) => Ok(()),
            Ok(Ok(packet)) => Err((text.clone(), packet.shown())),
            Ok(Err(bytes)) => Err((text.clone(), shown(&bytes))),
            Err(silence) => Err((text.clone(), read(Err(silence), client))),
        },
        What::UntilPacket(text) => loop {
            match Packet::receive(client) {
                Ok(Ok(packet)) if matches_packet(place, text, &packet, variables) => return Ok(()),
                Ok(Ok(packet)) if packet.opcode == Words::of("stat").opcode && !packet.key.is_empty() => {}
                Ok(Ok(packet)) => return Err((format!("among others, {text}"), packet.shown())),
                Ok(Err(bytes)) => return Err((format!("among others, {text}"), shown(&bytes))),
                Err(silence) => return Err((format!("among others, {text}"), read(Err(silence), client))),
            }
        },
        What::Until(text) => loop {
            match client.line() {
                Ok(line) if matches_line(place, text, &line, variables) => return Ok(()),
                Ok(line) if line.starts_with(b"STAT ") => {}
                other => return Err((format!("among others, \"{text}\\r\\n\""), read(other, client))),
            }
        },
    }
}

/// The bytes that came instead, or the reason why none came.
fn read(got: Result<Vec<u8>, Silence>, client: &Client) -> String {
    match got {
        Ok(bytes) => shown(&bytes),
        Err(Silence::Closed) if client.pending().is_empty() => "the end of the connection".to_owned(),
        Err(Silence::TimedOut) if client.pending().is_empty() => "no answer".to_owned(),
        Err(silence) => format!("{} and then {silence:?}", shown(client.pending())),
    }
}

/// Replaces the escapes, repetitions and variables of `text` by their values.
fn expand(place: &str, text: &str, variables: &Variables) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces(place, text, variables) {
        match piece {
            Piece::Literal(literal) => bytes.extend(literal),
            _ => panic!("{place}: a placeholder in what is sent: {text:?} (a literal `<` is `\\<`)"),
        }
    }
    bytes
}

/// A part of a pattern.
#[derive(Debug)]
enum Piece {
    Literal(Vec<u8>),
    Number,
    Capture(String),
    Range(u64, u64),
    Anything,
}

fn pieces(place: &str, text: &str, variables: &Variables) -> Vec<Piece> {
    let wrong = |why: &str| -> ! { panic!("{place}: {why} in {text:?}") };
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let (byte, length) = escape(after).unwrap_or_else(|| wrong("an unknown escape"));
                literal.push(byte);
                rest = &after[length..];
            }
            '{' => {
                let (inside, behind) = after.split_once('}').unwrap_or_else(|| wrong("a `{` without its `}`"));
                let (what, times) = inside.rsplit_once('*').unwrap_or_else(|| wrong("a repetition without `*`"));
                let times: usize = times.parse().unwrap_or_else(|_| wrong("a repetition without a number"));
                literal.extend(expand(place, what, variables).repeat(times));
                rest = behind;
            }
            '$' if after.starts_with('{') => {
                let (name, behind) = after[1..].split_once('}').unwrap_or_else(|| wrong("a `${` without its `}`"));
                let value = variables.get(name).unwrap_or_else(|| wrong("a variable nobody has set"));
                literal.extend(value.bytes());
                rest = behind;
            }
            '<' => {
                let (inside, behind) = after.split_once('>').unwrap_or_else(|| wrong("a `<` without its `>`"));
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                pieces.push(match inside {
                    "N" => Piece::Number,
                    "*" => Piece::Anything,
                    name if name.bytes().all(|byte| byte.is_ascii_lowercase()) => Piece::Capture(name.to_owned()),
                    range => match range.split_once("..").map(|(low, high)| (low.parse(), high.parse())) {
                        Some((Ok(low), Ok(high))) => Piece::Range(low, high),
                        _ => wrong("an unknown placeholder"),
                    },
                });
                rest = behind;
            }
            _ => {
                literal.extend(rest[..first.len_utf8()].bytes());
                rest = after;
            }
        }
    }
    pieces.push(Piece::Literal(literal));
    pieces
}

/// The byte that an escape stands for, and the number of characters that the escape has after the backslash.
fn escape(text: &str) -> Option<(u8, usize)> {
    let byte = match text.as_bytes().first()? {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'x' => return u8::from_str_radix(text.get(1..3)?, 16).ok().map(|byte| (byte, 3)),
        literal @ (b'\\' | b'{' | b'<' | b'$') => *literal,
        _ => return None,
    };
    Some((byte, 1))
}

/// Whether `line` is `text` and `\r\n`. If it is, the function stores its captures as variables.
fn matches_line(place: &str, text: &str, line: &[u8], variables: &mut Variables) -> bool {
    line.strip_suffix(b"\r\n").is_some_and(|line| matches_text(place, text, line, variables))
}

fn matches_text(place: &str, text: &str, line: &[u8], variables: &mut Variables) -> bool {
    let pieces = pieces(place, text, variables);
    let mut captured = Vec::new();
    let matched = matches_pieces(&pieces, line, &mut captured);
    if matched {
        variables.extend(captured);
    }
    matched
}

/// Whether a packet is the one that the words describe. If it is, the function stores its captures as variables.
fn matches_packet(place: &str, text: &str, packet: &Packet, variables: &mut Variables) -> bool {
    let words = Words::of(text);
    let value = match words.number("num") {
        Some(number) => vec![Piece::Literal(number.to_be_bytes().to_vec())],
        None => pieces(place, words.get("val").unwrap_or(words.message()), variables),
    };
    let cas = pieces(place, words.get("cas").unwrap_or("0"), variables);
    let key = expand(place, words.get("key").unwrap_or(""), variables);
    let mut captured = Vec::new();
    let matched = packet.opcode == words.opcode
        && u64::from(packet.status) == words.number("status").unwrap_or(0)
        && packet.extras == words.extras()
        && packet.key == key
        && u64::from(packet.opaque) == words.number("opaque").unwrap_or(packet::OPAQUE.into())
        && matches_pieces(&value, &packet.value, &mut captured)
        && matches_pieces(&cas, packet.cas.to_string().as_bytes(), &mut captured);
    if matched {
        variables.extend(captured);
    }
    matched
}

fn matches_pieces(pieces: &[Piece], line: &[u8], captured: &mut Vec<(String, String)>) -> bool {
    let Some((first, others)) = pieces.split_first() else { return line.is_empty() };
    if let Piece::Literal(literal) = first {
        return line.strip_prefix(literal.as_slice()).is_some_and(|rest| matches_pieces(others, rest, captured));
    }
    if matches!(first, Piece::Anything) {
        return (0..=line.len()).any(|length| matches_pieces(others, &line[length..], captured));
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = line.split_at(digits);
    let number = String::from_utf8_lossy(number).into_owned();
    let Ok(value) = number.parse::<u64>() else { return false };
    match first {
        Piece::Capture(name) => captured.push((name.clone(), number)),
        Piece::Range(low, high) if !(low..=high).contains(&&value) => return false,
        _ => {}
    }
    matches_pieces(others, rest, captured)
}

#[test]
fn the_format_understands_itself() {
    let mut variables = Variables::from([("cas".to_owned(), "17".to_owned())]);
    assert_eq!(expand("here", r"a\r\n\0\x41{ab*3}${cas}\{\<", &variables), b"a\r\n\0Aababab17{<");
    assert!(matches_line("here", "VALUE <N> <new> <98..100> <*>!", b"VALUE 1 23 99 x y!\r\n", &mut variables));
    assert_eq!(variables["new"], "23");
    for (pattern, line) in [
        ("END", "END\n"),
        ("END", "END \r\n"),
        ("<N>", "x\r\n"),
        ("<1..2>", "3\r\n"),
        ("${cas}", "18\r\n"),
        ("a<*>b", "abc\r\n"),
    ] {
        assert!(!matches_line("here", pattern, line.as_bytes(), &mut variables), "{pattern} matched {line:?}");
    }
}

#[test]
fn a_conversation_is_read_into_its_parts() {
    let text = "@flags -m 8\n--- one\n> get a\n>- b\\n\n< END\n@differs 1.6.18 has a reason\n> c\n< 1\n<m 2\n=m closed\n--- two\n@only corecached 1.6.45\n> x\n= nothing\n";
    let conversations = parse("here", text);
    assert_eq!(conversations.len(), 2);
    assert_eq!(conversations[0].flags, ["-m", "8"]);
    assert_eq!(conversations[0].exchanges.len(), 2);
    assert_eq!(conversations[0].exchanges[0].sends.len(), 2);
    assert_eq!(conversations[0].exchanges[1].expected.len(), 1);
    assert_eq!(conversations[0].exchanges[1].expected_of_memcached.len(), 2);
    assert_eq!(conversations[1].only, [Program::Corecached, Program::Newest]);
    assert!(matches!(conversations[1].exchanges[0].expected[0].what, What::Nothing));
}
