//! The log, on standard error.

use log::LevelFilter;
use std::env;

/// Starts the log at this level. `RUST_LOG` has precedence over it.
pub fn start(level: LevelFilter) {
    // The filter lets every level pass, so that the `verbosity` command can raise the level later.
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("trace,mio=warn"));
    // systemd stamps the lines of its journal itself.
    if env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    // Tests run several servers in one process. The first one starts the log for all.
    let _ = builder.try_init();
    log::set_max_level(level);
}
