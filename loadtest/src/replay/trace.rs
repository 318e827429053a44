//! Traces of requests: ARC's lists of pages, and tables with a column for the key.
//!
//! | format | a line | its requests |
//! |---|---|---|
//! | ARC (N. Megiddo and D. Modha, FAST 2003) | `first count 0 sequence` | the `count` pages from `first` on |
//! | CSV | fields between commas, nothing quoted | one, of the key column |
//!
//! A file whose name ends in `.zst` is read through the program `zstd`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

/// The longest key of the protocol.
const KEY_SIZE_MAX: usize = 250;

/// A request for a key.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub key: Vec<u8>,
    /// Bytes of the value, if the trace tells them.
    pub size: Option<usize>,
    /// Part of a scan through keys that are never asked for again.
    pub scan: bool,
}

/// Requests in order. An error ends them.
pub type Requests = Box<dyn Iterator<Item = Result<Request, String>>>;

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Counted from 0.
    Number(usize),
    /// The name in the first line.
    Name(String),
}

impl FromStr for Column {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Column, &'static str> {
        match text.parse::<usize>() {
            Ok(0) => Err("columns are counted from 1"),
            Ok(number) => Ok(Column::Number(number - 1)),
            Err(_) => Ok(Column::Name(text.into())),
        }
    }
}

impl Column {
    fn find(&self, header: &str) -> Result<usize, String> {
        match self {
            Column::Number(number) => Ok(*number),
            Column::Name(name) => {
                let place = header.split(',').position(|field| field.trim() == name);
                place.ok_or_else(|| format!("no column \"{name}\" in \"{header}\""))
            }
        }
    }
}

/// Opens a file, and decompresses it if its name ends in `.zst`.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    let fail = |error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(fail)?;
    if path.extension().is_none_or(|extension| extension != "zst") {
        return Ok(Box::new(BufReader::new(file)));
    }
    let zstd = Command::new("zstd").args(["-dc"]).stdin(file).stdout(Stdio::piped()).spawn();
    let mut zstd = zstd.map_err(|error| format!("{}: zstd -dc: {error} (is zstd installed?)", path.display()))?;
    let output = zstd.stdout.take().expect("it was asked for");
    Ok(Box::new(BufReader::new(Decompressed { output, zstd })))
}

/// The output of zstd. If zstd fails, the reader gets an error at the end, and not a short trace.
struct Decompressed {
    output: std::process::ChildStdout,
    zstd: Child,
}

impl std::io::Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.output.read(buffer)?;
        if count == 0 && !buffer.is_empty() && !self.zstd.wait()?.success() {
            return Err(std::io::Error::other("zstd -dc has failed"));
        }
        Ok(count)
    }
}

impl Drop for Decompressed {
    fn drop(&mut self) {
        // A reader that stops early does not need the rest.
        let _ = self.zstd.kill();
        let _ = self.zstd.wait();
    }
}

/// The requests of an ARC trace. Keys are page numbers in decimal, padded with zeros to `key_size` bytes.
pub fn arc(lines: Box<dyn BufRead>, key_size: usize) -> Requests {
    let pages = move |(number, line): (usize, std::io::Result<String>)| {
        let (pages, why) = match line.map_err(|error| error.to_string()).and_then(|line| arc_line(&line)) {
            Ok(pages) => (pages, None),
            Err(why) => (0..0, Some(Err(format!("line {}: {why}", number + 1)))),
        };
        let request = move |page: u64| Request { key: format!("{page:0key_size$}").into(), size: None, scan: false };
        pages.map(move |page| Ok(request(page))).chain(why)
    };
    Box::new(lines.lines().enumerate().flat_map(pages))
}

fn arc_line(line: &str) -> Result<Range<u64>, String> {
    let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (None, _) => Ok(0..0),
        (Some(Ok(first)), Some(Ok(count))) => Ok(first..first.saturating_add(count)),
        _ => Err(format!("\"{line}\" is not `first count ...`")),
    }
}

/// The requests of a table. The first line is its header if a column is given by name.
pub fn csv(mut lines: Box<dyn BufRead>, key: &Column, size: Option<&Column>) -> Result<Requests, String> {
    let mut header = String::new();
    if [Some(key), size].into_iter().flatten().any(|column| matches!(column, Column::Name(_))) {
        lines.read_line(&mut header).map_err(|error| error.to_string())?;
    }
    let key = key.find(header.trim_end())?;
    let size = size.map(|column| column.find(header.trim_end())).transpose()?;
    let first = 1 + usize::from(!header.is_empty());
    let request = move |(number, line): (usize, std::io::Result<String>)| {
        let request = line.map_err(|error| error.to_string()).and_then(|line| csv_line(&line, key, size));
        request.map_err(|why| format!("line {}: {why}", first + number))
    };
    Ok(Box::new(lines.lines().enumerate().map(request)))
}

fn csv_line(line: &str, key: usize, size: Option<usize>) -> Result<Request, String> {
    let field = |place: usize| {
        let field = line.split(',').nth(place).map(str::trim);
        field.ok_or_else(|| format!("\"{line}\" has no column {}", place + 1))
    };
    let key = field(key)?.as_bytes();
    if key.is_empty() || key.len() > KEY_SIZE_MAX || key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(format!("\"{}\" is not a key", key.escape_ascii()));
    }
    let parse = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is not a size"));
    let size = size.map(|place| field(place).and_then(parse)).transpose()?;
    Ok(Request { key: key.to_vec(), size, scan: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Box<dyn BufRead> {
        Box::new(text.as_bytes())
    }

    /// Formats each request as `key` or `key:size`, and the error that ends them.
    fn show(requests: Result<Requests, String>) -> String {
        let request = |request: Request| {
            let key = String::from_utf8(request.key).expect("ASCII");
            request.size.map_or(key.clone(), |size| format!("{key}:{size}"))
        };
        match requests {
            Ok(requests) => requests.map(|next| next.map_or_else(|why| why, request)).collect::<Vec<_>>().join(" "),
            Err(why) => why,
        }
    }

    #[test]
    fn arc_traces() {
        assert_eq!(show(Ok(arc(lines("1 1 0 0\n7 3 0 1\n\n9 0 0 2\n"), 0))), "1 7 8 9");
        assert_eq!(show(Ok(arc(lines("42 2 0 0"), 4))), "0042 0043");
        assert_eq!(show(Ok(arc(lines("1 1\n5"), 0))), "1 line 2: \"5\" is not `first count ...`");
    }

    #[test]
    fn tables() {
        let name = |name: &str| name.parse::<Column>().expect("a column");
        let table = "time,key, size\n1,a,10\n2,b,20\n";
        assert_eq!(show(csv(lines(table), &name("key"), Some(&name("size")))), "a:10 b:20");
        assert_eq!(show(csv(lines(table), &name("key"), None)), "a b");
        assert_eq!(show(csv(lines("1,a,10\n2,b,20\n"), &name("2"), Some(&name("3")))), "a:10 b:20");
        assert_eq!(show(csv(lines(table), &name("id"), None)), "no column \"id\" in \"time,key, size\"");
        assert_eq!(show(csv(lines("key\na\nb c\n"), &name("key"), None)), "a line 3: \"b c\" is not a key");
        assert_eq!(show(csv(lines("a,x\n"), &name("1"), Some(&name("2")))), "line 1: \"x\" is not a size");
        assert_eq!(show(csv(lines("a\n"), &name("1"), Some(&name("2")))), "line 1: \"a\" has no column 2");
        assert!("0".parse::<Column>().is_err());
    }
}
