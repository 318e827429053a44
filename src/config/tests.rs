use super::flags::{command, help};
use super::parse::{Surroundings, parse};
use super::*;
use crate::exit::Exit;
use crate::net::certificates::{KeyFormat, Verify};
use std::ffi::OsString;
use std::fmt::Debug;

const HERE: Surroundings = Surroundings { cpus: 3, is_root: false, port_file: None, sasl_password_file: None };

/// Parses a command line of words; `''` is an empty word.
fn line(words: &str) -> Result<Config, Exit> {
    let words = std::iter::once("corecached").chain(words.split_ascii_whitespace());
    parse(words.map(|word| if word == "''" { "" } else { word }.into()).collect(), &HERE)
}

fn good(words: &str) -> Config {
    line(words).unwrap_or_else(|exit| panic!("{words}: {exit}"))
}

/// Parses each line, and compares the field with the given value.
fn check<T: PartialEq + Debug>(field: impl Fn(&Config) -> T, lines: &[(&str, T)]) {
    for (words, expected) in lines {
        assert_eq!(field(&good(words)), *expected, "{words}");
    }
}

/// Expects that each line is refused with this code and one line on standard error, which begins with this text. If the
/// text ends with a line end, standard error has a second line.
fn check_refused(lines: &[(&str, u8, &str)]) {
    for (words, code, text) in lines {
        match line(words) {
            Ok(_) => panic!("{words}: accepted"),
            Err(exit) => {
                assert!(exit.text.starts_with(text), "{words}: {exit}");
                assert_eq!(exit.code, *code, "{words}: {exit}");
                let lines = 1 + usize::from(text.ends_with('\n'));
                assert!(!exit.to_stdout && exit.text.lines().count() == lines, "{words}: {exit}");
            }
        }
    }
}

#[test]
fn an_empty_command_line_is_the_default() {
    let config = Config::default();
    assert_eq!(config, Config::parse_from([]).expect("an empty command line is valid"));
    assert_eq!(config.listen.sockets, [Listen::Loopback { port: 11211 }]);
    let mut base = Config::base();
    base.workers.threads = 3;
    base.listen.sockets = vec![Listen::Loopback { port: 11211 }];
    base.listen.rules = vec![ListenRules::default()];
    assert_eq!(good(""), base);
    assert_eq!(good("").warnings, [""; 0]);
}

#[test]
fn the_readme_line_starts_as_root() {
    let words = ["corecached", "-p", "21211", "-t", "2", "-m", "256"].map(OsString::from);
    let config = parse(words.into(), &Surroundings { is_root: true, ..HERE }).expect("valid");
    assert_eq!((config.listen.tcp_port, config.workers.threads, config.memory.limit_bytes), (21211, 2, 256 << 20));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("-u <user>"), "{:?}", config.warnings);
    let words = ["corecached", "-u", "root"].map(OsString::from);
    assert_eq!(parse(words.into(), &Surroundings { is_root: true, ..HERE }).expect("valid").warnings, [""; 0]);
}

#[test]
fn numbers_with_their_units() {
    check(|config| config.memory.limit_bytes, &[("", 64 << 20), ("-m256", 256 << 20), ("-m 2", 2 << 20)]);
    check(
        |config| config.workers.threads,
        &[("", 3), ("-t 2", 2), ("-t2 -t 5", 5), ("--threads=7", 7), ("--thr 4", 4)],
    );
    check(|config| config.connections.max, &[("", 1024), ("-c 10", 10), ("--conn-limit=100000", 100_000)]);
    check(|config| config.turn.requests, &[("", 20), ("-R 1", 1)]);
    check(|config| config.listen.backlog, &[("", 1024), ("-b 8192", 8192), ("-b 0", 0), ("-b -1", -1)]);
    check(|config| config.memory.growth_factor, &[("", 1.25), ("-f 1.07", 1.07), ("-f2", 2.0)]);
    check(|config| config.memory.chunk_size_min, &[("", 48), ("-n 5", 5)]);
    check(
        |config| config.memory.item_size_max,
        &[
            ("", 1 << 20),
            ("-I 2m", 2 << 20),
            ("-I 2M", 2 << 20),
            ("-I 1024K", 1 << 20),
            ("-I 2097152", 2 << 20),
            ("-I 1024m -m 4096", 1 << 30),
            ("-I 1k -o slab_chunk_max=1", 1024),
            ("-I 512k -o slab_chunk_max=512", 512 << 10),
        ],
    );
    check(
        |config| config.process.verbosity,
        &[
            ("", 0),
            ("-v", 1),
            ("-vv", 2),
            ("-vvv", 3),
            ("-vv -v", 3),
            ("--verbose", 1),
            ("--verbose=2", 1),
            ("-v --verbose", 2),
            ("-vt2", 1),
        ],
    );
}

#[test]
fn numbers_out_of_range_are_refused_in_memcacheds_words() {
    check_refused(&[
        ("-t 0", 1, "Number of threads must be greater than 0"),
        ("-t -1", 1, "Number of threads must be greater than 0"),
        ("-t abc", 1, "Number of threads must be greater than 0"),
        ("-t 1025", 1, "Number of threads must be greater than 0, and at most 1024"),
        ("-c 0", 1, "Maximum connections must be greater than 0"),
        ("-c -1", 1, "Maximum connections must be greater than 0"),
        ("-R 0", 1, "Number of requests per event must be greater than 0"),
        ("-n 0", 1, "Chunk size must be greater than 0"),
        ("-n -5", 1, "Chunk size must be greater than 0"),
        ("-f 1", 1, "Factor must be greater than 1"),
        ("-f 0.5", 1, "Factor must be greater than 1"),
        ("-f nan", 1, "Factor must be greater than 1"),
        ("-f inf", 1, "Factor must be greater than 1"),
        ("-f abc", 1, "Factor must be greater than 1"),
        ("-m 0", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        ("-m 1", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        ("-m -1", 64, "-m takes a number of megabytes"),
        ("-m 99999999999", 64, "-m takes a number of megabytes"),
        ("-I 1023", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I 0", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I 0k", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I -1", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I 1g", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I 2mb", 64, "Item max size cannot be less than 1024 bytes."),
        ("-n 3000000000", 1, "Chunk size must be greater than 0"),
        ("-I ''", 64, "Item max size cannot be less than 1024 bytes."),
        ("-I 1025m -m 4096", 64, "Cannot set item size limit higher than a gigabyte."),
        ("-I 1024m -m 1024", 64, "Cannot set item size limit higher than 1/2 of memory max."),
        ("-I 1024", 64, "slab_chunk_max (bytes: 524288) cannot be larger than -I (item_size_max 1024)"),
        ("-I 1500k", 64, "-I (item_size_max: 1536000) must be evenly divisible by slab_chunk_max (bytes: 524288)"),
        ("-N 0", 1, "Maximum number of NAPI IDs must be greater than 0"),
        ("-N -1", 1, "Maximum number of NAPI IDs must be greater than 0"),
        ("-N 4", 64, "Number of napi_ids(4) cannot be greater than number of threads(3)"),
        ("-N 2 -t 1", 64, "Number of napi_ids(2) cannot be greater than number of threads(1)"),
    ]);
}

#[test]
fn what_is_read_as_something_else_is_warned_of() {
    for (words, read) in [
        ("-t 2x", "--threads: \"2x\" is read as 2"),
        ("-c 10k", "--conn-limit: \"10k\" is read as 10"),
        ("-R 7.5", "--max-reqs-per-event: \"7.5\" is read as 7"),
        ("-m 1024m", "-m: \"1024m\" is read as 1024"),
        ("-I 1.5m", "-I: \"1.5\" is read as 1"),
        ("-b abc", "-b: \"abc\" is read as 0"),
        ("-f 1.5x", "-f: \"1.5x\" is read as 1.5"),
        ("-N 2x", "--napi-ids: \"2x\" is read as 2"),
        ("-U x", "-U: \"x\" is read as 0"),
        ("-p 80x", "-p: \"80x\" is read as 80"),
        ("-D ab", "-D takes one character: \"a\""),
        ("-s /tmp/s -a 779", "-a: \"779\" is read as 77"),
        ("-s /tmp/s -a x", "-a: \"x\" is read as 0"),
        ("-s /tmp/s -a 7777", "-a: \"7777\" is read as 7777"),
        ("extra", "\"extra\" belongs to no flag"),
        ("-t 2 - -M", "\"-\" belongs to no flag"),
        ("-M -- -t", "\"-t\" belongs to no flag"),
        ("--verbose=2", "--verbose=2: its value is not used"),
        ("--verbose 2", "\"2\" belongs to no flag"),
        ("-o lru_crawler=0", "-o lru_crawler=0: the value is not used"),
        ("-o hashpower=20x", "-o hashpower: \"20x\" is read as 20"),
        ("-o idle_timeout=10s", "-o idle_timeout: \"10s\" is read as 10"),
        ("-o slab_automove=x", "-o slab_automove: \"x\" is read as 0"),
        ("-o slab_automove_ratio=0.5x", "-o slab_automove_ratio: \"0.5x\" is read as 0.5"),
        ("-o hot_lru_pct=30%", "-o hot_lru_pct: \"30%\" is read as 30"),
        ("-o temporary_ttl=x", "-o temporary_ttl: \"x\" is read as 0"),
        ("-o slab_automove_freeratio=1", "-o slab_automove_freeratio=1: not from 0 to 1"),
        ("-o ssl_wbuf_size=0", "-o ssl_wbuf_size=0: it is 1 here"),
        ("-Z -o ssl_chain_cert=c,ssl_verify_mode=1", "-o ssl_verify_mode=1: no certificate is asked for"),
        ("-l proto[foo]:a", "-l proto[foo]:a: there is no protocol \"foo\""),
    ] {
        let warnings = good(words).warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(read), "{words}: {warnings:?}");
    }
    check(|config| config.memory.limit_bytes, &[("-m 10g", 10 << 20)]);
    check(|config| config.listen.unix_mask, &[("-a 779", 0o77), ("-a ''", 0), ("-a 0770", 0o770), ("", 0o700)]);
    check(|config| config.listen.backlog, &[("-b -5", -5), ("-b 99999999999", i32::MAX), ("-b x1", 0)]);
    check(|config| config.crawler.enabled, &[("-o lru_crawler=0", true), ("-o no_lru_crawler=0", false)]);
    check(|config| config.tuning.temporary_ttl, &[("-o temporary_ttl=-1", Some(u32::MAX))]);
    check(|config| config.memory.chunk_size_min, &[("-n 2000000", 2_000_000)]);
}

#[test]
fn switches_and_texts() {
    check(|config| config.memory.evictions, &[("", true), ("-M", false), ("-M -M", false)]);
    check(|config| config.memory.cas_enabled, &[("", true), ("-C", false)]);
    check(|config| config.memory.large_pages, &[("", false), ("-L", true)]);
    check(|config| config.memory.locked, &[("", false), ("-k", true)]);
    check(|config| config.memory.keep, &[("", false), ("--keep-memory", true)]);
    check(|config| config.workers.pin, &[("", false), ("--pin", true)]);
    check(|config| config.workers.port_per_core, &[("", false), ("-t 4 -p 11300 --port-per-core", true)]);
    check(|config| config.permissions.shutdown, &[("", false), ("-A", true)]);
    check(|config| config.permissions.flush, &[("", true), ("-F", false)]);
    check(|config| config.permissions.dump, &[("", true), ("-X", false)]);
    check(|config| config.permissions.watch, &[("", true), ("-W", false)]);
    check(|config| config.process.daemonize, &[("", false), ("-d", true), ("-dMC", true)]);
    check(|config| config.process.core_dumps, &[("", false), ("-r", true)]);
    check(|config| config.process.user.clone(), &[("", None), ("-u nobody", Some("nobody".into()))]);
    check(|config| config.process.memory_file.clone(), &[("", None), ("-e /mnt/image", Some("/mnt/image".into()))]);
    check(|config| config.process.pid_file.clone(), &[("", None), ("-P /run/x.pid", Some("/run/x.pid".into()))]);
    check(
        |config| config.listen.protocol,
        &[
            ("", BindingProtocol::Auto),
            ("-B auto", BindingProtocol::Auto),
            ("--protocol=ascii", BindingProtocol::Ascii),
            ("-B binary", BindingProtocol::Binary),
        ],
    );
    check(
        |config| (config.detail.delimiter, config.detail.enabled),
        &[("", (b':', false)), ("-D :", (b':', true)), ("-D -", (b'-', true)), ("-D/", (b'/', true))],
    );
    check(|config| config.udp.port, &[("", 0), ("-U 0", 0), ("-U0 -N 2", 0)]);
    check(|config| config.workers.napi_ids, &[("", 0), ("-N 2", 2), ("-N 3", 3), ("--napi-ids=1 -t 1", 1)]);
    check_refused(&[
        ("-B foo", 64, "Invalid value for binding protocol: foo\n"),
        ("-D ''", 1, "No delimiter specified"),
    ]);
}

#[test]
fn long_forms_are_memcacheds() {
    let config = good(
        "--port=1 --unix-mask=770 --enable-shutdown --listen=::1 --daemon --enable-coredumps --user=u \
         --memory-limit=128 --disable-evictions --conn-limit=9 --lock-memory --pidfile=p --slab-growth-factor=1.5 \
         --slab-min-size=32 --enable-largepages --threads=1 --max-reqs-per-event=7 --disable-cas \
         --listen-backlog=3 --protocol=auto --max-item-size=4m --disable-flush-all --disable-dumping \
         --disable-watch --udp-port=0 --napi-ids=1 --extended=modern,idle_timeout=5",
    );
    assert_eq!(config.listen.sockets, [Listen::Host { host: "::1".into(), port: 1 }]);
    assert_eq!((config.connections.max, config.turn.requests, config.connections.idle_timeout_seconds), (9, 7, 5));
}

#[test]
fn where_it_listens() {
    let host = |host: &str, port| Listen::Host { host: host.into(), port };
    let unix = |mask| vec![Listen::Unix { path: "/tmp/s".into(), mask }];
    check(
        |config| config.listen.sockets.clone(),
        &[
            ("-p 1", vec![Listen::Loopback { port: 1 }]),
            ("-p -1", vec![Listen::Loopback { port: 0 }]),
            ("-l *", vec![Listen::Any { port: 11211 }]),
            ("-l *:5 -p 1", vec![Listen::Any { port: 5 }]),
            ("-l 127.0.0.1 -p 1", vec![host("127.0.0.1", 1)]),
            ("-l 127.0.0.1 -p -1", vec![host("127.0.0.1", 0)]),
            ("-l 127.0.0.1:0", vec![host("127.0.0.1", 0)]),
            ("-l 127.0.0.1:-1", vec![host("127.0.0.1", 0)]),
            ("-l ::1", vec![host("::1", 11211)]),
            ("-l [::1]", vec![host("::1", 11211)]),
            ("-l [::1]:7,localhost:8;a", vec![host("::1", 7), host("localhost", 8), host("a", 11211)]),
            ("-l a -l b:1 -l a", vec![host("a", 11211), host("b", 1)]),
            // memcached looks for repeats by substring, and would lose the second address.
            ("-l 10.0.0.11 -l 10.0.0.1", vec![host("10.0.0.11", 11211), host("10.0.0.1", 11211)]),
            ("-l ,a,", vec![host("a", 11211)]),
            ("-s /tmp/s", unix(0o700)),
            ("-s /tmp/s -a 777", unix(0o777)),
            ("-s /tmp/s -a 0660 -p 0", unix(0o660)),
            ("-s /tmp/s -l a -p 4", unix(0o700)),
        ],
    );
    check(
        |config| config.warnings.len(),
        &[("-s /tmp/s", 0), ("-s /tmp/s -p 0", 0), ("-s /tmp/s -p 1", 1), ("-s /tmp/s -l a", 1)],
    );
    check(
        |config| config.udp.sockets.clone(),
        &[
            ("", vec![]),
            ("-U 0", vec![]),
            ("-U 5", vec![Listen::Loopback { port: 5 }]),
            ("-U -1 -p 6", vec![Listen::Loopback { port: 0 }]),
            (
                "-U 5 -p 0 -l 10.0.0.1,10.0.0.2:7,*",
                vec![host("10.0.0.1", 5), host("10.0.0.2", 7), Listen::Any { port: 5 }],
            ),
            ("-U 5 -s /tmp/s", vec![]),
        ],
    );
    check(
        |config| (config.listen.tcp_port, config.udp.port, config.listen.sockets.len()),
        &[("-U 5", (5, 5, 1)), ("-U -1", (-1, -1, 1)), ("-U 5 -p 6", (6, 5, 1)), ("-U 5 -p 0", (0, 5, 0))],
    );
    check(
        |config| config.udp.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        &[
            ("", "".to_owned()),
            ("--udp-allow 10.0.0.0/8,::1 --udp-allow 192.0.2.1", "10.0.0.0/8 ::1/128 192.0.2.1/32".to_owned()),
        ],
    );
    let metrics = |config: &Config| {
        let addresses: Vec<String> = config.observing.addresses.iter().map(ToString::to_string).collect();
        (addresses.join(" "), config.observing.key_names, config.observing.drain_seconds)
    };
    check(
        metrics,
        &[
            ("", (String::new(), false, 0)),
            ("--metrics 9150 --metrics 9150", ("loopback:9150".to_owned(), false, 0)),
            ("--metrics 0 --metrics [::]:9150 --drain 5", ("loopback:0 [::]:9150".to_owned(), false, 5)),
            ("--metrics 127.0.0.1:1 --metrics host", ("127.0.0.1:1 host:9150".to_owned(), false, 0)),
            ("--metrics *:1 --metrics-key-names", ("*:1".to_owned(), true, 0)),
            ("--metrics unix:/a/b --metrics ::1", ("/a/b [::1]:9150".to_owned(), false, 0)),
        ],
    );
    check(
        |config| config.observing.addresses.clone(),
        &[("--metrics unix:a -a 660", vec![Listen::Unix { path: "a".into(), mask: 0o660 }])],
    );
    check(|config| config.nodes_file.clone(), &[("", None), ("--nodes f", Some("f".into()))]);
    check(|config| config.listen.tcp_port, &[("", 11211), ("-p -1", -1), ("-p 0 -s /tmp/s", 0), ("-p65535", 65535)]);
    check(|config| config.listen.interface.clone(), &[("", None), ("-l a,b -l c", Some("a,b,c".into()))]);
    check_refused(&[
        ("-p 70000", 64, "ERROR: Invalid port number 70000."),
        ("-p -2", 64, "ERROR: Invalid port number -2."),
        ("-p abc", 64, "-p 0 turns TCP off"),
        ("-p 0", 64, "-p 0 turns TCP off, and without -s or -U there is nothing to listen on"),
        ("-U 70000", 64, "ERROR: Invalid port number 70000."),
        ("-U 1 -l ,,", 64, "-l needs an address"),
        ("--udp-allow 10.0.0.0/33", 64, "--udp-allow takes addresses and networks, as 10.0.0.0/8: \"10.0.0.0/33\""),
        ("--metrics 70000", 64, "--metrics takes host:port, a port of loopback, or unix:path: \"70000\""),
        ("--metrics :9150", 64, "--metrics takes host:port"),
        ("--metrics unix:", 64, "--metrics takes host:port"),
        ("--metrics a:b", 64, "--metrics takes host:port"),
        ("--drain 3601", 64, "--drain takes a number from 0 to 3600: \"3601\""),
        ("-p 0 -l 127.0.0.1:5", 64, "-p 0 turns TCP off"),
        ("-l ''", 64, "-l needs an address"),
        ("-l ,,", 64, "-l needs an address"),
        ("-l 127.0.0.1:", 71, "Invalid port number: \"\""),
        ("-l 127.0.0.1:abc", 71, "Invalid port number: \"abc\""),
        ("-l 127.0.0.1:99999", 71, "Invalid port number: \"99999\""),
        ("-l [::1", 71, "Invalid IPV6 address: \"[::1\""),
        ("-l [::1]x", 71, "Invalid IPV6 address: \"[::1]x\""),
        ("-l :5", 71, "Invalid address: \":5\""),
        ("-l []:5", 71, "Invalid address: \"[]:5\""),
        ("-l notls:127.0.0.1", 71, "'notls' option is valid only when SSL is enabled"),
        ("-l mtls:127.0.0.1:5", 71, "'mtls' option is valid only when SSL is enabled"),
        ("-l proto[ascii:a", 71, "Invalid protocol spec: \"[ascii:a\""),
        ("-l proto[ascii]a", 71, "Invalid protocol spec: \"[ascii]a\""),
        ("-l proto[proxy]:a", 71, "Proxy must be enabled to use: \"proto[proxy"),
        ("-l proto[ascii]:proto[binary]:a", 71, "Invalid port number: \"a\""),
        ("-l tag[x]:proto[ascii]:a", 71, "Invalid port number: \"a\""),
        ("-l tag[a:b", 71, "Invalid tag in socket config: \"[a:b\""),
        ("-l tag[a]b", 71, "Invalid tag in socket config: \"[a]b\""),
        ("-l tag_a", 71, "Invalid tag in socket config: \"_a\""),
        ("-l tag[]:a", 71, "Listener tags must be between 1 and 8 characters: \"\""),
        ("-l tag_123456789_:a", 71, "Listener tags must be between 1 and 8 characters: \"123456789\""),
        ("-l tag:127.0.0.1", 71, "Invalid port number: \"127.0.0.1\""),
        ("-l proto[ascii]:", 71, "Invalid address: \"\""),
        ("-s ''", 64, "-s needs the path"),
    ]);
}

#[test]
fn prefixes_of_an_address() {
    use BindingProtocol::{Ascii, Auto, Binary};
    let rules = |config: &Config| {
        assert_eq!(config.listen.sockets.len(), config.listen.rules.len());
        let rules = config.listen.rules.iter().map(|rules| (rules.protocol, rules.tag.clone()));
        rules.collect::<Vec<_>>()
    };
    let tag = |tag: &str| Some(tag.to_owned());
    check(
        rules,
        &[
            ("", vec![(None, None)]),
            ("-l a", vec![(None, None)]),
            ("-l proto[ascii]:a,proto[binary]:b:1", vec![(Some(Ascii), None), (Some(Binary), None)]),
            ("-l proto[negotiating]:a -B binary", vec![(Some(Auto), None)]),
            (
                "-l proto[]:a;proto[b]:b;proto[neg]:c",
                vec![(Some(Ascii), None), (Some(Binary), None), (Some(Auto), None)],
            ),
            ("-l proto[auto]:a", vec![(None, None)]),
            ("-l tag[abc]:a,tag_12345678_:b", vec![(None, tag("abc")), (None, tag("12345678"))]),
            ("-l proto[ascii]:tag[x]:[::1]:5", vec![(Some(Ascii), tag("x"))]),
            // With `-p -1`, the system chooses two ports. With `-p 5`, only one of the two can have the port; binding
            // reports that, as in memcached.
            ("-p -1 -l proto[ascii]:a,proto[binary]:a", vec![(Some(Ascii), None), (Some(Binary), None)]),
            ("-p 5 -l proto[ascii]:a,proto[binary]:a", vec![(Some(Ascii), None), (Some(Binary), None)]),
            ("-p 5 -l proto[ascii]:a -l proto[ascii]:a,proto[ascii]:a:5", vec![(Some(Ascii), None)]),
        ],
    );
    let host = |host: &str, port| Listen::Host { host: host.into(), port };
    check(
        |config| config.listen.sockets.clone(),
        &[
            ("-l proto[ascii]:tag[x]:[::1]:5", vec![host("::1", 5)]),
            ("-l tag_a_:*", vec![Listen::Any { port: 11211 }]),
            ("-l tag[x]:a:-1", vec![host("a", 0)]),
        ],
    );
    check(|config| config.udp.sockets.clone(), &[("-U 5 -l proto[ascii]:tag[x]:a", vec![host("a", 5)])]);
    check(|config| config.listen.interface.clone(), &[("-l tag[x]:a -l b -l b", Some("tag[x]:a,b".into()))]);
    // If logins are required, no listener may use a protocol in which clients cannot log in.
    check(rules, &[("-Y /f -l proto[negotiating]:a,proto[ascii]:b", vec![(None, None), (None, None)])]);
    check_refused(&[("-Y /f -l proto[binary]:a", 71, "Cannot use binary protocol when ascii authentication enabled")]);
    let sasl = Surroundings { sasl_password_file: Some("/f".into()), ..HERE };
    let with_sasl = |words: &str| {
        parse(["corecached", "-S", "-l", words].map(OsString::from).into(), &sasl).map(|config| rules(&config))
    };
    assert_eq!(with_sasl("proto[negotiating]:a,proto[binary]:b").expect("valid"), [(None, None), (None, None)]);
    assert_eq!(with_sasl("proto[ascii]:a").expect_err("no login there").code, 71);
}

#[test]
fn users_and_their_connections() {
    check(|config| config.login.users_file.clone(), &[("", None), ("--users /f", Some("/f".into()))]);
    check(
        |config| config.listen.protocol,
        &[("--users /f", BindingProtocol::Auto), ("--users /f -B ascii", BindingProtocol::Ascii)],
    );
    let per_address = "--connections-per-address takes a number from 0 to 4294967295";
    check(|config| config.connections.per_address, &[("", 0), ("--connections-per-address 7", 7)]);
    check_refused(&[
        ("--users /f -Y /f", 64, "--users takes the place of -S and -Y"),
        ("--users /f -S", 64, "--users takes the place of -S and -Y"),
        ("--connections-per-address x", 64, per_address),
        ("--connections-per-address -1", 64, per_address),
    ]);
}

#[test]
fn addresses_to_bind() {
    let text = |listen: Listen| {
        let addresses = listen.resolve().expect("no name to look up");
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text(Listen::Loopback { port: 1 }), "127.0.0.1:1 [::1]:1");
    assert_eq!(text(Listen::Any { port: 1 }), "0.0.0.0:1 [::]:1");
    assert_eq!(text(Listen::Host { host: "10.0.0.1".into(), port: 1 }), "10.0.0.1:1");
    assert_eq!(text(Listen::Host { host: "::1".into(), port: 1 }), "[::1]:1");
    assert_eq!(text(Listen::Unix { path: "/tmp/s".into(), mask: 0o700 }), "");
    assert_eq!(Listen::Host { host: "::1".into(), port: 1 }.to_string(), "[::1]:1");
}

#[test]
fn extended_options() {
    check(
        |config| config.memory.slab_reassign,
        &[("", true), ("-o no_slab_reassign", false), ("-o slab_reassign=1", true)],
    );
    check(
        |config| config.tuning.automove.level,
        &[("", 1), ("-o slab_automove=2", 2), ("-o slab_automove", 1), ("-o no_slab_automove", 0)],
    );
    check(|config| config.tuning.automove.ratio, &[("", 0.8), ("-o slab_automove_ratio=1", 1.0)]);
    check(|config| config.tuning.automove.free_ratio, &[("", 0.0), ("-o slab_automove_freeratio=0.1", 0.1)]);
    check(
        |config| (config.memory.slab_reassign, config.tuning.automove.level, config.crawler.enabled),
        &[("-o modern", (true, 1, true)), ("-o no_modern", (false, 0, false))],
    );
    check(
        |config| (config.memory.lru_maintainer, config.connections.maxconns_fast),
        &[("-o modern", (true, true)), ("-o no_modern", (false, false))],
    );
    check(|config| config.tuning.automove.window_seconds, &[("", 10), ("-o slab_automove_window=3", 3)]);
    check(
        |config| config.memory.hash_power,
        &[("", None), ("-o hashpower=12", Some(12)), ("-o hashpower=32", Some(32))],
    );
    check(
        |config| config.memory.chunk_max_bytes,
        &[
            ("", 512 << 10),
            ("-o slab_chunk_max=16", 16 << 10),
            ("-o slab_chunk_max=1024", 1 << 20),
            ("-o no_chunked_items", 1 << 20),
            ("-I 2m -o no_chunked_items", 512 << 10),
        ],
    );
    check(
        |config| config.memory.slab_sizes.clone(),
        &[
            ("", None),
            ("-o slab_sizes=100-200-300", Some(vec![100, 200, 300])),
            ("-o slab_sizes=48", Some(vec![48])),
            ("-n 20 -o slab_sizes=40-60", Some(vec![40, 60])),
        ],
    );
    check(|config| config.crawler.enabled, &[("", true), ("-o no_lru_crawler", false)]);
    check(|config| config.crawler.sleep_micros, &[("", 100), ("-o lru_crawler_sleep=1000000", 1_000_000)]);
    check(|config| config.crawler.tocrawl, &[("", 0), ("-o lru_crawler_tocrawl=5", 5)]);
    check(|config| config.connections.maxconns_fast, &[("", true), ("-o no_maxconns_fast", false)]);
    check(|config| config.memory.lru_maintainer, &[("", true), ("-o no_lru_maintainer", false)]);
    check(
        |config| (config.tuning.lru.hot_percent, config.tuning.lru.warm_percent),
        &[("", (20, 40)), ("-o hot_lru_pct=40", (40, 40)), ("-o hot_lru_pct=1,warm_lru_pct=79", (1, 79))],
    );
    check(|config| config.tuning.lru.hot_max_factor, &[("", 0.2), ("-o hot_max_factor=5", 5.0)]);
    check(|config| config.tuning.lru.warm_max_factor, &[("", 2.0), ("-o warm_max_factor=0.5", 0.5)]);
    check(|config| config.tuning.temporary_ttl, &[("", None), ("-o temporary_ttl=0", Some(0))]);
    check(|config| config.connections.idle_timeout_seconds, &[("", 0), ("-o idle_timeout=10", 10)]);
    check(|config| config.watch.watcher_bytes, &[("", 256 << 10), ("-o watcher_logbuf_size=1", 1024)]);
    check(|config| config.watch.worker_bytes, &[("", 64 << 10), ("-o worker_logbuf_size=2", 2048)]);
    check(|config| config.shown.read_buffers_limit_bytes, &[("", 0), ("-o read_buf_mem_limit=1", 1 << 20)]);
    check(|config| config.memory.track_sizes, &[("", false), ("-o track_sizes", true)]);
    check(|config| config.listen.socket_mark, &[("", 0), ("-o sock_cookie_id=5", 5)]);
    check(|config| config.shown.tail_repair_time_seconds, &[("", 0), ("-o tail_repair_time=10", 10)]);
    check(
        |config| (config.connections.idle_timeout_seconds, config.crawler.enabled, config.memory.hash_power),
        &[("-o idle_timeout=3,no_lru_crawler -o hashpower=20,", (3, false, Some(20)))],
    );
}

#[test]
fn tls() {
    let all = "-o ssl_chain_cert=c,ssl_key=k,ssl_ca_cert=a,ssl_verify_mode=2";
    let file = |name: &str| Some(PathBuf::from(name));
    check(
        |config| config.tls.enabled,
        &[("", false), ("-Z -o ssl_chain_cert=c", true), ("-o ssl_chain_cert=c", false)],
    );
    check(
        |config| {
            (config.tls.options.chain.clone(), config.tls.options.key.clone(), config.tls.options.authorities.clone())
        },
        &[("", (None, None, None)), (all, (file("c"), file("k"), file("a")))],
    );
    check(
        |config| (config.tls.options.verify, config.shown.tls_verify_bits),
        &[
            ("", (Verify::None, 0)),
            ("-o ssl_verify_mode=0", (Verify::None, 0)),
            ("-o ssl_verify_mode=1", (Verify::Request, 1)),
            ("-o ssl_verify_mode=2", (Verify::Require, 3)),
            ("-o ssl_verify_mode=3", (Verify::Require, 7)),
        ],
    );
    check(
        |config| (config.tls.options.only_1_3, config.warnings.len()),
        &[("", (false, 0)), ("-o ssl_min_version=0", (false, 1)), ("-o ssl_min_version=3", (true, 0))],
    );
    check(
        |config| config.tls.options.key_format,
        &[
            ("-o ssl_keyformat=1", KeyFormat::Pem),
            ("-o ssl_keyformat=PEM", KeyFormat::Pem),
            ("-o ssl_keyformat=2", KeyFormat::Der),
        ],
    );
    check(|config| config.tls.limits.seal_max, &[("", 64 << 10), ("-o ssl_wbuf_size=16", 16 << 10)]);
    check(|config| config.tls.options.sessions_max > 0, &[("", false), ("-o ssl_session_cache", true)]);
    check(|config| config.tls.options.ciphers.clone(), &[("-o ssl_ciphers=HIGH:!aNULL", Some("HIGH:!aNULL".into()))]);
    check(|config| config.warnings.len(), &[(all, 1), ("-o ssl_kernel_tls", 1), ("-o ssl_session_cache", 0)]);
    let mixed = format!("-Z {all} -l a:1,notls:b:2,btls:c,mtls:[::1]:3;mtls:*");
    let verify = |config: &Config| (0..config.listen.sockets.len()).map(|at| config.verify(at)).collect::<Vec<_>>();
    check(
        verify,
        &[
            (
                &mixed,
                vec![Some(Verify::Require), None, Some(Verify::None), Some(Verify::Require), Some(Verify::Require)],
            ),
            ("-Z -o ssl_chain_cert=c", vec![Some(Verify::None)]),
            ("-Z -o ssl_chain_cert=c,ssl_verify_mode=1", vec![Some(Verify::None)]),
            ("-Z -o ssl_chain_cert=c -s /tmp/s", vec![None]),
            ("", vec![None]),
        ],
    );
    check_refused(&[
        ("-Z", 64, "Error loading the certificate chain: "),
        ("-Z -o ssl_chain_cert=c,ssl_verify_mode=2", 64, "certificates of clients cannot be verified"),
        ("-Z -o ssl_chain_cert=c -l mtls:a", 64, "certificates of clients cannot be verified"),
        ("-o ssl_chain_cert", 1, "Missing ssl_chain_cert argument"),
        ("-o ssl_verify_mode", 1, "Missing ssl_verify_mode argument"),
        ("-o ssl_verify_mode=4", 1, "Invalid ssl_verify_mode. Use help to see valid options."),
        ("-o ssl_verify_mode=x", 1, "could not parse argument to ssl_verify_mode"),
        ("-o ssl_min_version=4", 1, "Invalid ssl_min_version. Use help to see valid options."),
        ("-o ssl_keyformat=x", 1, "could not parse argument to ssl_keyformat"),
        ("-o ssl_keyformat=ENGINE", 64, "-o ssl_keyformat=ENGINE: there are no engines"),
        ("-o ssl_wbuf_size=x", 1, "could not parse argument to ssl_wbuf_size"),
        ("-o ssl_nosuch=1", 1, "Illegal suboption \"ssl_nosuch=1\""),
    ]);
}

#[test]
fn what_changes_nothing_is_accepted_with_a_warning_or_was_nothing_in_memcached_either() {
    check(
        |config| config.warnings.len(),
        &[
            ("-o modern,inline_ascii_resp,no_inline_ascii_resp,maxconns_fast", 0),
            ("-o no_drop_privileges,relaxed_privileges,sock_cookie_id=5", 0),
            ("-o no_hashexpand", 1),
            ("-o ''", 0),
            ("-o drop_privileges", 1),
            ("-o hash_algorithm=xxh3", 1),
            ("-o hash_algorithm=jenkins,tail_repair_time=10", 2),
            ("-o resp_obj_mem_limit", 1),
            ("-o resp_obj_mem_limit=5,watcher_logbuf_size=1,worker_logbuf_size=1", 1),
            ("-o no_chunked_items", 1),
            ("-o slab_chunk_max=512", 1),
            ("-o slab_chunk_max=8", 0),
            ("-o slab_chunk_max=16", 1),
            ("-o slab_sizes=100-12289", 1),
            ("-o slab_sizes=100-12288", 0),
            ("-t 64", 0),
            ("-t 65", 1),
        ],
    );
}

#[test]
fn extended_options_are_refused_in_memcacheds_words() {
    check_refused(&[
        ("-o foo", 1, "Illegal suboption \"foo\""),
        ("-o foo=1", 1, "Illegal suboption \"foo=1\""),
        ("-o ,", 1, "Illegal suboption \"\""),
        ("-o modern,,modern", 1, "Illegal suboption \"\""),
        ("-o modern -o foo", 1, "Illegal suboption \"foo\""),
        ("-o hashpower", 1, "Missing numeric argument for hashpower"),
        ("-o hashpower=11", 1, "Initial hashtable multiplier of 11 is too low"),
        ("-o hashpower=33", 1, "Initial hashtable multiplier of 33 is too high"),
        ("-o hash_algorithm", 1, "Missing hash_algorithm argument"),
        ("-o hash_algorithm=foo", 1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"),
        ("-o hashpower=x", 1, "Initial hashtable multiplier of 0 is too low"),
        ("-o slab_automove=3", 1, "slab_automove must be between 0 and 2"),
        ("-o slab_automove=-1", 1, "slab_automove must be between 0 and 2"),
        ("-o slab_automove_ratio", 1, "Missing slab_automove_ratio argument"),
        ("-o slab_automove_ratio=0", 1, "slab_automove_ratio must be > 0 and < 1"),
        ("-o slab_automove_ratio=1.1", 1, "slab_automove_ratio must be > 0 and < 1"),
        ("-o slab_automove_freeratio=x", 1, "could not parse argument to slab_automove_freeratio"),
        ("-o slab_automove_window=2", 1, "slab_automove_window must be > 2 and < 1800"),
        ("-o slab_automove_window=1801", 1, "slab_automove_window must be > 2 and < 1800"),
        ("-o slab_chunk_max", 1, "Missing slab_chunk_max argument"),
        ("-o slab_chunk_max=abc", 1, "could not parse argument to slab_chunk_max"),
        ("-o slab_chunk_max=16x", 1, "could not parse argument to slab_chunk_max"),
        ("-o slab_chunk_max=0", 1, "slab_chunk_max must be >= 0"),
        ("-o slab_chunk_max=1025", 1, "slab_chunk_max must be specified in kilobytes."),
        ("-o slab_chunk_max=300", 64, "-I (item_size_max: 1048576) must be evenly divisible by slab_chunk_max"),
        ("-I 1536k -o slab_chunk_max=768", 64, "slab_chunk_max (bytes: 786432) must divide evenly into 1048576"),
        ("-o slab_sizes", 1, "Missing slab_sizes argument"),
        ("-o slab_sizes=", 64, "slab_sizes needs sizes"),
        ("-o slab_sizes=300-200", 64, "slab size 200 cannot be lower than or equal to a previous class size"),
        ("-o slab_sizes=100-108", 64, "slab size 108 must be at least 8 bytes larger than previous class"),
        ("-o slab_sizes=47-200", 64, "slab size 47 is out of valid range"),
        ("-o slab_sizes=100-524289", 64, "slab size 524289 is out of valid range"),
        ("-o slab_sizes=100-abc", 64, "slab size abc is out of valid range"),
        ("-o lru_crawler_sleep", 1, "Missing lru_crawler_sleep value"),
        ("-o lru_crawler_sleep=1000001", 1, "LRU crawler sleep must be between 0 and 1 second"),
        ("-o lru_crawler_tocrawl", 1, "Missing lru_crawler_tocrawl value"),
        ("-o lru_crawler_tocrawl=-1", 1, "lru_crawler_tocrawl takes a numeric 32bit value"),
        ("-o hot_lru_pct=0", 1, "hot_lru_pct must be > 1 and < 80"),
        ("-o hot_lru_pct=80", 1, "hot_lru_pct must be > 1 and < 80"),
        ("-o hot_lru_pct=41", 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
        ("-o warm_lru_pct=61", 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
        ("-o hot_max_factor=0", 1, "hot_max_factor must be > 0"),
        ("-o warm_max_factor=-1", 1, "warm_max_factor must be > 0"),
        ("-o temporary_ttl", 1, "Missing temporary_ttl argument"),
        ("-o idle_timeout", 1, "Missing numeric argument for idle_timeout"),
        ("-o idle_timeout=-1", 1, "idle_timeout takes a number of seconds"),
        ("-o watcher_logbuf_size=abc", 1, "could not parse argument to watcher_logbuf_size"),
        ("-o worker_logbuf_size", 1, "Missing worker_logbuf_size argument"),
        ("-o read_buf_mem_limit=-1", 1, "could not parse argument to read_buf_mem_limit"),
        ("-o tail_repair_time=9", 1, "Cannot set tail_repair_time to less than 10 seconds"),
    ]);
    let sizes = |count: usize| {
        let sizes: Vec<String> = (0..count).map(|index| (104 + 16 * index).to_string()).collect();
        format!("-o slab_sizes={}", sizes.join("-"))
    };
    assert_eq!(good(&sizes(62)).memory.slab_sizes.map(|sizes| sizes.len()), Some(62));
    check_refused(&[(&sizes(63), 64, "too many slab classes specified")]);
}

#[test]
fn what_is_not_built_is_refused() {
    check_refused(&[
        ("-o sock_cookie_id", 1, "Missing sock_cookie_id argument"),
        ("-o ext_path=/mnt/x:1G", 64, "-o ext_path=/mnt/x:1G: there is no disk tier"),
        ("-o proxy_config=x", 64, "-o proxy_config=x: there is no proxy"),
    ]);
}

#[test]
fn unknown_flags_are_refused_as_getopt_and_memcached_do() {
    let unknown = [
        ("-Q", "invalid option -- 'Q'"),
        ("-v2", "invalid option -- '2'"),
        ("-M=3", "invalid option -- '='"),
        ("--nosuch", "unrecognized option '--nosuch'"),
        ("-p", "option requires an argument -- 'p'"),
        ("-vp", "option requires an argument -- 'p'"),
        ("--port", "option '--port' requires an argument"),
        ("--daemon=1", "option '--daemon' doesn't allow an argument"),
        ("--unix", "option '--unix' is ambiguous; possibilities: '--unix-socket' '--unix-mask'"),
        ("--lis=5", "option '--lis' is ambiguous; possibilities: '--listen' '--listen-backlog'"),
    ];
    for (words, what) in unknown {
        let exit = line(words).expect_err(words);
        assert_eq!(exit.text, format!("corecached: {what}\nIllegal argument \"?\""));
        assert!(exit.code == 1 && !exit.to_stdout, "{words}");
    }
}

#[test]
fn help_and_version_begin_as_the_name_says() {
    let first = |words: &str| {
        let exit = parse(words.split(' ').map(OsString::from).collect(), &HERE).expect_err("asked for information");
        assert!(exit.to_stdout && exit.code == 0, "{words}");
        exit.text.lines().next().expect("not empty").to_owned()
    };
    let ours = format!("corecached {} (memcached 1.6.45 protocol)", env!("CARGO_PKG_VERSION"));
    for flag in ["-h", "--help", "-V", "--version", "-i", "--license", "-t 0 -h"] {
        assert_eq!(first(&format!("/usr/bin/memcached {flag}")), "memcached 1.6.45");
        assert_eq!(first(&format!("target/release/corecached {flag}")), ours);
    }
}

#[test]
fn the_help_names_every_flag_and_every_word() {
    let help = help();
    for letter in "psaAlrdumMckvhiVPfnLDtRCbIFXWUBSYZeNo".chars() {
        assert!(help.contains(&format!("  -{letter}")), "-{letter}");
    }
    let words = "\
        maxconns_fast no_maxconns_fast hashpower slab_reassign no_slab_reassign slab_automove no_slab_automove \
        slab_automove_ratio slab_automove_window slab_automove_freeratio no_modern slab_sizes slab_chunk_max \
        lru_crawler no_lru_crawler lru_maintainer no_lru_maintainer hot_lru_pct warm_lru_pct hot_max_factor \
        warm_max_factor temporary_ttl lru_crawler_sleep lru_crawler_tocrawl watcher_logbuf_size worker_logbuf_size \
        idle_timeout track_sizes ssl_chain_cert ssl_key ssl_keyformat ssl_verify_mode ssl_ca_cert ssl_ciphers \
        ssl_min_version ssl_session_cache ssl_wbuf_size sock_cookie_id modern inline_ascii_resp no_inline_ascii_resp \
        no_drop_privileges relaxed_privileges hash_algorithm tail_repair_time read_buf_mem_limit resp_obj_mem_limit \
        no_chunked_items no_hashexpand drop_privileges ssl_kernel_tls slab_chunk_max slab_sizes ext_* proxy_*";
    let words = words.split_ascii_whitespace();
    let mut count = 0;
    for word in words {
        let switched_on = word.strip_prefix("no_").is_some_and(|word| help.contains(word));
        assert!(help.contains(word) || switched_on, "{word}");
        count += 1;
    }
    assert!(count > 45, "{count}");
}

#[test]
fn clap_finds_no_fault_with_the_flags() {
    command().debug_assert();
}
