//! The man page. clap_mangen writes the flags of the server and of each command; this file puts the parts in order.

use clap::Command;
use clap_mangen::Man;
use std::io;

/// What stands before the flags. Text in roff.
const BEGINNING: &str = r#".TH corecached 1 "" "corecached" "User Commands"
.ad l
.ie \n(.g .ds Aq \(aq
.el .ds Aq '
.SH NAME
corecached \- cache server that speaks memcached's protocol
.SH SYNOPSIS
\fBcorecached\fR [\fIflags\fR]
.br
\fBcorecached\fR \fIcommand\fR [\fIflags\fR]
.SH DESCRIPTION
Without a command, \fBcorecached\fR is a server. It takes the flags of \fBmemcached\fR(1), speaks its text, meta and binary
protocols, and runs one event loop for each core. The commands look at running servers, corecached or memcached.
"#;

const END: &str = r#".SH FILES
.TP
\fI/etc/corecached.conf\fR
The flags that the unit of systemd reads (\fB\-\-flags\-file\fR): one per line, # before comments. \fI/etc/memcached.conf\fR of
Debian has the same form, and can be copied there.
.TP
\fI/var/lib/corecached\fR
A place for the file of \fB\-e\fR.
.SH EXIT STATUS
.TP
\fB0\fR
The server stopped as it was told, or the command found what it asked for.
.TP
\fB1\fR
A mistake in the value of a flag, as in memcached. Of commands: a server says no or does not answer.
.TP
\fB64\fR
A mistake in the command line or in a file that it names.
.TP
\fB66\fR
A file cannot be read.
.TP
\fB67\fR
The user of \fB\-u\fR does not exist.
.TP
\fB71\fR
The system refuses something, such as an address to listen on.
.TP
\fB74\fR
A graceful stop could not write the file of \fB\-e\fR, so the next start is cold.
.SH SEE ALSO
\fBmemcached\fR(1), \fBsystemctl\fR(1), \fBcorecached help stampede\fR
"#;

/// The page for the flags of the server and for the commands.
pub(super) fn page(server: &Command, tool: &Command) -> io::Result<Vec<u8>> {
    let mut page = String::from(BEGINNING);
    page.push_str(&flags(server)?);
    more(&mut page, &server.get_after_help().map(ToString::to_string).unwrap_or_default());
    page.push_str(".SH COMMANDS\n");
    let mut tool = tool.clone();
    // This gives each command its whole name and its flags for help.
    tool.build();
    for command in tool.get_subcommands().filter(|command| command.get_name() != "help") {
        chapter(&mut page, command, "SS")?;
    }
    page.push_str(END);
    Ok(page.into_bytes())
}

/// The flags of a command, each group under its heading.
fn flags(command: &Command) -> io::Result<String> {
    let mut text = Vec::new();
    Man::new(command.clone()).render_options_section(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    // What makes apostrophes plain stands at the beginning of the page once.
    Ok(text.lines().filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el ")).fold(String::new(), add_line))
}

fn add_line(mut text: String, line: &str) -> String {
    text.push_str(line);
    text.push('\n');
    text
}

/// A command: how it is called, what it does, its flags, and the commands below it.
fn chapter(page: &mut String, command: &Command, heading: &str) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let usage = command.clone().render_usage().to_string();
    page.push_str(&format!(".{heading} {}\n", escaped(name)));
    page.push_str(&format!("{}\n.PP\n", escaped(usage.trim())));
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    page.push_str(&paragraphs(&about.unwrap_or_default()));
    // In a chapter of one command the groups of flags are no chapters.
    let flags = flags(command)?.lines().fold(String::new(), |text, line| match line.strip_prefix(".SH ") {
        Some(group) => add_line(text, &format!(".PP\n{}:", group.trim_matches('"'))),
        None => add_line(text, line),
    });
    page.push_str(&flags);
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let about = below.get_about().map(ToString::to_string).unwrap_or_default();
        let words: Vec<String> = below.get_positionals().map(|word| format!(" \\fI{}\\fR", word.get_id())).collect();
        page.push_str(&format!(".TP\n\\fB{}\\fR{}\n{}\n", escaped(below.get_name()), words.concat(), escaped(&about)));
    }
    if let Some(after) = command.get_after_help() {
        // Its lines may be a table.
        page.push_str(&format!(".PP\n.nf\n{}.fi\n", paragraphs(&after.to_string())));
    }
    Ok(())
}

/// The text behind the flags of the server: lists, whose lines are indented, and paragraphs.
fn more(page: &mut String, text: &str) {
    page.push_str(".SH MORE ABOUT THE FLAGS\n");
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(row) => {
                // Behind a long name is one space.
                let at = row.find("  ").or_else(|| Some(row.find("> ")? + 1)).unwrap_or(row.len());
                let (name, help) = row.split_at(at);
                page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escaped(name), escaped(help.trim())));
            }
            None if line.is_empty() || line.starts_with("Words ") => {
                page.push_str(&format!(".PP\n{}", paragraphs(line)));
            }
            None => page.push_str(&paragraphs(line)),
        }
    }
}

fn paragraphs(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { ".PP\n".to_owned() } else { format!("{}\n", escaped(line)) }).collect()
}

/// The text, with no letter that means something to roff.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\*(Aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}
