//! Options of `loadtest scale`: a [`Scale`].

use clap::Args;

use super::output::OutputOptions;
use super::protocols::Protocols;
use super::values::Seconds;
use crate::cpus::Cpus;
use crate::scale::Scale;
use crate::scale::cores::Cores;
use crate::scale::work::{self, Work};

/// The fewest connections by default.
const CONNECTIONS_MIN: usize = 64;

#[derive(Args)]
pub struct ScaleOptions {
    /// Command that starts the baseline server. The program appends -p PORT, -t, -m and -c; these override those in the
    /// command
    #[arg(long, value_name = "COMMAND", default_value = "memcached -u root -U 0")]
    baseline: String,

    /// Command that starts the candidate server, in the same way; --port-per-core is added for one workload
    #[arg(long, value_name = "COMMAND", required_unless_present = "list")]
    candidate: Option<String>,

    #[command(flatten)]
    protocols: Protocols,

    /// Numbers of workers, such as 1,2,4 [default: 1, 2, 4, 8 and so on, up to the number of the server's cores]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Vec<u16>,

    /// Number of cores for the client, the last ones [default: half of them, but on a machine with less than four cores
    /// server and client share all]
    #[arg(long, value_name = "N", conflicts_with_all = ["client_cpus", "server_cpus"],
          value_parser = clap::value_parser!(u16).range(1..))]
    client_cores: Option<u16>,

    /// Cores for the client, one thread each [default: those that the server does not have]
    #[arg(long, value_name = "LIST")]
    client_cpus: Option<Cpus>,

    /// Cores for the server; with N workers it runs on the first N [default: those that the client does not have]
    #[arg(long, value_name = "LIST")]
    server_cpus: Option<Cpus>,

    /// Workload to run, may be repeated [default: all]
    #[arg(long, short, value_name = "NAME")]
    workload: Vec<String>,

    /// List the workloads
    #[arg(long)]
    list: bool,

    /// Number of keys
    #[arg(long, short, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(256..=1_000_000_000))]
    keys: u64,

    /// Connections, the same for every number of workers [default: 64, or one for each worker from each client thread]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,

    /// Measurements of each server for each workload and number of workers, in turn. Each round starts new servers
    #[arg(long, short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Length of each measurement
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    seconds: Seconds,

    #[command(flatten)]
    pub output: OutputOptions,
}

impl ScaleOptions {
    /// The text that --list prints instead of a measurement; `None` without --list.
    pub fn listing(&self) -> Option<String> {
        let line = |work: Work| format!("{:<13} {}\n", work.name, work.about);
        self.list.then(|| work::all(self.keys, CONNECTIONS_MIN).into_iter().map(line).collect())
    }

    /// The task that these options describe, on this machine.
    pub fn scale(self) -> Result<Scale, String> {
        let cores = match self.client_cores {
            Some(count) => Cores::here(Some(usize::from(count)))?,
            None => Cores::given(self.server_cpus, self.client_cpus)?,
        };
        let workers = numbers_of_workers(&self.workers, cores.workers_max());
        let most = workers.last().copied().expect("there is a number of workers");
        let connections = self.connections.unwrap_or_else(|| CONNECTIONS_MIN.max(most * cores.clients()));
        if connections < most.max(cores.clients()) {
            let least = most.max(cores.clients());
            return Err(format!("--connections {connections}: {least} are needed, for each worker and client thread"));
        }
        let mut works = work::all(self.keys, connections);
        if let Some(unknown) = self.workload.iter().find(|name| !works.iter().any(|work| work.name == **name)) {
            return Err(format!("no workload \"{unknown}\" (see --list)"));
        }
        works.retain(|work| self.workload.is_empty() || self.workload.iter().any(|name| work.name == name));
        Ok(Scale {
            programs: self.protocols.programs(self.baseline, self.candidate.ok_or("no candidate")?),
            cores,
            workers,
            works,
            connections,
            keys: self.keys,
            rounds: self.rounds,
            time: self.seconds.0,
            quiet: self.output.quiet,
        })
    }
}

/// The numbers of workers in ascending order: those wanted, or else powers of two below `most`, and `most`.
fn numbers_of_workers(wanted: &[u16], most: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = wanted.iter().map(|count| usize::from(*count)).collect();
    if numbers.is_empty() {
        numbers = (0..usize::BITS).map(|power| 1 << power).take_while(|count| *count < most).collect();
        numbers.push(most);
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    fn scale(line: &str) -> Result<Scale, String> {
        let words = "loadtest scale --candidate x".split(' ').chain(line.split_whitespace());
        let Command::Scale(options) = Options::parse_from(words).command else { panic!("scale was asked for") };
        options.scale()
    }

    #[test]
    fn workers_double_up_to_the_cores() {
        for (most, expected) in
            [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3]), (8, vec![1, 2, 4, 8]), (12, vec![1, 2, 4, 8, 12])]
        {
            assert_eq!(numbers_of_workers(&[], most), expected);
        }
        assert_eq!(numbers_of_workers(&[4, 1, 4], 8), [1, 4]);
    }

    #[test]
    fn cores_connections_and_workloads_are_chosen() {
        let chosen = scale("--server-cpus 0-15 --client-cpus 16-31 -w get-1 -w hot-32").expect("valid");
        assert_eq!(chosen.workers, [1, 2, 4, 8, 16]);
        assert_eq!((chosen.connections, chosen.cores.clients()), (256, 16));
        assert_eq!(chosen.works.iter().map(|work| work.name).collect::<Vec<_>>(), ["get-1", "hot-32"]);
        let few = scale("--server-cpus 0-3 --client-cpus 4-7 --workers 2").expect("valid");
        assert_eq!((few.workers, few.connections, few.works.len()), (vec![2], 64, 7));
        assert!(scale("-w get-2").is_err_and(|why| why.contains("no workload \"get-2\"")));
        let why = scale("--server-cpus 0-3 --client-cpus 4-7 --connections 3").err().expect("too few");
        assert!(why.contains("4 are needed"), "{why}");
    }
}
