//! Memory of the machine and of the process: how much there is, swap, locks, huge pages.

use crate::tool::doctor::files::known;
use crate::tool::doctor::finding::{Finding, Outcome, Unknown, Verdict, because, well};
use crate::tool::doctor::local::Local;
use crate::tool::doctor::machine::{HUGE_PAGES, MEMORY, OVERCOMMIT, SHARED_HUGE_PAGES, SWAPPINESS};
use crate::tool::doctor::server::Server;
use crate::tool::show;
use corecached::process::cgroup::Bound;

const MIB: f64 = (1 << 20) as f64;
/// What a server takes besides items, index and buffers: its program, the stacks of its threads, what the kernel counts
/// for its page tables and sockets.
const PROGRAM_BYTES: f64 = 16.0 * MIB;
/// Swapped memory that is no sign of anything: pages of the start that are never used again.
const SWAPPED_BYTES: u64 = 1 << 20;
/// The kernel swaps rarely up to 10, and with 1 only when it finds nothing else.
const SWAPPINESS_MAX: u64 = 10;

/// Commands that change a setting of the kernel, now and at each start.
pub(super) fn sysctl(name: &str, value: f64) -> Vec<String> {
    let file = "/etc/sysctl.d/60-cache.conf";
    vec![format!("sysctl -w {name}={value}"), format!("echo {name}={value} >> {file}    # for the next start")]
}

/// Memory that a server takes when it is full: `-m`, and what stands beside it, in bytes.
#[derive(Clone, Copy, Debug)]
struct Need {
    items: f64,
    beside: f64,
}

impl Need {
    fn of(server: &Server) -> Result<Need, Unknown> {
        let items = server.figure("limit_maxbytes")?;
        let index = server.figure("hash_bytes")?;
        let buffers =
            server.figure("read_buf_bytes").unwrap_or(0.0) + server.figure("response_obj_bytes").unwrap_or(0.0);
        let beside = match server.is_corecached() {
            // Its index may grow to a 64th of -m, or 1 MiB, before it takes the place of items. Pages of new classes
            // may exceed -m by 2 %.
            true => (items / 64.0).max(MIB) + items / 50.0,
            // Each class keeps a page of 1 MiB beyond the limit.
            false => index + server.classes().len() as f64 * MIB,
        };
        Ok(Need { items, beside: beside + buffers + PROGRAM_BYTES })
    }

    fn total(self) -> f64 {
        self.items + self.beside
    }

    /// What `-m` may be with so much memory, in MiB.
    fn fitting_limit(self, bytes: f64) -> f64 {
        (bytes * self.items / self.total() / MIB).floor().max(1.0)
    }

    fn in_words(self) -> String {
        let (items, beside) = (show::bytes(self.items), show::bytes(self.beside));
        format!("the server may take {items} for items (-m) and {beside} for its index, buffers and program")
    }
}

pub(super) fn memory(local: &Local) -> Verdict {
    let need = Need::of(local.server()?)?;
    let bytes = *known(&local.machine.memory_bytes, MEMORY)? as f64;
    if need.total() <= bytes {
        return well(format!("{} of memory; {}", show::bytes(bytes), need.in_words()));
    }
    Ok(Outcome::Found(Finding {
        is: format!("The machine has {} of memory, and {}.", show::bytes(bytes), need.in_words()),
        should: "All that should fit, and leave some for the system.".into(),
        why: "When the cache is full, the machine swaps, or the kernel kills the server and the cache is lost.".into(),
        change: vec![format!("flag: -m {}", need.fitting_limit(0.9 * bytes))],
    }))
}

pub(super) fn cgroup_memory(local: &Local) -> Verdict {
    let Some(Bound { value, file }) = &local.server_process()?.limits.memory else {
        return well("no limit of a cgroup");
    };
    let need = Need::of(local.server()?)?;
    let setting = if file.ends_with("high") { "MemoryHigh" } else { "MemoryMax" };
    if need.total() <= *value {
        return well(format!("{} by {file}; {}", show::bytes(*value), need.in_words()));
    }
    Ok(Outcome::Found(Finding {
        is: format!(
            "The cgroup of the server may use {} of memory ({file}), and {}.",
            show::bytes(*value),
            need.in_words()
        ),
        should: format!("The limit should be {} or more.", show::bytes(need.total())),
        why: "When the cache is full, the kernel slows the server down or kills it, and the cache is lost.".into(),
        change: vec![
            format!("flag: -m {}", need.fitting_limit(*value)),
            format!("unit: {setting}={:.0}M    # a container: --memory {0:.0}m", (need.total() / MIB).ceil()),
        ],
    }))
}

pub(super) fn swapped(local: &Local) -> Verdict {
    let Some(bytes) = local.server_process()?.swapped_bytes else {
        return because("the status of the process does not tell its swap");
    };
    if bytes <= SWAPPED_BYTES {
        return well(format!("{} of the server", show::bytes(bytes as f64)));
    }
    let mut change = sysctl("vm.swappiness", 1.0);
    change.push("unit: MemorySwapMax=0    # or the flag -k with LimitMEMLOCK=infinity".into());
    change.push("swapoff -a && swapon -a    # brings it back now, if there is room".into());
    Ok(Outcome::Found(Finding {
        is: format!("{} of the server's memory are in swap.", show::bytes(bytes as f64)),
        should: "Nothing of it should be.".into(),
        why: "A request for an item there waits for the disk, and all requests behind it on the same worker wait too."
            .into(),
        change,
    }))
}

pub(super) fn swappiness(local: &Local) -> Verdict {
    if *known(&local.machine.swap_bytes, MEMORY)? == 0 {
        return well("there is no swap");
    }
    if let Ok(process) = local.server_process() {
        if process.limits.swap.as_ref().is_some_and(|swap| swap.value == 0.0) {
            return well("the cgroup of the server has no swap");
        }
        if process.locked_bytes.unwrap_or(0) > 0 {
            return well("the server has locked its memory");
        }
    }
    let swappiness = *known(&local.machine.swappiness, SWAPPINESS)?;
    if swappiness <= SWAPPINESS_MAX {
        return well(format!("{swappiness}"));
    }
    let mut change = sysctl("vm.swappiness", 1.0);
    change.push("unit: MemorySwapMax=0    # this service alone".into());
    Ok(Outcome::Found(Finding {
        is: format!("There is swap, and vm.swappiness is {swappiness}."),
        should: format!("It should be 1, at most {SWAPPINESS_MAX}."),
        why: "The kernel then swaps out items that nobody has asked for in a while to have more room for files, and \
            the next request for one waits for the disk."
            .into(),
        change,
    }))
}

pub(super) fn memlock(local: &Local) -> Verdict {
    let process = local.server_process()?;
    if !process.wants_locked_memory() {
        return well("locked memory (-k) is not asked for");
    }
    match process.locked_bytes {
        None => because("the status of the process does not tell what is locked"),
        Some(0) => Ok(Outcome::Found(Finding {
            is: "The server has the flag -k, and no memory of it is locked.".into(),
            should: "All of it should be locked.".into(),
            why: "The limit of locked memory was too low when it started, so the kernel may swap it out after all. \
                  The log has a line about that."
                .into(),
            change: vec!["unit: LimitMEMLOCK=infinity".into(), "ulimit -l unlimited    # in a shell of root".into()],
        })),
        Some(bytes) => well(format!("{} are locked", show::bytes(bytes as f64))),
    }
}

pub(super) fn overcommit(local: &Local) -> Verdict {
    let mode = *known(&local.machine.overcommit, OVERCOMMIT)?;
    if mode != 2 {
        return well(format!("vm.overcommit_memory is {mode}"));
    }
    Ok(Outcome::Found(Finding {
        is: "vm.overcommit_memory is 2: the kernel promises no more memory than it has.".into(),
        should: "It should be 0 or 1.".into(),
        why: "The server reserves address space that it may never use, and the kernel counts all of it as used. It \
              may fail to start, or leave no memory for other programs."
            .into(),
        change: sysctl("vm.overcommit_memory", 0.0),
    }))
}

pub(super) fn huge_pages(local: &Local) -> Verdict {
    if local.is_for_memcached() {
        return well("memcached does not ask for huge pages");
    }
    let mode = known(&local.machine.huge_pages, HUGE_PAGES)?;
    let is_off_for_it = local.process().is_ok_and(|process| process.has_no_huge_pages);
    let (is, should, change) = match mode.as_str() {
        "never" => (
            format!("Transparent huge pages are off: /{HUGE_PAGES} is never."),
            "It should be madvise: the server asks for huge pages where it wants them, and others get none.",
            huge_page_commands(HUGE_PAGES, "madvise"),
        ),
        _ if is_off_for_it => (
            "Huge pages are off for the process of the server (THP_enabled in its status is 0).".into(),
            "It should have them.",
            vec!["restart of the server    # from a parent that has not switched them off".into()],
        ),
        _ => return well(mode),
    };
    Ok(Outcome::Found(Finding {
        is,
        should: should.into(),
        why: "Without them, the CPU looks up the place of nearly every item in page tables; with ten million keys \
              that costs about a quarter of the speed."
            .into(),
        change,
    }))
}

pub(super) fn shmem_huge_pages(local: &Local) -> Verdict {
    if local.server()?.setting("keep_memory") != Ok("yes") {
        return well("the server does not keep its memory over a restart (--keep-memory)");
    }
    let mode = known(&local.machine.shared_huge_pages, SHARED_HUGE_PAGES)?;
    if !matches!(mode.as_str(), "never" | "deny") {
        return well(mode);
    }
    Ok(Outcome::Found(Finding {
        is: format!("The server keeps its memory over a restart (--keep-memory), and /{SHARED_HUGE_PAGES} is {mode}."),
        should: "It should be advise.".into(),
        why: "Memory that outlives the process is shared memory, and gets huge pages only if this file allows \
              them. Without them, ten million keys cost about a quarter of the speed."
            .into(),
        change: huge_page_commands(SHARED_HUGE_PAGES, "advise"),
    }))
}

/// Commands that write a word to a file of the kernel, now and at each start.
fn huge_page_commands(path: &str, word: &str) -> Vec<String> {
    let file = "/etc/tmpfiles.d/cache-huge-pages.conf";
    vec![
        format!("echo {word} > /{path}"),
        format!("echo 'w /{path} - - - - {word}' >> {file}    # for the next start"),
        "restart of the server    # memory that it has keeps its pages".into(),
    ]
}
