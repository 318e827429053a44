//! Planted faults: each is found under its own name, and nothing else is.

use super::checks::{MACHINE, SERVER};
use super::files::Root;
use super::finding::{Outcome, Unknown, Verdict, examine};
use super::local::{Local, Occupant};
use super::machine::Machine;
use super::process::{Process, own_folder};
use super::server::{Look, Prefix, Sample, Server};
use crate::tool::cores;
use crate::tool::figures::Snapshot;
use crate::tool::reply::Stats;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A folder with the files of a machine. Dropping it removes the folder.
struct Files(Root);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0.0);
    }
}

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            65536                65536                files
Max locked memory         8388608              8388608              bytes";
/// Process 700, which began 900 s after the machine: its threads have names with spaces and brackets.
const STAT: &str = "700 (core (c) ached) S 1 700 700 0 -1 4194560 100 0 0 0 50 60 0 0 20 0 5 0 90000 1000 200";
const STATUS: &str = "Name:\tcorecached\nVmLck:\t       0 kB\nVmSwap:\t       0 kB\nTHP_enabled:\t1\nCpus_allowed:\t0f
Cpus_allowed_list:\t0-3";
const SERVICE: &str = "sys/fs/cgroup/system.slice/corecached.service";

/// A machine with nothing wrong, where a server with four workers and 1 GiB runs on one of two nodes.
const CLEAN: &[(&str, &str)] = &[
    ("proc/uptime", "1000.00 7000.00"),
    ("proc/meminfo", "MemTotal:       16777216 kB\nSwapTotal:       2097152 kB"),
    ("proc/700/stat", STAT),
    ("proc/700/status", STATUS),
    ("proc/700/limits", LIMITS),
    ("proc/700/cmdline", "corecached\x00-m\x001024\x00-t\x004\x00-l\x000.0.0.0\x00"),
    ("proc/700/cgroup", "0::/system.slice/corecached.service"),
    ("proc/self/status", STATUS),
    ("proc/self/limits", LIMITS),
    ("proc/sys/net/core/somaxconn", "4096"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1"),
    ("proc/sys/vm/swappiness", "1"),
    ("proc/sys/vm/overcommit_memory", "0"),
    ("proc/sys/kernel/numa_balancing", "0"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size [advise] never deny force"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"),
    ("sys/devices/system/cpu/online", "0-7"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
    ("sys/devices/system/cpu/cpu7/cpufreq/scaling_governor", "performance"),
    ("sys/devices/system/node/node0/cpulist", "0-3"),
    ("sys/devices/system/node/node1/cpulist", "4-7"),
    ("sys/fs/cgroup/system.slice/memory.max", "max"),
    ("sys/fs/cgroup/system.slice/corecached.service/memory.max", "2147483648"),
    ("sys/fs/cgroup/system.slice/corecached.service/memory.high", "max"),
    ("sys/fs/cgroup/system.slice/corecached.service/memory.swap.max", "max"),
    ("sys/fs/cgroup/system.slice/corecached.service/cpu.max", "400000 100000"),
    ("sys/class/net/eth0/device/vendor", "0x8086"),
    ("sys/class/net/eth0/operstate", "up"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "00"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "00"),
    // A card without a cable, and devices without hardware.
    ("sys/class/net/eth1/device/vendor", "0x8086"),
    ("sys/class/net/eth1/operstate", "down"),
    ("sys/class/net/eth1/queues/rx-0/rps_cpus", "00"),
    ("sys/class/net/lo/operstate", "unknown"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "00"),
];

impl Files {
    fn clean() -> Files {
        let files = Files::empty();
        CLEAN.iter().for_each(|(path, text)| files.write(path, text));
        files
    }

    fn empty() -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corecached-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root: PathBuf = std::env::temp_dir().join(name);
        fs::create_dir(&root).expect("a new folder");
        Files(Root(root))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path(path);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("a folder of ours");
        fs::write(path, format!("{text}\n")).expect("a file of ours");
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.0.text(path).expect("a file of the clean machine");
        assert!(text.contains(from), "{path} has no {from}");
        self.write(path, &text.replace(from, to));
    }

    /// The machine with this server.
    fn with(&self, server: Server) -> Local {
        let folder = cores::process_of(&self.0.0, &server.after.snapshot.stats);
        let process = folder.map(|folder| Process::read(&self.0, &folder));
        Local { machine: Machine::read(&self.0), occupant: Occupant::Server(Box::new(server), process) }
    }

    fn with_nobody(&self) -> Local {
        let process = Process::read(&self.0, &own_folder(&self.0));
        Local { machine: Machine::read(&self.0), occupant: Occupant::Nobody(process) }
    }
}

/// Lines `name value`, or `name before after`, of each list.
const CLEAN_SERVER: &[(&str, &str)] = &[
    ("", "pid 700|uptime 90 100|max_connections 1024|curr_connections 50|total_connections 1000 1060"),
    ("", "rejected_connections 0|listen_disabled_num 0|time_in_listen_disabled_us 0|auth_cmds 100 105|auth_errors 2"),
    ("", "cmd_get 1000000 1100000|get_hits 900000 995000|get_misses 100000 105000|cmd_set 100000 105000"),
    ("", "store_too_large 3|store_no_memory 0|limit_maxbytes 1073741824|hash_bytes 8388608|read_buf_bytes 320000"),
    ("", "evictions 5000 6500|evicted_unfetched 3000 3900|reclaimed 10000 11500|crawler_reclaimed 5000 5100"),
    ("", "expired_unfetched 4000 4600|conn_yields 10 20|slabs_moved 10 12|threads 4"),
    ("settings", "maxconns 1024|tcp_backlog 1024|num_threads 4|inter 0.0.0.0|domain_socket NULL|keep_memory yes"),
    ("settings", "evictions on|item_size_max 1048576|reqs_per_event 20|slab_reassign yes|slab_automove 1"),
    ("settings", "slab_automove_window 10|detail_enabled no"),
    ("items", "items:1:number 1000000|items:1:age 90000|items:1:evicted 5000 6500|items:1:evicted_time 90000"),
    ("items", "items:1:mem_requested 88000000|items:5:number 2000000|items:5:age 95000|items:5:evicted 0"),
    ("items", "items:5:evicted_time 0|items:5:mem_requested 450000000"),
    ("slabs", "1:chunk_size 96|1:total_chunks 1050000|1:used_chunks 1000000|1:get_hits 5"),
    ("slabs", "5:chunk_size 240|5:total_chunks 2000000|5:used_chunks 2000000|active_slabs 2"),
    ("latency", "get_hit_count 5|slow_requests 7 9"),
    ("slow", "1:command get|1:operations 500|1:service_us 15300"),
    ("hotkeys", "sample_mean 128|samples 8000|operations_per_second 10500|1:key user%3A42|1:ops_per_second 1000"),
    ("hotkeys", "1:share_percent 9.5|1:error_percent 0.4"),
    ("prefixes", "sample_mean 128|0:prefix other|0:gets 90000|0:hits 0|0:sets 0|1:prefix user|1:gets 800000"),
    ("prefixes", "1:hits 790000|1:sets 90000|1:ttl_none_percent 2.0|2:prefix rare|2:gets 100|2:hits 0|2:sets 9"),
];

/// The replies of a server before and after ten seconds.
struct Recording {
    before: HashMap<&'static str, Stats>,
    after: HashMap<&'static str, Stats>,
    detail: Vec<Prefix>,
    workers: Option<Vec<f64>>,
    sample: Result<Sample, String>,
}

impl Recording {
    fn clean() -> Recording {
        let mut recording = Recording {
            before: HashMap::new(),
            after: HashMap::new(),
            detail: Vec::new(),
            workers: Some(vec![40.0, 45.0, 60.0, 38.0]),
            sample: Ok(Sample { items: 10_000, without_ttl: 300 }),
        };
        for (list, lines) in CLEAN_SERVER {
            lines.split('|').for_each(|line| recording.set(list, line));
        }
        recording
    }

    /// Lists that only corecached has.
    fn memcached() -> Recording {
        let mut recording = Recording::clean();
        for list in ["latency", "slow", "hotkeys", "prefixes"] {
            recording.before.remove(list);
            recording.after.remove(list);
        }
        recording
    }

    /// A line of a list: a name, and a value at each of the two moments or one at both.
    fn set(&mut self, list: &'static str, line: &str) {
        let mut words = line.split(' ');
        let (name, before) = (words.next().expect("a name"), words.next().unwrap_or(""));
        let after = words.next().unwrap_or(before);
        self.before.entry(list).or_default().insert(name, before);
        self.after.entry(list).or_default().insert(name, after);
    }

    fn server(self) -> Server {
        let at = Instant::now();
        let look = |at, mut lists: HashMap<&'static str, Stats>, detail| Look {
            snapshot: Snapshot { at, stats: lists.remove("").unwrap_or_default(), latency: None },
            lists,
            detail,
        };
        let before = look(at, self.before, Vec::new());
        let after = look(at + Duration::from_secs(10), self.after, self.detail);
        let mut server = Server::new("cache:11211".into(), before, after);
        (server.own_connections, server.workers, server.sample) = (1.0, self.workers, self.sample);
        server
    }
}

/// The names of the checks that found something.
fn found(verdicts: &[(&'static str, Verdict)]) -> Vec<&'static str> {
    verdicts.iter().filter(|(_, verdict)| matches!(verdict, Ok(Outcome::Found(_)))).map(|(name, _)| *name).collect()
}

fn on_machine(local: &Local) -> Vec<&'static str> {
    found(&examine(MACHINE, local))
}

fn on_server(recording: Recording) -> Vec<&'static str> {
    found(&examine(SERVER, &recording.server()))
}

type PlantFiles = fn(&Files);
type PlantReplies = fn(&mut Recording);

/// Faults of a machine, by the name of the check that finds them.
const MACHINE_FAULTS: &[(&str, PlantFiles)] = &[
    ("descriptors", |files| files.replace("proc/700/limits", "65536", "1024")),
    ("somaxconn", |files| files.write("proc/sys/net/core/somaxconn", "128")),
    ("syn-backlog", |files| files.write("proc/sys/net/ipv4/tcp_syncookies", "0")),
    ("nic-queues", |files| {
        fs::remove_dir_all(files.0.path("sys/class/net/eth0/queues/rx-1")).expect("a queue of the clean machine");
    }),
    ("memory", |files| files.replace("proc/meminfo", "16777216", "1048576")),
    ("cgroup-memory", |files| files.write(&format!("{SERVICE}/memory.max"), "1073741824")),
    ("cgroup-memory", |files| files.write("sys/fs/cgroup/system.slice/memory.max", "1073741824")),
    ("cgroup-memory", |files| files.write(&format!("{SERVICE}/memory.high"), "1073741824")),
    ("cgroup-memory", |files| {
        files.write("proc/700/cgroup", "5:cpu,cpuacct:/web\n4:memory:/web\n1:name=systemd:/web\n0::/");
        files.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
        files.write("sys/fs/cgroup/memory/web/memory.limit_in_bytes", "1073741824");
    }),
    // In a container, the mount itself is the group.
    ("cgroup-memory", |files| {
        files.write("proc/700/cgroup", "0::/../../docker/0123");
        files.write("sys/fs/cgroup/memory.max", "1073741824");
    }),
    ("swapped", |files| files.replace("proc/700/status", "VmSwap:\t       0", "VmSwap:\t    9000")),
    ("swappiness", |files| files.write("proc/sys/vm/swappiness", "60")),
    ("memlock", |files| files.replace("proc/700/cmdline", "-t", "-vk\0-t")),
    ("memlock", |files| {
        files.replace("proc/700/cmdline", "-t", "--flags-file\0/etc/corecached.conf\0-t");
        files.write("etc/corecached.conf", "# -m 7\n-v\n-k");
    }),
    ("overcommit", |files| files.write("proc/sys/vm/overcommit_memory", "2")),
    ("huge-pages", |files| files.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]")),
    ("huge-pages", |files| files.replace("proc/700/status", "THP_enabled:\t1", "THP_enabled:\t0")),
    ("shmem-huge-pages", |files| {
        files.write("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force");
    }),
    ("cpus", |files| files.replace("proc/700/status", "0-3", "0-1,3")),
    ("cgroup-cpu", |files| files.write(&format!("{SERVICE}/cpu.max"), "250000 100000")),
    ("cgroup-cpu", |files| {
        files.write("proc/700/cgroup", "5:cpu,cpuacct:/web/one");
        files.write("sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_quota_us", "150000");
        files.write("sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_period_us", "100000");
        files.write("sys/fs/cgroup/cpu,cpuacct/web/one/cpu.cfs_quota_us", "-1");
        files.write("sys/fs/cgroup/cpu,cpuacct/web/one/cpu.cfs_period_us", "100000");
    }),
    ("numa-balancing", |files| files.write("proc/sys/kernel/numa_balancing", "1")),
    ("numa-nodes", |files| files.replace("proc/700/status", "0-3", "2-5")),
    ("cpu-governor", |files| files.write("sys/devices/system/cpu/cpu7/cpufreq/scaling_governor", "powersave")),
    ("clock-source", |files| {
        files.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
    }),
];

/// Faults of a server.
const SERVER_FAULTS: &[(&str, PlantReplies)] = &[
    ("connections", |server| server.set("", "curr_connections 900")),
    ("connections-rejected", |server| server.set("", "rejected_connections 4")),
    ("accept-stopped", |server| server.set("", "listen_disabled_num 1")),
    ("short-connections", |server| server.set("", "total_connections 1000 111000")),
    // There are 50 at a time, and 100 new ones in a second.
    ("short-connections", |server| server.set("", "total_connections 1000 2001")),
    ("auth-errors", |server| server.set("", "auth_errors 2 3")),
    ("auth-errors", |server| server.set("", "auth_errors 12")),
    ("values-too-large", |server| server.set("", "store_too_large 3 4")),
    ("values-too-large", |server| server.set("", "store_too_large 30")),
    ("no-memory", |server| server.set("", "store_no_memory 1")),
    ("young-evictions", |server| {
        server.set("items", "items:1:evicted_time 20000 1800");
        server.set("items", "items:1:age 20000 1800");
    }),
    // All are older than an hour, but one class has ten times the age of the other.
    ("calcified-classes", |server| {
        server.set("settings", "slab_automove 0");
        server.set("items", "items:1:evicted_time 5000");
        server.set("items", "items:1:age 5000");
    }),
    ("calcified-classes", |server| {
        server.set("", "slabs_moved 12");
        server.set("items", "items:1:evicted_time 5000");
        server.set("items", "items:1:age 5000");
    }),
    ("class-border", |server| server.set("items", "items:5:mem_requested 390000000")),
    ("evicted-unfetched", |server| {
        server.set("", "evictions 5000 15000");
        server.set("", "evicted_unfetched 3000 12500");
    }),
    ("evicted-unfetched", |server| {
        server.set("", "evictions 500000");
        server.set("", "evicted_unfetched 450000");
    }),
    ("expired-unfetched", |server| {
        server.set("", "reclaimed 10000 19000");
        server.set("", "expired_unfetched 4000 13000");
    }),
    ("no-ttl", |server| server.sample = Ok(Sample { items: 10_000, without_ttl: 9_000 })),
    ("busy-workers", |server| server.workers = Some(vec![90.0, 95.0, 88.0, 99.0])),
    ("uneven-workers", |server| server.workers = Some(vec![20.0, 75.0, 10.0, 15.0])),
    ("hot-key", |server| server.set("hotkeys", "1:share_percent 31.0")),
    // Stored and never asked for; asked for and never stored; counted by the server itself.
    ("prefix-without-hits", |server| server.set("prefixes", "2:sets 50000")),
    ("prefix-without-hits", |server| server.set("prefixes", "2:gets 50000")),
    ("prefix-without-hits", |server| {
        server.set("settings", "detail_enabled yes");
        server.detail = ["PREFIX user get 9000 hit 8000 set 100 del 0", "PREFIX log get 5 hit 0 set 70000 del 0"]
            .map(|line| Prefix::from_detail(line).expect("a line of a prefix"))
            .to_vec();
    }),
    ("yields", |server| server.set("", "conn_yields 10 40000")),
    ("slow-requests", |server| server.set("latency", "slow_requests 7 77")),
];

#[test]
fn a_clean_machine_is_silent() {
    let files = Files::clean();
    let local = files.with(Recording::clean().server());
    assert!(matches!(&local.occupant, Occupant::Server(_, Some(_))), "the process is found");
    let verdicts = examine(MACHINE, &local);
    for (name, verdict) in &verdicts {
        assert!(matches!(verdict, Ok(Outcome::Well(_))), "{name}: {verdict:?}");
    }
    assert_eq!(on_machine(&files.with_nobody()), [""; 0]);
}

#[test]
fn each_planted_fault_of_a_machine_is_found_and_nothing_else() {
    for (at, (name, plant)) in MACHINE_FAULTS.iter().enumerate() {
        let files = Files::clean();
        plant(&files);
        assert_eq!(on_machine(&files.with(Recording::clean().server())), [*name], "fault {at}");
    }
}

#[test]
fn a_clean_server_is_silent() {
    for (name, verdict) in examine(SERVER, &Recording::clean().server()) {
        assert!(matches!(verdict, Ok(Outcome::Well(_))), "{name}: {verdict:?}");
    }
}

#[test]
fn each_planted_fault_of_a_server_is_found_and_nothing_else() {
    for (at, (name, plant)) in SERVER_FAULTS.iter().enumerate() {
        let mut recording = Recording::clean();
        plant(&mut recording);
        assert_eq!(on_server(recording), [*name], "fault {at}");
    }
}

#[test]
fn every_check_has_a_planted_fault() {
    let names = |faults: Vec<&'static str>| faults.into_iter().collect::<BTreeSet<_>>();
    let machine = MACHINE_FAULTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(machine), MACHINE.iter().map(|check| check.name).collect());
    let server = SERVER_FAULTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(server), SERVER.iter().map(|check| check.name).collect());
}

#[test]
fn all_faults_at_once_are_all_found() {
    // Some faults hide each other or overwrite the same file: the process with locked memory, quotas of two kinds.
    let files = Files::clean();
    let planted = ["descriptors", "somaxconn", "syn-backlog", "nic-queues", "swapped", "swappiness", "overcommit"];
    let planted = [&planted[..], &["shmem-huge-pages", "numa-balancing", "cpu-governor", "clock-source"]].concat();
    let faults = MACHINE_FAULTS.iter().filter(|(name, _)| planted.contains(name));
    faults.for_each(|(_, plant)| plant(&files));
    assert_eq!(on_machine(&files.with(Recording::clean().server())), planted);
}

#[test]
fn a_memcached_is_silent_about_what_it_cannot_tell() {
    let verdicts = examine(SERVER, &Recording::memcached().server());
    assert_eq!(found(&verdicts), [""; 0]);
    let untold = verdicts.iter().filter(|(_, verdict)| *verdict == Err(Unknown::OnlyCorecached));
    assert_eq!(untold.map(|(name, _)| *name).collect::<Vec<_>>(), ["hot-key", "prefix-without-hits", "slow-requests"]);
    // It has no memory of its own over a restart, and asks for no huge pages.
    let files = Files::clean();
    files.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
    assert_eq!(on_machine(&files.with(Recording::memcached().server())), [""; 0]);
}

#[test]
fn the_faults_of_a_memcached_are_found_too() {
    for (name, plant) in SERVER_FAULTS {
        let mut recording = Recording::memcached();
        plant(&mut recording);
        // A list that only corecached has makes it corecached.
        if recording.after.contains_key("hotkeys")
            || !recording.before.keys().all(|list| !["latency", "prefixes"].contains(list))
        {
            continue;
        }
        assert_eq!(on_server(recording), [*name]);
    }
}

#[test]
fn stores_that_follow_misses_are_not_in_vain() {
    let mut recording = Recording::clean();
    recording.set("", "evictions 5000 10000");
    recording.set("", "evicted_unfetched 3000 8000");
    assert_eq!(on_server(recording), [""; 0]);
}

#[test]
fn new_items_that_go_soon_are_no_young_evictions_while_old_ones_stay() {
    let mut recording = Recording::clean();
    for line in ["items:1:evicted_time 1", "items:1:age 1", "items:1:age_warm 9000"] {
        recording.set("items", line);
    }
    assert_eq!(on_server(recording), [""; 0]);
}

#[test]
fn a_machine_and_a_server_that_tell_nothing_have_no_findings() {
    let files = Files::empty();
    let silent = || Recording {
        before: HashMap::new(),
        after: HashMap::new(),
        detail: Vec::new(),
        workers: None,
        sample: Err("it lists none".into()),
    };
    assert_eq!(on_machine(&files.with_nobody()), [""; 0]);
    assert_eq!(on_machine(&files.with(silent().server())), [""; 0]);
    assert_eq!(on_server(silent()), [""; 0]);
}

#[test]
fn without_a_server_the_limits_are_those_of_a_shell() {
    let files = Files::clean();
    files.replace("proc/self/limits", "65536", "256");
    files.write("proc/sys/net/core/somaxconn", "128");
    assert_eq!(on_machine(&files.with_nobody()), ["descriptors", "somaxconn"]);
}

#[test]
fn a_process_with_another_start_is_not_the_server() {
    let files = Files::clean();
    files.write("proc/uptime", "5000.00 7000.00");
    files.replace("proc/700/limits", "65536", "1024");
    let local = files.with(Recording::clean().server());
    assert_eq!(on_machine(&local), [""; 0]);
    assert!(matches!(&local.occupant, Occupant::Server(_, None)));
}

#[test]
fn a_server_for_this_machine_alone_needs_no_network_card() {
    for line in ["inter 127.0.0.1", "inter proto[ascii]:127.0.0.1:1,[::1]", "inter NULL", "domain_socket /run/c"] {
        let mut recording = Recording::clean();
        recording.set("settings", line);
        assert!(recording.server().is_private(), "{line}");
    }
    for line in ["inter 10.127.0.1", "inter 127.0.0.1,10.0.0.5", "inter *"] {
        let mut recording = Recording::clean();
        recording.set("settings", line);
        assert!(!recording.server().is_private(), "{line}");
    }
}

#[test]
fn findings_are_sentences_and_name_a_change() {
    let mut all = Vec::new();
    for (_, plant) in MACHINE_FAULTS {
        let files = Files::clean();
        plant(&files);
        all.extend(examine(MACHINE, &files.with(Recording::clean().server())));
    }
    for (_, plant) in SERVER_FAULTS {
        let mut recording = Recording::clean();
        plant(&mut recording);
        all.extend(examine(SERVER, &recording.server()));
    }
    for (name, verdict) in all {
        let Ok(Outcome::Found(finding)) = verdict else { continue };
        for sentence in [&finding.is, &finding.should, &finding.why] {
            assert!(sentence.ends_with('.') && !sentence.contains("  "), "{name}: {sentence}");
            assert!(
                sentence.starts_with(|first: char| first.is_uppercase()
                    || first.is_ascii_digit()
                    || first == 'n'
                    || first == 'v'),
                "{name}: {sentence}"
            );
        }
        assert!(!finding.change.is_empty() && finding.change.iter().all(|line| !line.contains('\n')), "{name}");
    }
}
