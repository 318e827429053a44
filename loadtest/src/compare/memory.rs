//! Memory of a server: how many items it holds for its size, and what a connection costs that does nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::bench::{Bench, Failure};
use super::figure::{CONNECTION_KIB, ERRORS, ITEMS, ITEMS_PER_MIB, MEMORY, Sample};
use crate::address::allow_files;
use crate::plan::{Limit, Plan};
use crate::run::Session;
use crate::server::Server;
use crate::workload::Workload;

const MIB: f64 = 1_048_576.0;

/// Files that this program has open besides connections.
const FILES_BESIDES: usize = 64;

/// Sets all keys, of which not all fit, and counts those that are held, per MiB of resident memory.
pub fn fill(bench: &Bench<'_>, side: usize, workload: &Workload) -> Result<Sample, Failure> {
    let mut server = bench.start(side)?;
    let plan = Plan { prefill: workload.keys, ..bench.plan(&server, workload, Limit::Count(0))? };
    let session = Session::open(plan, bench.stop, |_| ());
    server.check()?;
    let tally = session?.prefill().cloned().ok_or_else(|| "nothing was set".to_owned())?;
    if let Some(why) = tally.failures.first() {
        return Err(why.clone().into());
    }
    server.settle();
    let items = server.stat("curr_items").ok_or_else(|| "stats says nothing of curr_items".to_owned())?;
    if items >= workload.keys {
        return Err(format!("all {items} keys fit: memory was not full").into());
    }
    let memory = resident(&server)?;
    Ok(vec![
        (&ITEMS_PER_MIB, items as f64 / (memory / MIB)),
        (&ITEMS, items as f64),
        (&MEMORY, memory),
        (&ERRORS, tally.errors as f64),
    ])
}

/// Opens connections, asks one thing on each, and divides what memory has grown by.
pub fn idle(bench: &Bench<'_>, side: usize, count: usize) -> Result<Sample, Failure> {
    let fail = |error| format!("connection: {error}");
    allow_files(count + FILES_BESIDES)?;
    let server = bench.start(side)?;
    let mut connections = vec![used(&server).map_err(fail)?];
    server.settle();
    let before = resident(&server)?;
    for _ in 0..count {
        connections.push(used(&server).map_err(fail)?);
    }
    server.settle();
    let memory = resident(&server)?;
    Ok(vec![(&CONNECTION_KIB, (memory - before) / 1024.0 / count as f64), (&MEMORY, memory)])
}

/// A connection on which a key was asked for that is not there.
fn used(server: &Server) -> std::io::Result<TcpStream> {
    let mut stream = server.connect(0)?;
    stream.write_all(b"get nothing\r\n")?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply)?;
    if &reply == b"END\r\n" { Ok(stream) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

fn resident(server: &Server) -> Result<f64, String> {
    server.memory().map(|bytes| bytes as f64).ok_or_else(|| "the server's memory is not to be found in /proc".into())
}
