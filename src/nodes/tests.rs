use super::*;

/// Names ending in `.v4` have an IPv4 address behind another, those in `.v6` an IPv6 address alone, `empty` has none.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let address = |text: &str| text.parse().expect("an address");
    match name {
        _ if name.ends_with(".v4") => Ok(vec![address("fd00::4"), address("10.0.0.4"), address("10.0.0.5")]),
        _ if name.ends_with(".v6") => Ok(vec![address("fd00::6")]),
        "empty" => Ok(vec![]),
        _ => Err(io::Error::other("no such host")),
    }
}

#[track_caller]
fn read(text: &str) -> NodeList {
    NodeList::from_text(text.as_bytes(), 1_764_300_000, resolve).expect("a good file")
}

#[track_caller]
fn reply(text: &str) -> String {
    String::from_utf8(Nodes::new(read(text)).reply()).expect("text")
}

#[test]
fn the_reply_has_the_bytes_of_elasticache() {
    assert_eq!(
        reply(
            "version 12\n\
             myCluster.pc4ldq.0001.use1.cache.amazonaws.com|10.82.235.120:11211\n\
             myCluster.pc4ldq.0002.use1.cache.amazonaws.com|10.80.249.27:11211\n"
        ),
        "CONFIG cluster 0 136\r\n12\n\
         myCluster.pc4ldq.0001.use1.cache.amazonaws.com|10.82.235.120|11211 \
         myCluster.pc4ldq.0002.use1.cache.amazonaws.com|10.80.249.27|11211\n\r\nEND\r\n"
    );
    assert_eq!(reply("version 7\n127.0.0.1:1\n"), "CONFIG cluster 0 24\r\n7\n127.0.0.1|127.0.0.1|1\n\r\nEND\r\n");
}

#[test]
fn a_node_has_a_name_an_address_and_a_port() {
    for (line, expected) in [
        ("one.v4", "one.v4|10.0.0.4|11211"),
        ("one.v4:1", "one.v4|10.0.0.4|1"),
        ("one.v6:65535", "one.v6|fd00::6|65535"),
        ("unknown|10.1.2.3", "unknown|10.1.2.3|11211"),
        ("a_b-c.d|10.1.2.3:22", "a_b-c.d|10.1.2.3|22"),
        ("unknown|[fd00::1]:22", "unknown|fd00::1|22"),
        ("unknown|fd00::1", "unknown|fd00::1|11211"),
        ("10.1.2.3", "10.1.2.3|10.1.2.3|11211"),
        ("10.1.2.3:5", "10.1.2.3|10.1.2.3|5"),
        ("10.1.2.3|10.9.9.9:5", "10.1.2.3|10.9.9.9|5"),
        ("fd00::1", "fd00::1|fd00::1|11211"),
        ("[fd00::1]", "fd00::1|fd00::1|11211"),
        ("[fd00::1]:5", "fd00::1|fd00::1|5"),
        ("  one.v4\t # the first", "one.v4|10.0.0.4|11211"),
        ("version.v4", "version.v4|10.0.0.4|11211"),
        ("version|10.0.0.1", "version|10.0.0.1|11211"),
    ] {
        let reply = reply(&format!("version 3\n{line}\n"));
        assert_eq!(reply.lines().nth(2), Some(expected), "{line}");
    }
}

#[test]
fn a_file_without_a_version_has_that_of_its_age() {
    assert_eq!(read("one.v4\n").version, 1_764_300_000);
    assert_eq!(NodeList::from_text(b"one.v4", 0, resolve).expect("a good file").version, 1);
    assert_eq!(read("# nodes\n\none.v4\r\nversion 9223372036854775807\r\n").version, i64::MAX as u64);
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    for (text, line, what) in [
        ("", None, "it lists no node"),
        ("version 2\n# none\n", None, "it lists no node"),
        ("one.v4\nversion\n", Some(2), "\"\" is no version: it takes a whole number from 1 to 9223372036854775807"),
        ("version 0\n", Some(1), "\"0\" is no version: it takes a whole number from 1 to 9223372036854775807"),
        (
            "version 9223372036854775808\n",
            Some(1),
            "\"9223372036854775808\" is no version: it takes a whole number from 1 to 9223372036854775807",
        ),
        ("version 1\none.v4\nversion 2\n", Some(3), "a second version"),
        ("one.v4\n\ntwo.v4 three.v4\n", Some(3), "\"two.v4 three.v4\" is no host name"),
        ("one.v4:0\n", Some(1), "\"0\" is no port"),
        ("one.v4:65536\n", Some(1), "\"65536\" is no port"),
        ("one.v4:\n", Some(1), "\"\" is no port"),
        ("|10.0.0.1\n", Some(1), "a node without a name"),
        (":11211\n", Some(1), "a node without a name"),
        ("[fd00::1]x\n", Some(1), "\"[fd00::1]x\" has something other than a port behind its brackets"),
        ("one|10.0.0.256\n", Some(1), "\"10.0.0.256\" is no IP address"),
        ("one|10.0.0.1|11211\n", Some(1), "\"10.0.0.1|11211\" is no IP address"),
        ("one:1|10.0.0.1\n", Some(1), "\"one:1\" is no host name"),
        ("gone\n", Some(1), "\"gone\" cannot be resolved: no such host"),
        ("empty\n", Some(1), "\"empty\" has no address"),
        ("one.v4\nOne.v4:11211\n", Some(2), "\"One.v4:11211\" is there twice"),
    ] {
        let error = NodeList::from_text(text.as_bytes(), 1, resolve).expect_err(text);
        assert_eq!((error.line, error.to_string().as_str()), (line, what), "{text:?}");
    }
    let error = NodeList::from_text(b"one.v4\ntwo.\xff\n", 1, resolve).expect_err("no text");
    assert_eq!((error.line, error.to_string().as_str()), (Some(2), "it is no text (UTF-8)"));
}

#[test]
fn a_thousand_nodes_fit_and_one_more_does_not() {
    let lines: Vec<String> = (0..=NODES_MAX).map(|number| format!("node-{number}.v4\n")).collect();
    let list = read(&lines[..NODES_MAX].concat());
    assert_eq!(list.len(), 1000);
    let reply = String::from_utf8(list.reply()).expect("text");
    let head = reply.split("\r\n").next().expect("a line");
    let length = head.strip_prefix("CONFIG cluster 0 ").and_then(|length| length.parse::<usize>().ok());
    let rest = &reply[head.len() + 2..];
    assert_eq!(rest.len() - "\r\nEND\r\n".len(), length.expect("a length"));
    assert_eq!(rest.split('\n').nth(1).map(|line| line.split(' ').count()), Some(1000));
    let error = NodeList::from_text(lines.concat().as_bytes(), 1, resolve).expect_err("too many");
    assert_eq!((error.line, error.to_string().as_str()), (Some(1001), "more than 1000 nodes"));
}

#[test]
fn names_with_an_address_need_no_resolver() {
    let list = NodeList::from_text(b"one|10.0.0.1\n10.0.0.2:5\nfd00::1\n", 1, |name| panic!("{name} is resolved"));
    assert_eq!(list.expect("a good file").len(), 3);
}

#[test]
fn nodes_are_replaced() {
    let nodes = Nodes::new(read("version 1\none.v4\n"));
    let old = nodes.replace(read("version 2\none.v4\ntwo.v6:5\n"));
    assert_eq!((old.version, old.len(), nodes.count()), (1, 1, 2));
    assert!(old.has_nodes_of(&read("version 5\none.v4:11211\n")) && !old.has_nodes_of(&read("version 1\none.v4:5\n")));
    assert_eq!(nodes.reply(), b"CONFIG cluster 0 41\r\n2\none.v4|10.0.0.4|11211 two.v6|fd00::6|5\n\r\nEND\r\n");
}
