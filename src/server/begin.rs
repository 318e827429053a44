//! What the server starts with: the memory of the last server, its image, or empty stores.

use super::kept;
use super::memory::{Begun, Memory, Warmth, image_ports, item_limits, memory};
use super::restart::{self, MemoryFile};
use crate::clock::Clock;
use crate::config::Config;
use crate::exit::Exit;
use crate::hash::KeyHasher;
use crate::process::supervisor::Supervisor;
use std::os::fd::OwnedFd;

/// What the last server may have left.
pub(super) struct Left<'a> {
    /// Its memory: the descriptors with the name of it.
    pub(super) memory: Vec<OwnedFd>,
    /// The place of its image.
    pub(super) file: Option<&'a MemoryFile>,
}

/// The memory that the server starts with, and its clock. If the last server has left its memory or an image, both come
/// from there.
pub(super) fn warm_or_cold(
    config: &Config,
    shards: usize,
    left: Left<'_>,
    supervisor: &Supervisor,
) -> Result<Begun, Exit> {
    let Left { memory: given, file } = left;
    if !given.is_empty() {
        let begun = kept::take(given, config, shards, supervisor)?;
        supervisor.forget(kept::NAME);
        if let Some(begun) = begun {
            // An image would be older, and no later start may load it either.
            if let Some(file) = file {
                file.discard().map_err(|error| Exit::system("-e: an old image cannot be removed", error))?;
            }
            return Ok(begun);
        }
    }
    let hasher = KeyHasher::random().map_err(|error| Exit::system("random bits for the hash of keys", error))?;
    if let Some(file) = file
        && let Some(image) =
            file.take().map_err(|error| Exit::system("-e: the image of the last server cannot be taken over", error))?
    {
        let (header, clock) = (image.header(), image.clock());
        // Items that will not fit need no room in the index.
        let share = (config.memory.limit_bytes as f64 / header.bytes.max(1) as f64).min(1.0);
        let mut memory = memory(config, shards, &hasher, (header.items as f64 * share) as u64)?;
        let rules = restart::Rules {
            hasher: &hasher,
            limits: item_limits(config),
            ports: image_ports(config),
            threads: config.workers.threads,
        };
        let load = || image.load(std::mem::take(&mut memory.stores), clock.now(), rules);
        if let Some(stores) = supervisor.during("loading the cache", file.bytes(), load) {
            return Ok(Begun { memory: Memory { stores, ..memory }, clock, hasher, warmth: Warmth::Warm });
        }
    }
    Ok(Begun { memory: memory(config, shards, &hasher, 0)?, clock: Clock::start(), hasher, warmth: Warmth::Cold })
}
