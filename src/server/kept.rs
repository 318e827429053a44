//! Kept memory (`--keep-memory`): what one server leaves to the next, by way of a supervisor that stores descriptors, or
//! directly to the one that takes over from it.
//!
//! A server leaves its memory at any stop in order, after all workers have ended, and only then: see
//! [`crate::store::keep`]. If nobody can take the memory, the stop goes on as without the flag.

use super::memory::{Begun, Memory, Warmth, image_ports, item_limits, memory, wanted};
use super::restart::{Copying, Rules, clock_after, leases, unix_millis};
use super::shared::Shared;
use crate::config::Config;
use crate::exit::Exit;
use crate::hash::KeyHasher;
use crate::process::handover::Descriptor;
use crate::process::supervisor::Supervisor;
use crate::store::Store;
use crate::store::image::Header;
use crate::store::keep::{Facts, Kept, Thawed, freeze};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// The name under which memory is handed on.
pub(super) const NAME: &str = "kept-memory";

/// Uses the memory of the last server, if there is any that this one can use. Whatever else there is, no server will use.
///
/// # Errors
/// If the system refuses memory to which the items are to be copied.
pub(super) fn take(
    given: Vec<OwnedFd>,
    config: &Config,
    shards: usize,
    supervisor: &Supervisor,
) -> Result<Option<Begun>, Exit> {
    let begun = Instant::now();
    let mut newest: Option<Kept> = None;
    for fd in given {
        match Kept::claim(fd) {
            Ok(kept) if newest.as_ref().is_none_or(|old| kept.facts().unix_millis > old.facts().unix_millis) => {
                newest = Some(kept);
            }
            Ok(_) => log::warn!("older memory of a server is not used"),
            Err(refusal) => log::warn!("the memory of the last server is not used: {refusal}"),
        }
    }
    let Some(kept) = newest else { return Ok(None) };
    let (facts, items) = (kept.facts(), kept.item_count());
    if facts.ports != image_ports(config) {
        // With ports, the client chooses the shard of a key: see `Image::load`.
        log::warn!("the memory of the last server is not used, starting cold: it had other ports (--port-per-core)");
        return Ok(None);
    }
    let misfit = if config.memory.keep { wanted(config, shards, |wanted| kept.misfit(wanted)) } else { Some(UNWANTED) };
    let thawed = wanted(config, shards, |wanted| kept.thaw(wanted.options, wanted.limit_bytes));
    let thawed = match thawed {
        Ok(thawed) => thawed,
        Err(refusal) => {
            log::warn!("the memory of the last server is not used, starting cold: {refusal}");
            return Ok(None);
        }
    };
    if let Some(why) = misfit {
        log::info!("the items of the last server are copied, because its memory cannot be used as it is: {why}");
        let bytes = AtomicU64::new(0);
        let copy = || copied(thawed, facts, (config, shards), &bytes);
        return supervisor.during("copying the cache", &bytes, copy);
    }
    let Thawed { stores, items: arena, budget, hasher } = thawed;
    if config.memory.large_pages {
        arena.arena().commit(budget.limit()).map_err(|error| Exit::system("failed to commit memory (-L)", error))?;
    }
    let mebibytes = stores.iter().map(|store| store.snapshot().bytes).sum::<u64>() >> 20;
    log::info!("kept {items} items, {mebibytes} MiB in {} ms", begun.elapsed().as_millis());
    let memory = Memory { stores, items: arena, budget };
    let clock = clock_after(facts.clock, facts.unix_millis);
    Ok(Some(Begun { memory, clock, hasher, warmth: Warmth::Warm }))
}

const UNWANTED: &str = "there is no --keep-memory";

/// New memory with the items of the old one.
fn copied(
    thawed: Thawed,
    facts: Facts,
    (config, shards): (&Config, usize),
    bytes: &AtomicU64,
) -> Result<Option<Begun>, Exit> {
    let Thawed { stores, items, budget, hasher: old } = thawed;
    drop((items, budget, old));
    let header = Header { ports: facts.ports, clock: facts.clock, unix_millis: facts.unix_millis, ..Header::default() };
    let hasher = KeyHasher::random().map_err(|error| Exit::system("random bits for the hash of keys", error))?;
    let expected = stores.iter().map(|store| store.image_facts().items).sum();
    let mut memory = memory(config, shards, &hasher, expected)?;
    let clock = clock_after(facts.clock, facts.unix_millis);
    let rules =
        Rules { hasher: &hasher, limits: item_limits(config), ports: facts.ports, threads: config.workers.threads };
    let copying = Copying { from: stores, header, now: clock.now(), bytes };
    let Some(stores) = copying.into(std::mem::take(&mut memory.stores), rules) else { return Ok(None) };
    Ok(Some(Begun { memory: Memory { stores, ..memory }, clock, hasher, warmth: Warmth::Warm }))
}

/// Leaves the memory to the next server, after all workers have ended: returns what the caller must hand to its successor, if
/// it has one, and otherwise has the supervisor store it. `None`: it is left to nobody.
pub(super) fn leave(shared: &Shared<'_>, supervisor: &Supervisor, has_successor: bool) -> Option<Vec<Descriptor>> {
    if !shared.config.memory.keep {
        return None;
    }
    if !has_successor && !supervisor.has_store() {
        log::warn!(
            "--keep-memory: nobody takes the memory: there is neither a supervisor nor a server that takes over"
        );
        return None;
    }
    let begun = Instant::now();
    let mut shards = leases(&shared.exchange);
    let mut stores: Vec<&mut Store> = shards.iter_mut().map(|shard| &mut shard.store).collect();
    let facts = Facts {
        clock: shared.clock.now().0,
        unix_millis: unix_millis(),
        ports: image_ports(shared.config),
        item_size_max: shared.config.memory.item_size_max,
    };
    let left = freeze(&mut stores, facts).and_then(|memfd| {
        if has_successor {
            return Ok(vec![Descriptor { name: NAME.to_owned(), fd: memfd.as_fd().try_clone_to_owned()? }]);
        }
        supervisor.store(NAME, &[memfd.as_fd()]).map(|()| Vec::new())
    });
    match left {
        Ok(descriptors) => {
            let items: u64 = stores.iter().map(|store| store.image_facts().items).sum();
            log::info!("left {items} items to the next server in {} ms", begun.elapsed().as_millis());
            Some(descriptors)
        }
        Err(error) => {
            log::warn!("--keep-memory: the memory cannot be left to the next server: {error}");
            None
        }
    }
}
