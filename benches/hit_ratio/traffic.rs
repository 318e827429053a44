//! Traffic: sequences of keys, from a trace or generated. Generated ones are the same in each run.

use crate::common::{Random, SEED};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::process::{Command, Stdio};

const REQUESTS: usize = 1_500_000;

/// The keys of the working set, as a multiple of the items that fit.
const KEYS_PER_ITEM: usize = 10;

/// Requests between two scans, and requests of a scan.
const SCAN_EVERY: usize = 50_000;

/// Requests until a fifth of the working set is replaced by new keys.
const SHIFT_EVERY: usize = 50_000;

/// Keys that occur once, and keys of other kinds, start at these numbers.
const ONCE: u64 = 1 << 40;
const OTHER: u64 = 1 << 41;

/// A sequence of keys, and its name.
pub(crate) type Traffic = (String, Vec<u64>);

/// All generated traffic for a cache that holds about so many items.
pub(crate) fn generated(items: usize) -> Vec<Traffic> {
    let mut random = Random(SEED);
    let keys = KEYS_PER_ITEM * items;
    let mut all = Vec::new();
    for exponent in [0.7, 0.9, 1.1] {
        let zipf = Zipf::new(keys, exponent);
        all.push((format!("Zipf {exponent}"), (0..REQUESTS).map(|_| zipf.draw(&mut random)).collect()));
    }
    let zipf = Zipf::new(keys, 0.9);
    let mut once = ONCE..;
    let mut scans = |at: usize| {
        if at / SCAN_EVERY % 2 == 1 { once.next().expect("there are enough") } else { zipf.draw(&mut random) }
    };
    all.push(("Zipf 0.9 with scans".into(), (0..REQUESTS).map(&mut scans).collect()));
    for times in [1.2, 2.0, 5.0] {
        let len = (items as f64 * times) as u64;
        all.push((format!("loop over {times} times what fits"), (0..REQUESTS as u64).map(|at| at % len).collect()));
    }
    for (at, share) in [0.3, 0.7].into_iter().enumerate() {
        let mut once = (ONCE << at)..;
        let mut next =
            || if random.unit() < share { once.next().expect("there are enough") } else { zipf.draw(&mut random) };
        all.push((format!("{} % one-time keys", share * 100.0), (0..REQUESTS).map(|_| next()).collect()));
    }
    for times in [0.3, 0.7] {
        let apart = (times * items as f64) as u64;
        let requests = (0..REQUESTS as u64 / 2).flat_map(|at| [Some(at), at.checked_sub(apart)]).flatten().collect();
        all.push((format!("keys read twice, exactly {times} apart"), requests));
    }
    for times in [0.2, 0.4] {
        let apart = (times * items as f64) as u64;
        let mut once = OTHER..;
        let half = |at: usize| match at % 4 {
            0 => once.next().expect("there are enough"),
            2 => (at as u64 / 4).checked_sub(apart).map_or(ONCE, |key| OTHER + key),
            _ => zipf.draw(&mut random),
        };
        let requests = (0..REQUESTS).map(half).collect();
        all.push((format!("half Zipf, half read twice, {times} apart"), requests));
    }
    for times in [0.3, 0.7, 1.5] {
        let keys = twice(&mut random, (2.0 * times * items as f64) as usize);
        all.push((format!("keys read twice, {times} of what fits apart"), keys));
    }
    let mut shifted = |at: usize| {
        let key = zipf.draw(&mut random);
        let generation = (at / SHIFT_EVERY) as u64 + Random(key).below(5);
        key + generation / 5 * keys as u64
    };
    all.push(("Zipf 0.9, popularity shifts".into(), (0..REQUESTS).map(&mut shifted).collect()));
    let drift = |at: usize| zipf.draw(&mut random) + at as u64 / 10;
    all.push(("Zipf 0.9, popularity drifts".into(), (0..REQUESTS).map(drift).collect()));
    // What filled the cache is never read again, and the new working set is larger than the share of newcomers.
    let len = (items * 8 / 10) as u64;
    let changed = |at: usize| if at < 2 * items { OTHER + at as u64 } else { at as u64 % len };
    all.push(("new working set of 0.8 of what fits".into(), (0..REQUESTS).map(changed).collect()));
    all
}

/// Keys that are read exactly twice, the second time after up to `apart` other new keys.
fn twice(random: &mut Random, apart: usize) -> Vec<u64> {
    let mut due: VecDeque<Vec<u64>> = VecDeque::new();
    due.resize(apart + 1, Vec::new());
    let mut keys = Vec::with_capacity(REQUESTS + 1);
    let mut new = OTHER..;
    while keys.len() < REQUESTS {
        keys.extend(due.pop_front().into_iter().flatten());
        due.push_back(Vec::new());
        let key = new.next().expect("there are enough");
        keys.push(key);
        due[random.below(apart as u64 + 1) as usize].push(key);
    }
    keys
}

/// Draws ranks under Zipf's law.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(keys: usize, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let add = |rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        };
        Zipf { sums: (1..=keys as u32).map(add).collect() }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let point = random.unit() * self.sums.last().expect("there are keys");
        self.sums.partition_point(|&sum| sum < point) as u64
    }
}

/// The keys of a trace in ARC's format.
pub(crate) fn read_trace(path: &str) -> io::Result<Vec<u64>> {
    if !path.ends_with(".zst") {
        return parse_trace(File::open(path)?);
    }
    let mut zstd = Command::new("zstd").args(["-dc", path]).stdout(Stdio::piped()).spawn()?;
    let requests = parse_trace(zstd.stdout.take().expect("its output is piped"));
    if !zstd.wait()?.success() {
        return Err(io::Error::other("zstd failed"));
    }
    requests
}

fn parse_trace(input: impl Read) -> io::Result<Vec<u64>> {
    let mut keys = Vec::new();
    for line in BufReader::new(input).lines() {
        let line = line?;
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("not a line of ARC's format: {line:?}")));
        };
        keys.extend(first..first + count);
    }
    Ok(keys)
}
