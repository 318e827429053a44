//! `corecached doctor`: on planted machines, against real servers, and against one that does not answer.

use super::*;
use crate::server::new_folder;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with the files of a machine. Dropping it removes the folder.
struct Machine(PathBuf);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const OPEN_FILES: &str = "proc/self/limits";
const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";
const GOVERNOR: &str = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
const CLOCK: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
const QUEUE: &str = "sys/class/net/eth0/queues/rx-0/rps_cpus";

/// The files of a machine with eight CPUs on two nodes that is as it should be.
const CLEAN: &[(&str, &str)] = &[
    (OPEN_FILES, "Max open files            65536                65536                files"),
    ("proc/self/status", "Cpus_allowed_list:\t0-7"),
    ("proc/meminfo", "MemTotal:       16777216 kB\nSwapTotal:       2097152 kB"),
    ("proc/sys/net/core/somaxconn", "4096"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1"),
    ("proc/sys/vm/swappiness", "1"),
    ("proc/sys/vm/overcommit_memory", "0"),
    ("proc/sys/kernel/numa_balancing", "0"),
    (THP, "always [madvise] never"),
    (CLOCK, "tsc"),
    ("sys/devices/system/cpu/online", "0-7"),
    (GOVERNOR, "performance"),
    ("sys/devices/system/node/node0/cpulist", "0-3"),
    ("sys/devices/system/node/node1/cpulist", "4-7"),
    ("sys/class/net/eth0/device/vendor", "0x8086"),
    ("sys/class/net/eth0/operstate", "up"),
    (QUEUE, "ff"),
];

/// Ten faults, by the check that finds each.
const FAULTS: &[(&str, &str, &str)] = &[
    ("descriptors", OPEN_FILES, "Max open files            1024                 4096                 files"),
    ("somaxconn", "proc/sys/net/core/somaxconn", "128"),
    ("syn-backlog", "proc/sys/net/ipv4/tcp_syncookies", "0"),
    ("nic-queues", QUEUE, "00"),
    ("swappiness", "proc/sys/vm/swappiness", "60"),
    ("overcommit", "proc/sys/vm/overcommit_memory", "2"),
    ("huge-pages", THP, "always madvise [never]"),
    ("numa-balancing", "proc/sys/kernel/numa_balancing", "1"),
    ("cpu-governor", GOVERNOR, "powersave"),
    ("clock-source", CLOCK, "hpet"),
];

impl Machine {
    fn clean() -> Machine {
        let machine = Machine(new_folder());
        CLEAN.iter().for_each(|(path, text)| machine.write(path, text));
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("a folder of ours");
        fs::write(path, format!("{text}\n")).expect("a file of ours");
    }

    fn root(&self) -> &str {
        self.0.to_str().expect("a plain name")
    }
}

/// The names of the findings about the machine or the server of this place in the JSON.
fn findings(said: &Value, at: usize) -> BTreeSet<&str> {
    let list = said[at]["findings"].as_array().unwrap_or_else(|| panic!("no findings in {said}"));
    list.iter().filter_map(|finding| finding["check"].as_str()).collect()
}

#[test]
fn ten_faults_of_a_machine_are_found_one_by_one_and_together() {
    let away = nowhere();
    let doctor = |machine: &Machine, more: &[&str]| {
        call(&[&["doctor", "--machine", "--root", machine.root(), "--server", &away], more].concat())
    };
    let all = Machine::clean();
    let (code, said, complained) = doctor(&all, &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(complained.contains("connection refused: this machine is checked for a server without flags"));
    for (name, path, text) in FAULTS {
        let one = Machine::clean();
        one.write(path, text);
        all.write(path, text);
        let (code, said, _) = doctor(&one, &["--json"]);
        assert_eq!((code, findings(&json(&said), 0)), (Some(1), BTreeSet::from([*name])), "{said}");
    }
    let (_, said, _) = doctor(&all, &["--json"]);
    assert_eq!(findings(&json(&said), 0), FAULTS.iter().map(|(name, ..)| *name).collect(), "{said}");
    let (code, said, _) = doctor(&all, &[]);
    assert_eq!(code, Some(1));
    for (name, ..) in FAULTS {
        assert!(said.contains(&format!("\n{name}\n  ")), "{name} in {said}");
    }
    assert!(said.starts_with("This machine\n") && said.contains("\n    sysctl -w net.core.somaxconn=1024\n"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("    ") || line.chars().count() <= 100), "{said}");
}

/// A server that nobody uses has no findings, and neither has one whose clients do as they should.
pub(super) fn silent_if_all_is_well(program: Program) {
    let Some((server, address)) = start(program) else { return };
    let mut client = server.client();
    for at in 0..2000 {
        client.send(format!("set user:{at} 0 3600 5 noreply\r\nvalue\r\nget user:{at}\r\n"));
        client.expect(format!("VALUE user:{at} 0 5\r\nvalue\r\nEND\r\n"));
    }
    let doctor =
        |more: &[&str]| call(&[&["doctor", "--no-machine", "--seconds", "0.05", "--server", &address], more].concat());
    let (code, said, complained) = doctor(&[]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{complained}");
    let untold = match program {
        Program::Corecached => String::new(),
        _ => format!(
            "corecached: {address} is no corecached, and does not tell enough for: hot-key, prefix-without-hits, \
             slow-requests\n"
        ),
    };
    assert_eq!(complained, untold);
    let (code, said, _) = doctor(&["--verbose"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("\nno-ttl               ok: 0 of 2000 sampled items have no time to live\n"), "{said}");
    assert!(said.contains("\nbusy-workers         not checked: the interval is shorter than a second\n"), "{said}");
    let count = said.matches(" not checked: only corecached tells\n").count();
    assert_eq!(count, if program == Program::Corecached { 0 } else { 3 }, "{said}");
}

/// Clients that connect for each request, ask for one key, store in vain and for ever.
pub(super) fn faults(program: Program) {
    if !peers::has(program) {
        return;
    }
    let more: &[&str] = if program == Program::Corecached { &["--sample", "1"] } else { &[] };
    let server = Server::on_tcp(program, &[&["-t", "2"], more].concat());
    let address = server.tcp().to_string();
    let mut client = server.client();
    client.send("stats detail on\r\nset hot 0 0 1\r\nv\r\n");
    client.expect("OK\r\nSTORED\r\n");
    for at in 0..3000 {
        client.send(format!("set log:{at} 0 0 1 noreply\r\nv\r\n"));
    }
    let mut child = tool(&["doctor", "--no-machine", "--json", "--seconds", "2", "--server", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test runs");
    while child.try_wait().expect("the child is ours").is_none() {
        client.send("get hot\r\n".repeat(100));
        client.expect("VALUE hot 0 1\r\nv\r\nEND\r\n".repeat(100));
        for _ in 0..10 {
            assert_eq!(server.client().ask("mg none"), "EN");
        }
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the child is ours");
    let said = json(&String::from_utf8_lossy(&stdout));
    assert_eq!(status.code(), Some(1), "{}", String::from_utf8_lossy(&stderr));
    let found = findings(&said, 0);
    let mut planted = vec!["short-connections", "prefix-without-hits", "no-ttl"];
    planted.extend((program == Program::Corecached).then_some("hot-key"));
    assert!(planted.iter().all(|name| found.contains(name)), "{said:#}");
    let quiet = ["connections", "connections-rejected", "accept-stopped", "auth-errors", "no-memory", "class-border"];
    assert!(quiet.iter().all(|name| !found.contains(name)), "{said:#}");
    for finding in said[0]["findings"].as_array().expect("a list") {
        for part in ["is", "should", "why"] {
            assert!(finding[part].as_str().is_some_and(|text| text.ends_with('.')), "{finding}");
        }
        assert!(finding["change"].as_array().is_some_and(|change| !change.is_empty()), "{finding}");
    }
}

#[test]
fn every_check_of_a_real_machine_has_a_verdict() {
    let (server, address) = start(Program::Corecached).expect("it is the program under test");
    let doctor = ["doctor", "--verbose", "--json", "--seconds", "0.05", "--server", &address];
    let (code, said, complained) = call(&doctor);
    // Whether this machine is as it should be is not for this test to know.
    assert!(matches!(code, Some(0 | 1)) && complained.is_empty(), "{complained}");
    let said = json(&said);
    for (at, checks) in [(0, 18), (1, 19)] {
        let count = |list: &str| said[at][list].as_array().expect("a list").len();
        assert_eq!(count("findings") + count("ok") + count("not_checked"), checks, "{said:#}");
    }
    assert_eq!((&said[0]["machine_for"][0], &said[1]["server"]), (&address.as_str().into(), &address.as_str().into()));
    // The process of the server is found: its limits are told.
    let told = said[0].to_string();
    let is_found = Path::new("/proc/self/limits").exists();
    assert_eq!(told.contains("1104 are needed") || told.contains("it needs 1104"), is_found, "{said:#}");
    drop(server);
}

#[test]
fn a_check_that_the_server_refuses_is_not_made() {
    let server = Server::corecached(&["-t", "1", "-X", "--sample", "0"]);
    let socket = server.socket().to_str().expect("a plain name");
    let said = printed(&["doctor", "--no-machine", "--verbose", "--seconds", "0.05", "--server", socket]);
    assert!(said.contains("\nno-ttl               not checked: it lists no items: "), "{said}");
    assert!(said.contains("\nhot-key              not checked: it samples nothing (--sample 0)\n"), "{said}");
}

#[test]
fn a_server_that_does_not_answer_is_reported_and_the_others_are_checked() {
    let (_server, address) = start(Program::Corecached).expect("it is the program under test");
    let away = nowhere();
    let servers = format!("{away},{address}");
    let doctor = ["doctor", "--no-machine", "--json", "--seconds", "0.05", "--server", &servers];
    let (code, said, complained) = call(&doctor);
    assert_eq!((code, complained), (Some(1), format!("corecached: {away}: connection refused\n")));
    let said = json(&said);
    assert_eq!((said.as_array().map(Vec::len), &said[0]["server"]), (Some(1), &address.as_str().into()));
    assert_eq!(findings(&said, 0), BTreeSet::new());
}

#[test]
fn mistakes_of_its_command_line_have_exit_code_64() {
    for words in [
        &["doctor", "--machine", "--no-machine"][..],
        &["doctor", "--seconds", "0"],
        &["doctor", "--root", "/no/such/folder"],
        &["doctor", "--server", "host:port"],
        &["doctor", "now"],
    ] {
        let (code, said, complained) = call(words);
        assert_eq!((code, said.as_str()), (Some(64), ""), "{words:?}");
        assert!(!complained.is_empty(), "{words:?}");
    }
}
