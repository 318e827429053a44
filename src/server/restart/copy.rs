//! Copies the items of stores into other stores, in other classes or shards than they had: as an image that goes through a
//! pipe.

use super::{Counted, Image, Rules, write_stores};
use crate::clock::Now;
use crate::store::Store;
use crate::store::image::{Header, Reader};
use std::io::{self, BufReader};
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Instant;

/// Stores whose items are to be copied.
#[derive(Debug)]
pub struct Copying<'a> {
    /// The stores. Their memory goes back to the system while the items are copied.
    pub from: Vec<Store>,
    /// The header of the image, as for [`write_stores`].
    pub header: Header,
    /// The count of the clock.
    pub now: Now,
    /// Bytes of the image so far.
    pub bytes: &'a AtomicU64,
}

impl Copying<'_> {
    /// Copies the items into empty stores. `None`: it failed, with a line in the log, and the server must not use what was
    /// copied.
    pub fn into(self, to: Vec<Store>, rules: Rules<'_>) -> Option<Vec<Store>> {
        copy(self, to, rules).unwrap_or_else(|error| {
            log::warn!("{NAME} is not used, starting cold: {error}");
            None
        })
    }
}

const NAME: &str = "the memory of the last server";

fn copy(copying: Copying<'_>, to: Vec<Store>, rules: Rules<'_>) -> io::Result<Option<Vec<Store>>> {
    let Copying { mut from, header, now, bytes } = copying;
    let found = Instant::now();
    thread::scope(|scope| {
        let (reader, writer) = io::pipe()?;
        let write =
            move || write_stores(&mut from.iter_mut().collect::<Vec<_>>(), Counted(writer, bytes), header).map(drop);
        let writing = thread::Builder::new().spawn_scoped(scope, write)?;
        let loaded = match Reader::new(BufReader::with_capacity(PIPE_LEN, reader)) {
            Ok(reader) => Image { path: NAME.into(), reader, found }.load(to, now, rules),
            Err(refusal) => {
                log::warn!("{NAME} is not used, starting cold: {refusal}");
                None
            }
        };
        // If the reader gave up, the writer has found nobody behind the pipe.
        let written = writing.join().expect("a thread that writes an image does not panic");
        if loaded.is_some() { written.map(|()| loaded) } else { Ok(None) }
    })
}

/// Bytes that are read from the pipe at a time.
const PIPE_LEN: usize = 64 << 10;
