//! The words of commands that concern a connection or the whole cache: the one list of them.

/// A command that concerns a connection or the whole cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words say it")]
pub enum AdminCommand {
    Stats,
    Version,
    FlushAll,
    FlushPrefix,
    Verbosity,
    Quit,
    Shutdown,
    Slabs,
    Lru,
    LruCrawler,
    CacheMemlimit,
    Watch,
    Debugtime,
    Debugstall,
    RefreshCerts,
    Config,
    Misbehave,
}

impl AdminCommand {
    /// The command with this word.
    pub fn named(word: &[u8]) -> Option<AdminCommand> {
        Some(match word {
            b"stats" => AdminCommand::Stats,
            b"version" => AdminCommand::Version,
            b"flush_all" => AdminCommand::FlushAll,
            b"flush_prefix" => AdminCommand::FlushPrefix,
            b"verbosity" => AdminCommand::Verbosity,
            b"quit" => AdminCommand::Quit,
            b"shutdown" => AdminCommand::Shutdown,
            b"slabs" => AdminCommand::Slabs,
            b"lru" => AdminCommand::Lru,
            b"lru_crawler" => AdminCommand::LruCrawler,
            b"cache_memlimit" => AdminCommand::CacheMemlimit,
            b"watch" => AdminCommand::Watch,
            b"debugtime" => AdminCommand::Debugtime,
            b"debugstall" => AdminCommand::Debugstall,
            b"refresh_certs" => AdminCommand::RefreshCerts,
            b"config" => AdminCommand::Config,
            b"misbehave" => AdminCommand::Misbehave,
            _ => return None,
        })
    }

    /// Whether spaces may precede the word.
    pub fn may_be_indented(self) -> bool {
        use AdminCommand::{Quit, Stats, Version, Watch};
        !matches!(self, Stats | Version | Quit | Watch)
    }
}
