//! Into the background.

use crate::config::{Config, Listen};
use crate::exit::Exit;
use nix::unistd;
use std::path::{PathBuf, absolute};

/// `-d` moves to `/`: what is opened or removed after that is named from there.
///
/// # Errors
/// When there is no current directory.
pub fn name_files_from_the_root(config: &mut Config) -> Result<(), Exit> {
    if !config.daemonize {
        return Ok(());
    }
    let name = |path: &mut PathBuf| {
        *path = absolute(&*path).map_err(|error| Exit::system(&path.display().to_string(), error))?;
        Ok(())
    };
    for listen in &mut config.listen {
        if let Listen::Unix { path, .. } = listen {
            name(path)?;
        }
    }
    // What is read or written later.
    let Config { pid_file, memory_file, auth_file, sasl_password_file, tls, .. } = config;
    let tls = [&mut tls.chain, &mut tls.key, &mut tls.authorities];
    [pid_file, memory_file, auth_file, sasl_password_file].into_iter().chain(tls).flatten().try_for_each(name)
}

/// `-d`: into the background, with nothing on standard output and error unless something is to be said there (`-v`), and
/// out of the way, in `/`, unless core files are to be found where it was started (`-r`).
///
/// # Errors
/// When the system does not fork.
pub fn daemonize(config: &Config) -> Result<(), Exit> {
    if !config.daemonize {
        return Ok(());
    }
    unistd::daemon(config.core_dumps, config.verbosity > 0)
        .map_err(|error| Exit::system("failed to daemon() in order to daemonize", error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn relative_files_are_named_from_the_root_before_a_daemon_goes_there() {
        let mut config = Config {
            daemonize: true,
            pid_file: Some("pid".into()),
            memory_file: Some("image".into()),
            listen: vec![Listen::Unix { path: "sub/socket".into(), mask: 0o700 }],
            ..Config::default()
        };
        let here = env::current_dir().expect("there is one");
        let mut stays = Config { daemonize: false, ..config.clone() };
        name_files_from_the_root(&mut config).expect("there is a current directory");
        assert_eq!(config.pid_file, Some(here.join("pid")));
        assert_eq!(config.memory_file, Some(here.join("image")));
        assert_eq!(config.listen, [Listen::Unix { path: here.join("sub/socket"), mask: 0o700 }]);
        name_files_from_the_root(&mut stays).expect("nothing is to be done");
        assert_eq!(stays.pid_file, Some("pid".into()));
    }
}
