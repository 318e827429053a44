//! The man page, the completions, `--help` and the README name the same flags and the same commands. What `corecached
//! print` writes is of use: the server accepts the settings, and systemd the units.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::peers;
use crate::server::{CORECACHED, TemporaryFile};

const README: &str = include_str!("../../README.md");

/// Flags in the README that are of other programs.
const OTHERS: &[&str] = &["--release", "--workspace", "--verify", "--set"];
/// Words of the tool that are no commands of their own.
const HELP: &str = "help";

#[track_caller]
fn printed(words: &[&str]) -> String {
    let output = Command::new(CORECACHED).args(words).stdin(Stdio::null()).output().expect("the program runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The flags that a help defines: at the beginning of a line, as `-p, --port <port>`.
fn defined(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split("  ").next().unwrap_or_default().split([' ', ',', '=', '[', '.']));
    words.filter(|word| is_flag(word)).map(str::to_owned).collect()
}

/// Other names of flags in a help: `[alias: --servers]`, or several behind `aliases`.
fn aliases(help: &str) -> impl Iterator<Item = String> {
    let lists = help.split("[alias").skip(1).map(|rest| rest.split([':', ']']).nth(1).unwrap_or_default().trim());
    lists.flat_map(|list| list.split(", ")).map(str::to_owned)
}

fn is_flag(word: &str) -> bool {
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte.is_ascii_digit());
    match word.strip_prefix("--") {
        Some(name) => name.len() > 1 && is_name(name),
        None => word.len() == 2 && word.starts_with('-') && word.as_bytes()[1].is_ascii_alphabetic(),
    }
}

/// The commands of the binary, without `help`.
fn commands() -> Vec<String> {
    let help = printed(&["help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let names: Vec<String> = names.filter(|name| *name != HELP).map(str::to_owned).collect();
    assert!(names.len() >= 9, "{help}");
    names
}

/// A man page as a reader sees it.
fn unescaped(page: &str) -> String {
    page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "").replace("\\*(Aq", "'")
}

#[test]
fn each_flag_of_the_server_is_in_the_man_page_and_the_completions() {
    let flags = defined(&printed(&["--help"]));
    assert!(flags.len() > 80 && flags.contains("--flags-file") && flags.contains("-o"), "{flags:?}");
    let man = unescaped(&printed(&["print", "man"]));
    let in_man = defined(&man);
    for flag in &flags {
        assert!(in_man.contains(flag), "the man page lacks {flag}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["print", "completions", shell]);
        for flag in &flags {
            // fish writes the name without its dashes.
            let name = flag.trim_start_matches('-');
            let of_fish = if flag.starts_with("--") { format!("-l {name} ") } else { format!("-s {name} ") };
            let is_there = if shell == "fish" { script.contains(&of_fish) } else { script.contains(flag.as_str()) };
            assert!(is_there, "the completions of {shell} lack {flag}");
        }
    }
}

#[test]
fn each_command_and_its_flags_are_everywhere() {
    let man = unescaped(&printed(&["print", "man"]));
    let flags = printed(&["--help"]);
    let named: BTreeSet<&str> = flags.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
    for command in commands() {
        let start = man.find(&format!("\n.SS corecached {command}\n"));
        let start = start.unwrap_or_else(|| panic!("the man page lacks {command}"));
        let end = man[start + 1..].find("\n.S").map_or(man.len(), |at| start + 1 + at);
        let in_man = defined(&man[start..end]);
        for flag in defined(&printed(&[&command, "--help"])) {
            assert!(in_man.contains(&flag), "the man page lacks {flag} of {command}: {in_man:?}");
        }
        assert!(named.contains(command.as_str()), "corecached --help lacks {command}");
        for shell in ["bash", "zsh", "fish"] {
            let script = printed(&["print", "completions", shell]);
            assert!(script.contains(&command), "the completions of {shell} lack {command}");
        }
        let is_in_readme =
            README.contains(&format!("corecached {command}")) || README.contains(&format!("`{command}`"));
        assert!(is_in_readme || README.contains(&format!("{command}: ")), "the README lacks {command}");
    }
}

#[test]
fn each_flag_in_the_readme_exists() {
    let mut known = defined(&printed(&["--help"]));
    for command in commands() {
        let help = printed(&[&command, "--help"]);
        known.extend(defined(&help));
        known.extend(aliases(&help));
    }
    let letters = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '-');
    let flags: BTreeSet<&str> = README.split(letters).filter(|word| word.starts_with("--") && is_flag(word)).collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        assert!(known.contains(flag) || OTHERS.contains(&flag), "the README names {flag}, which nothing has");
    }
    // A letter is a flag of the server where it begins a piece of code.
    for code in README.split('`').skip(1).step_by(2).filter(|code| is_flag(code.split(' ').next().unwrap_or_default()))
    {
        let flag = code.split(' ').next().expect("it begins with a flag");
        assert!(known.contains(flag) || OTHERS.contains(&flag), "the README names {flag}, which nothing has");
    }
}

#[test]
fn the_settings_are_accepted() {
    let file = TemporaryFile::new(&printed(&["print", "config"]));
    let said = printed(&["--flags-file", file.path(), "--check", "-u", "root"]);
    assert!(said.contains("listens on: 127.0.0.1:11211\n") && said.ends_with("all is well\n"), "{said}");
    // With every line that is a proposal, all of them are flags of this version.
    let all: String = printed(&["print", "config"]).replace("\n#-", "\n-");
    file.write(&all.replace("--users /etc/corecached.users", "").replace("/var/lib/corecached/cache", "/tmp/cache"));
    let said = printed(&["--flags-file", file.path(), "--check", "-u", "root", "-t", "2"]);
    assert!(said.contains("metrics at: 127.0.0.1:9150\n") && said.contains("memory file: /tmp/cache"), "{said}");
}

#[test]
fn the_unit_is_as_strict_as_it_says() {
    let Some(program) = peers::program("systemd-analyze") else { return };
    let file = TemporaryFile::new(&printed(&["print", "unit"]));
    let unit = std::path::Path::new(file.path()).with_file_name("corecached.service");
    std::fs::copy(file.path(), &unit).expect("a file in our folder");
    let output = Command::new(program)
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(&unit)
        .output()
        .expect("it is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_part_for_sysconfig_leaves_out_what_is_empty() {
    let part = printed(&["print", "sysconfig"]);
    let line = part.lines().rfind(|line| line.starts_with("ExecStart=/bin/sh")).expect("a line that starts the server");
    let script = line.split('\'').nth(1).expect("a script in quotes").replace("$$", "$");
    let script = script.replace("exec /usr/bin/corecached", "printf '%s|'");
    for (variables, options, expected) in [
        (&[][..], &[][..], "|"),
        (&[("PORT", ""), ("USER", ""), ("MAXCONN", ""), ("CACHESIZE", "")], &[], "|"),
        (&[("PORT", "11311"), ("CACHESIZE", "100")], &["-l", "127.0.0.1,::1"], "-p|11311|-m|100|-l|127.0.0.1,::1|"),
        (&[("USER", "memcached"), ("MAXCONN", "5")], &["-v"], "-u|memcached|-c|5|-v|"),
    ] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "corecached"]).args(options);
        for name in ["PORT", "USER", "MAXCONN", "CACHESIZE"] {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).output().expect("there is a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{variables:?}");
    }
}
