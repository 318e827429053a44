//! Memory of a server: how many items it holds per MiB, and how much an idle connection costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, Stream};

use super::bench::{Bench, FILES_BESIDES};
use crate::address::allow_files;
use crate::mix::Mix;
use crate::pair::figure::{
    CONNECTION_KIB, ERRORS, HELD, ITEMS, ITEMS_HELD, ITEMS_PER_MIB, MEMORY, MEMORY_MIB, MISSED_FIRST, MISSED_LAST,
    MOVES, Sample,
};
use crate::pair::measure::Failure;
use crate::plan::{Limit, Plan};
use crate::program::Spoken;
use crate::resp;
use crate::run::Session;
use crate::server::Server;
use crate::wire;
use crate::workload::Workload;

const MIB: f64 = 1_048_576.0;

/// Sets all keys, more than fit, and counts those that the server holds, per MiB of resident memory.
pub fn fill(bench: &Bench<'_>, side: usize, workload: &Workload) -> Result<Sample, Failure> {
    let (items, memory, errors) = filled(bench, side, workload)?;
    Ok(vec![(&ITEMS_PER_MIB, items / (memory / MIB)), (&ITEMS, items), (&MEMORY, memory), (&ERRORS, errors)])
}

/// Sets all keys, more than fit, and counts those that the server holds.
pub fn fit(bench: &Bench<'_>, side: usize, workload: &Workload) -> Result<Sample, Failure> {
    let (items, memory, errors) = filled(bench, side, workload)?;
    Ok(vec![(&ITEMS_HELD, items), (&MEMORY_MIB, memory / MIB), (&ERRORS, errors)])
}

/// Plays a cache-aside client.
pub fn mix(bench: &Bench<'_>, side: usize, mix: &Mix) -> Result<Sample, Failure> {
    let mut server = bench.start(side)?;
    let answers = mix.run(&server, bench.stop);
    server.check()?;
    let answers = answers?;
    let bytes = server.stat("bytes").ok_or_else(|| "stats says nothing of bytes".to_owned())?;
    let mut sample: Sample = vec![
        (&HELD, bytes as f64 * 100.0 / (mix.memory << 20) as f64),
        (&MISSED_FIRST, answers.missed_first),
        (&MISSED_LAST, answers.missed_last),
    ];
    sample.extend(answers.moves.map(|moves| (&MOVES, moves)));
    sample.push((&MEMORY_MIB, resident(&server)? / MIB));
    sample.push((&ERRORS, answers.refused as f64));
    Ok(sample)
}

/// Sets all keys, more than fit. Gives the number of items that the server holds, its bytes of resident memory, and the
/// number of sets that it refused.
fn filled(bench: &Bench<'_>, side: usize, workload: &Workload) -> Result<(f64, f64, f64), Failure> {
    let mut server = bench.start(side)?;
    let plan = Plan { prefill: workload.keys, ..bench.plan(&server, workload, Limit::Count(0))? };
    let session = Session::open(plan, bench.stop, |_| ());
    server.check()?;
    let session = session?;
    let tally = session.prefill().ok_or_else(|| "nothing was set".to_owned())?;
    if let Some(why) = tally.failures.first() {
        return Err(why.clone().into());
    }
    server.settle();
    let items = server.items().ok_or_else(|| "the server does not tell how many items it holds".to_owned())?;
    if items >= workload.keys {
        return Err(format!("all {items} keys fit: memory was not full").into());
    }
    Ok((items as f64, resident(&server)?, tally.errors as f64))
}

/// Opens `count` connections, sends one request on each, and divides the growth of memory by `count`.
pub fn idle(bench: &Bench<'_>, side: usize, count: usize) -> Result<Sample, Failure> {
    let fail = |error| format!("connection: {error}");
    allow_files(count + FILES_BESIDES)?;
    let server = bench.start(side)?;
    let tls = bench.tls(true)?;
    let mut connections = vec![used(&server, tls.as_ref()).map_err(fail)?];
    server.settle();
    let before = resident(&server)?;
    for _ in 0..count {
        connections.push(used(&server, tls.as_ref()).map_err(fail)?);
    }
    server.settle();
    let memory = resident(&server)?;
    Ok(vec![(&CONNECTION_KIB, (memory - before) / 1024.0 / count as f64), (&MEMORY, memory)])
}

/// A connection that has asked for a missing key.
fn used(server: &Server, tls: Option<&Arc<ClientConfig>>) -> std::io::Result<TcpStream> {
    let mut stream = server.connect(0)?;
    let (request, expected) = match server.kind().speaks() {
        Spoken::Text => (b"get nothing\r\n".to_vec(), b"END\r\n"),
        Spoken::Resp => (resp::command(&["GET", "nothing"]), b"$-1\r\n"),
    };
    let mut reply = [0; 5];
    match tls {
        None => ask(&mut stream, &request, &mut reply)?,
        Some(config) => {
            let mut session = wire::session(config, "localhost").map_err(std::io::Error::other)?;
            ask(&mut Stream::new(&mut session, &mut stream), &request, &mut reply)?;
        }
    }
    if &reply == expected { Ok(stream) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

fn ask(mut stream: impl Read + Write, request: &[u8], reply: &mut [u8]) -> std::io::Result<()> {
    stream.write_all(request)?;
    stream.read_exact(reply)
}

fn resident(server: &Server) -> Result<f64, String> {
    server.memory().map(|bytes| bytes as f64).ok_or_else(|| "the server's memory is not to be found in /proc".into())
}
