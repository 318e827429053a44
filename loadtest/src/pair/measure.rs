//! A measurement of one server, and what its figures tell about it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::figure::{
    CLIENT_BUSY, CPU_PER_KEY, ERRORS, HIT_RATE, KEYS_PER_SECOND, LOST, P50, P90, P99, P999, SIDES, Sample, UNSENT,
    UNWATCHED, median, value,
};
use crate::report::{Report, microseconds};
use crate::run::Session;
use crate::server::Server;

/// Above this busy share, the client may have limited the throughput instead of the server. (At a fixed rate the client
/// polls while it waits, so its busy share means nothing.)
pub const CLIENT_BUSY_MAX: f64 = 0.95;

/// The reason why a measurement has no sample.
pub enum Failure {
    /// The candidate does not know a flag of the row.
    Refused(String),
    Broken(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Broken(why)
    }
}

/// Error replies in a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// They fail it.
    Wrong,
    /// They are counted: not all keys fit.
    Counted,
}

/// Measures, and fails if any reply was wrong.
pub fn measure(
    server: &mut Server,
    session: Result<Session, String>,
    errors: Errors,
    stop: &AtomicBool,
) -> Result<Report, Failure> {
    // If the server has died, that explains any other error best.
    server.check()?;
    let report = session?.measure(|_| ());
    server.check()?;
    let answered = match errors {
        Errors::Wrong => report.is_clean(),
        Errors::Counted => report.is_right(),
    };
    if !answered {
        return Err(report.complaints().join("\n").into());
    }
    if stop.load(Relaxed) {
        return Err("interrupted".to_owned().into());
    }
    Ok(report)
}

/// The server's CPU time since it was `before`, the earlier result of [`Server::cpu`].
pub fn cpu_since(server: &Server, before: Option<Duration>) -> Result<Duration, String> {
    let cpu = server.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    cpu.ok_or_else(|| "the server's CPU time is not to be found in /proc".to_owned())
}

/// The figures of a measurement during which the server took this much CPU time.
pub fn sample(report: &Report, cpu: Duration) -> Sample {
    let latency = report.latency();
    let quantiles = [(&P50, 0.5), (&P90, 0.9), (&P99, 0.99), (&P999, 0.999)];
    let mut sample: Sample = vec![
        (&KEYS_PER_SECOND, report.keys_per_second()),
        (&CPU_PER_KEY, cpu.as_secs_f64() * 1e6 / report.keys().max(1) as f64),
    ];
    sample.extend(quantiles.map(|(figure, quantile)| (figure, microseconds(&latency, quantile))));
    sample.extend(report.hit_rate().map(|rate| (&HIT_RATE, rate)));
    sample.push((&UNSENT, report.tally.unsent as f64));
    sample.push((&ERRORS, report.errors() as f64));
    sample
}

/// Remarks that follow from the samples.
pub fn remarks(samples: &[Vec<Sample>; 2]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (side, name) in SIDES.iter().enumerate() {
        let of = |figure| median(samples[side].iter().filter_map(|sample| value(sample, figure)).collect());
        if let Some(busy) = of(&CLIENT_BUSY).filter(|busy| *busy > CLIENT_BUSY_MAX) {
            remarks.push(format!("{name}: the client was {:.0} % busy and may be the limit", busy * 100.0));
        }
        if of(&UNWATCHED).is_some() {
            remarks.push(format!("{name}: the established connection waited for the client as well (try as root)"));
        }
        if let Some(lost) = of(&LOST).filter(|lost| *lost > 0.0) {
            remarks.push(format!("{name}: {lost:.0} datagrams were lost"));
        }
        if let Some(hits) = of(&HIT_RATE).filter(|hits| *hits < 1.0) {
            remarks.push(format!("{name}: {:.2} % hits", hits * 100.0));
        }
        if let Some(errors) = of(&ERRORS).filter(|errors| *errors > 0.0) {
            remarks.push(format!("{name}: {errors:.0} sets were refused for want of memory"));
        }
        if let Some(unsent) = of(&UNSENT).filter(|unsent| *unsent > 0.0) {
            remarks.push(format!("{name}: {unsent:.0} requests were due and never sent"));
        }
    }
    remarks
}
