//! A reader of Rust source. It finds tokens, the items that only tests have, imports and functions, as far as the rules
//! of this module need them.
//!
//! It is no compiler. It does not see the code that macros make (but it reads the paths in a `macro_rules!`), a call of
//! a method without the name of its type, and the items that a glob (`use super::*`) brings in. A glob counts as an
//! import of the module that it names.

use std::collections::BTreeMap;

/// A word, a number or a punctuation mark. Comments, the text of strings, and lifetimes give no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// A path in a file that names an item of the crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mention {
    /// Segments from the root of the crate.
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// A function with a body, or without one in a trait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(super) lines: usize,
    /// Parameters besides `self`.
    pub(super) parameters: usize,
}

/// The properties of a file that the rules need.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Its path below `src/`.
    pub(super) name: String,
    /// The segments of its module from the root of the crate.
    pub(super) module: Vec<String>,
    /// Lines without the items that only tests have.
    pub(super) lines: usize,
    pub(super) mentions: Vec<Mention>,
    pub(super) functions: Vec<Function>,
    /// The names that `use` brings in, and the paths that they stand for.
    pub(super) imported: BTreeMap<String, Vec<String>>,
    /// Lines with `unsafe`, tests included.
    pub(super) unsafe_lines: Vec<usize>,
    /// Modules in separate files that only tests have.
    pub(super) test_modules: Vec<String>,
}

impl File {
    /// Whether the file is part of the program, and not of its library.
    fn is_of_program(&self) -> bool {
        self.name == "main.rs" || self.module.first().is_some_and(|module| module == "tool")
    }

    /// The module that holds the modules which this file declares. The program has its own beside those of the library.
    fn folder(&self) -> Vec<String> {
        if self.name == "main.rs" { Vec::new() } else { self.module.clone() }
    }
}

/// Splits source into tokens.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let rest = &source[at..];
        let len = token_len(rest);
        let text = &rest[..len];
        let is_seen = !text.starts_with(char::is_whitespace)
            && !text.starts_with("//")
            && !text.starts_with("/*")
            && !is_lifetime(text);
        if is_seen {
            found.push(Token { text: if is_literal(text) { "\"\"" } else { text }, line });
        }
        line += text.matches('\n').count();
        at += len;
    }
    found
}

/// Length of the token, comment or space at the start of `rest`.
fn token_len(rest: &str) -> usize {
    let first = rest.chars().next().expect("it is not empty");
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    if let Some(len) = literal_len(rest) {
        return len;
    }
    if is_word(first) {
        return rest.find(|other| !is_word(other)).unwrap_or(rest.len());
    }
    if first == '\'' {
        // This is a lifetime, because a character would be a literal.
        return 1 + rest[1..].find(|other| !is_word(other)).unwrap_or(rest.len() - 1);
    }
    if ["::", "->", "=>"].iter().any(|mark| rest.starts_with(mark)) { 2 } else { first.len_utf8() }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn is_lifetime(text: &str) -> bool {
    text.starts_with('\'') && !text[1..].ends_with('\'')
}

fn is_literal(text: &str) -> bool {
    text.ends_with(['"', '\'']) || text.contains('"')
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 || at >= rest.len() {
            return at.min(rest.len());
        }
    }
}

/// Length of the string or character at the start of `rest`, including its prefix.
fn literal_len(rest: &str) -> Option<usize> {
    let prefix_len = ["br", "cr", "b", "c", "r", ""].iter().find(|prefix| {
        let behind = rest.strip_prefix(**prefix).unwrap_or("");
        behind.starts_with(['"', '\'']) || prefix.ends_with('r') && behind.trim_start_matches('#').starts_with('"')
    });
    let prefix_len = prefix_len?.len();
    let (prefix, body) = rest.split_at(prefix_len);
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let len = body[hashes + 1..].find(&end).map_or(body.len(), |len| hashes + 1 + len + end.len());
        return Some(prefix_len + len);
    }
    let quote = body.chars().next()?;
    let mut letters = body[1..].char_indices();
    if quote == '\'' {
        // This is a character unless it is a lifetime.
        let (_, letter) = letters.next()?;
        if letter == '\\' {
            letters.next();
        } else if !body[1 + letter.len_utf8()..].starts_with('\'') {
            return None;
        }
    }
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote {
            return Some(prefix_len + 1 + at + 1);
        }
    }
    Some(rest.len())
}

/// The position behind the bracket that closes the bracket at `open`.
fn closed(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Whether the `cfg(…)` of these tokens holds in a server that is built for use. `test`, `fuzzing`, `loom` and `miri`
/// do not hold there. Everything else does.
fn holds(tokens: &[Token<'_>]) -> bool {
    let parts = || {
        let inside = &tokens[2..tokens.len() - 1];
        let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
        while at < inside.len() {
            at = if inside[at].text == "(" { closed(inside, at) } else { at + 1 };
            if at >= inside.len() || inside[at].text == "," {
                parts.push(&inside[start..at]);
                start = at + 1;
                at += 1;
            }
        }
        parts
    };
    match tokens[0].text {
        "cfg" | "all" => parts().into_iter().all(holds),
        "any" => parts().into_iter().any(holds),
        "not" => !parts().into_iter().any(holds),
        word => !matches!(word, "test" | "fuzzing" | "loom" | "miri"),
    }
}

/// The position behind the attributes that begin at `at`, and whether one of them leaves out the item behind them.
fn attributes(tokens: &[Token<'_>], mut at: usize) -> (usize, bool) {
    let mut is_test = false;
    while tokens.get(at).is_some_and(|token| token.text == "#") {
        let open = if tokens.get(at + 1).is_some_and(|token| token.text == "!") { at + 2 } else { at + 1 };
        let end = closed(tokens, open);
        let inside = &tokens[open + 1..end - 1];
        is_test |= match inside.first().map(|token| token.text) {
            Some("cfg") => !holds(inside),
            Some("test") => inside.len() == 1,
            _ => false,
        };
        at = end;
    }
    (at, is_test)
}

/// The position behind the item, field, variant, arm or statement that begins at `start`.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut words = tokens[start..].iter().map(|token| token.text).filter(|text| text.starts_with(is_word));
    let mut first = words.find(|word| !matches!(*word, "pub" | "crate" | "super" | "in" | "unsafe")).unwrap_or("");
    if first == "const" && words.next() == Some("fn") {
        first = "fn";
    }
    let has_commas = matches!(first, "fn" | "impl" | "struct" | "enum" | "trait" | "use" | "type" | "const" | "static");
    let ends_with_brace = !matches!(first, "use" | "type" | "const" | "static" | "let");
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at + 1,
            "," if !has_commas => return at + 1,
            ")" | "]" | "}" => return at,
            "(" | "[" => at = closed(tokens, at),
            "{" => {
                at = closed(tokens, at);
                let next = tokens.get(at).map_or("", |token| token.text);
                if ends_with_brace && !matches!(next, "=>" | "|" | "if" | "else" | "." | "?") {
                    return if next == "," && !has_commas { at + 1 } else { at };
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// The tokens without the items that only tests have, the number of lines of those items, and the names of those that
/// are modules in separate files.
fn without_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, usize, Vec<String>) {
    let (mut kept, mut left_out, mut modules, mut at) = (Vec::new(), 0, Vec::new(), 0);
    while at < tokens.len() {
        let (behind, is_test) = attributes(tokens, at);
        if is_test && tokens.get(at + 1).is_some_and(|token| token.text == "!") {
            // The attribute leaves out the whole file, or the whole module that begins here.
            let end = tokens.len();
            left_out += tokens[end - 1].line + 1 - tokens[at].line;
            at = end;
        } else if is_test {
            let end = item_end(tokens, behind).max(behind);
            let item = &tokens[behind..end];
            if let [.., Token { text: "mod", .. }, name, Token { text: ";", .. }] = item {
                modules.push(name.text.to_owned());
            }
            left_out += tokens[end - 1].line + 1 - tokens[at].line;
            at = end;
        } else if behind > at {
            at = behind;
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    (kept, left_out, modules)
}

/// Reads a file. `name` is its path below `src/`.
pub(super) fn read(name: &str, source: &str) -> File {
    let all = tokens(source);
    let unsafe_lines = all.iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect();
    let (tokens, test_lines, test_modules) = without_tests(&all);
    let stem = name.trim_end_matches(".rs").trim_end_matches("/mod");
    let module = if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() };
    let lines = source.lines().count() - test_lines;
    let file = File { name: name.to_owned(), module, lines, unsafe_lines, test_modules, ..File::default() };
    Reader { tokens: &tokens, at: 0, file, inline: Vec::new(), reexported: Vec::new(), children: Vec::new() }.read()
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    file: File,
    /// The modules within the file that are open: their names, and the positions behind them.
    inline: Vec<(String, usize)>,
    /// The items of the file's own modules that `pub use` re-exports.
    reexported: Vec<(String, Mention)>,
    /// Modules that the file declares.
    children: Vec<String>,
}

impl Reader<'_> {
    fn read(mut self) -> File {
        // Read declarations and imports first, wherever they stand. A path may begin with a name that they bring in.
        let mut is_import = vec![false; self.tokens.len()];
        while self.at < self.tokens.len() {
            let start = self.at;
            self.leave_modules();
            match self.text(0) {
                "use" if self.text(1) != "<" => {
                    let is_public = self.at > 0 && matches!(self.tokens[self.at - 1].text, "pub" | ")");
                    self.at += 1;
                    self.use_tree(&[], is_public);
                    is_import[start..self.at].fill(true);
                }
                "mod" if self.text(2) == "{" => {
                    self.inline.push((self.text(1).to_owned(), closed(self.tokens, self.at + 2)));
                    self.at += 3;
                }
                "mod" if self.text(2) == ";" => {
                    self.children.push(self.text(1).to_owned());
                    is_import[start..start + 3].fill(true);
                    self.at += 3;
                }
                _ => self.at += 1,
            }
        }
        (self.at, self.inline) = (0, Vec::new());
        while self.at < self.tokens.len() {
            self.leave_modules();
            match self.text(0) {
                _ if is_import[self.at] => {}
                "mod" if self.text(2) == "{" => {
                    self.inline.push((self.text(1).to_owned(), closed(self.tokens, self.at + 2)));
                }
                "fn" if self.text(1).starts_with(is_word) => self.function(),
                word if word.starts_with(is_word) => self.path(),
                _ => {}
            }
            self.at += 1;
        }
        // A re-export is no use of the item by this file. But the file may also use the re-exported name.
        for (name, mention) in std::mem::take(&mut self.reexported) {
            let mut others = self.tokens.iter().zip(&is_import).filter(|(_, is_import)| !**is_import);
            if others.any(|(token, _)| token.text == name) {
                self.file.mentions.push(mention);
            }
        }
        self.file.mentions.sort_by_key(|mention| mention.line);
        self.file
    }

    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn leave_modules(&mut self) {
        self.inline.retain(|(_, end)| self.at < *end);
    }

    /// The full path from the root of the crate. `None` if the path does not begin in the crate.
    fn resolved(&self, path: &[&str]) -> Option<Vec<String>> {
        let mut here = self.file.module.clone();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let (mut base, rest) = match path {
            ["crate", rest @ ..] => (Vec::new(), rest),
            // The program imports its library by name.
            ["corecached", rest @ ..] if self.file.is_of_program() => (Vec::new(), rest),
            ["self", rest @ ..] => (here, rest),
            ["super", ..] => (here, path),
            [name, ..] if self.children.iter().any(|child| child == name) => (self.file.folder(), path),
            [name, rest @ ..] if self.file.imported.contains_key(*name) => (self.file.imported[*name].clone(), rest),
            _ => return None,
        };
        for segment in rest {
            match *segment {
                "super" => drop(base.pop()),
                "self" => {}
                _ => base.push((*segment).to_owned()),
            }
        }
        Some(base)
    }

    /// Reads a tree of `use` behind `prefix`, up to the mark after it.
    fn use_tree(&mut self, prefix: &[String], is_public: bool) {
        let mut path = prefix.to_vec();
        let line = self.tokens[self.at].line;
        loop {
            match self.text(0) {
                "{" => {
                    let end = closed(self.tokens, self.at);
                    self.at += 1;
                    while self.at + 1 < end {
                        self.use_tree(&path, is_public);
                        self.at += usize::from(self.text(0) == ",");
                    }
                    self.at = end;
                    return;
                }
                "::" => {}
                "," | ";" | "}" | "" => break,
                "as" => {
                    let name = self.text(1).to_owned();
                    self.at += 2;
                    return self.import(&path, name, line, is_public);
                }
                word => path.push(word.to_owned()),
            }
            self.at += 1;
        }
        let name = path.iter().rfind(|segment| *segment != "self").cloned().unwrap_or_default();
        self.import(&path, name, line, is_public);
    }

    fn import(&mut self, path: &[String], name: String, line: usize, is_public: bool) {
        let path: Vec<&str> = path.iter().map(String::as_str).filter(|segment| *segment != "*").collect();
        let Some(path) = self.resolved(&path) else { return };
        self.file.imported.insert(name.clone(), path.clone());
        let is_own = path.starts_with(&self.file.module) && !self.file.module.is_empty();
        let mention = Mention { path, line };
        if is_public && is_own && name != "*" {
            self.reexported.push((name, mention));
        } else {
            self.file.mentions.push(mention);
        }
    }

    /// Reads a path of several segments in the middle of code.
    fn path(&mut self) {
        let is_whole = self.at == 0 || !matches!(self.tokens[self.at - 1].text, "::" | "." | "in");
        if !is_whole || self.text(1) != "::" {
            return;
        }
        let line = self.tokens[self.at].line;
        let mut path = vec![self.text(0).to_owned()];
        let mut ahead = 1;
        while self.text(ahead) == "::" && self.text(ahead + 1).starts_with(is_word) {
            path.push(self.text(ahead + 1).to_owned());
            ahead += 2;
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if let Some(path) = self.resolved(&path) {
            self.file.mentions.push(Mention { path, line });
        }
    }

    fn function(&mut self) {
        let Token { line, .. } = self.tokens[self.at];
        let name = self.text(1).to_owned();
        let mut open = self.at + 2;
        let mut angles = 0;
        while open < self.tokens.len() && (angles > 0 || self.tokens[open].text != "(") {
            match self.tokens[open].text {
                "<" => angles += 1,
                ">" => angles -= 1,
                _ => {}
            }
            open += 1;
        }
        let behind = closed(self.tokens, open);
        let parameters = count_parameters(&self.tokens[open + 1..behind - 1]);
        let body = self.tokens[behind..].iter().position(|token| matches!(token.text, "{" | ";"));
        let body = body.map_or(self.tokens.len(), |len| behind + len);
        let end = if self.tokens.get(body).is_some_and(|token| token.text == "{") {
            closed(self.tokens, body)
        } else {
            body + 1
        };
        let last = self.tokens[end.min(self.tokens.len()) - 1].line;
        self.file.functions.push(Function { name, line, lines: last + 1 - line, parameters });
        self.at += 1;
    }
}

fn count_parameters(inside: &[Token<'_>]) -> usize {
    let (mut depth, mut count, mut has_one) = (0, 0, false);
    for token in inside {
        match token.text {
            "(" | "[" | "{" | "<" => depth += 1,
            ")" | "]" | "}" | ">" => depth -= 1,
            "," if depth == 0 => {
                count += usize::from(has_one);
                has_one = false;
                continue;
            }
            "&" | "mut" | "self" if count == 0 && !has_one => continue,
            _ => {}
        }
        has_one = true;
    }
    count + usize::from(has_one)
}
