//! The file of `--flags-file`: flags in lines, in the form of Debian's `/etc/memcached.conf`.
//!
//! Debian starts memcached by a script that reads the file and puts its lines behind the name of the program, for a shell.
//! So a line may have several flags, and quotes and backslashes mean what they mean to a shell. Nothing else of a shell
//! is done: no variable, no pattern, no command. A `#` begins a comment, unless a backslash stands before it.

use crate::exit::{EXIT_NO_INPUT, Exit};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A line with flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The file and the number of the line, for messages.
    pub(super) place: String,
    pub(super) words: Vec<OsString>,
}

/// Reads the file. The second list has a warning for each line that has no effect.
///
/// # Errors
/// One line that names the file and, for a mistake in it, the line.
pub(super) fn read(path: &Path) -> Result<(Vec<Line>, Vec<String>), Exit> {
    let named = path.display();
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
    read.map_err(|error| Exit::failure(EXIT_NO_INPUT, format!("--flags-file {named}: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Exit::usage(format!("--flags-file {named}: it has more than {FILE_BYTES_MAX} bytes")));
    }
    lines(&text, &named.to_string())
}

fn lines(text: &[u8], named: &str) -> Result<(Vec<Line>, Vec<String>), Exit> {
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let place = format!("{named}:{}", at + 1);
        let line = without_comment(line).trim_ascii();
        let words = words(line).map_err(|what| Exit::usage(format!("{place}: {what}")))?;
        match words.first().map(|word| word.as_encoded_bytes()) {
            None => {}
            Some([b'-', ..]) => lines.push(Line { place, words }),
            Some(b"logfile") => warnings.push(format!(
                "{place}: logfile has no effect: the log goes to standard error, and systemd keeps it in the journal"
            )),
            Some(_) => {
                let word = words[0].display();
                return Err(Exit::usage(format!("{place}: \"{word}\" is no flag: flags begin with a dash")));
            }
        }
    }
    Ok((lines, warnings))
}

fn without_comment(line: &[u8]) -> &[u8] {
    let begins = |at: &usize| line[*at] == b'#' && (*at == 0 || line[*at - 1] != b'\\');
    &line[..(0..line.len()).find(begins).unwrap_or(line.len())]
}

/// Divides a line into words as a shell does.
fn words(line: &[u8]) -> Result<Vec<OsString>, &'static str> {
    let mut words = Vec::new();
    // The word that is being read. None: between words. An empty word is one in quotes.
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (_, 0) => return Err("it has a zero byte"),
            (Some(open), _) if byte == open => quote = None,
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, _) if byte.is_ascii_whitespace() => words.extend(word.take().map(OsString::from_vec)),
            (None | Some(b'"'), b'\\') => {
                let next = bytes.next().ok_or("nothing follows the backslash at its end")?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, b'"' | b'\\' | b'$' | b'`' | b'#') {
                    word.push(b'\\');
                }
                word.push(next);
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        return Err("a quote does not end");
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<(Vec<Line>, Vec<String>), Exit> {
        lines(text.as_bytes(), "f")
    }

    /// The lines as `number: word|word`.
    fn shown(text: &str) -> Vec<String> {
        let (lines, _) = read_text(text).unwrap_or_else(|exit| panic!("{text}: {exit}"));
        let words = |line: &Line| line.words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join("|");
        lines.iter().map(|line| format!("{}: {}", &line.place[2..], words(line))).collect()
    }

    #[test]
    fn comments_and_blank_lines_are_left_out() {
        let text = "# a file\n\n  -d  \n\t-m 64 # megabytes\r\n#-k\n-l 10.0.0.1,[::1]:11212#both\n-vv";
        assert_eq!(shown(text), ["3: -d", "4: -m|64", "6: -l|10.0.0.1,[::1]:11212", "7: -vv"]);
        assert_eq!(shown(""), [""; 0]);
    }

    #[test]
    fn words_are_those_of_a_shell() {
        for (line, words) in [
            ("-m 64 -c 1000", "1: -m|64|-c|1000"),
            (r#"--ttl "page: jitter=20% max=1d""#, "1: --ttl|page: jitter=20% max=1d"),
            (r"--ttl 'feed: early=30s' -D ''", "1: --ttl|feed: early=30s|-D|"),
            (r"-D \# -e /a\ b", "1: -D|#|-e|/a b"),
            (r#"-e "/a\b\"c" -s a"b"'c'"#, r#"1: -e|/a\b"c|-s|abc"#),
            (r"-l * -e $HOME -e '\n'", r"1: -l|*|-e|$HOME|-e|\n"),
        ] {
            assert_eq!(shown(line), [words]);
        }
    }

    #[test]
    fn a_log_file_is_no_mistake_and_any_other_word_is() {
        let (lines, warnings) = read_text("logfile /var/log/memcached.log\n-v\n").expect("valid");
        assert_eq!(lines.len(), 1);
        assert!(warnings.len() == 1 && warnings[0].starts_with("f:1: logfile has no effect"), "{warnings:?}");
        for (text, mistake) in [
            ("-v\n\n64", "f:3: \"64\" is no flag"),
            ("-e 'a\n'", "f:1: a quote does not end"),
            ("-v\n-e a\\", "f:2: nothing follows the backslash"),
            ("-e a\0b", "f:1: it has a zero byte"),
        ] {
            let exit = read_text(text).expect_err(text);
            assert!(exit.text.starts_with(mistake) && exit.code == 64, "{text}: {exit}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let exit = read(Path::new("/nonexistent/flags")).expect_err("there is none");
        assert!(exit.text.starts_with("--flags-file /nonexistent/flags: No such file"), "{exit}");
        assert_eq!(exit.code, EXIT_NO_INPUT);
        let exit = read(Path::new("/dev/zero")).expect_err("it never ends");
        assert_eq!(exit.text, "--flags-file /dev/zero: it has more than 1048576 bytes");
    }
}
