//! The log of the process.

use crate::config;
use std::env;

/// Lines on standard error: warnings, with `-v` what happens to the server, with `-vv` to connections. `RUST_LOG` wins.
pub fn start(verbosity: u8) {
    // The filter lets everything pass that the level does, so that `verbosity` can raise it later.
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("trace,mio=warn"));
    // systemd stamps the lines of its journal itself.
    if env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    // In tests several servers run in one process: the first one's log serves.
    let _ = builder.try_init();
    log::set_max_level(config::log_level(verbosity));
}
