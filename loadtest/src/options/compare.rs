//! Options of `loadtest compare`: a [`Comparison`].

use clap::Args;

use super::output::OutputOptions;
use super::protocols::Protocols;
use super::values::Seconds;
use crate::certificate::Certificate;
use crate::compare::sets::{Scale, Set};
use crate::compare::{Comparison, Row};
use crate::cpus::Cpus;

#[derive(Args)]
pub struct CompareOptions {
    /// Command that starts the baseline server. The program appends `-p PORT`, and -t, -m and -c where a row needs them
    /// (see --list); these override those in the command
    #[arg(long, value_name = "COMMAND", default_value = "memcached -u root -U 0 -t 1 -m 1024")]
    baseline: String,

    /// Command that starts the candidate server, in the same way
    #[arg(long, value_name = "COMMAND", required_unless_present = "list")]
    candidate: Option<String>,

    #[command(flatten)]
    protocols: Protocols,

    /// Run every row over TLS, with a certificate made for the run (the set `tls` always uses TLS, the sets
    /// `udp` and `tails` never, besides the handshakes of the latter)
    #[arg(long)]
    tls: bool,

    /// Set of workloads, may be repeated [default: canonical]
    #[arg(long, value_name = "NAME", value_enum)]
    set: Vec<Set>,

    /// Workload of the set to run, may be repeated; with a * at its end, all whose names begin so [default: all]
    #[arg(long, short, value_name = "NAME")]
    workload: Vec<String>,

    /// List the workloads of the sets given with --set, or of all sets
    #[arg(long)]
    list: bool,

    /// Number of keys in the sets `canonical`, `tls` and `peers`
    #[arg(long, short, value_name = "N", default_value_t = 100_000)]
    keys: u64,

    /// Requests of each row of the sets `mixes` and `policy`
    #[arg(long, value_name = "N", default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,

    /// Leave out rows of the set `growth` with more keys than this
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    keys_max: u64,

    /// Measurements of each server for each row, in turn. Each measurement starts a new server, unless its prefill is
    /// costly and both servers fit in memory: then both keep running (memory is measured once)
    #[arg(long, short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Rounds for which the same two servers run. Many short rounds show a difference of one percent, which changes of
    /// the machine hide otherwise: --rounds 60 --seconds 0.3 --keep 12
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,

    /// Length of each measurement
    #[arg(long, value_name = "SECONDS", default_value = "3")]
    seconds: Seconds,

    /// Cores for the server
    #[arg(long, value_name = "LIST", default_value = "0")]
    server_cpus: Cpus,

    /// Cores for the client, one thread each
    #[arg(long, value_name = "LIST", default_value = "1")]
    client_cpus: Cpus,

    #[command(flatten)]
    pub output: OutputOptions,
}

impl CompareOptions {
    /// The text that --list prints instead of a comparison; `None` without --list.
    pub fn listing(&self) -> Option<String> {
        let line = |(set, row): (Set, Row)| {
            let targets: String =
                row.targets.iter().map(|(figure, bound)| format!("; {} {bound}", figure.name)).collect();
            format!("{:<11} {:<17} {}{targets}\n", set.name(), row.name, row.about())
        };
        self.list.then(|| self.rows(Set::All).into_iter().map(line).collect())
    }

    /// The rows of the chosen sets, or of `default` if no set is chosen, without those that other options leave out.
    fn rows(&self, default: Set) -> Vec<(Set, Row)> {
        let wanted = if self.set.is_empty() { &[default] } else { self.set.as_slice() };
        let sets: Vec<Set> = wanted.iter().flat_map(|set| set.each()).collect();
        let scale = Scale { keys: self.keys, requests: self.requests };
        let rows = |set: &Set| set.rows(scale).into_iter().map(|row| (*set, row)).collect::<Vec<_>>();
        let mut rows: Vec<(Set, Row)> = sets.iter().flat_map(rows).collect();
        rows.retain(|(set, row)| *set != Set::Growth || row.keys() <= self.keys_max);
        rows.iter_mut().for_each(|(_, row)| row.flags.tls |= self.tls && !row.flags.udp && !row.loads_plainly());
        rows
    }

    /// The comparison that these options describe.
    pub fn comparison(self) -> Result<Comparison, String> {
        let mut rows = self.rows(Set::Canonical);
        let is_named = |row: &Row, name: &String| match name.strip_suffix('*') {
            Some(start) => row.name.starts_with(start),
            None => row.name == *name,
        };
        if let Some(unknown) = self.workload.iter().find(|name| !rows.iter().any(|(_, row)| is_named(row, name))) {
            return Err(format!("no workload \"{unknown}\" (see --list)"));
        }
        rows.retain(|(_, row)| self.workload.is_empty() || self.workload.iter().any(|name| is_named(row, name)));
        let candidate = self.candidate.ok_or("no candidate")?;
        let programs = self.protocols.programs(self.baseline, candidate);
        let refusals: Option<Vec<String>> = rows.iter().map(|(_, row)| row.refusal(&programs)).collect();
        if let Some(why) = refusals.and_then(|all| all.into_iter().next()) {
            return Err(format!("no row is left to run: {why}"));
        }
        let by_tls = rows.iter().any(|(_, row)| row.flags.tls);
        let certificate = by_tls.then(Certificate::new).transpose()?;
        Ok(Comparison {
            programs,
            rows,
            rounds: self.rounds,
            keep: self.keep,
            time: self.seconds.0,
            server_cpus: self.server_cpus,
            client_cpus: self.client_cpus,
            quiet: self.output.quiet,
            certificate,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::options::{Command, Options};

    /// The sets and names of the rows that an option line selects, or the error.
    fn rows(line: &str) -> Result<Vec<String>, String> {
        let words = "loadtest compare --candidate x".split(' ').chain(line.split_whitespace());
        let Command::Compare(options) = Options::parse_from(words).command else { panic!("compare was asked for") };
        Ok(options.comparison()?.rows.iter().map(|(set, row)| format!("{}/{}", set.name(), row.name)).collect())
    }

    #[test]
    fn sets_and_rows_are_chosen_by_name() {
        assert!(rows("").is_ok_and(|rows| rows.len() == 6 && rows[0] == "canonical/get-1"));
        assert_eq!(rows("-w set-32"), Ok(vec!["canonical/set-32".to_owned()]));
        assert!(
            rows("--set all -w get-1").is_ok_and(|rows| rows == ["canonical/get-1", "throughput/get-1", "tls/get-1"])
        );
        assert!(rows("--set growth --keys-max 1000000").is_ok_and(|rows| rows.contains(&"growth/keys-1M".to_owned())));
        assert!(rows("--set mixes -w m8-t1/*").is_ok_and(|rows| rows.len() == 84));
        assert!(rows("--set growth --keys-max 1000000 -w keys-10M").is_err());
        assert!(rows("--set memory -w get-1").is_err_and(|why| why.contains("no workload \"get-1\"")));
        assert!(rows("--set udp --candidate-protocol resp").is_err_and(|why| why.contains("RESP, which has no UDP")));
        assert!(rows("--candidate-protocol resp").is_ok_and(|rows| rows.contains(&"canonical/mg-32".to_owned())));
    }
}
