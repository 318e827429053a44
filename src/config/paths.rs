//! Paths that keep their meaning when the process changes its current directory.

use super::{Config, Listen};
use crate::exit::Exit;
use std::path::{PathBuf, absolute};

impl Config {
    /// For a daemon (`-d`), makes the paths absolute that the server opens or removes after it has started: a daemon changes
    /// its current directory to `/`. Without `-d` all paths stay as they were given.
    ///
    /// # Errors
    /// When the process has no current directory.
    pub fn keep_paths_of_daemon(&mut self) -> Result<(), Exit> {
        if !self.process.daemonize {
            return Ok(());
        }
        let make_absolute = |path: &mut PathBuf| {
            *path = absolute(&*path).map_err(|error| Exit::system(&path.display().to_string(), error))?;
            Ok(())
        };
        for listen in self.listen.sockets.iter_mut().chain(&mut self.observing.addresses) {
            if let Listen::Unix { path, .. } = listen {
                make_absolute(path)?;
            }
        }
        let Config { process, login, tls, nodes_file, .. } = self;
        let tls = &mut tls.options;
        let tls = [&mut tls.chain, &mut tls.key, &mut tls.authorities];
        let process = [&mut process.pid_file, &mut process.memory_file];
        let login = [&mut login.sasl_file, &mut login.text_file, &mut login.users_file];
        process.into_iter().chain(login).chain(tls).chain([nodes_file]).flatten().try_for_each(make_absolute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn relative_files_are_named_from_the_root_before_a_daemon_goes_there() {
        let mut config = Config::default();
        config.process.daemonize = true;
        config.process.pid_file = Some("pid".into());
        config.process.memory_file = Some("image".into());
        config.nodes_file = Some("nodes".into());
        config.listen.sockets = vec![Listen::Unix { path: "sub/socket".into(), mask: 0o700 }];
        let here = env::current_dir().expect("there is one");
        let mut stays = config.clone();
        stays.process.daemonize = false;
        config.keep_paths_of_daemon().expect("there is a current directory");
        assert_eq!(config.process.pid_file, Some(here.join("pid")));
        assert_eq!(config.process.memory_file, Some(here.join("image")));
        assert_eq!(config.nodes_file, Some(here.join("nodes")));
        assert_eq!(config.listen.sockets, [Listen::Unix { path: here.join("sub/socket"), mask: 0o700 }]);
        stays.keep_paths_of_daemon().expect("nothing is to be done");
        assert_eq!(stays.process.pid_file, Some("pid".into()));
    }
}
